package agent

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hanode/api"
	"hanode/fsm"
	"hanode/internal/spec"
	"hanode/vip"
)

// broken is a kernel that puts no address on while it is set.
type broken struct {
	vip.Kernel
	atomic.Bool
}

func (b *broken) Add(as ...vip.Address) error {
	if b.Load() {
		return errors.New("no such device")
	}
	return b.Kernel.Add(as...)
}

// A group that no node can run is failed, and says why for each. Each is tried again
// after its time, and at once when an operator says that it is repaired.
func TestNoNodeCanRunIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := groupOf("web", vipA, "primary")
		g.RetryAfter = 20 * time.Second
		l := newLabOf(t, fast, 1, []string{"primary", "secondary", "arbiter"}, []spec.Group{g})
		defer l.close()
		bad := map[string]*broken{}
		for _, n := range []string{"primary", "secondary"} {
			b := &broken{}
			b.Store(true)
			bad[n] = b
			l.hosts[n].gear = func(k vip.Kernel) vip.Kernel { b.Kernel = k; return b }
		}
		l.startAll()
		state := func() (s api.GroupStatus) {
			st, err := l.on("arbiter").Status(t.Context(), "web")
			if err != nil {
				t.Fatal(err)
			}
			return st.Groups[0]
		}
		counts := func(primary, secondary int) func() bool {
			return func() bool {
				n := map[string]int{}
				l.view(func(s *fsm.State) {
					if g := s.Groups["web"]; g != nil {
						n["primary"], n["secondary"] = g.Failed["primary"].Count, g.Failed["secondary"].Count
					}
				})
				return n["primary"] == primary && n["secondary"] == secondary
			}
		}
		l.until("both failed", 20*time.Second, counts(1, 1))
		time.Sleep(5 * time.Second) // all are well now
		s := state()
		if *s.State != api.GroupFailed || len(s.Failures) != 2 || s.Failures[0].RetryMS <= 0 || !strings.Contains(s.Failures[1].Text, "no such device") {
			t.Errorf("status: %+v", s)
		}
		if text, fix := l.listed("secondary", "group-failed"); !strings.Contains(text, "no such device; it is tried there again in") || !strings.Contains(fix, "hanode clear web ") {
			t.Errorf("listed as %q, fix %q", text, fix)
		}
		why, err := l.on("secondary").Why(t.Context(), "web")
		if err != nil || !strings.Contains(why.Reasons[1].Because, "tried again in") || strings.Contains(why.Reasons[2].Because, "moves on") {
			t.Errorf("why: %+v, %v", why, err)
		}
		if e := l.epoch("web"); e != 2 {
			t.Errorf("epoch %d: it wandered", e)
		}
		l.until("tried again, in turn", 2*time.Minute, counts(2, 2))
		if e := l.epoch("web"); e != 4 {
			t.Errorf("epoch %d: it wandered", e)
		}

		bad["primary"].Store(false)
		res, err := l.on("secondary").Clear(t.Context(), api.ClearRequest{Group: "web", Node: "primary"})
		if err != nil || len(res.Cleared) != 1 {
			t.Errorf("clear: %+v, %v", res, err)
		}
		l.until("it runs at once", time.Second, l.held("primary"))
		time.Sleep(time.Second)
		if s := state(); *s.State != api.GroupRunning || len(s.Failures) != 1 {
			t.Errorf("status: %+v", s)
		}
		bad["secondary"].Store(false)
		time.Sleep(time.Minute)
		if text, _ := l.listed("secondary", "group-failed"); text != "" {
			t.Errorf("still listed: %s", text)
		}
		l.well(5 * time.Second)
	})
}

// The failures outlive the leader that saw them; a new one counts their time anew.
func TestFailuresOutliveTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := groupOf("web", vipA, "primary")
		g.RetryAfter = 20 * time.Second
		l := newLabOf(t, fast, 1, []string{"primary", "secondary", "arbiter"}, []spec.Group{g})
		defer l.close()
		b := &broken{}
		b.Store(true)
		l.hosts["primary"].gear = func(k vip.Kernel) vip.Kernel { b.Kernel = k; return b }
		l.startAll()
		l.until("it runs elsewhere", 20*time.Second, l.held("secondary"))
		failed := time.Now()
		b.Store(false)
		time.Sleep(10 * time.Second)
		l.hosts["arbiter"].powerCut() // it leads by now, because it owns nothing
		l.until("it goes back when the time is over", 2*time.Minute, l.held("primary"))
		if after := time.Since(failed); after < g.RetryAfter-time.Second {
			t.Errorf("it went back too soon: after %v", after)
		}
		l.hosts["arbiter"].start()
		l.well(5 * time.Second)
	})
}
