package agent

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hanode/api"
	"hanode/internal/spec"
)

// expects reports whether the host expects vipA, which then is on none of its devices.
func (l *lab) expects(name string) bool {
	l.t.Helper()
	a, k := netip.MustParseAddr(vipA), l.hosts[name].kernel
	if !slices.Contains(k.Expected(), a) {
		return false
	}
	if k.Has(a) || k.Answers(a) {
		l.t.Errorf("%s expects an address that it has", name)
	}
	return true
}

// What can be done before the holder lets go is done before, but for the address itself;
// and it is undone when the group goes elsewhere, or nowhere.
func TestAddressIsExpected(t *testing.T) {
	for _, tt := range []struct {
		name string
		then func(l *lab)
		// where it runs afterwards; "" = nowhere
		where string
	}{
		{"the holder lets go", func(l *lab) { l.hosts["primary"].start() }, "secondary"},
		{"another node is to have it", func(l *lab) {
			go func() {
				_, _ = l.on("third").Move(l.t.Context(), api.MoveRequest{Group: "web", To: "third", Wait: time.Minute})
			}()
			l.until("third waits, not secondary", 2*time.Second, func() bool { return l.expects("third") && !l.expects("secondary") })
			l.hosts["primary"].start()
		}, "third"},
		{"the group is deleted", func(l *lab) {
			if _, err := l.on("third").Apply(l.t.Context(), api.ApplyRequest{Wait: 0}); err != nil {
				l.t.Error(err)
			}
		}, ""},
		{"the agent is restarted", func(l *lab) {
			l.hosts["secondary"].kill()
			if !l.expects("secondary") {
				l.t.Error("nothing that a killed agent could leave behind")
			}
			l.net.Cut("secondary", "", "", true) // it is told nothing
			l.net.Cut("", "secondary", "", true)
			l.hosts["secondary"].start()
			l.until("what it expected is forgotten", 5*time.Second, func() bool { return !l.expects("secondary") })
			l.net.Heal()
			l.hosts["primary"].start()
		}, "any"},
		{"the agent ends", func(l *lab) {
			l.hosts["secondary"].halt()
			l.until("what it expected is forgotten", time.Second, func() bool { return !l.expects("secondary") })
			l.hosts["primary"].start()
			l.hosts["secondary"].start()
		}, "any"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				g := groupOf("web", vipA, "primary", "secondary", "third")
				g.Exclusive, g.Failback.On = true, false // it waits for as long as its holder is away
				l := newLabOf(t, fast, 1, []string{"primary", "secondary", "third"}, []spec.Group{g})
				defer l.close()
				l.startAll()
				l.until("first hold", 20*time.Second, l.held("primary"))
				time.Sleep(time.Second)
				l.hosts["primary"].kill()
				l.until("secondary waits", 2*time.Second, func() bool { return l.expects("secondary") })
				time.Sleep(time.Second)
				if !l.expects("secondary") {
					t.Error("it waits no more")
				}
				tt.then(l)
				l.until("all are done", 20*time.Second, func() bool {
					by := l.answers(vipA)
					where := tt.where == "" && len(by) == 0 || len(by) == 1 && (tt.where == "any" || by[0] == tt.where)
					return where && !l.expects("primary") && !l.expects("secondary") && !l.expects("third")
				})
			})
		})
	}
}
