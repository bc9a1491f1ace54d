package agent

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hanode/api"
	"hanode/internal/spec"
	"hanode/vip"
)

// exclusiveStory tells a story of an exclusive group on primary, secondary and arbiter.
func exclusiveStory(t *testing.T, tell func(t *testing.T, l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := groupOf("web", vipA, "primary")
		g.Exclusive = true
		l := newLabOf(t, fast, 1, []string{"primary", "secondary", "arbiter"}, []spec.Group{g})
		defer l.close()
		l.startAll()
		l.until("first hold", 20*time.Second, l.held("primary"))
		time.Sleep(5 * time.Second)
		tell(t, l)
	})
}

// listed is what a node lists under a code; "" = nothing.
func (l *lab) listed(on, code string) (text, fix string) {
	l.t.Helper()
	st, err := l.on(on).Status(l.t.Context(), "")
	if err != nil {
		l.t.Fatal(err)
	}
	for _, p := range st.Problems {
		if p.Code == code {
			return p.Text, p.Fix
		}
	}
	return "", ""
}

// confirm asks for confirm-off and returns its refusal, or nil.
func (l *lab) confirm(on, node, sentence string) (*api.ConfirmOffResult, *api.Error) {
	l.t.Helper()
	res, err := l.on(on).ConfirmOff(l.t.Context(), api.ConfirmOffRequest{Node: node, Confirm: sentence})
	if err == nil {
		return res, nil
	}
	e := &api.Error{Code: err.Error()}
	if x, ok := err.(*api.Error); ok {
		e = x
	}
	return res, e
}

// The owner is gone; whether it still writes nobody can tell. It is blocked until
// somebody says that the host is off.
func TestExclusiveWaitsForConfirmOff(t *testing.T) {
	exclusiveStory(t, func(t *testing.T, l *lab) {
		if _, e := l.confirm("secondary", "primary", "primary is off"); e == nil || e.Code != "node-heard" {
			t.Errorf("a node that is heard: %+v", e)
		}
		l.hosts["primary"].powerCut()
		time.Sleep(20 * l.tm.Deadtime)
		if by := l.answers(vipA); len(by) > 0 {
			t.Fatalf("%v answers", by)
		}
		st, err := l.on("secondary").Status(t.Context(), "web")
		if err != nil || *st.Groups[0].State != api.GroupBlocked {
			t.Fatalf("status: %+v, %v", st, err)
		}
		text, fix := l.listed("secondary", "group-blocked")
		if !strings.Contains(text, "primary/1") || !strings.Contains(fix, "hanode confirm-off primary") {
			t.Errorf("listed as %q, fix %q", text, fix)
		}
		for _, say := range []string{"", "yes", "primary was off", "secondary is off", "PRIMARY IS OFF"} {
			res, e := l.confirm("secondary", "primary", say)
			if e == nil || e.Code != api.CodeNeedsConfirmation || res == nil || res.Confirm != "primary is off" || !slices.Equal(res.Groups, []string{"web"}) {
				t.Errorf("%q: %+v, %+v", say, res, e)
			}
		}
		for _, who := range []string{"secondary", "arbiter"} {
			if _, e := l.confirm("arbiter", who, who+" is off"); e == nil || e.Code != "node-heard" && e.Code != "nothing-to-confirm" {
				t.Errorf("%s: %+v", who, e)
			}
		}
		if by := l.answers(vipA); len(by) > 0 {
			t.Fatalf("%v answers without a confirmation", by)
		}
		if res, e := l.confirm("secondary", "primary", " primary is off\n"); e != nil || !slices.Equal(res.Incarnations, []uint64{1}) {
			t.Fatalf("%+v, %+v", res, e)
		}
		t.Logf("held %v after the confirmation", l.until("takeover", time.Second, l.held("secondary")))
		if text, _ := l.listed("secondary", "group-blocked"); text != "" {
			t.Errorf("still listed: %s", text)
		}
		if _, e := l.confirm("secondary", "primary", "primary is off"); e == nil || e.Code != "nothing-to-confirm" {
			t.Errorf("again: %+v", e)
		}
		l.hosts["primary"].start()
		l.until("failback, by a token", 10*time.Second, l.held("primary"))
		l.well(5 * time.Second)
	})
}

// Power-cycled: the new boot could be a clone's, so it releases nothing; the
// operator's word does, although the node is heard.
func TestExclusiveAfterAPowerCycle(t *testing.T) {
	exclusiveStory(t, func(t *testing.T, l *lab) {
		l.hosts["primary"].powerCut()
		time.Sleep(time.Second)
		l.hosts["primary"].start()
		time.Sleep(10 * time.Second)
		if by := l.answers(vipA); len(by) > 0 {
			t.Fatalf("%v answers", by)
		}
		if text, _ := l.listed("primary", "group-blocked"); !strings.Contains(text, "primary/1") {
			t.Errorf("listed as %q", text)
		}
		res, e := l.confirm("primary", "primary", "primary is off")
		if e == nil || e.Code != api.CodeNeedsConfirmation || res.Confirm != "primary was off" || !slices.Equal(res.Incarnations, []uint64{1}) {
			t.Fatalf("%+v, %+v", res, e)
		}
		if _, e := l.confirm("primary", "primary", "primary was off"); e != nil {
			t.Fatal(e)
		}
		l.until("it runs again", 5*time.Second, l.held("primary"))
		l.well(5 * time.Second)
	})
}

// Killed and started again on the same boot: its clean-up is a release, and nobody
// is asked.
func TestExclusiveAfterAKill(t *testing.T) {
	exclusiveStory(t, func(t *testing.T, l *lab) {
		l.hosts["primary"].kill()
		time.Sleep(5 * time.Second)
		if by := l.answers(vipA); len(by) > 0 {
			t.Fatalf("%v answers", by)
		}
		l.hosts["primary"].start()
		l.until("it runs again", 10*time.Second, func() bool { return len(l.answers(vipA)) == 1 })
		l.well(5 * time.Second)
	})
}

// Cut off and alive: nothing starts elsewhere until it is heard and has let go.
func TestExclusiveOfAHostThatIsCutOff(t *testing.T) {
	exclusiveStory(t, func(t *testing.T, l *lab) {
		l.net.Cut("primary", "", "", true)
		l.net.Cut("", "primary", "", true)
		time.Sleep(20 * l.tm.Deadtime)
		if by := l.answers(vipA); len(by) > 0 {
			t.Fatalf("%v answers", by)
		}
		l.net.Heal()
		l.until("its release", 5*time.Second, func() bool { return len(l.answers(vipA)) == 1 })
		l.well(10 * time.Second)
	})
}

// An operator who is wrong can make two hosts run a service, never two answer for
// an address: the host is only cut off one way, and still holds.
func TestConfirmOffOfAHostThatIsOn(t *testing.T) {
	exclusiveStory(t, func(t *testing.T, l *lab) {
		resume := l.hosts["primary"].pause()
		l.until("blocked", 5*time.Second, func() bool {
			text, _ := l.listed("secondary", "group-blocked")
			return text != ""
		})
		if _, e := l.confirm("secondary", "primary", "primary is off"); e != nil {
			t.Fatal(e)
		}
		l.until("takeover", time.Second, l.held("secondary"))
		resume()
		time.Sleep(5 * time.Second)
		l.well(10 * time.Second)
	})
}

// Something that does not stop keeps its group, exclusive or not: it is blocked, the
// cluster says where and what to do, and it lets go by itself once it can.
func TestStopFailureBlocks(t *testing.T) {
	for _, exclusive := range []bool{false, true} {
		t.Run(map[bool]string{false: "shared", true: "exclusive"}[exclusive], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := groupOf("web", vipA, "primary")
				g.Exclusive = exclusive
				l := newLabOf(t, fast, 1, []string{"primary", "secondary", "arbiter"}, []spec.Group{g})
				defer l.close()
				held := &stubborn{}
				held.Store(true)
				l.hosts["primary"].gear = func(k vip.Kernel) vip.Kernel { held.Kernel = k; return held }
				l.startAll()
				l.until("first hold", 20*time.Second, l.held("primary"))
				time.Sleep(5 * time.Second)
				if _, err := l.on("arbiter").Move(t.Context(), api.MoveRequest{Group: "web", To: "secondary"}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				if by := l.answers(vipA); slices.Contains(by, "secondary") {
					t.Fatalf("started elsewhere: %v", by)
				}
				st, err := l.on("secondary").Status(t.Context(), "web")
				if err != nil || *st.Groups[0].State != api.GroupBlocked {
					t.Errorf("status: %+v, %v", st, err)
				}
				if text, fix := l.listed("secondary", "group-blocked"); !strings.Contains(text, "does not stop on primary") || !strings.Contains(fix, "by hand on primary") {
					t.Errorf("listed as %q, fix %q", text, fix)
				}
				if _, e := l.confirm("secondary", "primary", "primary is off"); e == nil || e.Code != "node-heard" {
					t.Errorf("a node that is heard: %+v", e)
				}
				held.Store(false)
				l.until("it lets go", 5*time.Second, l.held("secondary"))
				l.well(5 * time.Second)
			})
		})
	}
}

// stubborn is a kernel that neither closes nor removes while it is set.
type stubborn struct {
	vip.Kernel
	atomic.Bool
}

var errStubborn = errors.New("it does not let go")

func (s *stubborn) Close(as ...vip.Address) error {
	if s.Load() {
		return errStubborn
	}
	return s.Kernel.Close(as...)
}

func (s *stubborn) Del(as ...vip.Address) error {
	if s.Load() {
		return errStubborn
	}
	return s.Kernel.Del(as...)
}
