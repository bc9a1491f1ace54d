package watch

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hanode/internal/netlab"
)

func TestMain(m *testing.M) { os.Exit(netlab.Main(m)) }

var (
	vip  = netip.MustParsePrefix("10.77.0.100/32")
	asks = netip.MustParseAddr("10.77.0.250")
)

// patience bounds waits for things that take a few milliseconds on a machine
// with nothing else to do.
const patience = 10 * time.Second

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// site is three hosts and a client.
func site(t *testing.T) (l *netlab.Lab, hosts []*netlab.Host, client *netlab.Host) {
	t.Helper()
	l, err := netlab.New(netlab.Options{})
	check(t, err)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	for n := 1; n <= 3; n++ {
		h, err := l.AddHost(fmt.Sprint("h", n), n)
		check(t, err)
		hosts = append(hosts, h)
	}
	client, err = l.AddClient("client", 9)
	check(t, err)
	return l, hosts, client
}

func watchVIP(t *testing.T, client *netlab.Host) *Watcher {
	t.Helper()
	w, err := Start(client, "eth0", vip.Addr(), asks, 0)
	check(t, err)
	t.Cleanup(func() { w.Stop() })
	return w
}

func mac(h *netlab.Host) string { return h.MAC("eth1").String() }

// take puts the VIP on h and announces it, as an owner does.
func take(t *testing.T, h *netlab.Host) {
	t.Helper()
	check(t, h.AddAddr("eth1", vip))
	check(t, h.Do(func() error {
		f, dev, err := openSocket("eth1", etherARP)
		if err != nil {
			return err
		}
		defer f.Close()
		var b [arpLen]byte
		encodeRequest(&b, dev, [6]byte(dev), vip.Addr(), vip.Addr())
		_, err = f.Write(b[:])
		return err
	}))
}

func sound(t *testing.T, r Report) {
	t.Helper()
	if len(r.Overlaps) != 0 {
		t.Errorf("overlaps: %+v", r.Overlaps)
	}
	if r.Lost != 0 {
		t.Errorf("%d answers were lost", r.Lost)
	}
}

func TestTheWatcherSeesHoldersMovesAndPowerCuts(t *testing.T) {
	_, h, client := site(t)
	w := watchVIP(t, client)
	check(t, w.WaitHolder("", patience))
	take(t, h[0])
	check(t, w.WaitHolder(mac(h[0]), patience))

	w.Mark("held")
	time.Sleep(100 * time.Millisecond)
	w.Mark("move")
	check(t, h[0].DelAddr("eth1", vip))
	take(t, h[1])
	check(t, w.WaitHolder(mac(h[1]), patience))
	w.Mark("cut")
	check(t, h[1].PowerCut())
	check(t, w.WaitHolder("", patience))
	take(t, h[2])
	check(t, w.WaitHolder(mac(h[2]), patience))
	w.Mark("after")
	check(t, h[1].PowerOn())
	time.Sleep(100 * time.Millisecond) // a leftover VIP would answer now
	if now := w.Now(); now != mac(h[2]) {
		t.Errorf("%q answers, want %s", now, mac(h[2]))
	}

	r := w.Stop()
	sound(t, r)
	if p := r.Phase("held"); p.HoldersMax != 1 || p.By[mac(h[0])] != p.Answered || p.Answered < p.Sent*9/10 || p.Sent < 20 {
		t.Errorf("held: %+v", p)
	}
	for name, move := range map[string][2]string{"move": {mac(h[0]), mac(h[1])}, "cut": {mac(h[1]), mac(h[2])}} {
		c := r.Phase(name).Changes
		if len(c) != 1 || c[0].From != move[0] || c[0].To != move[1] {
			t.Errorf("%s: %+v, want one change %v", name, c, move)
		}
	}
	// WaitHolder("") returned after 20 ms without an answer.
	if p := r.Phase("cut"); p.LongestSilence < 10*time.Millisecond || len(p.Changes) == 1 && p.Changes[0].Silent < p.LongestSilence {
		t.Errorf("cut: silence %v, changes %+v", p.LongestSilence, p.Changes)
	}
	if p := r.Phase("after"); p.HoldersMax != 1 || len(p.Changes) != 0 {
		t.Errorf("after: %+v", p)
	}
	var announced []string
	for _, a := range r.Announcements {
		announced = append(announced, a.MAC)
	}
	if got, want := fmt.Sprint(announced), fmt.Sprint([]string{mac(h[0]), mac(h[1]), mac(h[2])}); got != want {
		t.Errorf("announced by %s, want %s", got, want)
	}
}

func TestTheWatcherCatchesTwoHolders(t *testing.T) {
	_, h, client := site(t)
	w := watchVIP(t, client)
	take(t, h[0])
	check(t, w.WaitHolder(mac(h[0]), patience))
	w.Mark("two")
	take(t, h[1])
	time.Sleep(50 * time.Millisecond)
	check(t, h[0].DelAddr("eth1", vip))
	w.Mark("one")
	time.Sleep(50 * time.Millisecond)
	r := w.Stop()
	two, one := r.Phase("two"), r.Phase("one")
	if two.HoldersMax != 2 || len(two.Overlaps) == 0 {
		t.Errorf("two holders for 50 ms: at most %d seen, overlaps %v", two.HoldersMax, two.Overlaps)
	}
	if one.HoldersMax != 1 || one.By[mac(h[1])] != one.Answered {
		t.Errorf("one holder again: %+v", one)
	}
}

// Each holder's answers are lost at random, so that many requests get one answer.
func TestTheWatcherCatchesTwoHoldersThroughLoss(t *testing.T) {
	_, h, client := site(t)
	w := watchVIP(t, client)
	check(t, h[0].Loss("eth1", 60))
	check(t, h[1].Loss("eth1", 60))
	take(t, h[0])
	take(t, h[1])
	time.Sleep(200 * time.Millisecond)
	r := w.Stop()
	turns := 0
	for _, o := range r.Overlaps {
		if !o.SameRequest {
			turns++
		}
	}
	if turns == 0 || turns == len(r.Overlaps) {
		t.Errorf("%d overlaps, %d of them by turns; want both kinds", len(r.Overlaps), turns)
	}
}

func TestOneWayCutsAndLossAsTheClientSeesThem(t *testing.T) {
	l, h, client := site(t)
	take(t, h[0])
	w := watchVIP(t, client)
	check(t, w.WaitHolder(mac(h[0]), patience))
	check(t, h[0].Loss("eth1", 10))
	w.Mark("loss")
	time.Sleep(500 * time.Millisecond)
	w.Mark("healed")
	check(t, l.HealAll())
	for _, dir := range []netlab.Direction{netlab.DropIn, netlab.DropOut} {
		check(t, h[0].CutOneWay("eth1", dir))
		check(t, w.WaitHolder("", patience))
		check(t, h[0].Heal())
		check(t, w.WaitHolder(mac(h[0]), patience))
	}
	r := w.Stop()
	sound(t, r)
	p := r.Phase("loss")
	// A request and its answer both pass: 0.9 x 0.9 = 81 % arrive.
	if share := float64(p.Answered) / float64(p.Sent); share < 0.70 || share > 0.92 {
		t.Errorf("10 %% loss each way: %.2f of %d answered, want about 0.81", share, p.Sent)
	}
}

func TestTheWatcherReportsAsItGoes(t *testing.T) {
	_, h, client := site(t)
	changes := make(chan Change, 10)
	w, err := StartConfig(client, Config{Dev: "eth0", VIP: vip.Addr(), Observer: asks, OnChange: func(c Change) { changes <- c }})
	check(t, err)
	defer w.Stop()
	for i := range 2 {
		take(t, h[i])
		select {
		case c := <-changes:
			if c.To != mac(h[i]) {
				t.Errorf("change %d is %+v", i, c)
			}
		case <-time.After(patience):
			t.Fatal("no change was reported")
		}
		check(t, h[i].DelAddr("eth1", vip))
	}
	check(t, w.WaitHolder("", patience))
	early := w.Look()
	if len(early.Changes) != 1 || early.Answered == 0 || early.Phase("").HoldersMax != 1 {
		t.Errorf("a look at the record shows %+v", early)
	}
	if cells := w.Cells(early.Started, early.Ended.Sub(early.Started)/2); len(cells) != 1 {
		t.Errorf("the whole time is the cells %q", cells)
	}
	if s := w.Snapshot(); s.Holder != "" || s.Silent < fresh || s.Sent == 0 || s.Answered == 0 {
		t.Errorf("snapshot %+v", s)
	}
	if w.WaitHolder(mac(h[2]), 10*time.Millisecond) == nil {
		t.Error("a host that has nothing was waited for with success")
	}
	if late := w.Stop(); late.Sent <= early.Sent || len(late.Changes) != 1 {
		t.Errorf("the report at the end is %+v, after %+v", late, early)
	}
}

func TestTheWatcherLivesThroughItsOwnCable(t *testing.T) {
	_, h, client := site(t)
	take(t, h[0])
	w := watchVIP(t, client)
	check(t, w.WaitHolder(mac(h[0]), patience))
	check(t, client.CutLink("eth0"))
	check(t, w.WaitHolder("", patience))
	check(t, client.HealLink("eth0"))
	check(t, w.WaitHolder(mac(h[0]), patience))
	check(t, client.Do(func() error { return setDown("eth0") }))
	check(t, w.WaitHolder("", patience))
	sound(t, w.Stop())
}

// setDown takes dev down in the calling thread's namespace.
func setDown(dev string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(dev)
	if err != nil {
		return err
	}
	req.SetUint16(0)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}

func TestTheWatcherRefusesWhatItCannotDo(t *testing.T) {
	_, _, client := site(t)
	for name, c := range map[string]Config{
		"no device": {Dev: "eth7", VIP: vip.Addr(), Observer: asks},
		"IPv6":      {Dev: "eth0", VIP: netip.MustParseAddr("fd00::1"), Observer: asks},
		"itself":    {Dev: "eth0", VIP: asks, Observer: asks},
	} {
		if _, err := StartConfig(client, c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, url := range []string{"http://web/", "https://10.77.0.100/", "::"} {
		if _, err := StartHTTP(client, url, 0, 0); err == nil {
			t.Errorf("%s: no error", url)
		}
	}
	check(t, client.PowerCut())
	if _, err := StartHTTP(client, "http://10.77.0.100/", 0, 0); err == nil {
		t.Error("a prober stands on a host without power")
	}
}

// serveHTTP answers with the host's name until the test ends.
func serveHTTP(t *testing.T, h *netlab.Host) {
	t.Helper()
	var ln net.Listener
	check(t, h.Do(func() (err error) {
		ln, err = net.Listen("tcp4", ":80")
		return err
	}))
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, h.Name()) })}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	t.Cleanup(func() { _ = srv.Close(); wg.Wait() })
}

func TestTheProberSeesWhoServesAndTheOutage(t *testing.T) {
	_, h, client := site(t)
	serveHTTP(t, h[0])
	serveHTTP(t, h[1])
	take(t, h[0])
	p, err := StartHTTP(client, "http://10.77.0.100/", 0, 0)
	check(t, err)
	defer p.Stop()
	check(t, p.WaitHolder("h1", patience))
	p.Mark("cut")
	check(t, h[0].PowerCut())
	time.Sleep(100 * time.Millisecond)
	take(t, h[1])
	check(t, p.WaitHolder("h2", patience))
	p.Mark("after")
	time.Sleep(100 * time.Millisecond)
	r := p.Stop()
	sound(t, r)
	cut := r.Phase("cut")
	if len(cut.Changes) != 1 || cut.Changes[0].From != "h1" || cut.Changes[0].To != "h2" || cut.LongestSilence < 90*time.Millisecond {
		t.Errorf("cut: silence %v, changes %+v", cut.LongestSilence, cut.Changes)
	}
	if after := r.Phase("after"); after.By["h2"] == 0 || after.By["h1"] != 0 || after.HoldersMax != 1 {
		t.Errorf("after: %+v", after)
	}
}

// A service that accepts and never answers costs the timeout, and no more
// requests wait than are allowed.
func TestTheProberIsBounded(t *testing.T) {
	_, h, client := site(t)
	take(t, h[0])
	check(t, h[0].Do(func() error {
		ln, err := net.Listen("tcp4", ":80")
		if err == nil {
			t.Cleanup(func() { ln.Close() })
		}
		return err
	}))
	p, err := StartHTTP(client, "http://10.77.0.100/", time.Millisecond, time.Minute)
	check(t, err)
	for end := time.Now().Add(patience); p.Snapshot().Skipped < 10 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	r := p.Stop()
	if r.Sent != maxRequests || r.Answered != 0 || r.Skipped < 10 || r.Phase("").HoldersMax != 0 {
		t.Errorf("%d sent, %d answered, %d skipped", r.Sent, r.Answered, r.Skipped)
	}
}

// A host's processes do not outlive it while it is watched, and a hung one still
// answers ARP: the address is the kernel's.
func TestAHungProcessKeepsTheAddressAPowerCutDoesNot(t *testing.T) {
	_, h, client := site(t)
	take(t, h[0])
	w := watchVIP(t, client)
	p, err := h[0].Start(exec.Command("sleep", "1000"))
	check(t, err)
	check(t, p.Stop())
	check(t, w.WaitHolder(mac(h[0]), patience))
	check(t, h[0].PowerCut())
	check(t, w.WaitHolder("", patience))
	select {
	case <-p.Done:
	default:
		t.Error("the hung process outlived the power cut")
	}
}

func TestPingsThatAreLost(t *testing.T) {
	_, h, client := site(t)
	take(t, h[0])
	p, err := StartPings(client, vip.Addr(), 2*time.Millisecond)
	check(t, err)
	time.Sleep(200 * time.Millisecond)
	check(t, h[0].CutLink("eth1"))
	time.Sleep(100 * time.Millisecond)
	check(t, h[0].HealLink("eth1"))
	time.Sleep(200 * time.Millisecond)
	r := p.Stop()
	if r.Lost == 0 || r.Lost == r.Sent || r.LongestRow < r.Lost*8/10 {
		t.Errorf("some time was cut: %+v", r)
	}
	p, err = StartPings(client, vip.Addr(), 2*time.Millisecond)
	check(t, err)
	time.Sleep(100 * time.Millisecond)
	if r := p.Stop(); r.Lost != 0 || r.Sent == 0 {
		t.Errorf("nothing was cut: %+v", r)
	}
}

// asked is a watcher that asks by ARP and by UDP, and the services it asks.
func asked(t *testing.T, client *netlab.Host, hosts []*netlab.Host) (*Watcher, []*Echo) {
	t.Helper()
	var services []*Echo
	for _, h := range hosts {
		e, err := StartEcho(h)
		check(t, err)
		t.Cleanup(e.Close)
		services = append(services, e)
	}
	w, err := StartConfig(client, Config{Dev: "eth0", VIP: vip.Addr(), Observer: asks, Port: Port})
	check(t, err)
	t.Cleanup(func() { w.Stop() })
	return w, services
}

func TestTheWatcherAsksByUDPToo(t *testing.T) {
	_, h, client := site(t)
	w, _ := asked(t, client, h)
	take(t, h[0])
	check(t, w.WaitHolder(mac(h[0]), patience))
	w.Mark("held")
	time.Sleep(200 * time.Millisecond)
	w.Mark("moved")
	check(t, h[0].DelAddr("eth1", vip))
	take(t, h[1])
	check(t, w.WaitHolder(mac(h[1]), patience))
	time.Sleep(200 * time.Millisecond)
	r := w.Stop()
	sound(t, r)
	held := r.UDP.Phase("held")
	if held.By[mac(h[0])] != held.Answered || held.Answered == 0 {
		t.Errorf("held: %+v", held)
	}
	if c := r.UDP.Phase("moved").Changes; len(c) != 1 || c[0].From != mac(h[0]) || c[0].To != mac(h[1]) {
		t.Errorf("moved: %+v", c)
	}
}

// One host answers by ARP only and the other by UDP only: neither alone shows two
// holders.
func TestTheWatcherCatchesAHolderThatOnlyServes(t *testing.T) {
	_, h, client := site(t)
	w, services := asked(t, client, h)
	take(t, h[0])
	services[0].Close() // ARP, but no service
	check(t, w.WaitHolder(mac(h[0]), patience))
	check(t, h[1].Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/eth1/arp_ignore", []byte("8"), 0) }))
	w.Mark("two")
	take(t, h[1]) // service, but no ARP
	time.Sleep(200 * time.Millisecond)
	r := w.Stop()
	if two := r.Phase("two"); two.HoldersMax != 2 || len(two.Overlaps) == 0 {
		t.Errorf("at most %d holders seen, %d overlaps", two.HoldersMax, len(two.Overlaps))
	}
	if p := r.UDP.Phase("two"); p.HoldersMax != 1 || len(p.Overlaps) != 0 {
		t.Errorf("by UDP alone: %d holders, %d overlaps", p.HoldersMax, len(p.Overlaps))
	}
}

func TestReachSeesEachDirection(t *testing.T) {
	l, h, client := site(t)
	_, services := asked(t, client, h)
	const n = 20
	for _, c := range []struct {
		name        string
		cut         func() error
		there, back bool // any of them
	}{
		{"nothing cut", func() error { return nil }, true, true},
		{"the other end is deaf", func() error { return h[1].CutOneWay("eth0", netlab.DropIn) }, false, false},
		{"the other end is mute", func() error { return h[1].CutOneWay("eth0", netlab.DropOut) }, true, false},
		{"this end is deaf", func() error { return h[0].CutOneWay("eth0", netlab.DropIn) }, true, false},
		{"this end is mute", func() error { return h[0].CutOneWay("eth0", netlab.DropOut) }, false, false},
		{"partition", func() error { return l.Partition(h[:1], h[1:]) }, false, false},
		{"cable out", func() error { return h[0].CutLink("eth0") }, false, false},
		{"device down", func() error { return h[1].SetDev("eth0", false) }, false, false},
	} {
		check(t, c.cut())
		there, back, err := Reach(h[0], "eth0", services[1], "eth0", n)
		check(t, err)
		if there > 0 != c.there || back > 0 != c.back {
			t.Errorf("%s: %d of %d there, %d back, want some: %v and %v", c.name, there, n, back, c.there, c.back)
		}
		check(t, h[1].SetDev("eth0", true))
		check(t, l.HealAll())
	}
}
