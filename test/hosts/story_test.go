package hosts

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hanode/api"
	"hanode/internal/netlab/watch"
	"hanode/internal/trust"
)

// The files of the story: the same on every host.
const (
	vip  = "10.77.0.100"
	page = "http://" + vip + "/who"

	nodeFile = `cluster = "web"

link "eth0" {}
link "eth1" {}

timing { profile = "lan" }

node "primary"   { address = "10.0.0.1" }
node "secondary" { address = "10.0.0.2" }
node "arbiter" {
  address = "10.0.0.3"
  role    = "witness"
}
`
	clusterFile = `group "web" {
  prefer   = ["primary"]
  failback = "on"

  resource "ip" "` + vip + `/24" {
    dev = "eth1"
  }
  resource "systemd" "apache2" {}
  resource "systemd" "smbd" {}
  resource "systemd" "beacon" {}
}
`
)

// TestStory plays what happens to a failsafe cluster in its life, on three booted
// Debian hosts with the package installed: primary and secondary with two network
// cards serve a web page and a Samba share behind one address, arbiter votes. A
// client asks for the page all the time; an observer asks by ARP, every millisecond,
// who has the address, and never sees two. A third service of the group notes when it
// runs, so that a start too many is seen; see beacon_test.go.
func TestStory(t *testing.T) {
	s := newStory(t)
	s.install()
	s.begin()
	for run := range *flagRuns {
		if *flagRuns > 1 {
			t.Logf("run %d of %d", run+1, *flagRuns)
		}
		for _, c := range s.chapters() {
			if !regexp.MustCompile(*flagPlay).MatchString(c.name) {
				continue
			}
			s.play(c)
			if t.Failed() {
				return
			}
		}
	}
	s.table()
	s.starts()
}

// chapter is something that happens, who serves then, and how all becomes as before:
// primary serves, everybody is alive.
type chapter struct {
	name   string
	happen func()
	holder string // serves when it has happened; "" = primary, which never stopped
	cause  string // what the history calls the move; "" = there is none
	mend   func()
	// both: the old owner cannot be asked, or does not answer, so that its services may
	// run on for a moment, out of clients' reach (the group is not exclusive).
	both bool
	// passes: the holder has it for a second or two only, because systemd starts the agent
	// of primary again. A slow machine may not catch it at that; the history tells.
	passes bool
}

func (s *story) chapters() []chapter {
	p, b, a := s.primary, s.secondary, s.arbiter
	cut := func(hosts []on, devs ...string) func() {
		return func() {
			for _, h := range hosts {
				for _, dev := range devs {
					s.do(h.CutLink(dev))
				}
			}
		}
	}
	heal := func() {
		for _, dev := range []string{"eth0", "eth1"} {
			s.do(p.HealLink(dev))
		}
	}
	powerOn := func(h on) func() { return func() { s.do(h.PowerOn()); up(s.t, h.Host) } }
	return []chapter{
		{name: "systemctl poweroff of primary", happen: func() { s.do(p.PowerOff()) }, holder: "secondary", cause: "switchover", mend: powerOn(p)},
		// Its cables go first: it may have time to see that and to say so.
		{name: "power cut of primary", happen: func() { s.do(p.PowerCut()) }, holder: "secondary", mend: powerOn(p)},
		{name: "systemctl reboot of primary", happen: func() { s.do(p.Reboot()) }, holder: "primary", cause: "switchover", mend: func() { up(s.t, p.Host) }},
		{name: "eth1 of primary pulled", happen: cut([]on{p}, "eth1"), holder: "secondary", cause: "link", mend: heal},
		{name: "eth0 of primary pulled", happen: cut([]on{p}, "eth0"), mend: heal},
		{name: "both cables of primary pulled", happen: cut([]on{p}, "eth1", "eth0"), holder: "secondary", mend: heal, both: true},
		{name: "apache2 killed (kill -9)", happen: func() { s.do(p.Signal(p.mainPid("apache2"), syscall.SIGKILL)) }},
		{name: "agent of primary killed (kill -9)", happen: func() { s.do(p.Signal(p.mainPid("hanode"), syscall.SIGKILL)) }, holder: "secondary", cause: "failover", both: true, passes: true},
		{name: "agent of primary hangs (SIGSTOP)", happen: func() { s.do(p.Signal(p.mainPid("hanode"), syscall.SIGSTOP)) }, holder: "secondary", cause: "failover", both: true},
		{name: "primary frozen", happen: func() { s.do(p.Freeze()) }, holder: "secondary", cause: "failover", mend: func() { s.do(p.Thaw()) }, both: true},
		{name: "arbiter lost", happen: func() { s.do(a.PowerCut()) }, mend: powerOn(a)},
		{name: "both data hosts cut, one returns", happen: func() {
			s.do(p.PowerCut())
			s.do(b.PowerCut())
			s.do(b.PowerOn())
		}, holder: "secondary", mend: powerOn(p)},
		{name: "cold start of all three", happen: func() {
			for _, h := range []on{p, b, a} {
				s.do(h.PowerCut())
			}
			for _, h := range []on{p, b, a} {
				s.do(h.PowerOn())
			}
		}, holder: "primary"},
		{name: "package upgrade, host by host", happen: func() { s.upgrade(versionNew) }, holder: "primary", cause: "switchover", mend: func() { s.upgrade(versionOld) }},
	}
}

// upgrade installs another version of the package on one host after the other, as
// docs/install.md says.
func (s *story) upgrade(version string) {
	s.t.Helper()
	for _, h := range s.all() {
		owner := h.property("apache2", "ActiveState") == "active"
		said := h.dpkg(version)
		if owner && !strings.Contains(said, "handed over") {
			s.t.Errorf("the upgrade of the owner does not say what it does:\n%s", said)
		}
		if out := h.run("hanode", "version"); !strings.Contains(out, version) {
			s.t.Errorf("%s: hanode version says %q after the upgrade to %s", h.Name(), out, version)
		}
		s.alive()
	}
}

// story is the cluster and what was seen of it.
type story struct {
	*Lab
	t                           *testing.T
	primary, secondary, arbiter on
	lines                       []line
	overlaps                    []overlap
}

// line is what a chapter cost the client.
type line struct {
	name          string
	page, address time.Duration // longest time without an answer
}

// newStory wires the three hosts; none is booted.
func newStory(t *testing.T) *story {
	t.Helper()
	s := &story{t: t, Lab: lab(t, "primary", "secondary", "arbiter")}
	s.primary, s.secondary, s.arbiter = s.on("primary"), s.on("secondary"), s.on("arbiter")
	t.Cleanup(s.tell)
	return s
}

func (s *story) on(name string) on { return on{s.Get(name), s.t} }

// all lists those that nothing happens to first: they are asked first.
func (s *story) all() []on { return []on{s.arbiter, s.secondary, s.primary} }

func (s *story) do(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// install boots the hosts, installs the package and writes the files.
func (s *story) install() {
	s.t.Helper()
	boot(s.t, s.Hosts...)
	key := trust.Generate() + "\n"
	for _, h := range s.all() {
		h.furnishStory()
		h.write("/etc/hanode/hanode.hcl", nodeFile, 0o644)
		h.write("/etc/hanode/key", key, 0o600)
		h.write("/root/web.hcl", clusterFile, 0o644)
		if out := h.run("hanode", "validate", "/etc/hanode/hanode.hcl"); !strings.Contains(out, "valid") {
			s.t.Errorf("validate says %q", out)
		}
	}
}

// furnishStory installs the package, and what the group's services take.
func (o on) furnishStory() {
	o.t.Helper()
	o.dpkg(versionOld)
	o.write("/etc/systemd/system/beacon.service", beaconUnit, 0o644)
	o.write("/usr/local/bin/beacon", beaconProgram, 0o755)
	// Systemd's limit for an agent that hangs: the unit's half a minute is for real hosts.
	// And one that was killed comes back well after its group is taken over: the unit's
	// second is hardly more than deadtime, too little on a machine that stalls.
	o.write(dropIn+"test.conf", "[Service]\nWatchdogSec=10s\nRestartSec=3s\n", 0o644)
	o.run("systemctl", "daemon-reload")
	o.write("/var/www/html/who", o.Name()+"\n", 0o644)
}

// inOrder wants the units of primary to have started one after the other, by systemd's own
// stamps.
func (s *story) inOrder(units ...string) {
	s.t.Helper()
	var before int
	for _, unit := range units {
		at, err := strconv.Atoi(s.primary.property(unit, "ActiveEnterTimestampMonotonic"))
		if err != nil || at <= before {
			s.t.Errorf("%s is active since %d, the one before it since %d", unit, at, before)
		}
		before = at
	}
}

// begin starts the cluster and its group, and looks at both services through the
// address.
func (s *story) begin() {
	s.t.Helper()
	begin := time.Now()
	for _, h := range s.all() {
		h.run("systemctl", "start", "hanode")
	}
	s.formed()
	s.t.Logf("formed %v after the first systemctl start", time.Since(begin).Round(time.Millisecond))
	s.primary.apply("/root/web.hcl")
	s.settled()
	s.inOrder("apache2", "smbd")
	s.share()
	eventually(s.t, 5*time.Second, "systemctl status tells what the agent does", func() bool {
		return strings.Contains(s.primary.property("hanode", "StatusText"), "runs web")
	})
	// At shutdown the agent comes first.
	eventually(s.t, 20*time.Second, "the units are ordered around the agent", func() bool {
		after := strings.Fields(s.primary.property("hanode", "After"))
		return slices.Contains(after, "apache2.service") && slices.Contains(after, "smbd.service")
	})
}

// play has a chapter happen while a client asks for the page.
func (s *story) play(c chapter) {
	s.t.Helper()
	first, begin := s.epoch(), time.Now()
	s.watched(c.name, func() {
		c.happen()
		holder := c.holder
		if holder == "" {
			holder = "primary"
			time.Sleep(2 * time.Second) // two deadtimes: what had to happen would have
		}
		if c.passes {
			s.served(holder, first)
		} else {
			s.serves(holder)
		}
	})
	if moved := s.epoch() != first; moved && c.holder == "" {
		s.t.Errorf("%s: the group moved", c.name)
	}
	if c.cause != "" {
		s.because(c, first)
	}
	back := func() {
		if c.mend != nil {
			c.mend()
		}
		s.settled()
	}
	if c.holder == "secondary" && !c.passes {
		s.watched(failback, back)
	} else {
		back()
	}
	s.share()
	s.alone(c, begin)
	s.t.Logf("%-36s all as before %.1f s after it began", "", time.Since(begin).Seconds())
}

// failback is what the table calls the return of the group to primary, whatever took
// it away.
const failback = "  failback to primary"

// watched notes what the client saw while something happened.
func (s *story) watched(name string, happen func()) {
	s.t.Helper()
	w, err := watch.Start(s.Client.Host, "eth0", netip.MustParseAddr(vip), netip.MustParseAddr("10.77.0.250"), time.Millisecond)
	s.do(err)
	p, err := watch.StartHTTP(s.Client.Host, page, 5*time.Millisecond, 200*time.Millisecond)
	s.do(err)
	time.Sleep(200 * time.Millisecond)
	happen()
	pages, addresses := p.Stop(), w.Stop()
	s.judge(name, pages, addresses)
}

// judge notes what the client saw, and complains if it saw two hosts.
func (s *story) judge(name string, pages, addresses watch.Report) {
	s.t.Helper()
	l := line{name: name, page: longest(pages), address: longest(addresses)}
	s.lines = append(s.lines, l)
	if len(addresses.Overlaps) > 0 || len(pages.Overlaps) > 0 {
		s.t.Errorf("%s: two hosts answered: %+v %+v", name, addresses.Overlaps, pages.Overlaps)
	}
	s.t.Logf("%-36s page %6d ms, address %6d ms without an answer", name, l.page.Milliseconds(), l.address.Milliseconds())
}

func longest(r watch.Report) (d time.Duration) {
	for _, p := range r.Phases {
		d = max(d, p.LongestSilence)
	}
	return d
}

// because wants a move since the epoch to have that cause in the history.
func (s *story) because(c chapter, since uint64) {
	s.t.Helper()
	var seen []string
	for _, e := range s.events() {
		if e.Kind == "assigned" && e.Epoch != nil && *e.Epoch > since && e.Cause != nil {
			seen = append(seen, *e.Cause)
		}
	}
	if len(seen) == 0 || !strings.HasPrefix(seen[0], c.cause) {
		s.t.Errorf("%s: the first move is a %q, want %q", c.name, seen, c.cause)
	}
}

func (s *story) events() []api.Event {
	for _, h := range s.all() {
		if h.Halted() {
			continue
		}
		out, err := h.Run("hanode", "events", "--json")
		if err != nil {
			continue
		}
		var list []api.Event
		for line := range strings.Lines(out) {
			var e api.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.Time.Year() < 2020 {
				s.t.Errorf("an event is wrong (%v): %s", err, line)
			}
			list = append(list, e)
		}
		return list
	}
	return nil
}

func (s *story) status(h on) (*api.Status, error) {
	out, err := h.Run("hanode", "status", "--json")
	if err != nil {
		return nil, err
	}
	st := new(api.Status)
	return st, json.Unmarshal([]byte(out), st)
}

// epoch is the group's, by the word of any node.
func (s *story) epoch() uint64 {
	for _, h := range s.all() {
		if h.Halted() {
			continue
		}
		if st, err := s.status(h); err == nil && len(st.Groups) == 1 {
			return st.Groups[0].Epoch
		}
	}
	return 0
}

// serves waits until that host's page comes through the address, and the cluster
// says the same.
func (s *story) serves(holder string) {
	s.t.Helper()
	eventually(s.t, 2*time.Minute, holder+" serves", func() bool {
		if who, err := s.get(); err != nil || who != holder {
			return false
		}
		for _, h := range s.all() {
			if h.Halted() {
				continue
			}
			if st, err := s.status(h); err == nil && len(st.Groups) == 1 {
				g := st.Groups[0]
				return g.Owner != nil && *g.Owner == holder && g.State != nil && *g.State == api.GroupRunning
			}
		}
		return false
	})
}

// served waits until the history says that the host has run the group since that epoch.
func (s *story) served(holder string, since uint64) {
	s.t.Helper()
	eventually(s.t, 2*time.Minute, holder+" has run the group", func() bool {
		return slices.ContainsFunc(s.events(), func(e api.Event) bool {
			return e.Kind == "started" && e.Node != nil && *e.Node == holder && e.Epoch != nil && *e.Epoch > since
		})
	})
}

func (s *story) get() (string, error) {
	p, err := watch.StartHTTP(s.Client.Host, page, 20*time.Millisecond, 500*time.Millisecond)
	if err != nil {
		return "", err
	}
	time.Sleep(100 * time.Millisecond)
	r := p.Stop()
	for who := range r.By {
		return who, nil
	}
	return "", fmt.Errorf("no answer")
}

// settled waits until all is as in the beginning, and looks whether the services run
// on primary and nowhere else.
func (s *story) settled() {
	s.t.Helper()
	s.serves("primary")
	s.alive()
	for _, unit := range []string{"apache2", "smbd", "beacon"} {
		s.primary.says("active", "systemctl", "is-active", unit)
		for _, h := range []on{s.secondary, s.arbiter} {
			h.says("inactive", "systemctl", "is-active", unit)
		}
	}
}

// alive waits until everybody is and has a lease.
func (s *story) alive() {
	s.t.Helper()
	eventually(s.t, time.Minute, "everybody is alive and has a lease", func() bool {
		for _, h := range s.all() {
			out, err := h.Run("hanode", "members", "--json")
			var list []api.Member
			if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != 3 {
				return false
			}
			for _, m := range list {
				if m.State != api.MemberAlive || m.LeaseMS == nil || *m.LeaseMS <= 0 {
					return false
				}
			}
		}
		return true
	})
}

// share fetches a file from the Samba share through the address.
func (s *story) share() {
	s.t.Helper()
	text, err := s.Client.FetchFile(vip, "share", "hello.txt", 10*time.Second)
	if err != nil || text != pages["/srv/share/hello.txt"] {
		s.t.Errorf("the share has %q: %v", text, err)
	}
}

func (o on) property(unit, name string) string {
	o.t.Helper()
	v, err := o.Property(unit, name)
	if err != nil {
		o.t.Fatal(err)
	}
	return v
}

func (o on) mainPid(unit string) string {
	o.t.Helper()
	pid := o.property(unit, "MainPID")
	if pid == "0" || pid == "" {
		o.t.Fatalf("%s does not run on %s", unit, o.Name())
	}
	return pid
}

// tell shows what the hosts say, where the test failed.
func (s *story) tell() {
	if !s.t.Failed() {
		return
	}
	for _, h := range s.Hosts {
		if h.Halted() {
			s.t.Logf("--- %s is off", h.Name())
			continue
		}
		_ = h.Thaw()
		for _, cmd := range []string{"hanode status; hanode members; hanode events | tail -n 40", "journalctl --no-pager -b -u hanode -o short-monotonic | tail -n 60"} {
			out, err := h.Run("sh", "-c", cmd)
			s.t.Logf("--- %s: %s\n%s%v", h.Name(), cmd, out, err)
		}
	}
}

// table shows median and largest of each chapter.
func (s *story) table() {
	s.t.Helper()
	by := map[string][]line{}
	var order []string
	for _, l := range s.lines {
		if by[l.name] == nil {
			order = append(order, l.name)
		}
		by[l.name] = append(by[l.name], l)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-36s %21s %21s\n", "without an answer, ms", "page: median  max", "address: median  max")
	for _, name := range order {
		row := by[name]
		stats := func(of func(line) time.Duration) (median, most int64) {
			slices.SortFunc(row, func(a, b line) int { return int(of(a) - of(b)) })
			return of(row[len(row)/2]).Milliseconds(), of(row[len(row)-1]).Milliseconds()
		}
		pm, px := stats(func(l line) time.Duration { return l.page })
		am, ax := stats(func(l line) time.Duration { return l.address })
		fmt.Fprintf(&b, "%-36s %14d %6d %14d %6d\n", name, pm, px, am, ax)
	}
	s.t.Logf("%d runs\n%s", *flagRuns, b.String())
}
