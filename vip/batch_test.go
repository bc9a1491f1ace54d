package vip

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// some are n addresses on eth0, every second of them IPv6.
func some(n int) (all []Address) {
	for i := range n {
		a := Address{Dev: "eth0", Addr: netip.AddrFrom4([4]byte{10, 9, 1, byte(1 + i)})}
		if i%2 == 1 {
			a.Addr = netip.AddrFrom16([16]byte{0xfd, 0x09, 14: 1, 15: byte(1 + i)})
		}
		a.Prefix = netip.PrefixFrom(a.Addr, a.Addr.BitLen())
		all = append(all, a)
	}
	return all
}

// Many addresses in one go: what fails is named, what can be done is done, and nothing
// is opened with something that nobody guards.
func TestBatches(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l := newLab(t)
		k := l.host.open(t, options(mode, t.TempDir()))
		all := some(100)
		stranger := Address{Dev: "eth0", Addr: netip4("10.9.2.1"), Prefix: prefix("10.9.2.1/32")}
		lost := Address{Dev: "eth7", Addr: netip4("10.9.2.2"), Prefix: prefix("10.9.2.2/32")}
		must(t, k.Prepare(append(slices.Clone(all), lost)))
		must(t, k.Renew(in(30*time.Second)))

		if err := k.Add(append(slices.Clone(all), stranger)...); !errors.Is(err, ErrNotPrepared) || !strings.Contains(err.Error(), "10.9.2.1") {
			t.Errorf("with one that is not prepared: %v", err)
		}
		if on := l.host.has(t, all...); len(on) != 0 {
			t.Errorf("%v are on", on)
		}
		if err := k.Open(append(slices.Clone(all), stranger)...); !errors.Is(err, ErrNotPrepared) {
			t.Errorf("open with one that is not prepared: %v", err)
		}
		if err := k.Add(append([]Address{lost}, all...)...); !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), "eth7 does not exist") {
			t.Errorf("with one that has no device: %v", err)
		}
		if on := l.host.has(t, all...); len(on) != len(all) {
			t.Errorf("%d of %d are on", len(on), len(all))
		}
		must(t, k.Add(all...)) // there already

		a := all[98]
		answers := func() bool {
			mac, err := l.peer.probe(t.Context(), a.Addr)
			must(t, err)
			return mac != nil
		}
		if answers() {
			t.Error("it answers before it is open")
		}
		must(t, k.Open(all...))
		if !answers() {
			t.Error("it does not answer although it is open")
		}
		if err := k.Close(append([]Address{stranger}, all...)...); !errors.Is(err, ErrNotPrepared) {
			t.Errorf("close with one that is not prepared: %v", err)
		}
		if answers() {
			t.Error("it answers although it was closed")
		}
		// One that is gone already keeps the others from nothing.
		must(t, k.Open(all...))
		must(t, k.Close(all[0]))
		must(t, k.Close(all...))
		if answers() {
			t.Error("it answers although it was closed")
		}
		must(t, k.Del(append(slices.Clone(all), stranger)...))
		if on := l.host.has(t, all...); len(on) != 0 {
			t.Errorf("%d are still on", len(on))
		}
		must(t, k.Del(all...))
	})
}

// Each message has its own answer, whatever the others' is.
func TestBatchOfMessages(t *testing.T) {
	l := newLab(t)
	b, err := newBatcher(l.host.Thread)
	must(t, err)
	t.Cleanup(b.close)
	index := l.host.index(t, "eth0")
	var ms []message
	all := some(3 * batch)
	for i, a := range all {
		if i%3 == 0 {
			ms = append(ms, takeOff(index, a.onDevice()))
		} else {
			ms = append(ms, put(index, a, 60, unix.NLM_F_EXCL))
		}
	}
	for i, err := range b.send(ms) {
		if i%3 == 0 && !isGone(err) || i%3 != 0 && err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if errs := b.send(nil); len(errs) != 0 {
		t.Errorf("nothing gives %v", errs)
	}
}

// isLocal reports whether the machine delivers to itself what is for a.
func (m *machine) isLocal(t *testing.T, a netip.Addr) (local bool) {
	t.Helper()
	must(t, m.Do(func() error {
		r, err := netlink.RouteGet(a.AsSlice())
		local = err == nil && len(r) > 0 && r[0].Type == unix.RTN_LOCAL
		return nil // no route is none
	}))
	return local
}

// What is for an IPv6 address is delivered as soon as the address is on, although the
// kernel's own route is made by a work queue; and not any more when it is off, whoever
// took it off.
func TestAddressIsReachedAtOnce(t *testing.T) {
	l := newLab(t)
	k := l.host.open(t, options(modes()[0], t.TempDir()))
	must(t, k.Prepare(bothVIPs))
	must(t, k.Renew(in(30*time.Second)))
	for i := range 100 {
		must(t, k.Add(bothVIPs...))
		for _, a := range bothVIPs {
			if !l.host.isLocal(t, a.Addr) {
				t.Fatalf("try %d: %s is on, and not reached", i, a.Addr)
			}
		}
		must(t, k.Del(bothVIPs...))
		for _, a := range bothVIPs {
			if l.host.isLocal(t, a.Addr) {
				t.Fatalf("try %d: %s is off, and reached", i, a.Addr)
			}
		}
	}
	index := l.host.index(t, "eth0")
	b, err := newBatcher(l.host.Thread)
	must(t, err)
	t.Cleanup(b.close)
	bring := func() {
		m, _ := bridge(unix.RTM_NEWROUTE, index, vip6.Addr)
		if err := b.send([]message{m})[0]; err != nil && !errors.Is(err, unix.EEXIST) { // that one lasts anew
			t.Error(err)
		}
		if !l.host.isLocal(t, vip6.Addr) {
			t.Error("there is no bridge")
		}
	}
	bring()
	bring()
	begin := boot()
	until(t, "it is over by itself", func() bool { return !l.host.isLocal(t, vip6.Addr) })
	t.Logf("over after %v", boot()-begin)
	bring()
	if must(t, k.rtnl.removeRouting()); l.host.isLocal(t, vip6.Addr) {
		t.Error("a bridge that an agent left is not cleaned up")
	}
	if _, ok := bridge(unix.RTM_NEWROUTE, index, vip4.Addr); ok {
		t.Error("IPv4 needs none")
	}
}

func TestFailures(t *testing.T) {
	var f failures
	if f.add(nil); f.err() != nil {
		t.Error(f.err())
	}
	first := errors.New("no such device")
	if f.add(first); f.err() != first {
		t.Error(f.err())
	}
	f.add(errors.New("another"))
	f.add(nil)
	f.add(errors.New("one more"))
	if err := f.err(); !errors.Is(err, first) || err.Error() != "no such device (and 2 more)" {
		t.Error(err)
	}
}
