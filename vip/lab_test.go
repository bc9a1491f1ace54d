package vip

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"hanode/internal/clock"
	"hanode/vip/internal/nsthread"
)

const (
	envTiers = "HANODE_VIP_TEST_TIERS" // comma-separated modes; set in the user namespace
	envHold  = "HANODE_VIP_TEST_HOLD"  // mode: this process is a holder that will be killed
	envDir   = "HANODE_VIP_TEST_DIR"
)

// TestMain also plays the holder, and starts itself again in a user namespace
// when it is not root: there the nftables tier is tested and no other loads.
func TestMain(m *testing.M) {
	switch mode := os.Getenv(envHold); mode {
	case "":
	case unshared:
		holdUnshared()
		return
	default:
		hold(mode, os.Getenv(envDir))
		return
	}
	switch {
	case os.Getenv(envTiers) != "": // this is one of the two below
	case os.Getuid() != 0:
		os.Exit(inUserNamespace(os.Stdout, os.Args[1:]...))
	default:
		os.Exit(withBPFFS(os.Args[1:]...))
	}
	os.Exit(m.Run())
}

// withBPFFS runs this test binary in a mount namespace of its own that has a
// bpffs where a booted system has one, so that tests and the holders they start
// find it and leave nothing behind.
func withBPFFS(args ...string) int {
	const mount = "mount --make-rprivate / && mount -t bpf bpf /sys/fs/bpf && exec \"$0\" \"$@\""
	self, err := os.Executable()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", mount, self}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envTiers+"=tcx,clsact,nft")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		fmt.Println("in a mount namespace:", err)
		return 1
	}
	return 0
}

// inUserNamespace runs this test binary as root of its own user, network and
// mount namespaces, on the tier that loads there.
func inUserNamespace(out *os.File, args ...string) int {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), envTiers+"=nft") // the last of a name counts
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(out, "in a user namespace:", err)
		return 1
	}
	return 0
}

// modes are the kinds of guard that this process can test.
func modes() []string { return strings.Split(os.Getenv(envTiers), ",") }

func eachMode(t *testing.T, fn func(t *testing.T, mode string)) {
	for _, mode := range modes() {
		t.Run(mode, func(t *testing.T) { fn(t, mode) })
	}
}

func options(mode, dir string) Options {
	o := Options{Dir: dir, Force: TierEBPF, clsact: mode == "clsact"}
	if mode == "nft" {
		o.Force = TierNftables
	}
	return o
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// machine is a host made of a network namespace, with eth0.
type machine struct {
	*nsthread.Thread
	ns  netns.NsHandle
	mac net.HardwareAddr
}

var (
	hostIP4  = netip.MustParseAddr("10.9.0.1")
	peerIP4  = netip.MustParsePrefix("10.9.0.2/24")
	peerIP6  = netip.MustParsePrefix("fd09::2/64")
	vip4     = Address{Addr: netip.MustParseAddr("10.9.0.100"), Prefix: netip.MustParsePrefix("10.9.0.100/24")}
	vip6     = Address{Addr: netip.MustParseAddr("fd09::100"), Prefix: netip.MustParsePrefix("fd09::100/64")}
	bothVIPs = []Address{vip4, vip6}
)

func newMachine(t testing.TB) *machine {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	must(t, err)
	defer here.Close()
	m := &machine{}
	m.ns, err = netns.New()
	must(t, err)
	m.Thread, err = nsthread.New()
	if err2 := netns.Set(here); err2 != nil {
		panic(err2) // the thread would run other tests in the wrong namespace
	}
	must(t, err)
	t.Cleanup(func() {
		m.Close()
		m.ns.Close()
	})
	must(t, m.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	}))
	return m
}

// wire joins two machines by a pair of devices and gives each its addresses.
func wire(t *testing.T, a, b *machine, dev string, net byte) {
	t.Helper()
	macs := [2]net6{{2, 9, net, 0, 0, 1}, {2, 9, net, 0, 0, 2}}
	must(t, a.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: dev, HardwareAddr: macs[0][:]},
			PeerName:  dev, PeerHardwareAddr: macs[1][:], PeerNamespace: netlink.NsFd(b.ns),
		})
	}))
	for i, m := range []*machine{a, b} {
		if dev == "eth0" {
			m.mac = macs[i][:]
		}
		must(t, m.Do(func() error {
			l, err := netlink.LinkByName(dev)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(l); err != nil {
				return err
			}
			for _, p := range []string{fmt.Sprintf("10.9.%d.%d/24", net, i+1), fmt.Sprintf("fd09:%x::%d/64", net, i+1)} {
				p = strings.Replace(p, "fd09:0::", "fd09::", 1)
				ad, err := netlink.ParseAddr(p)
				if err != nil {
					return err
				}
				ad.Flags = unix.IFA_F_NODAD
				if err := netlink.AddrAdd(l, ad); err != nil {
					return err
				}
			}
			return nil
		}))
	}
}

type net6 [6]byte

// lab is a host under test and a peer that asks it.
type lab struct{ host, peer *machine }

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{newMachine(t), newMachine(t)}
	wire(t, l.host, l.peer, "eth0", 0)
	return l
}

// knowHost tells the peer for good which MAC the VIPs have, so that IP is asked
// whatever ARP says.
func (l *lab) knowHost(t *testing.T) {
	t.Helper()
	must(t, l.peer.Do(func() error {
		dev, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		for _, a := range bothVIPs {
			err := netlink.NeighSet(&netlink.Neigh{
				LinkIndex: dev.Attrs().Index, IP: a.Addr.AsSlice(), HardwareAddr: l.host.mac, State: netlink.NUD_PERMANENT,
			})
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

// echo answers UDP on port 7000 of the VIPs, wherever they are.
func (m *machine) echo(t *testing.T) {
	t.Helper()
	for _, a := range bothVIPs {
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			ctl := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) })
			return errors.Join(ctl, err)
		}}
		var pc net.PacketConn
		must(t, m.Do(func() (err error) {
			pc, err = lc.ListenPacket(context.Background(), "udp", netip.AddrPortFrom(a.Addr, 7000).String())
			return err
		}))
		var wg sync.WaitGroup
		wg.Go(func() {
			b := make([]byte, 64)
			for {
				n, from, err := pc.ReadFrom(b)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					_, _ = pc.WriteTo(b[:n], from) // a muted answer is what the test looks for
				}
			}
		})
		t.Cleanup(func() {
			pc.Close()
			wg.Wait()
		})
	}
}

// kinds ask for the VIPs; there is "own" beside them, ARP for the host's own address.
var kinds = []string{"arp", "ns", "udp4", "udp6"}

// asker asks one kind of question and notes when answers came, in boot time.
type asker struct {
	kind    string
	ask     func() error
	listen  func([]byte) (int, error)
	isReply func([]byte) bool
	close   func()
	last    atomic.Int64
	count   atomic.Int64
	wg      sync.WaitGroup
}

// sys is the host's clock.
var sys = func() clock.Clock {
	c, err := clock.System()
	if err != nil {
		panic(err)
	}
	return c
}()

func boot() time.Duration { return sys.Now().Boot }

func newAsker(t *testing.T, m *machine, kind string) *asker {
	t.Helper()
	a := &asker{kind: kind}
	switch kind {
	case "arp", "ns", "own":
		a.raw(t, m)
	default:
		a.udp(t, m)
	}
	a.wg.Go(func() {
		b := make([]byte, 2048)
		for {
			n, err := a.listen(b)
			now := boot()
			if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
				return
			}
			if err == nil && a.isReply(b[:n]) {
				a.last.Store(int64(now))
				a.count.Add(1)
			}
		}
	})
	t.Cleanup(func() {
		a.close()
		a.wg.Wait()
	})
	return a
}

func (a *asker) raw(t *testing.T, m *machine) {
	t.Helper()
	me, ip4, ip6 := m.mac, peerIP4.Addr(), peerIP6.Addr()
	of := vip4.Addr
	if a.kind == "own" {
		of = hostIP4
	}
	question := askARP(me, ip4, of)
	proto := uint16(unix.ETH_P_ARP)
	a.isReply = func(b []byte) bool {
		return len(b) >= 42 && b[21] == arpReply && netip.AddrFrom4([4]byte(b[28:32])) == of && string(b[:6]) == string(me)
	}
	if a.kind == "ns" {
		question, proto = askNS(me, ip6, vip6.Addr), unix.ETH_P_IPV6
		a.isReply = func(b []byte) bool {
			return len(b) >= 78 && b[54] == naType && netip.AddrFrom16([16]byte(b[62:78])) == vip6.Addr && string(b[:6]) == string(me)
		}
	}
	f := packetSocket(t, m, "eth0", proto)
	a.ask = func() error { _, err := f.Write(question); return err }
	a.listen = f.Read
	a.close = func() { f.Close() }
}

func (a *asker) udp(t *testing.T, m *machine) {
	t.Helper()
	to := vip4.Addr
	if a.kind == "udp6" {
		to = vip6.Addr
	}
	var c net.Conn
	must(t, m.Do(func() (err error) {
		c, err = net.Dial("udp", netip.AddrPortFrom(to, 7000).String())
		return err
	}))
	a.isReply = func([]byte) bool { return true }
	a.ask = func() error { _, err := c.Write([]byte("?")); return err }
	a.listen = c.Read
	a.close = func() { c.Close() }
}

// packetSocket is a raw socket on a device, as a pollable file.
func packetSocket(t *testing.T, m *machine, dev string, proto uint16) *os.File {
	t.Helper()
	var fd int
	must(t, m.Do(func() error {
		ifi, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		be := proto<<8 | proto>>8
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(be)); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: be, Ifindex: ifi.Index})
	}))
	return os.NewFile(uintptr(fd), "packet")
}

// answered asks up to n times, 10 ms apart, until an answer comes.
func (a *asker) answered(n int) bool {
	before := a.count.Load()
	for range n {
		_ = a.ask() // a refusal by ICMP is no answer
		for range 10 {
			time.Sleep(time.Millisecond)
			if a.count.Load() > before {
				return true
			}
		}
	}
	return false
}

func newAskers(t *testing.T, l *lab) []*asker {
	t.Helper()
	l.knowHost(t)
	var out []*asker
	for _, k := range kinds {
		out = append(out, newAsker(t, l.peer, k))
	}
	return out
}

func wantAnswers(t *testing.T, as []*asker, when string) {
	t.Helper()
	for _, a := range as {
		if !a.answered(100) {
			t.Errorf("%s: no answer to %s", when, a.kind)
		}
	}
}

func wantSilence(t *testing.T, as []*asker, when string) {
	t.Helper()
	for _, a := range as {
		if a.answered(8) {
			t.Errorf("%s: %s was answered", when, a.kind)
		}
	}
}

// askAll asks every millisecond until stop.
func askAll(as []*asker) (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(time.Millisecond):
				for _, a := range as {
					_ = a.ask()
				}
			}
		}
	})
	return func() {
		close(quit)
		wg.Wait()
	}
}

// open opens a Kernel on a machine; one that still runs is let go at the end as
// if its process had died.
func (m *machine) open(t testing.TB, o Options) *host {
	t.Helper()
	if testing.Verbose() {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	var k Kernel
	must(t, m.Do(func() (err error) {
		k, err = Open(o)
		return err
	}))
	h := k.(*host)
	t.Cleanup(h.release)
	want := "tcx"
	switch {
	case o.clsact:
		want = "clsact"
	case o.Force != TierEBPF:
		want = "nftables"
	}
	if got := h.guard.Kind(); got != want {
		t.Fatalf("the guard works by %s, want %s", got, want)
	}
	return h
}

func in(d time.Duration) clock.Instant { return sys.Now().Add(d) }

// hold is the holder of another process: it answers for both VIPs, renewing a
// lease of 300 ms each 25 ms, and prints every end once it has written it. It
// never ends by itself.
func hold(mode, dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println("fail", err)
			os.Exit(1)
		}
	}
	k, err := Open(options(mode, dir))
	fail(err)
	fail(k.Prepare(bothVIPs))
	for _, a := range bothVIPs {
		fail(k.Add(a))
		fail(k.Open(a))
	}
	for {
		end := in(300 * time.Millisecond)
		fail(k.Renew(end))
		fmt.Println("end", int64(end.Boot))
		time.Sleep(25 * time.Millisecond)
	}
}

// holder is such a process.
type holder struct {
	cmd *exec.Cmd
	end atomic.Int64 // the newest lease end, boot time
	bad atomic.Pointer[string]
	wg  sync.WaitGroup
}

func (m *machine) startHolder(t *testing.T, mode, dir string) *holder {
	t.Helper()
	return m.startHolderBy(t, mode, dir)
}

// startHolderBy starts it by another command, which becomes its parent.
func (m *machine) startHolderBy(t *testing.T, mode, dir string, by ...string) *holder {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	args := append(by, self)
	h := &holder{cmd: exec.Command(args[0], args[1:]...)}
	h.cmd.Env = append(os.Environ(), envHold+"="+mode, envDir+"="+dir)
	out, err := h.cmd.StdoutPipe()
	must(t, err)
	must(t, m.Do(h.cmd.Start)) // it inherits the thread's namespace
	h.wg.Go(func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			word, rest, _ := strings.Cut(s.Text(), " ")
			if n, err := strconv.ParseInt(rest, 10, 64); word == "end" && err == nil {
				h.end.Store(n)
			} else {
				text := s.Text()
				h.bad.Store(&text)
			}
		}
	})
	t.Cleanup(h.kill)
	return h
}

// waitHolding returns once it has written its first lease.
func (h *holder) waitHolding(t *testing.T) {
	t.Helper()
	for i := 0; h.end.Load() == 0 && h.bad.Load() == nil && i < 1000; i++ {
		time.Sleep(10 * time.Millisecond)
	}
	if b := h.bad.Load(); b != nil {
		t.Fatal(*b)
	}
	if h.end.Load() == 0 {
		t.Fatal("the holder does not start")
	}
}

// kill is kill -9; once it returns the process is gone.
func (h *holder) kill() {
	_ = h.cmd.Process.Kill() // gone already: fine
	h.wg.Wait()
	_ = h.cmd.Wait()
}

func askARP(me net.HardwareAddr, from, to netip.Addr) []byte {
	b := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, me...)
	b = append(b, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, arpRequest)
	b = append(append(b, me...), from.AsSlice()...)
	return append(append(b, 0, 0, 0, 0, 0, 0), to.AsSlice()...)
}

func askNS(me net.HardwareAddr, from, to netip.Addr) []byte {
	t16 := to.As16()
	group := netip.MustParseAddr("ff02::1:ff00:0").As16()
	copy(group[13:], t16[13:])
	icmp := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, t16[:]...)
	icmp = append(append(icmp, 1, 1), me...)
	binary.BigEndian.PutUint16(icmp[2:], checksum6(from.As16(), group, icmp))
	b := append([]byte{0x33, 0x33, 0xff, t16[13], t16[14], t16[15]}, me...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(icmp)), unix.IPPROTO_ICMPV6, 255)
	b = append(append(b, from.AsSlice()...), group[:]...)
	return append(b, icmp...)
}
