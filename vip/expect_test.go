package vip

import (
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// raised reports whether eth0 has the settings that a virtual address needs.
func (m *machine) raised(t testing.TB) bool {
	t.Helper()
	return m.setting(t, "arp_ignore") == 1 && m.setting(t, "arp_announce") == 2 && m.setting(t, "promote_secondaries") == 1
}

// notRaised sets what a kernel has by itself.
func (m *machine) notRaised(t testing.TB) {
	t.Helper()
	must(t, m.Do(func() error {
		for _, s := range settings {
			if err := writeSetting("eth0", s.name, 0); err != nil {
				return err
			}
		}
		return nil
	}))
}

// local are the addresses of which the host says that they are its own.
func (m *machine) local(t testing.TB, as ...Address) (out []Address) {
	t.Helper()
	must(t, m.Do(func() error {
		for _, a := range as {
			rs, err := netlink.RouteGet(a.Addr.AsSlice())
			if err != nil {
				return err
			}
			if slices.ContainsFunc(rs, func(r netlink.Route) bool { return r.Table == 255 }) {
				out = append(out, a)
			}
		}
		return nil
	}))
	return out
}

// An address that is expected is on no device, and its guard is closed: nobody outside
// hears of it, and what runs on this host still talks to the holder. The settings of its
// device are raised, until it is dismissed, or was here and went.
func TestExpectedIsNotHere(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l := newLab(t)
		l.host.notRaised(t)
		l.peer.addByHand(t, "eth0", "10.9.0.100/24", "fd09::100/64") // the holder
		k := l.host.open(t, options(mode, t.TempDir()))
		k.Expect(bothVIPs...)
		if l.host.raised(t) {
			t.Fatal("raised for addresses that were never prepared")
		}
		must(t, k.Prepare(bothVIPs))
		must(t, k.Renew(in(30*time.Second)))
		expect := func(when string, raised, here bool) {
			t.Helper()
			if is := l.host.raised(t); is != raised {
				t.Errorf("%s: the settings are raised: %v, want %v", when, is, raised)
			}
			if ours, err := k.Ours(); err != nil || (len(ours) > 0) != here {
				t.Errorf("%s: ours are %v, %v", when, ours, err)
			}
			if on := l.host.has(t, bothVIPs...); (len(on) > 0) != here {
				t.Errorf("%s: %v are on a device", when, on)
			}
			if local := l.host.local(t, bothVIPs...); (len(local) > 0) != here {
				t.Errorf("%s: %v are this host's own", when, local)
			}
		}
		k.Expect(bothVIPs...)
		k.Expect(bothVIPs...)
		expect("expected", true, false)
		must(t, k.Open(bothVIPs...)) // an agent that is confused
		expect("expected and opened", true, false)
		must(t, k.Close(bothVIPs...))
		k.Dismiss(vip4)
		expect("one was dismissed", true, false)
		k.Dismiss(bothVIPs...)
		k.Dismiss(bothVIPs...)
		expect("both were dismissed", false, false)

		k.Expect(bothVIPs...)
		must(t, k.Del(bothVIPs...))
		expect("expected and deleted", false, false)

		k.Expect(bothVIPs...)
		must(t, k.Add(bothVIPs...))
		k.Dismiss(bothVIPs...)
		k.Expect(bothVIPs...)
		k.Dismiss(bothVIPs...)
		expect("added", true, true)
		must(t, k.Del(bothVIPs...))
		expect("added and deleted", false, false)

		k.Expect(bothVIPs...)
		removed, err := k.RemoveOurs()
		if err != nil || len(removed) > 0 {
			t.Errorf("removed %v, %v", removed, err)
		}
		expect("all of ours was removed", false, false)
	})
}

// A disk that hangs keeps no address off its device, and holds nobody up.
func TestAddressComesWhileTheDiskHangs(t *testing.T) {
	l := newLab(t)
	k := l.host.open(t, options(modes()[0], t.TempDir()))
	must(t, k.Prepare(bothVIPs))
	k.saving.Lock() // as a write that does not return
	must(t, k.Add(bothVIPs...))
	if !l.host.raised(t) {
		t.Error("the settings are not raised")
	}
	must(t, k.Del(bothVIPs...))
	must(t, k.Add(bothVIPs...))
	k.saving.Unlock()
	until(t, "it is written after all", func() bool {
		was, err := loadSettings(k.opts.Dir)
		return err == nil && len(was) > 0
	})
}

// An agent that is killed while it expects an address leaves settings behind that the
// next one gives back, as with an address that is on.
func TestKilledWhileExpecting(t *testing.T) {
	l := newLab(t)
	l.host.notRaised(t)
	k := l.host.open(t, options(modes()[0], t.TempDir()))
	must(t, k.Prepare(bothVIPs))
	k.Expect(bothVIPs...)
	k.release() // killed, at once
	if !l.host.raised(t) {
		t.Fatal("this test would see nothing")
	}
	if was, err := loadSettings(k.opts.Dir); err != nil || len(was) == 0 {
		t.Errorf("what the devices had: %v, %v", was, err)
	}
	k = l.host.open(t, options(modes()[0], k.opts.Dir))
	_, err := k.RemoveOurs()
	must(t, err)
	if l.host.raised(t) {
		t.Error("the settings stay raised")
	}
}

// What was expected of a device does not hold for the one that comes in its place: it has
// no settings yet, and perhaps no guard.
func TestExpectedDeviceIsReplaced(t *testing.T) {
	l := newLab(t)
	k := l.host.open(t, options(modes()[0], t.TempDir()))
	must(t, k.Prepare(bothVIPs))
	k.Expect(bothVIPs...)
	old := l.host.index(t, "eth0")
	other := newMachine(t)
	l.host.link(t, "eth0", func(dev netlink.Link) error { return netlink.LinkSetNsFd(dev, int(other.ns)) })
	until(t, "its going is noticed", func() bool { return !k.guard.Attached(old) })
	if err := k.Add(bothVIPs...); err == nil {
		t.Error("added to a device that is not there")
	}
	other.link(t, "eth0", func(dev netlink.Link) error { return netlink.LinkSetNsFd(dev, int(l.host.ns)) })
	l.host.link(t, "eth0", netlink.LinkSetUp)
	l.host.give(t, "eth0", "")
	l.host.notRaised(t)
	until(t, "it is guarded again", func() bool { return k.guard.Attached(l.host.index(t, "eth0")) })
	must(t, k.Add(bothVIPs...))
	if !l.host.raised(t) {
		t.Error("the device that came instead keeps its own settings")
	}
	if on := l.host.has(t, bothVIPs...); len(on) != len(bothVIPs) {
		t.Errorf("only %v are on", on)
	}
}
