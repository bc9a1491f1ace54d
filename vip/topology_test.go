package vip

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// on returns the VIPs with the device named.
func on(dev string) []Address {
	out := append([]Address(nil), bothVIPs...)
	for i := range out {
		out[i].Dev = dev
	}
	return out
}

// link runs fn with one of the machine's devices, in its namespace.
func (m *machine) link(t testing.TB, name string, fn func(netlink.Link) error) {
	t.Helper()
	must(t, m.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return fn(l)
	}))
}

func (m *machine) index(t testing.TB, name string) (index int) {
	t.Helper()
	m.link(t, name, func(l netlink.Link) error {
		index = l.Attrs().Index
		return nil
	})
	return index
}

// give puts the host's own addresses on a device, taking them off another.
func (m *machine) give(t testing.TB, dev, from string) {
	t.Helper()
	for _, s := range []string{"10.9.0.1/24", "fd09::1/64"} {
		ad, err := netlink.ParseAddr(s)
		must(t, err)
		ad.Flags = unix.IFA_F_NODAD
		if from != "" {
			m.link(t, from, func(l netlink.Link) error { return netlink.AddrDel(l, ad) })
		}
		m.link(t, dev, func(l netlink.Link) error { return netlink.AddrAdd(l, ad) })
	}
}

// until waits for a condition that another goroutine brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for i := 0; !ok(); i++ {
		if i > 1000 {
			t.Fatal("never: " + what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// guards puts a Kernel on the lab's host, has it hold the addresses, and checks that
// each is heard only while open and leased, and the host's own address always.
func guards(t *testing.T, l *lab, mode string, vips []Address) *host {
	t.Helper()
	k := l.host.open(t, options(mode, t.TempDir()))
	must(t, k.Prepare(vips))
	for _, a := range vips {
		must(t, k.Add(a))
	}
	l.host.echo(t)
	holdsToItsLease(t, l, k, newAskers(t, l))
	return k
}

// leased renews a lease of 400 ms until stop, which says when it ends.
func leased(t *testing.T, k *host) (stop func() time.Duration) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan struct{})
	end := in(400 * time.Millisecond)
	must(t, k.Renew(end))
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			case <-time.After(25 * time.Millisecond):
			}
			end = in(400 * time.Millisecond)
			if err := k.Renew(end); err != nil {
				t.Error(err)
			}
		}
	}()
	return func() time.Duration {
		close(quit)
		<-done
		return end.Boot
	}
}

// holdsToItsLease leaves the VIPs on, open, and their lease expired.
func holdsToItsLease(t *testing.T, l *lab, k *host, as []*asker) {
	t.Helper()
	own := []*asker{newAsker(t, l.peer, "own")}
	stop := leased(t, k)
	until(t, "the VIPs are on", func() bool { return len(l.host.has(t, bothVIPs...)) == 2 })
	for _, a := range bothVIPs {
		must(t, k.Close(a))
	}
	wantSilence(t, as, "leased, closed")
	wantAnswers(t, own, "the host's own address, VIPs closed")
	openBoth(t, k)
	wantAnswers(t, as, "leased, open")
	wantAnswers(t, own, "the host's own address, VIPs open")
	time.Sleep(stop() - boot() + slack)
	before, err := k.Drops()
	must(t, err)
	wantSilence(t, as, "the lease is over")
	after, err := k.Drops()
	must(t, err)
	if after.ARPIn == before.ARPIn || after.NDIn == before.NDIn || after.IPIn == before.IPIn {
		t.Errorf("it was not the guard that kept silent: drops %+v, then %+v", before, after)
	}
	wantAnswers(t, own, "the host's own address, the lease over")
}

// A VIP of a bridge is silenced at the bridge. What passes between its ports is left
// alone: a virtual machine behind one of them may hold the VIP.
func TestGuardOnABridge(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l := newLab(t)
		guest := newMachine(t)
		must(t, l.host.Do(func() error {
			return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0", HardwareAddr: l.host.mac}})
		}))
		l.host.link(t, "br0", netlink.LinkSetUp)
		wire(t, l.host, guest, "tap0", 1)
		for _, port := range []string{"eth0", "tap0"} {
			l.host.link(t, "br0", func(br netlink.Link) error {
				p, err := netlink.LinkByName(port)
				if err != nil {
					return err
				}
				return netlink.LinkSetMaster(p, br)
			})
		}
		l.host.give(t, "br0", "eth0")
		k := guards(t, l, mode, on("br0"))
		for _, port := range []string{"eth0", "tap0"} {
			if index := l.host.index(t, port); k.guard.Attached(index) {
				t.Errorf("the port %s is guarded", port)
			}
		}
		// The guest takes the VIPs over; this host is closed and has none.
		must(t, k.Shutdown())
		guest.addByHand(t, "tap0", "10.9.0.100/24", "fd09::100/64")
		guest.echo(t)
		k = l.host.open(t, options(mode, t.TempDir()))
		must(t, k.Prepare(on("br0")))
		l.host.mac = net6mac(2, 9, 1, 0, 0, 2)
		wantAnswers(t, newAskers(t, l), "held by a guest behind the bridge")
	})
}

func net6mac(b ...byte) []byte { return b }

// The VIP on a macvlan, and on its parent: the packets of the one pass the other.
func TestGuardOnAMacvlan(t *testing.T) {
	child := net6mac(2, 9, 0, 0, 1, 1)
	prepare := func(t *testing.T) *lab {
		l := newLab(t)
		l.host.link(t, "eth0", func(parent netlink.Link) error {
			return netlink.LinkAdd(&netlink.Macvlan{
				LinkAttrs: netlink.LinkAttrs{Name: "mv0", ParentIndex: parent.Attrs().Index, HardwareAddr: child},
				Mode:      netlink.MACVLAN_MODE_BRIDGE,
			})
		})
		l.host.link(t, "mv0", netlink.LinkSetUp)
		return l
	}
	eachMode(t, func(t *testing.T, mode string) {
		t.Run("child", func(t *testing.T) {
			l := prepare(t)
			l.host.give(t, "mv0", "eth0")
			l.host.mac = child
			k := guards(t, l, mode, on("mv0"))
			for _, dev := range []string{"eth0", "mv0"} {
				if !k.guard.Attached(l.host.index(t, dev)) {
					t.Errorf("%s is not guarded", dev)
				}
			}
		})
		t.Run("parent", func(t *testing.T) {
			guards(t, prepare(t), mode, on("eth0"))
		})
	})
}

// A device may be renamed while it holds a VIP: by udev late in the boot, by hand.
func TestRenamedDeviceStaysGuarded(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l := newLab(t)
		k := guards(t, l, mode, bothVIPs)
		index := l.host.index(t, "eth0")
		l.host.link(t, "eth0", func(dev netlink.Link) error { return netlink.LinkSetName(dev, "lan0") })
		until(t, "the new name is noticed", func() bool {
			k.look.RLock()
			defer k.look.RUnlock()
			return k.devs[index].name == "lan0"
		})
		holdsToItsLease(t, l, k, newAskers(t, l))
		must(t, k.Shutdown())
		if left := l.host.has(t, bothVIPs...); len(left) > 0 {
			t.Errorf("left on the renamed device: %v", left)
		}
	})
}

// A device that goes to another namespace takes no guard along: that host may hold
// the VIP. When it comes back it is guarded before the VIPs are on it again.
func TestDeviceMovedToAnotherNamespace(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l := newLab(t)
		k := guards(t, l, mode, bothVIPs)
		index := l.host.index(t, "eth0")
		other := newMachine(t)
		l.host.link(t, "eth0", func(dev netlink.Link) error { return netlink.LinkSetNsFd(dev, int(other.ns)) })
		until(t, "its going is noticed", func() bool { return !k.guard.Attached(index) })
		other.link(t, "eth0", netlink.LinkSetUp)
		other.addByHand(t, "eth0", "10.9.0.100/24", "fd09::100/64")
		other.echo(t)
		as := newAskers(t, l)
		wantAnswers(t, as, "held by the host that the device was given to")
		other.flush(t, "eth0")

		other.link(t, "eth0", func(dev netlink.Link) error { return netlink.LinkSetNsFd(dev, int(l.host.ns)) })
		l.host.link(t, "eth0", netlink.LinkSetUp)
		l.host.give(t, "eth0", "")
		until(t, "it is guarded again", func() bool { return k.guard.Attached(l.host.index(t, "eth0")) })
		holdsToItsLease(t, l, k, as)
	})
}

// A VIP may be asked for on a device that is not there yet.
func TestDeviceThatAppearsLater(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l := &lab{newMachine(t), newMachine(t)}
		k := l.host.open(t, options(mode, t.TempDir()))
		vips := on("eth0")
		must(t, k.Prepare(vips))
		for _, a := range vips {
			if err := k.Add(a); !errors.Is(err, ErrNoDevice) {
				t.Errorf("added to a device that is not there: %v", err)
			}
		}
		wire(t, l.host, l.peer, "eth0", 0)
		l.host.addByHand(t, "eth0", "10.9.0.100/32", "fd09::100/128") // by whoever made the device
		l.host.echo(t)
		until(t, "it is guarded", func() bool { return k.guard.Attached(l.host.index(t, "eth0")) })
		as := newAskers(t, l)
		wantSilence(t, as, "it appeared with the VIPs on it")
		for _, a := range vips {
			must(t, k.Add(a))
		}
		holdsToItsLease(t, l, k, as)
	})
}

// flush takes the VIPs off a device as an operator would.
func (m *machine) flush(t testing.TB, dev string) {
	t.Helper()
	m.link(t, dev, func(l netlink.Link) error {
		list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		for _, x := range list {
			if ip, _ := netip.AddrFromSlice(x.IP); ip.Unmap() == vip4.Addr || ip == vip6.Addr {
				err = errors.Join(err, netlink.AddrDel(l, &x))
			}
		}
		return err
	})
}
