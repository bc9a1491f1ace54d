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

// R10: with no voter left the owner is muted and keeps what it runs, up to initdead. Its address goes
// by its lifetime, and comes back; nobody takes that for a failure.
func TestMutedOwnerGetsItsAddressBack(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		epoch := l.epoch("web")
		l.hosts["secondary"].kill()
		l.hosts["arbiter"].kill()
		time.Sleep(l.tm.Initdead - time.Second)
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
		time.Sleep(5 * l.tm.Deadtime) // long enough for whoever thinks that it must move
		if now := l.epoch("web"); now != epoch {
			t.Errorf("epoch %d, was %d: the group moved although its owner lived and got its lease back", now, epoch)
		}
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
		long := 10 * time.Minute
		if testing.Short() {
			long = time.Minute
		}
		never := func(what string) {
			t.Helper()
			if d, moved := l.within(long, func() bool { return slices.Contains(l.answers(vipA), "secondary") }); moved {
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

// R10: an owner whose beats do not arrive hears that a majority serves others. It
// lets go one deadtime after its lease, even if nobody takes its group.
func TestMutedOwnerLetsGoWhileOthersServe(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		if err := l.on("primary").Maintenance(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		a := l.on("primary")
		l.net.Cut("primary", "", "", true)
		mute := l.until("muted", l.tm.Deadtime, func() bool { return len(l.answers(vipA)) == 0 })
		if !a.groups.get("web").here() {
			t.Error("muted, and it stopped at once")
		}
		stopped := l.until("it lets go", 3*l.tm.Deadtime, func() bool { return !a.groups.get("web").here() })
		t.Logf("muted after %v, let go %v later", mute, stopped)
		if stopped > l.tm.Deadtime+2*l.tm.Keepalive {
			t.Errorf("it held on for %v", stopped)
		}
		l.net.Heal()
		if err := l.on("arbiter").Maintenance(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		l.well(10 * time.Second)
	})
}

// An owner that is cut off does not know what the others do, so it stops what it runs
// after initdead; it gets its group back, or does not, when it is heard again.
func TestMutedOwnerStopsWithinABound(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.hosts["secondary"].kill()
		l.hosts["arbiter"].kill()
		time.Sleep(l.tm.Initdead + 2*l.tm.Deadtime)
		if l.on("primary").groups.get("web").here() {
			t.Error("it still runs")
		}
		l.hosts["arbiter"].start()
		l.hosts["secondary"].start()
		l.until("started again", 20*time.Second, l.held("primary"))
		l.well(10 * time.Second)
	})
}
