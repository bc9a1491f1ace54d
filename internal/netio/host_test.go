package netio

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"hanode/internal/netlab"
)

func TestMain(m *testing.M) {
	if os.Getenv(hostRole) != "" {
		runRole()
		return
	}
	if netlab.Isolated() { // not the machine's own lo, which is up
		if err := device([]string{"up", "lo"}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(netlab.Main(m))
}

func lo(t *testing.T) Network {
	t.Helper()
	h, err := Host([]string{"lo"})
	if err != nil {
		t.Fatal(err)
	}
	if a := h.Links()[0].Addr; a != netip.MustParseAddr("127.0.0.1") {
		t.Skip("lo has no address here: ", a)
	}
	return h
}

func TestHostRefusesNames(t *testing.T) {
	for _, bad := range [][]string{nil, {""}, {"eth0", "eth0"}, {"a-name-that-is-too-long"}} {
		if _, err := Host(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	h := lo(t)
	if _, err := h.ListenPacket("eth9", 0); err == nil || !strings.Contains(err.Error(), "eth9") {
		t.Error("packets on a link that was not given:", err)
	}
	if _, err := h.Dial(t.Context(), "eth9", netip.MustParseAddrPort("127.0.0.1:1")); err == nil {
		t.Error("dial through a link that was not given")
	}
}

// udp opens a socket on lo and returns where it is.
func udp(t *testing.T, h Network) (udpConn, netip.AddrPort) {
	t.Helper()
	c, err := h.ListenPacket("lo", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	u := c.(udpConn)
	u.u.SetDeadline(time.Now().Add(10 * time.Second))
	port := u.u.LocalAddr().(*net.UDPAddr).Port
	return u, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))
}

func TestPacketsOnLo(t *testing.T) {
	h := lo(t)
	a, from := udp(t, h)
	b, to := udp(t, h)
	buf := make([]byte, 100)
	hello := []byte("hello")
	exchange := func() {
		if err := a.WriteTo(hello, to); err != nil {
			t.Fatal(err)
		}
		if k, src, err := b.ReadFrom(buf); err != nil || string(buf[:k]) != "hello" || src != from {
			t.Fatal(string(buf[:k]), src, err)
		}
	}
	if n := testing.AllocsPerRun(100, exchange); n != 0 {
		t.Error(n, "allocations per datagram")
	}
	raw, err := b.u.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if dev, err := unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE); err != nil || dev != "lo" {
			t.Errorf("bound to %q: %v", dev, err)
		}
		if n, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF); os.Geteuid() == 0 && n < receiveBuffer {
			t.Errorf("receive buffer of %d bytes", n)
		}
	})
	if _, err := h.ListenPacket("lo", int(to.Port())); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprintf("UDP port %d on lo is taken", to.Port())) {
		t.Error("taken port:", err)
	}
	b.Close()
	if _, _, err := b.ReadFrom(buf); !errors.Is(err, net.ErrClosed) {
		t.Error("read after close:", err)
	}
}

func TestStreamsOnLo(t *testing.T) {
	h := lo(t)
	l, err := h.Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if _, err := h.Listen(port); !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "ss -lnp") {
		t.Error("taken port:", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := h.Dial(ctx, "lo", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s.Write([]byte("hello"))
	s.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Error(string(got), err)
	}
	ended := make(chan error)
	go func() { _, err := l.Accept(); ended <- err }()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error("Accept after close:", err)
	}
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		t.Error("second close:", err)
	}
	if _, err := h.Dial(ctx, "lo", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))); !errors.Is(err, unix.ECONNREFUSED) {
		t.Error("dial after close:", err)
	}
	l, err = h.Listen(port) // the port is free again at once
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestMissingDevices(t *testing.T) {
	h, err := Host([]string{"hanode-none"})
	if err != nil {
		t.Fatal(err)
	}
	if l := h.Links(); len(l) != 1 || l[0].Name != "hanode-none" || l[0].Addr.IsValid() {
		t.Error("links", l)
	}
	if _, err := h.Listen(0); !errors.Is(err, unix.ENODEV) {
		t.Error("listen on nothing:", err)
	}
	if _, err := h.ListenPacket("hanode-none", 0); !errors.Is(err, unix.ENODEV) {
		t.Error("packets on nothing:", err)
	}
}

// Where the kernel refuses to bind to the device, the address is bound. It
// refuses a second bind of a socket without CAP_NET_RAW.
func TestFallbackToTheAddress(t *testing.T) {
	lo(t)
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread without the capability ends here
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&hdr, &data[0]); err != nil {
			ended <- err
			return
		}
		data[0].Effective &^= 1<<unix.CAP_NET_RAW | 1<<unix.CAP_NET_ADMIN
		if err := unix.Capset(&hdr, &data[0]); err != nil {
			ended <- err
			return
		}
		ended <- bound("lo", func(control controller, at netip.Addr) error {
			lc := net.ListenConfig{}
			if control != nil {
				lc.Control = func(n, a string, c syscall.RawConn) error {
					c.Control(func(fd uintptr) { unix.BindToDevice(int(fd), "lo") })
					return control(n, a, c)
				}
			}
			c, err := lc.ListenPacket(context.Background(), "udp4", local(at, 0))
			if err != nil {
				return err
			}
			defer c.Close()
			if got := c.LocalAddr().(*net.UDPAddr).IP.String(); got != "127.0.0.1" {
				return errors.New("bound to " + got)
			}
			return nil
		})
	}()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestTwoHosts runs itself again as two hosts, each in a network namespace of
// its own, with two wires between them.
func TestTwoHosts(t *testing.T) {
	a, b := startHost(t), startHost(t)
	a.say("up lo", "")
	wire := func(i int) {
		a.say(fmt.Sprintf("wire a%d b%d %d", i, i, b.cmd.Process.Pid), "")
		for _, s := range []struct {
			h    *hostProcess
			name string
			last int
		}{{a, "a", 1}, {b, "b", 2}} {
			s.h.say(fmt.Sprintf("addr %s%d 10.77.%d.%d/24", s.name, i, i, s.last), "")
			s.h.say(fmt.Sprintf("up %s%d", s.name, i), "")
		}
	}
	wire(0)
	b.say("addr b0 10.88.0.1/32", "")
	b.say("links b0 b1", "b0=10.77.0.2 b1=invalid IP")
	a.say("links a0 a1", "a0=10.77.0.1 a1=invalid IP")
	b.say("listen 7000", "")
	b.say("packets b0 7000", "")
	a.say("packets a0 7000", "")
	a.say("send 10.77.0.2:7000 one", "")
	b.say("receive", "10.77.0.1:7000 one")
	a.say("dial a0 10.77.0.2:7000", "10.77.0.1 -> 10.77.0.2")
	b.say("up lo", "")
	b.say("dial b0 10.77.0.2:7000", "10.77.0.2 -> 10.77.0.2")

	// The second device appears later; the first one is made anew.
	wire(1)
	a.say("dial a1 10.77.1.2:7000", "10.77.1.1 -> 10.77.1.2")
	a.say("del a0", "")
	wire(0)
	a.say("dial a0 10.77.0.2:7000", "10.77.0.1 -> 10.77.0.2")

	// What comes in on the other device is not for this link's socket.
	b.say("packets b1 7000", "")
	a.say("packets a0 7000", "")
	a.say("send 10.77.0.2:7000 wrong link", "")
	a.say("packets a1 7000", "")
	a.say("send 10.77.1.2:7000 right link", "")
	b.say("receive", "10.77.1.1:7000 right link")
}

// hostProcess is this test binary, run again in a network namespace.
type hostProcess struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Scanner
}

const hostRole = "HANODE_NETIO_TEST_HOST"

func startHost(t *testing.T) *hostProcess {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), hostRole+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // the child dies with this thread
	t.Cleanup(runtime.UnlockOSThread)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	return &hostProcess{t: t, cmd: cmd, in: in, out: bufio.NewScanner(out)}
}

// say gives one order and compares the answer.
func (p *hostProcess) say(order, want string) {
	p.t.Helper()
	fmt.Fprintln(p.in, order)
	if !p.out.Scan() {
		p.t.Fatalf("%s: the host ended: %v", order, p.out.Err())
	}
	if got := p.out.Text(); got != want {
		p.t.Fatalf("%s: %q, want %q", order, got, want)
	}
}

// runRole is the other side of hostProcess, until its input ends.
func runRole() {
	r := &role{}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		answer, err := r.do(strings.Fields(in.Text()))
		if err != nil {
			answer = "error: " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(answer)
	}
}

type role struct{ sock udpConn }

func (r *role) do(order []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	switch order[0] {
	case "wire", "addr", "up", "del":
		return "", device(order)
	case "links":
		h, err := Host(order[1:])
		if err != nil {
			return "", err
		}
		var out []string
		for _, l := range h.Links() {
			out = append(out, fmt.Sprintf("%s=%s", l.Name, l.Addr))
		}
		return strings.Join(out, " "), nil
	case "listen":
		h, err := Host([]string{"b0", "b1"})
		if err != nil {
			return "", err
		}
		l, err := h.Listen(7000)
		if err != nil {
			return "", err
		}
		go answer(l)
		return "", nil
	case "dial":
		// A listener that waits for its device is there within deviceCheck.
		for {
			got, err := dialOnce(ctx, order[1], netip.MustParseAddrPort(order[2]))
			if err == nil || ctx.Err() != nil {
				return got, err
			}
			time.Sleep(100 * time.Millisecond)
		}
	case "packets":
		h, err := Host(order[1:2])
		if err != nil {
			return "", err
		}
		if r.sock.u != nil {
			r.sock.Close()
		}
		c, err := h.ListenPacket(order[1], 7000)
		if err != nil {
			return "", err
		}
		r.sock = c.(udpConn)
		return "", nil
	case "send":
		return "", r.sock.WriteTo([]byte(strings.Join(order[2:], " ")), netip.MustParseAddrPort(order[1]))
	case "receive":
		r.sock.u.SetReadDeadline(time.Now().Add(20 * time.Second))
		buf := make([]byte, 100)
		k, from, err := r.sock.ReadFrom(buf)
		return fmt.Sprintf("%s %s", from, buf[:k]), err
	}
	return "", nil
}

// device changes this host's devices.
func device(order []string) error {
	if order[0] == "wire" {
		pid, err := strconv.Atoi(order[3])
		if err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = order[1]
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: order[2], PeerNamespace: netlink.NsPid(pid)})
	}
	dev, err := netlink.LinkByName(order[1])
	if err != nil {
		return err
	}
	switch order[0] {
	case "addr":
		addr, err := netlink.ParseAddr(order[2])
		if err != nil {
			return err
		}
		return netlink.AddrAdd(dev, addr)
	case "up":
		return netlink.LinkSetUp(dev)
	}
	return netlink.LinkDel(dev)
}

// answer tells each caller who it is and whom it reached.
func answer(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		from := c.RemoteAddr().(*net.TCPAddr).IP
		fmt.Fprintf(c, "%s -> %s", from, c.LocalAddr().(*net.TCPAddr).IP)
		c.Close()
	}
}

func dialOnce(ctx context.Context, link string, to netip.AddrPort) (string, error) {
	h, err := Host([]string{link})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := h.Dial(ctx, link, to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(time.Second))
	got, err := io.ReadAll(c)
	return string(got), err
}
