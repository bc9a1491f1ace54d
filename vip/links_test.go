package vip

import (
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"hanode/internal/linkstate"
)

// awaitLink waits until the kernel says that of the device, and returns how long it
// took; "" = that it says nothing of it.
func awaitLink(t *testing.T, k Kernel, dev string, state linkstate.State, why string) time.Duration {
	t.Helper()
	begin := boot()
	for {
		links, changed := k.Links()
		got := linkstate.Link{}
		for _, l := range links {
			if l.Dev == dev {
				got = l
			}
		}
		if got.State == state && got.Why == why {
			return boot() - begin
		}
		select {
		case <-changed:
		case <-time.After(5 * time.Second):
			t.Fatalf("%s is %+v, not %q %q", dev, got, state, why)
		}
	}
}

func setUp(t *testing.T, m *machine, dev string, up bool) {
	t.Helper()
	must(t, m.Do(func() error {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(l)
		}
		return netlink.LinkSetDown(l)
	}))
}

// What becomes of a device with virtual addresses is told, whether they name it or have
// it by their subnet, and nothing of the others.
func TestLinks(t *testing.T) {
	l := newLab(t)
	wire(t, l.host, l.peer, "eth1", 1)
	wire(t, l.host, l.peer, "eth9", 9)
	k := l.host.open(t, options(modes()[0], t.TempDir()))
	named := Address{Addr: vip4.Addr.Next(), Prefix: vip4.Prefix, Dev: "eth1"}
	nowhere := Address{Addr: named.Addr.Next(), Prefix: vip4.Prefix, Dev: "eth7"}
	must(t, k.Prepare([]Address{vip4, vip6, named, nowhere}))
	for _, dev := range []string{"eth0", "eth1"} {
		awaitLink(t, k, dev, linkstate.Up, "")
		setUp(t, l.peer, dev, false)
		t.Logf("%s: a pulled cable is told after %v", dev, awaitLink(t, k, dev, linkstate.Down, "has no carrier"))
		setUp(t, l.peer, dev, true)
		awaitLink(t, k, dev, linkstate.Settling, "")
		awaitLink(t, k, dev, linkstate.Up, "")
		setUp(t, l.host, dev, false)
		t.Logf("%s: set down, told after %v", dev, awaitLink(t, k, dev, linkstate.Down, "is switched off"))
		setUp(t, l.host, dev, true)
		awaitLink(t, k, dev, linkstate.Settling, "")
	}
	awaitLink(t, k, "eth7", linkstate.Down, "does not exist")
	for _, x := range list(k) {
		if x.Dev == "eth9" || x.Dev == "lo" {
			t.Errorf("%+v is nobody's business", x)
		}
	}
	must(t, l.peer.Do(func() error {
		d, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(d)
	}))
	t.Logf("eth0: gone, told after %v", awaitLink(t, k, "eth0", linkstate.Down, "does not exist"))
	must(t, k.Prepare([]Address{named}))
	awaitLink(t, k, "eth0", "", "")
}

func list(k Kernel) []linkstate.Link {
	l, _ := k.Links()
	return l
}

// BenchmarkGlance is what looking at one device costs, 40 times a second.
func BenchmarkGlance(b *testing.B) {
	m := newMachine(b)
	r, err := newFlagReader(m.Thread)
	must(b, err)
	defer r.close()
	for b.Loop() {
		if _, err := r.flags(1); err != nil {
			b.Fatal(err)
		}
	}
}
