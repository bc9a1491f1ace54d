package vip

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"pgregory.net/rapid"

	"hanode/internal/clock"
)

func TestLifetimeOutlivesTheLease(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ns := func(name string, from, to time.Duration) time.Duration {
			return time.Duration(rapid.Int64Range(int64(from), int64(to)).Draw(t, name))
		}
		now, spare := ns("now", 0, time.Hour), ns("spare", lifeSpare, lifeMost)
		end := now + ns("left", -time.Minute, time.Minute)
		goes := now + seconds(lifetime(now, end, spare))
		if from := max(now, end); goes < from+spare || goes >= from+spare+time.Second {
			t.Fatalf("at %v, lease until %v, spare %v: it goes at %v", now, end, spare, goes)
		}
		until := now + ns("until", 0, time.Minute)
		if !due(now, end, until, spare) && (until < end+spare/2 || until < now+time.Second+spare/2) {
			t.Fatalf("at %v, lease until %v: not due although it goes at %v", now, end, until)
		}
	})
}

// Where one write is dear, addresses live longer and are written less often.
func TestManyDearAddressesLiveLonger(t *testing.T) {
	k := &keeper{kept: map[netip.Addr]*kept{}}
	for i := range 1000 {
		k.kept[netip.AddrFrom4([4]byte{10, 0, byte(i / 250), byte(i % 250)})] = &kept{}
	}
	for cost, want := range map[time.Duration]time.Duration{
		5 * time.Microsecond: lifeSpare, 500 * time.Microsecond: 50 * time.Second, time.Second: lifeMost,
	} {
		if k.cost = cost; k.spare(vip4.Addr) != want || k.spare(vip6.Addr) != max(want, lifeSpare6) {
			t.Errorf("%v for each of 1000: spare %v, for IPv6 %v, want %v", cost, k.spare(vip4.Addr), k.spare(vip6.Addr), want)
		}
		if b := k.batch(); b < 1 || b > batch || b > 1 && time.Duration(b)*cost > batchTime {
			t.Errorf("%v for each: %d at once, a release waits for %v", cost, b, time.Duration(b)*cost)
		}
	}
}

// has lists which of the addresses are on the host.
func (m *machine) has(t *testing.T, as ...Address) (on []netip.Addr) {
	t.Helper()
	must(t, m.Do(func() error {
		list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		for _, x := range list {
			ip, _ := netip.AddrFromSlice(x.IP)
			if slices.ContainsFunc(as, func(a Address) bool { return a.Addr == ip.Unmap() }) {
				on = append(on, ip.Unmap())
			}
		}
		return err
	}))
	return on
}

// waitOn waits until so many of the addresses are on, and says how long it took.
func (m *machine) waitOn(t *testing.T, n int, as ...Address) time.Duration {
	t.Helper()
	begin := boot()
	for len(m.has(t, as...)) != n {
		if boot()-begin > 15*time.Second {
			t.Fatalf("on the host after 15 s: %v, want %d", m.has(t, as...), n)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return boot() - begin
}

// deletions counts the addresses that leave the machine's devices.
func (m *machine) deletions(t *testing.T) *atomic.Int64 {
	t.Helper()
	n, err := newNews(m.Thread)
	must(t, err)
	t.Cleanup(n.close)
	var count atomic.Int64
	go n.run(func(int, netip.Prefix) { count.Add(1) }, func() { count.Add(1 << 32) })
	return &count
}

// Whatever becomes of its agent, an address leaves the host soon after the lease,
// and never while it runs.
func TestAddressesGoByTheirLifetime(t *testing.T) {
	for _, c := range []struct {
		name   string
		signal syscall.Signal
	}{{"kill -9", syscall.SIGKILL}, {"SIGSTOP", syscall.SIGSTOP}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // it waits for lifetimes
			mode := modes()[0]
			l := newLab(t)
			l.host.echo(t)
			as := newAskers(t, l)
			gone := l.host.deletions(t)
			h := l.host.startHolder(t, mode, t.TempDir())
			h.waitHolding(t)
			time.Sleep(5 * time.Second) // more than two lifetimes
			if n := gone.Load(); n != 0 {
				t.Errorf("%d times an address of a healthy holder left the host", n)
			}
			must(t, h.cmd.Process.Signal(c.signal))
			time.Sleep(100 * time.Millisecond) // for what it had printed
			for _, v := range []struct {
				vip   Address
				bound time.Duration
			}{{vip4, LifeBound}, {vip6, LifeBound6}} {
				l.host.waitOn(t, 0, v.vip)
				now, end := boot(), time.Duration(h.end.Load())
				t.Logf("the last lease ended %v before %s was seen gone", now-end, v.vip.Addr)
				if now < end || now > end+v.bound+slack+100*time.Millisecond {
					t.Errorf("%s gone %v after the lease, the bound is %v", v.vip.Addr, now-end, v.bound)
				}
			}
			if c.signal == syscall.SIGSTOP {
				must(t, h.cmd.Process.Signal(syscall.SIGCONT))
				wantAnswers(t, as, "continued, leased again")
			}
		})
	}
}

// jumpy is a clock that goes ahead while its reader does not look.
type jumpy struct {
	clock.Clock
	reads atomic.Int64
	after int64         // of so many readings
	by    time.Duration // it is ahead
}

func (j *jumpy) Now() clock.Instant {
	now := j.Clock.Now()
	if j.reads.Add(1) > j.after {
		now = now.Add(j.by)
	}
	return now
}

// still is a host whose loops stand still.
func still(t *testing.T, l *lab, o Options) *host {
	t.Helper()
	k := l.host.open(t, o)
	k.cancel()
	k.wg.Wait()
	must(t, k.Prepare(bothVIPs))
	return k
}

// A process that is stopped between reading the clock and writing re-creates an
// address that had expired meanwhile. It must take it off again.
func TestLateRefreshDoesNotResurrect(t *testing.T) {
	l := newLab(t)
	clk := &jumpy{Clock: sys, after: 1 << 60, by: 20 * time.Second}
	o := options(modes()[0], t.TempDir())
	o.Clock = clk
	k := still(t, l, o)
	must(t, k.Renew(in(10*time.Second)))
	for _, a := range bothVIPs {
		must(t, k.Add(a))
	}
	takeOffBoth := func() {
		must(t, l.host.Do(func() error {
			dev, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			for _, s := range []string{"10.9.0.100/32", "fd09::100/128"} {
				ad, err := netlink.ParseAddr(s)
				if err != nil {
					return err
				}
				if err := netlink.AddrDel(dev, ad); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	refresh := func() {
		for _, x := range k.keep.kept {
			x.until = 0
		}
		k.keep.write(t.Context())
	}
	takeOffBoth() // what the lifetime would have done
	refresh()
	if on := l.host.has(t, bothVIPs...); len(on) != 2 {
		t.Fatalf("a refresh in time left %v on; this test would see nothing", on)
	}
	takeOffBoth()
	clk.reads.Store(0)
	clk.after = 1 // the next reading is in time, those that follow are 20 s later
	refresh()
	if on := l.host.has(t, bothVIPs...); len(on) != 0 {
		t.Errorf("after the lease a refresh put %v on", on)
	}
	if clk.reads.Load() < 2 {
		t.Error("the clock was not read again")
	}
	// The lease comes back: so do they, from where they were.
	clk.after = 1 << 60
	must(t, k.Renew(in(30*time.Second)))
	k.keep.look(t.Context())
	if on := l.host.has(t, bothVIPs...); len(on) != 2 {
		t.Errorf("with a lease again %v are on", on)
	}
	// The same for one that somebody takes off at that very moment.
	takeOffBoth()
	clk.reads.Store(0)
	clk.by, clk.after = time.Minute, 1
	for _, a := range bothVIPs {
		clk.reads.Store(0)
		k.keep.deleted(k.placed[a.Addr].index, a.onDevice())
	}
	if on := l.host.has(t, bothVIPs...); len(on) != 0 {
		t.Errorf("after the lease %v was put back", on)
	}
}

// Muted, but alive: the addresses go, and are back with the lease. Nobody is
// accused of having taken them.
func TestAddressesReturnWithTheLease(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l, k, as := hostWithVIPs(t, mode)
		var p problems
		k.opts.OnProblem = p.on
		openBoth(t, k)
		must(t, k.Renew(in(500*time.Millisecond)))
		wantAnswers(t, as, "leased")
		l.host.waitOn(t, 0, vip4)
		l.host.flush(t, "eth0") // the IPv6 address lives longer
		l.host.waitOn(t, 0, bothVIPs...)
		wantSilence(t, as, "gone with the lease")
		must(t, k.Prepare(nil)) // what is kept stays guarded, also if nobody lists it any more
		must(t, k.Renew(in(20*time.Second)))
		took := l.host.waitOn(t, 2, bothVIPs...)
		wantAnswers(t, as, "back with the lease")
		if u := k.Upkeep(); u.Restored < 2 || u.Removed != 0 || p.text(ProblemTaken) != "" {
			t.Errorf("%+v, problem %q", u, p.text(ProblemTaken))
		}
		t.Logf("back %v after the renewal", took)
		for _, a := range bothVIPs { // released: they must not come back
			must(t, k.Close(a))
			must(t, k.Del(a))
		}
		must(t, k.Renew(in(25*time.Second)))
		time.Sleep(2 * lifeEvery)
		if on := l.host.has(t, bothVIPs...); len(on) != 0 {
			t.Errorf("released, and on: %v", on)
		}
	})
}

func TestAddressTakenOffIsPutBack(t *testing.T) {
	l, k, as := hostWithVIPs(t, modes()[0])
	var p problems
	k.opts.OnProblem = p.on
	// A program of that name runs beside the agent.
	fake := filepath.Join(t.TempDir(), "NetworkManager")
	b, err := os.ReadFile("/bin/sleep")
	must(t, err)
	must(t, os.WriteFile(fake, b, 0o755))
	cmd := exec.Command(fake, "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, l.host.Do(cmd.Start))
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	openBoth(t, k)
	must(t, k.Renew(in(30*time.Second)))
	take := func(s string) {
		must(t, l.host.Do(func() error {
			dev, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			ad, err := netlink.ParseAddr(s)
			if err != nil {
				return err
			}
			return netlink.AddrDel(dev, ad)
		}))
	}
	for i := range robberies {
		if text := p.text(ProblemTaken); text != "" {
			t.Errorf("a problem after %d times: %s", i, text)
		}
		for _, s := range []string{"10.9.0.100/32", "fd09::100/128"} {
			take(s)
			t.Logf("%s: back after %v", s, l.host.waitOn(t, 2, bothVIPs...))
		}
	}
	wantAnswers(t, as, "put back")
	for i := 0; p.text(ProblemTaken) == ""; i++ {
		if i > 500 {
			t.Fatal("nobody noticed")
		}
		time.Sleep(10 * time.Millisecond)
	}
	text := p.text(ProblemTaken)
	for _, want := range []string{"3 times", "eth0", "NetworkManager runs here", "nmcli device set"} {
		if !strings.Contains(text, want) {
			t.Errorf("the problem does not say %q: %s", want, text)
		}
	}
	if u := k.Upkeep(); u.Removed != 6 {
		t.Errorf("counted %+v, want 6 removed", u)
	}
	must(t, k.Del(vip4))
	take("fd09::100/128")
	l.host.waitOn(t, 1, bothVIPs...)
	if on := l.host.has(t, vip4); len(on) != 0 {
		t.Error("a released address was put back")
	}
}

// A refresh changes neither routes nor neighbours' idea of the address.
func TestRefreshKeepsRoutesWithTheAddressAsSource(t *testing.T) {
	l, k, _ := hostWithVIPs(t, modes()[0])
	must(t, k.Renew(in(30*time.Second)))
	var dev netlink.Link
	must(t, l.host.Do(func() (err error) {
		if dev, err = netlink.LinkByName("eth0"); err != nil {
			return err
		}
		_, dst, _ := net.ParseCIDR("10.77.0.0/16")
		return netlink.RouteAdd(&netlink.Route{LinkIndex: dev.Attrs().Index, Dst: dst, Src: vip4.Addr.AsSlice(), Gw: netip4("10.9.0.2").AsSlice()})
	}))
	before := k.Upkeep().Refreshed
	for i := range 5 {
		must(t, k.Renew(in(30*time.Second+time.Duration(i+1)*5*time.Second)))
		k.keep.look(t.Context())
	}
	if n := k.Upkeep().Refreshed - before; n < 10 {
		t.Fatalf("%d refreshes; this test would see nothing", n)
	}
	must(t, l.host.Do(func() error {
		routes, err := netlink.RouteList(dev, netlink.FAMILY_V4)
		for _, r := range routes {
			if r.Src.Equal(vip4.Addr.AsSlice()) && r.Dst != nil && r.Dst.String() == "10.77.0.0/16" {
				return err
			}
		}
		return fmt.Errorf("the route with the address as source is gone: %v (%w)", routes, err)
	}))
}

// A thousand addresses cost one write per batch, and none is lost.
func TestThousandAddressesAreKept(t *testing.T) {
	l := newLab(t)
	k := l.host.open(t, options(modes()[0], t.TempDir()))
	var all []Address
	for i := range 1000 {
		a := Address{Dev: "eth0", Addr: netip.AddrFrom4([4]byte{10, 50, byte(i / 250), byte(1 + i%250)})}
		if i%2 == 1 {
			a.Addr = netip.AddrFrom16([16]byte{0xfd, 0x50, 14: byte(i / 250), 15: byte(1 + i%250)})
		}
		a.Prefix = netip.PrefixFrom(a.Addr, a.Addr.BitLen())
		all = append(all, a)
	}
	must(t, k.Prepare(all))
	must(t, k.Renew(in(300*time.Millisecond)))
	gone := l.host.deletions(t)
	must(t, k.Add(all...)) // more than fit one message, and than the kernel's answers fit a socket
	if n := len(l.host.has(t, all...)); n != len(all) {
		t.Errorf("%d of %d are on", n, len(all))
	}
	for range 100 {
		must(t, k.Renew(in(300*time.Millisecond)))
		time.Sleep(50 * time.Millisecond)
	}
	if n := gone.Load(); n != 0 {
		t.Errorf("%d times an address left the host while the lease ran", n)
	}
	k.keep.mu.Lock()
	for _, x := range k.keep.kept {
		x.until = 0
	}
	k.keep.mu.Unlock()
	must(t, k.Renew(in(10*time.Second)))
	begin := boot()
	k.keep.write(t.Context())
	t.Logf("all %d refreshed in %v; %+v", len(all), boot()-begin, k.Upkeep())
	if n := len(l.host.has(t, all...)); n != len(all) {
		t.Errorf("%d of %d are on", n, len(all))
	}
	removed, err := k.RemoveOurs()
	must(t, err)
	if len(removed) != len(all) {
		t.Errorf("removed %d of %d", len(removed), len(all))
	}
}
