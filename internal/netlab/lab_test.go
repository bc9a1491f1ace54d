package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if os.Getenv("NETLAB_TEST_REEXEC") != "" && os.Getenv(stageEnv) != stageInside {
		reexec := ReexecUnprivileged // a new user namespace even for root
		if os.Getenv("NETLAB_TEST_REEXEC") == "any" {
			reexec = Reexec
		}
		code, err := reexec(os.Args[1:], nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}
	os.Exit(Main(m))
}

func newLab(t *testing.T) *Lab {
	t.Helper()
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func must[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inbox is a UDP socket on a host's device.
type inbox struct {
	t    *testing.T
	conn net.PacketConn
	addr netip.AddrPort
}

func openInbox(t *testing.T, h *Host, dev string) *inbox {
	t.Helper()
	in := &inbox{t: t, addr: netip.AddrPortFrom(h.Addr(dev), 7000)}
	check(t, h.Do(func() (err error) {
		in.conn, err = net.ListenPacket("udp4", in.addr.String())
		return err
	}))
	t.Cleanup(func() { in.conn.Close() })
	return in
}

// send sends count datagrams to another inbox and returns how many arrive.
func (in *inbox) send(to *inbox, count int) int {
	in.t.Helper()
	id := fmt.Sprint(in.addr, time.Now().UnixNano())
	for range count {
		// A host whose cable is cut may refuse to send: nothing arrives then.
		_, _ = in.conn.WriteTo([]byte(id), net.UDPAddrFromAddrPort(to.addr))
	}
	got, buf := 0, make([]byte, 200)
	check(in.t, to.conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	for got < count {
		n, _, err := to.conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		check(in.t, err)
		if string(buf[:n]) == id {
			got++
		}
	}
	return got
}

func (in *inbox) expect(to *inbox, hears bool) {
	in.t.Helper()
	want := 0
	if hears {
		want = 1
	}
	if got := in.send(to, 1); got != want {
		in.t.Fatalf("%s -> %s: %d of 1 arrived, want %d", in.addr, to.addr, got, want)
	}
}

func TestHostsAreWiredToBothSwitchesAndClientsToOne(t *testing.T) {
	l := newLab(t)
	a, b := must2(l.AddHost("a", 1))(t), must2(l.AddHost("b", 2))(t)
	c := must2(l.AddClient("client", 9))(t)
	if got := a.MAC("eth1").String(); got != "02:fe:00:00:01:01" {
		t.Errorf("MAC of a eth1 is %s", got)
	}
	if got := c.MAC("eth0").String(); got != "02:fe:00:00:02:09" {
		t.Errorf("MAC of the client is %s", got)
	}
	if c.Addr("eth0") != netip.MustParseAddr("10.77.0.9") || c.Addr("eth1").IsValid() {
		t.Errorf("client has %v and %v", c.Addr("eth0"), c.Addr("eth1"))
	}
	openInbox(t, a, "eth0").expect(openInbox(t, b, "eth0"), true)
	openInbox(t, a, "eth1").expect(openInbox(t, c, "eth0"), true)
	err := a.Do(func() error {
		ifi, err := net.InterfaceByName("eth1")
		if err == nil && ifi.HardwareAddr.String() != a.MAC("eth1").String() {
			err = fmt.Errorf("eth1 has %s", ifi.HardwareAddr)
		}
		return err
	})
	check(t, err)
}

func must2[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T { t.Helper(); return must(t, v, err) }
}

func TestAddHostRefusesWhatCannotBe(t *testing.T) {
	l := newLab(t)
	must2(l.AddHost("a", 1))(t)
	for _, c := range []struct {
		name string
		n    int
	}{{"", 2}, {"b", 0}, {"b", 255}, {"a", 2}, {"b", 1}} {
		if _, err := l.AddHost(c.name, c.n); err == nil {
			t.Errorf("host %q with number %d was added", c.name, c.n)
		}
	}
	check(t, l.Close())
	if _, err := l.AddHost("late", 9); err == nil {
		t.Error("a host was added to a closed lab")
	}
}

func TestCablesCutsPartitionsAndLoss(t *testing.T) {
	l := newLab(t)
	a, b, c := must2(l.AddHost("a", 1))(t), must2(l.AddHost("b", 2))(t), must2(l.AddClient("c", 9))(t)
	ai, bi := openInbox(t, a, "eth0"), openInbox(t, b, "eth0")
	ae, be, ce := openInbox(t, a, "eth1"), openInbox(t, b, "eth1"), openInbox(t, c, "eth0")

	check(t, a.CutLink("eth0"))
	ai.expect(bi, false)
	ae.expect(be, true)
	check(t, a.HealLink("eth0"))
	// The failed send left an ARP entry in doubt: it is asked for again.
	waitFor(t, "the link carries", func() bool { return ai.send(bi, 1) == 1 })

	check(t, a.CutOneWay("eth1", DropIn))
	// ARP entries are there already, so only the direction decides.
	be.expect(ae, false)
	ae.expect(be, true)
	check(t, a.CutOneWay("eth1", DropOut))
	be.expect(ae, true)
	ae.expect(be, false)
	check(t, a.Heal())
	be.expect(ae, true)

	check(t, l.Partition([]*Host{a}, []*Host{b}))
	ai.expect(bi, false)
	be.expect(ae, false)
	ae.expect(ce, true)
	ce.expect(be, true)
	check(t, l.PartitionOn(Ext))
	be.expect(ae, true)
	bi.expect(ai, false)
	check(t, l.HealAll())
	bi.expect(ai, true)

	check(t, a.Loss("eth0", 20))
	got := 0
	for range 10 { // a socket's buffer holds some 250 datagrams
		got += bi.send(ai, 200)
	}
	if got < 1400 || got > 1800 {
		t.Errorf("%d of 2000 arrived with 20 %% loss", got)
	}
	check(t, l.HealAll())
	if got := bi.send(ai, 100); got != 100 {
		t.Errorf("%d of 100 arrived after the heal", got)
	}
}

func TestFaultsRefuseWhatCannotBe(t *testing.T) {
	l := newLab(t)
	a := must2(l.AddHost("a", 1))(t)
	for name, err := range map[string]error{
		"no device":   a.CutLink("eth7"),
		"direction 0": a.CutOneWay("eth0", 0),
		"direction 4": a.CutOneWay("eth0", 4),
		"loss 101":    a.Loss("eth0", 101),
		"two groups":  l.Partition([]*Host{a}, []*Host{a}),
		"no switch":   l.PartitionOn("dmz"),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestProcessesRunInTheirHostAndAloneGetTheSignal(t *testing.T) {
	l := newLab(t)
	a := must2(l.AddHost("a", 1))(t)
	var out strings.Builder
	cmd := exec.Command("cat", "/proc/net/dev")
	cmd.Stdout = &out
	check(t, must2(a.Start(cmd))(t).Wait())
	if !strings.Contains(out.String(), "eth1") || strings.Contains(out.String(), "br0") {
		t.Errorf("the process sees %q", out.String())
	}

	p := must2(a.Start(exec.Command("sleep", "1000")))(t)
	check(t, p.Stop())
	waitFor(t, "the process stops", func() bool { return state(p.Pid) == "T" })
	check(t, p.Cont())
	waitFor(t, "the process goes on", func() bool { return state(p.Pid) == "S" })
	check(t, p.Kill())
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the killed process ended with %v", err)
	}
	check(t, p.Kill()) // dead already: still success
	if _, err := a.Start(exec.Command("/no/such/program")); err == nil {
		t.Error("a program that does not exist was started")
	}
}

func state(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return fields[0]
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestPowerCutKillsDaemonsAndPowerOnLeavesNothingBehind(t *testing.T) {
	l := newLab(t)
	a, b := must2(l.AddHost("a", 1))(t), must2(l.AddHost("b", 2))(t)
	vip := netip.MustParsePrefix("10.77.0.100/32")
	check(t, a.AddAddr("eth1", vip))
	check(t, a.AddAddr("eth1", vip)) // there already
	p := must2(a.Start(exec.Command("sleep", "1000")))(t)
	check(t, p.Stop()) // a hung process dies as well
	check(t, must2(a.Start(exec.Command("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 </dev/null &")))(t).Wait())
	waitFor(t, "the daemon runs", func() bool { return len(must2(a.Pids())(t)) == 2 })
	pids := must2(a.Pids())(t)
	other := must2(b.Start(exec.Command("sleep", "1000")))(t)
	old := a.ns.id

	check(t, a.PowerCut())
	check(t, a.PowerCut()) // off already
	for _, pid := range pids {
		if s := state(pid); s != "" && s != "Z" {
			t.Errorf("process %d is in state %s after the power cut", pid, s)
		}
	}
	select {
	case <-p.Done:
	default:
		t.Error("the power cut did not wait for its process")
	}
	if state(other.Pid) == "" {
		t.Error("the power cut killed a process of another host")
	}
	for name, err := range map[string]error{
		"start":   second(a.Start(exec.Command("true"))),
		"do":      a.Do(func() error { return nil }),
		"address": a.AddAddr("eth1", vip),
	} {
		if !errors.Is(err, errOff) {
			t.Errorf("%s on a host that is off: %v", name, err)
		}
	}

	check(t, a.PowerOn())
	check(t, a.PowerOn()) // on already
	if a.ns.id == old {
		t.Error("the namespace is the old one")
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.77.0.1/24")}
	if got := must2(a.Addrs("eth1"))(t); !slices.Equal(got, want) {
		t.Errorf("after power on eth1 has %v, want %v", got, want)
	}
	openInbox(t, b, "eth1").expect(openInbox(t, a, "eth1"), true)
	check(t, must2(a.Start(exec.Command("true")))(t).Wait())
}

func second[T any](_ T, err error) error { return err }

func TestACutCableStaysCutThroughAPowerCycle(t *testing.T) {
	l := newLab(t)
	a, b := must2(l.AddHost("a", 1))(t), must2(l.AddHost("b", 2))(t)
	check(t, a.CutLink("eth1"))
	check(t, a.PowerCut())
	check(t, a.PowerOn())
	bi := openInbox(t, b, "eth1")
	ai := openInbox(t, a, "eth1")
	bi.expect(ai, false)
	check(t, a.HealLink("eth1"))
	waitFor(t, "the link carries", func() bool { return bi.send(ai, 1) == 1 })
}

func TestCloseLeavesNoProcessNoNamespaceNoDescriptor(t *testing.T) {
	before := openFiles(t)
	l := must2(New(Options{}))(t)
	ids := []nsID{l.switches[Int].ns.id, l.switches[Ext].ns.id}
	var pids []int
	for n := 1; n <= 3; n++ {
		h := must2(l.AddHost(fmt.Sprint("h", n), n))(t)
		ids = append(ids, h.ns.id)
		pids = append(pids, must2(h.Start(exec.Command("sleep", "1000")))(t).Pid)
	}
	check(t, l.Partition(l.Hosts()[:1], l.Hosts()[1:]))
	check(t, l.Hosts()[0].PowerCut()) // closing works with a host off
	check(t, l.Close())
	check(t, l.Close())
	for _, pid := range pids {
		if s := state(pid); s != "" {
			t.Errorf("process %d is in state %s after the lab closed", pid, s)
		}
	}
	waitFor(t, "the namespaces are gone", func() bool { return !inUse(t, ids) })
	if after := openFiles(t); after > before {
		t.Errorf("%d descriptors open before, %d after", before, after)
	}
}

// inUse reports whether any thread or descriptor here holds one of the namespaces.
func inUse(t *testing.T, ids []nsID) bool {
	t.Helper()
	paths := must2(filepath.Glob("/proc/[0-9]*/task/*/ns/net"))(t)
	paths = append(paths, must2(filepath.Glob("/proc/self/fd/*"))(t)...)
	for _, p := range paths {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil && slices.Contains(ids, nsID{st.Dev, st.Ino}) {
			return true
		}
	}
	return false
}

func openFiles(t *testing.T) int {
	t.Helper()
	return len(must2(filepath.Glob("/proc/self/fd/*"))(t))
}

func TestThisProcessStaysInItsNamespace(t *testing.T) {
	var before, after unix.Stat_t
	check(t, unix.Stat("/proc/self/ns/net", &before))
	l := newLab(t)
	a := must2(l.AddHost("a", 1))(t)
	for range 50 {
		check(t, a.Do(func() error {
			if unix.Gettid() == os.Getpid() {
				return errors.New("on the first thread of the process")
			}
			return nil
		}))
	}
	check(t, unix.Stat("/proc/self/ns/net", &after))
	if before.Ino != after.Ino {
		t.Error("the process moved to another network namespace")
	}
}

func TestDoReportsAFunctionThatLeaves(t *testing.T) {
	l := newLab(t)
	a := must2(l.AddHost("a", 1))(t)
	err := a.Do(func() error { runtime.Goexit(); return nil })
	if !errors.Is(err, errLeft) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkPowerCut(b *testing.B) {
	l, err := New(Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	h, err := l.AddHost("a", 1)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := h.Start(exec.Command("sleep", "100")); err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		for i := range h.ports {
			if err := h.ports[i].sw.setPort(h.ports[i].index, false); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(time.Since(begin).Microseconds()), "us/silent")
		begin = time.Now()
		if err := h.PowerCut(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(begin).Microseconds()), "us/dead")
		if err := h.PowerOn(); err != nil {
			b.Fatal(err)
		}
	}
}

func TestStartedProcessesDieWithThisProgram(t *testing.T) {
	if pidFile := os.Getenv("NETLAB_TEST_PIDFILE"); pidFile != "" {
		// The inner program: it starts a process on a host and is killed.
		a := must2(newLab(t).AddHost("a", 1))(t)
		p := must2(a.Start(exec.Command("sleep", "1000")))(t)
		check(t, os.WriteFile(pidFile+".new", []byte(fmt.Sprint(p.Pid)), 0o600))
		check(t, os.Rename(pidFile+".new", pidFile))
		select {}
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "NETLAB_TEST_PIDFILE="+pidFile)
	check(t, cmd.Start())
	var pid int
	waitFor(t, "the inner program has started its process", func() bool {
		b, err := os.ReadFile(pidFile)
		if err != nil {
			return false
		}
		_, err = fmt.Sscan(string(b), &pid)
		return err == nil
	})
	check(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	waitFor(t, "the process is dead", func() bool { s := state(pid); return s == "" || s == "Z" })
}

func TestReexecGivesTheExitCodeAndReapsOrphans(t *testing.T) {
	if os.Getenv("NETLAB_TEST_ORPHANS") != "" {
		// Inside: it leaves an orphan that ends and one that stays, then exits 7.
		check(t, exec.Command("sh", "-c", "sh -c 'exit 3' & sleep 1000 >/dev/null 2>&1 &").Run())
		waitFor(t, "only init, this test and the sleep are left", func() bool {
			return len(must2(filepath.Glob("/proc/[0-9]*"))(t)) == 3
		})
		os.Exit(7)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "NETLAB_TEST_ORPHANS=1", "NETLAB_TEST_REEXEC=1", stageEnv+"=")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("ended with %v, want exit code 7: %s", err, out)
	}
}

// Reexec gives everybody namespaces of his own, and root no other user.
func TestReexec(t *testing.T) {
	kinds := []string{"net", "mnt", "pid", "user"}
	if before := os.Getenv("NETLAB_TEST_OUTSIDE"); before != "" {
		if !Isolated() || os.Getuid() != 0 {
			t.Errorf("isolated %v, uid %d", Isolated(), os.Getuid())
		}
		for i, was := range strings.Fields(before) {
			now := must2(os.Readlink("/proc/self/ns/" + kinds[i]))(t)
			if same := now == was; same != (kinds[i] == "user" && os.Getenv("NETLAB_TEST_ROOT") == "true") {
				t.Errorf("%s was %s and is %s", kinds[i], was, now)
			}
		}
		if pins := must2(filepath.Glob("/sys/fs/bpf/hanode*"))(t); len(pins) > 0 {
			t.Errorf("the host's pins are seen: %v", pins)
		}
		check(t, newLab(t).Partition())
		return
	}
	if Isolated() {
		t.Skip("not the process that may tell outside from inside")
	}
	var outside []string
	for _, k := range kinds {
		outside = append(outside, must2(os.Readlink("/proc/self/ns/"+k))(t))
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestReexec$")
	cmd.Env = append(os.Environ(), "NETLAB_TEST_REEXEC=any", "NETLAB_TEST_OUTSIDE="+strings.Join(outside, " "),
		fmt.Sprintf("NETLAB_TEST_ROOT=%v", Inside()))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
