package vip

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hanode/internal/clock"
)

// slack is what a loaded machine may add to the time a test reads for an answer
// that the kernel sent before the lease ended.
const slack = 60 * time.Millisecond

// hostWithVIPs is a host that has both addresses on, closed.
func hostWithVIPs(t *testing.T, mode string) (*lab, *host, []*asker) {
	t.Helper()
	l := newLab(t)
	k := l.host.open(t, options(mode, t.TempDir()))
	must(t, k.Prepare(bothVIPs))
	for _, a := range bothVIPs {
		must(t, k.Add(a))
	}
	l.host.echo(t)
	return l, k, newAskers(t, l)
}

func openBoth(t *testing.T, k Kernel) {
	t.Helper()
	for _, a := range bothVIPs {
		must(t, k.Open(a))
	}
}

func TestAnswersOnlyWhileOpenAndLeased(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		_, k, as := hostWithVIPs(t, mode)
		wantSilence(t, as, "closed, no lease")
		openBoth(t, k)
		wantSilence(t, as, "open, no lease")
		must(t, k.Renew(in(20*time.Second)))
		wantAnswers(t, as, "open and leased")
		for _, a := range bothVIPs {
			must(t, k.Close(a))
		}
		wantSilence(t, as, "closed again")
		d, err := k.Drops()
		must(t, err)
		if d.ARPIn == 0 || d.NDIn == 0 || d.IPIn == 0 {
			t.Errorf("drops were not counted: %+v", d)
		}
		openBoth(t, k)
		wantAnswers(t, as, "open again")
		must(t, k.Shutdown())
		wantSilence(t, as, "after Shutdown")
	})
}

func TestLastAnswerIsNotAfterTheLeaseEnd(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		_, k, as := hostWithVIPs(t, mode)
		openBoth(t, k)
		must(t, k.Renew(in(time.Second)))
		wantAnswers(t, as, "leased")
		stop := askAll(as)
		defer stop()
		var end clock.Instant
		for range 10 {
			end = in(300 * time.Millisecond)
			must(t, k.Renew(end))
			time.Sleep(25 * time.Millisecond)
		}
		end = clock.Later(end, in(900*time.Millisecond))
		must(t, k.Renew(end))
		time.Sleep(1500 * time.Millisecond)
		wantLastBefore(t, as, end.Boot)
	})
}

// wantLastBefore checks that each asker's last answer came before end, and that
// it had been answered until shortly before: the test would see a late one.
func wantLastBefore(t *testing.T, as []*asker, end time.Duration) {
	t.Helper()
	for _, a := range as {
		last := time.Duration(a.last.Load())
		if after := last - end; after > slack || after < -250*time.Millisecond {
			t.Errorf("last answer to %s %v after the lease end", a.kind, after)
		}
	}
}

func TestKilledHolderFallsSilent(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l := newLab(t)
		dir := t.TempDir()
		l.host.echo(t)
		as := newAskers(t, l)
		h := l.host.startHolder(t, mode, dir)
		h.waitHolding(t)
		wantAnswers(t, as, "held by another process")
		stop := askAll(as)
		time.Sleep(200 * time.Millisecond)
		h.kill()
		end := time.Duration(h.end.Load())
		time.Sleep(800 * time.Millisecond)
		stop()
		// The process may have written one end it could not print.
		wantLastBefore(t, as, end+25*time.Millisecond)
		wantSilence(t, as, "after kill -9")

		l.host.addByHand(t, "eth0", "10.9.0.100/32", "fd09::100/128") // as if it had been refreshed late
		k := l.host.open(t, options(mode, dir))
		ours, err := k.Ours()
		must(t, err)
		if len(ours) != 2 {
			t.Fatalf("the killed holder's addresses: %v, want both", ours)
		}
		must(t, k.Renew(in(20*time.Second)))
		wantSilence(t, as, "leased again, but not opened")
		must(t, k.Prepare(bothVIPs))
		wantSilence(t, as, "prepared")
		openBoth(t, k)
		wantAnswers(t, as, "opened by the next incarnation")
		removed, err := k.RemoveOurs()
		must(t, err)
		if len(removed) != 2 {
			t.Errorf("removed %v, want both", removed)
		}
		wantSilence(t, as, "removed")
	})
}

func TestOlderIncarnationOpensNothing(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l := newLab(t)
		dir := t.TempDir()
		l.host.echo(t)
		as := newAskers(t, l)
		old := l.host.open(t, options(mode, dir))
		must(t, old.Prepare(bothVIPs))
		for _, a := range bothVIPs {
			must(t, old.Add(a))
		}
		old.cancel() // its loops stand still, as in a stopped process
		old.wg.Wait()
		k := l.host.open(t, options(mode, dir))
		must(t, k.Renew(in(20*time.Second)))
		for _, a := range bothVIPs {
			if err := old.Open(a); mode != "nft" && err != nil {
				t.Errorf("the older incarnation's own maps: %v", err)
			}
		}
		for range 5 {
			_ = old.Renew(in(20 * time.Second)) // the nftables tier reports that its chain is gone
			time.Sleep(10 * time.Millisecond)
		}
		wantSilence(t, as, "opened and renewed by the older incarnation only")
	})
}

func TestRenewGoesForwardOnly(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		_, k, as := hostWithVIPs(t, mode)
		openBoth(t, k)
		must(t, k.Renew(in(-time.Millisecond)))
		wantSilence(t, as, "a write that was delayed past its end")
		if err := k.Renew(in(2 * time.Minute)); !errors.Is(err, ErrTooFar) {
			t.Errorf("a lease of two minutes: %v", err)
		}
		wantSilence(t, as, "a lease too far ahead")
		must(t, k.Renew(in(20*time.Second)))
		must(t, k.Renew(in(20*time.Millisecond)))
		time.Sleep(60 * time.Millisecond)
		wantAnswers(t, as, "an older end after a newer one")
	})
}

// A host whose VIP is closed talks to the VIP's holder like any client.
func TestClosedHostIsAClientOfTheHolder(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l := newLab(t)
		l.host, l.peer = l.peer, l.host // the askers run where the guard is
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
				ad.Flags = unix.IFA_F_NODAD
				if err := netlink.AddrAdd(dev, ad); err != nil {
					return err
				}
			}
			return nil
		}))
		l.host.echo(t)
		k := l.peer.open(t, options(mode, t.TempDir()))
		must(t, k.Prepare(bothVIPs))
		for _, kind := range []string{"udp4", "udp6"} { // no neighbour entry is given: ARP and ND must work
			if a := newAsker(t, l.peer, kind); !a.answered(300) {
				t.Errorf("%s: the closed host cannot reach the holder", kind)
			}
		}
	})
}

// An announcement of the holder must reach the neighbour table of a host whose
// VIP is closed.
func TestClosedHostLearnsFromAnnouncements(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l := newLab(t)
		k := l.host.open(t, options(mode, t.TempDir()))
		must(t, k.Prepare(bothVIPs))
		stale := []byte{2, 9, 9, 9, 9, 9}
		var dev netlink.Link
		must(t, l.host.Do(func() (err error) {
			if dev, err = netlink.LinkByName("eth0"); err != nil {
				return err
			}
			return netlink.NeighSet(&netlink.Neigh{LinkIndex: dev.Attrs().Index, IP: vip4.Addr.AsSlice(), HardwareAddr: stale, State: netlink.NUD_STALE})
		}))
		f := packetSocket(t, l.peer, "eth0", unix.ETH_P_ARP)
		defer f.Close()
		// The kernel ignores a change within locktime (1 s) of the entry's last.
		for range 100 {
			for _, frame := range announcement(vip4.Addr, l.peer.mac, false) {
				_, err := f.Write(frame)
				must(t, err)
			}
			var mac string
			must(t, l.host.Do(func() error {
				ns, err := netlink.NeighList(dev.Attrs().Index, netlink.FAMILY_V4)
				for _, n := range ns {
					if n.IP.Equal(vip4.Addr.AsSlice()) {
						mac = n.HardwareAddr.String()
					}
				}
				return err
			}))
			if mac == l.peer.mac.String() {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Error("the announcement did not reach the neighbour table")
	})
}

// The reason for pins: a tcx link that is not pinned ends with its last file
// descriptor, and the address answers again.
func TestUnpinnedLinkDiesWithItsHolder(t *testing.T) {
	if modes()[0] != "tcx" {
		t.Skip("bpf() is refused in a user namespace; run as root for this one")
	}
	l := newLab(t)
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
			ad.Flags = unix.IFA_F_NODAD
			if err := netlink.AddrAdd(dev, ad); err != nil {
				return err
			}
		}
		return nil
	}))
	l.host.echo(t)
	as := newAskers(t, l)
	wantAnswers(t, as, "no guard")
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
	})
	must(t, err)
	defer p.Close()
	var ln link.Link
	must(t, l.host.Do(func() error {
		dev, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		ln, err = link.AttachTCX(link.TCXOptions{Interface: dev.Attrs().Index, Program: p, Attach: ebpf.AttachTCXIngress})
		return err
	}))
	wantSilence(t, as, "an unpinned link that drops everything")
	must(t, ln.Close()) // what the end of the process does
	wantAnswers(t, as, "the unpinned link's holder is gone: this is the trap")
}

func TestNewDeviceIsGuarded(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l, k, as := hostWithVIPs(t, mode)
		wire(t, l.host, l.peer, "eth1", 1)
		var index int
		must(t, l.host.Do(func() error {
			dev, err := netlink.LinkByName("eth1")
			if err == nil {
				index = dev.Attrs().Index
			}
			return err
		}))
		for i := 0; !k.guard.Attached(index); i++ {
			if i > 500 {
				t.Fatal("the new device was never guarded")
			}
			time.Sleep(10 * time.Millisecond)
		}
		openBoth(t, k)
		must(t, k.Renew(in(20*time.Second)))
		wantAnswers(t, as, "with a second device")
		// arp_ignore lets eth1 answer only for its own addresses, so put one there.
		other := Address{Addr: netip4("10.9.1.100"), Prefix: prefix("10.9.1.100/24"), Dev: "eth1"}
		must(t, k.Prepare(append([]Address{other}, bothVIPs...)))
		must(t, k.Add(other))
		c := packetSocket(t, l.peer, "eth1", unix.ETH_P_ARP)
		defer c.Close()
		heard := func() bool {
			_, err := c.Write(askARP([]byte{2, 9, 1, 0, 0, 2}, netip4("10.9.1.2"), other.Addr))
			must(t, err)
			must(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
			b := make([]byte, 2048)
			for {
				n, err := c.Read(b)
				if err != nil {
					return false
				}
				if n >= 42 && b[21] == arpReply {
					return true
				}
			}
		}
		if heard() {
			t.Error("a closed address on the new device was answered")
		}
		must(t, k.Open(other))
		answered := false
		for range 3 {
			answered = answered || heard()
		}
		if !answered {
			t.Error("an open address on the new device was not answered")
		}
	})
}

// problems collects what a Kernel reports.
type problems struct {
	mu   sync.Mutex
	seen map[string]string
}

func (p *problems) on(code, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen == nil {
		p.seen = map[string]string{}
	}
	if text != "" {
		p.seen[code] = text
	}
}

func (p *problems) text(code string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[code]
}

func TestGuardThatWasTakenAwayComesBack(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l := newLab(t)
		var p problems
		o := options(mode, t.TempDir())
		o.OnProblem = p.on
		k := l.host.open(t, o)
		must(t, k.Prepare(bothVIPs))
		for _, a := range bothVIPs {
			must(t, k.Add(a))
		}
		l.host.echo(t)
		as := newAskers(t, l)
		must(t, k.Open(vip4))
		must(t, k.Renew(in(30*time.Second)))
		takeAway(t, l.host, mode)
		for i := 0; p.text(ProblemDetached) == ""; i++ {
			if i > 500 {
				t.Fatal("nobody noticed")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if text := p.text(ProblemDetached); !strings.Contains(text, "eth0") {
			t.Errorf("the problem does not name the device: %s", text)
		}
		wantAnswers(t, []*asker{as[0], as[2]}, "put back: the open address")
		wantSilence(t, []*asker{as[1], as[3]}, "put back: the closed address")
	})
}

// takeAway does what a careless program or operator does.
func takeAway(t *testing.T, m *machine, mode string) {
	t.Helper()
	must(t, m.Do(func() error {
		dev, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		switch mode {
		case "tcx":
			for _, d := range []string{"/sys/fs/bpf/hanode/", "/run/hanode/bpf/hanode/"} {
				err := os.RemoveAll(d + itoa(m.Inode()))
				if err != nil && !errors.Is(err, os.ErrNotExist) {
					return err
				}
			}
			return nil
		case "clsact":
			return netlink.QdiscDel(&netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
				LinkIndex: dev.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
			}})
		}
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushRuleset()
		return c.Flush()
	}))
}

// A program that gets ahead of the guard could end the chain before it.
func TestGuardStaysFirst(t *testing.T) {
	if modes()[0] != "tcx" {
		t.Skip("bpf() is refused in a user namespace; run as root for this one")
	}
	l := newLab(t)
	var ps problems
	o := options("tcx", t.TempDir())
	o.OnProblem = ps.on
	k := l.host.open(t, o)
	must(t, k.Prepare(bothVIPs))
	for _, a := range bothVIPs {
		must(t, k.Add(a))
	}
	l.host.echo(t)
	as := newAskers(t, l)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{ // accepts everything, and so ends the chain
		Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	must(t, err)
	defer p.Close()
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		must(t, l.host.Do(func() error {
			dev, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			ln, err := link.AttachTCX(link.TCXOptions{Interface: dev.Attrs().Index, Program: p, Attach: at, Anchor: link.Head()})
			if err == nil {
				t.Cleanup(func() { ln.Close() })
			}
			return err
		}))
	}
	for i := 0; !strings.Contains(ps.text(ProblemDetached), "ahead"); i++ {
		if i > 500 {
			t.Fatal("nobody noticed:", ps.text(ProblemDetached))
		}
		time.Sleep(10 * time.Millisecond)
	}
	wantSilence(t, as, "first again")
}

// Each incarnation replaces the guard without a moment in which there is none.
func TestReplacingTheGuardLeavesNoGap(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l, k, as := hostWithVIPs(t, mode)
		l.host.addByHand(t, "eth0", "10.9.0.100/32", "fd09::100/128") // or they go by their lifetime on a slow machine
		stop := askAll(as)
		dir := k.opts.Dir
		for range 15 {
			k.release()
			k = l.host.open(t, options(mode, dir))
		}
		stop()
		for _, a := range as {
			if n := a.count.Load(); n > 0 {
				t.Errorf("%d answers to %s while the guard was replaced", n, a.kind)
			}
		}
		must(t, k.Prepare(bothVIPs))
		openBoth(t, k)
		must(t, k.Renew(in(20*time.Second)))
		wantAnswers(t, as, "the last incarnation")
	})
}

// A guard of another kind that an older incarnation left must not keep the
// address closed for ever.
func TestChangingTheKindOfGuard(t *testing.T) {
	if len(modes()) < 3 {
		t.Skip("one kind loads in a user namespace; run as root for this one")
	}
	l := newLab(t)
	dir := t.TempDir()
	l.host.echo(t)
	as := newAskers(t, l)
	for _, mode := range []string{"tcx", "nft", "tcx", "clsact", "nft", "clsact", "tcx"} {
		k := l.host.open(t, options(mode, dir))
		must(t, k.Prepare(bothVIPs))
		for _, a := range bothVIPs {
			must(t, k.Add(a))
		}
		wantSilence(t, as[:1], mode+" closed")
		openBoth(t, k)
		must(t, k.Renew(in(20*time.Second)))
		wantAnswers(t, as, mode+" open")
		k.release()
	}
}

// The whole of the nftables tier once more as an ordinary user's processes see
// it: in a user namespace, where bpf() is refused.
func TestInUserNamespace(t *testing.T) {
	if len(modes()) == 1 {
		return // this is it
	}
	if testing.Short() {
		t.Skip("not in short mode")
	}
	f, err := os.CreateTemp(t.TempDir(), "out")
	must(t, err)
	defer f.Close()
	code := inUserNamespace(f, "-test.v", "-test.timeout=5m", "-test.run",
		"^Test(TierWithoutBPF|Answers|LastAnswer|Killed|Older|Renew|Closed|NewDevice|GuardThat|Replacing|Add|Announce|GuardOn|Renamed|Device|Tagged)")
	b, err := os.ReadFile(f.Name())
	must(t, err)
	if code != 0 || !strings.Contains(string(b), "--- PASS: TestTierWithoutBPF") {
		t.Errorf("exit code %d:\n%s", code, b)
	}
}

func TestTierWithoutBPF(t *testing.T) {
	if len(modes()) > 1 {
		return // TestInUserNamespace runs it where it means something
	}
	l := newLab(t)
	k := l.host.open(t, Options{Dir: t.TempDir()})
	if k.Tier() != TierNftables || !strings.Contains(k.Why(), "ebpf") || k.Tier().Extra() != 5*time.Millisecond {
		t.Errorf("tier %v, why %q, extra %v", k.Tier(), k.Why(), k.Tier().Extra())
	}
}

// TierNone guards nothing, and what an older guard left must not mute it.
func TestTierNone(t *testing.T) {
	mode := modes()[0]
	l, k, as := hostWithVIPs(t, mode)
	wantSilence(t, as, "guarded and closed")
	k.release()
	var none Kernel
	must(t, l.host.Do(func() (err error) {
		none, err = Open(Options{Dir: k.opts.Dir, Force: TierNone})
		return err
	}))
	defer none.(*host).release()
	must(t, none.Prepare(bothVIPs))
	must(t, none.Renew(in(30*time.Second)))
	for _, a := range bothVIPs { // they may be gone by their lifetime on a busy machine
		must(t, none.Add(a))
	}
	wantAnswers(t, as, "unguarded")
	if none.Tier().Extra() != Forever {
		t.Errorf("tier none adds %v", none.Tier().Extra())
	}
	must(t, none.Shutdown())
	wantSilence(t, as, "after Shutdown the addresses are off")
}

func BenchmarkRenew(b *testing.B) {
	for _, mode := range modes() {
		b.Run(mode, func(b *testing.B) {
			k := newMachine(b).open(b, options(mode, b.TempDir()))
			end := in(time.Second)
			for b.Loop() {
				end.Boot++
				if err := k.Renew(end); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// ahead is a clock whose wall time is ahead of the kernel's: to the guard it
// looks as if the wall clock had been stepped back since the lease was written.
type ahead struct {
	clock.Clock
	by time.Duration
}

func (a ahead) Wall() time.Time { return a.Clock.Wall().Add(a.by) }

func TestNftClosesWhenTheWallClockStepsBack(t *testing.T) {
	l := newLab(t)
	o := options("nft", t.TempDir())
	o.Clock = ahead{sys, 10 * time.Second}
	k := l.host.open(t, o)
	must(t, k.Prepare(bothVIPs))
	for _, a := range bothVIPs {
		must(t, k.Add(a))
		must(t, k.Open(a))
	}
	l.host.echo(t)
	as := newAskers(t, l)
	must(t, k.Renew(in(40*time.Second)))
	wantSilence(t, as, "a lease from the future")
}
