package e2e

import (
	"strings"
	"testing"
	"time"

	"hanode/test/livelab"
)

// The cable of the VIP's device is pulled at the owner, whose eth0 lives: the VIP moves
// without waiting for deadtime, status names the device, and the group goes back once
// the cable is in again and has settled.
func TestCarrierLostMovesTheVIP(t *testing.T) {
	x := form(t, livelab.Options{})
	x.holds("primary")
	x.w.Mark("pull")
	x.do(x.Get("primary").CutLink("eth1"))
	x.holds("secondary")
	time.Sleep(500 * time.Millisecond)
	x.w.Mark("pulled")
	out, _ := x.hanode("secondary", 0, "status")
	if !strings.Contains(out, "eth1 of primary has no carrier") {
		t.Errorf("status does not name the device:\n%s", out)
	}
	if out, _ = x.hanode("secondary", 0, "why", "web"); !strings.Contains(out, "its eth1 has no carrier") {
		t.Errorf("why does not say so:\n%s", out)
	}
	if out, _ = x.hanode("secondary", 0, "events"); !strings.Contains(out, "link") {
		t.Errorf("events do not name the cause:\n%s", out)
	}
	if _, errs := x.hanode("secondary", 1, "move", "web", "primary"); !strings.Contains(errs, "has no carrier") {
		t.Errorf("moving to a host without a carrier said %q", errs)
	}
	x.do(x.Get("primary").HealLink("eth1"))
	x.holds("primary")
	x.settle()
	r := x.w.Stop()
	x.w = nil
	if len(r.Overlaps) > 0 || r.Lost > 0 {
		t.Errorf("two holders: %+v; lost %d", r.Overlaps, r.Lost)
	}
	t.Logf("outage from the pull to the next answer: %v", r.Phase("pull").LongestSilence)
}

// Nobody has a carrier: the group stays, and status says that clients do not reach it.
func TestCarrierLostEverywhereStays(t *testing.T) {
	x := form(t, livelab.Options{})
	x.holds("primary")
	x.do(x.Get("secondary").CutLink("eth1"))
	time.Sleep(200 * time.Millisecond)
	x.do(x.Get("primary").CutLink("eth1"))
	time.Sleep(2 * time.Second)
	if out, _ := x.hanode("secondary", 0, "status"); !strings.Contains(out, "web stays on primary") {
		t.Errorf("status does not say why nobody answers:\n%s", out)
	}
	x.do(x.Get("secondary").HealLink("eth1"))
	x.holds("secondary")
	x.do(x.Get("primary").HealLink("eth1"))
	x.holds("primary")
	x.settle()
}

// A device that is switched off by hand is one without a carrier: the group moves, and its
// resource is not called broken for it.
func TestDeviceSetDownMovesTheVIP(t *testing.T) {
	x := form(t, livelab.Options{})
	x.holds("primary")
	x.do(x.Get("primary").SetDev("eth1", false))
	x.holds("secondary")
	time.Sleep(time.Second)
	if out, _ := x.hanode("secondary", 0, "status"); !strings.Contains(out, "eth1 of primary is switched off") || strings.Contains(out, "group-failed") {
		t.Errorf("status:\n%s", out)
	}
	x.do(x.Get("primary").SetDev("eth1", true))
	x.holds("primary")
}
