package vip

import (
	"bytes"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// byHand puts addresses on the machine's eth0 as an operator does, or takes them off.
func (m *machine) byHand(t *testing.T, on bool, as ...Address) {
	t.Helper()
	must(t, m.Do(func() error {
		dev, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, a := range as {
			ad := &netlink.Addr{IPNet: netlink.NewIPNet(a.Addr.AsSlice())}
			if a.Addr.Is6() {
				ad.Flags = unix.IFA_F_NODAD
			}
			if on {
				err = netlink.AddrAdd(dev, ad)
			} else {
				err = netlink.AddrDel(dev, ad)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

// awaitSightings waits until the kernel's word fits.
func awaitSightings(t *testing.T, k Kernel, what string, fits func([]Sighting) bool) {
	t.Helper()
	begin := boot()
	for {
		list, changed := k.Sightings()
		if fits(list) {
			t.Logf("%s: after %v", what, boot()-begin)
			return
		}
		select {
		case <-changed:
		case <-time.After(500 * time.Millisecond):
		}
		if boot()-begin > 40*time.Second {
			t.Fatalf("%s: the network is said to claim %+v", what, list)
		}
	}
}

// Another host has the same addresses: the holder hears of it, names its MAC address,
// goes on, and announces; without a lease it takes them off at once.
func TestConflict(t *testing.T) {
	l := newLab(t)
	o := options(modes()[0], t.TempDir())
	o.ask = 500 * time.Millisecond
	k := l.host.open(t, o)
	must(t, k.Prepare(bothVIPs))
	must(t, k.Renew(in(59*time.Second)))
	for _, a := range bothVIPs {
		must(t, k.Add(a))
		must(t, k.Open(a))
		k.Announce(a)
	}
	time.Sleep(ownTime)
	if list, _ := k.Sightings(); len(list) > 2 || len(list) > 0 && list[0].Conflict() {
		t.Fatalf("alone: %+v", list)
	}
	l.peer.byHand(t, true, bothVIPs...)
	awaitSightings(t, k, "both claimed by the peer", func(list []Sighting) bool {
		n := 0
		for _, s := range list {
			if s.Held && s.Conflict() && bytes.Equal(s.MACs[0], l.peer.mac) {
				n++
			}
		}
		return n == 2
	})
	before := k.Tallies()[vip4.Addr].Announced
	inject(t, l.peer, announcement(vip4.Addr, l.peer.mac, false)[0])
	for end := boot() + 3*time.Second; k.Tallies()[vip4.Addr].Announced == before && boot() < end; {
		time.Sleep(5 * time.Millisecond)
	}
	if k.Tallies()[vip4.Addr].Announced == before {
		t.Error("a claim was not answered by an announcement")
	}
	if on := l.host.has(t, bothVIPs...); len(on) != 2 {
		t.Errorf("a holder with a lease dropped an address: %v are on", on)
	}
	l.peer.byHand(t, false, bothVIPs...)
	awaitSightings(t, k, "over", func(list []Sighting) bool {
		for _, s := range list {
			if s.Conflict() {
				return false
			}
		}
		return true
	})
}

// inject sends a frame from the machine's eth0.
func inject(t *testing.T, m *machine, frame []byte) {
	t.Helper()
	f := packetSocket(t, m, "eth0", unix.ETH_P_ALL)
	defer f.Close()
	_, err := f.Write(frame)
	must(t, err)
}

// A claim that comes while no lease runs has the address taken off at once, long before
// its lifetime ends; it returns with the lease.
func TestConflictWithoutALease(t *testing.T) {
	l := newLab(t)
	k := l.host.open(t, options(modes()[0], t.TempDir()))
	must(t, k.Prepare(bothVIPs))
	must(t, k.Renew(in(1200*time.Millisecond)))
	k.keep.mu.Lock()
	k.keep.cost = time.Second // its lifetime is longer than anything here waits
	k.keep.mu.Unlock()
	must(t, k.Add(vip4))
	must(t, k.Open(vip4))
	time.Sleep(1500 * time.Millisecond)
	if on := l.host.has(t, vip4); len(on) != 1 {
		t.Fatal("gone already; this test would see nothing")
	}
	inject(t, l.peer, announcement(vip4.Addr, l.peer.mac, false)[0])
	t.Logf("taken off after %v", l.host.waitOn(t, 0, vip4))
	must(t, k.Renew(in(30*time.Second)))
	l.host.waitOn(t, 1, vip4)
}

// Those who do not hold an address see from outside whether anybody does; and before it
// is first used, who does already.
func TestFromOutside(t *testing.T) {
	l := newLab(t)
	o := options(modes()[0], t.TempDir())
	o.ask = 500 * time.Millisecond
	k := l.host.open(t, o)
	if got := k.InUse(t.Context(), bothVIPs); len(got) > 0 {
		t.Errorf("in use: %v", got)
	}
	must(t, k.Prepare(bothVIPs))
	awaitSightings(t, k, "nobody answers", func(list []Sighting) bool {
		return len(list) == 2 && list[0].Silent >= silentRounds && list[1].Silent >= silentRounds
	})
	l.peer.byHand(t, true, bothVIPs...)
	got := k.InUse(t.Context(), bothVIPs)
	for _, a := range bothVIPs {
		if !bytes.Equal(got[a.Addr], l.peer.mac) {
			t.Errorf("%s is used by %v, not by %v", a, got[a.Addr], l.peer.mac)
		}
	}
	awaitSightings(t, k, "one answers", func(list []Sighting) bool {
		ok := len(list) == 2
		for _, s := range list {
			ok = ok && !s.Conflict() && s.Silent == 0 && len(s.MACs) == 1 && bytes.Equal(s.MACs[0], l.peer.mac)
		}
		return ok
	})
}
