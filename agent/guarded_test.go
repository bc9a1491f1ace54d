package agent

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hanode/api"
	"hanode/fsm"
	"hanode/internal/spec"
	"hanode/vip"
)

// R10: with no voter left the owner is muted and keeps what it runs. Its address goes
// by its lifetime, and comes back; nobody takes that for a failure.
func TestMutedOwnerGetsItsAddressBack(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		epoch := l.epoch("web")
		l.hosts["secondary"].kill()
		l.hosts["arbiter"].kill()
		time.Sleep(10 * time.Second)
		h := l.hosts["primary"]
		if h.kernel.Has(l.vips[0]) {
			t.Error("a muted owner's address outlived its lifetime; this test would see nothing")
		}
		a := l.on("primary")
		if !a.groups.get("web").isStarted() {
			t.Fatal("a muted owner stopped its group")
		}
		r := spec.Resource{Type: "ip", Name: vipA, Dev: "eth1"}
		if err := (addresses{a}).Check(t.Context(), r); err != nil {
			t.Errorf("muted, and its monitor says: %v", err)
		}
		l.hosts["arbiter"].start()
		l.hosts["secondary"].start()
		l.until("open again", 20*time.Second, l.held("primary"))
		l.well(10 * time.Second)
		t.Logf("epoch %d, was %d", l.epoch("web"), epoch)
		if err := (addresses{a}).Check(t.Context(), r); err != nil {
			t.Errorf("back, and its monitor says: %v", err)
		}
		if u := h.sys.Upkeep(); u.Removed != 0 {
			t.Errorf("%+v: nobody took it", u)
		}
		l.view(func(s *fsm.State) {
			if f := s.Groups["web"].Failed; len(f) != 0 {
				t.Errorf("failed: %v", f)
			}
		})
	})
}

// Where no guard loads, time proves nothing: a silent node's groups stay where they
// are until its agent registers anew on the same host, or an operator says more.
func TestWithoutAGuardTimeIsNoEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, "primary", "secondary", "arbiter")
		defer l.close()
		l.hosts["primary"].kernel.SetTier(vip.TierNone)
		l.startAll()
		l.until("first hold", 20*time.Second, l.held("primary"))
		time.Sleep(3 * time.Second)
		a := l.on("primary")
		if !slices.ContainsFunc(a.local(), func(p api.StatusProblem) bool { return p.Code == "guard-none" && p.Fix != "" }) {
			t.Errorf("status does not say that there is no guard: %v", a.local())
		}
		never := func(what string) {
			t.Helper()
			if d, moved := l.within(10*time.Minute, func() bool { return slices.Contains(l.answers(vipA), "secondary") }); moved {
				t.Fatalf("%s: taken over after %v", what, d)
			}
		}
		l.hosts["primary"].kill()
		never("the owner's agent was killed")
		l.hosts["primary"].start()
		l.until("registered anew", 30*time.Second, func() bool { return len(l.answers(vipA)) == 1 })
		l.well(20 * time.Second)
	})
}
