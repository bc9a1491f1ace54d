package hosts

import (
	"cmp"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hanode/api"
	"hanode/internal/netlab/watch"
)

var flagMoves = flag.Int("hosts.moves", 10, "times that the services of TestServicesMove move; figures are taken with 100")

// The group of these tests: an address, a file system mounted by the real agent, a web
// server and a file server. What starts and stops leaves its beacon.
const (
	servicesFile = `group "web" {
  prefer     = ["primary"]
  on_release = ["/usr/local/sbin/beacon", "group", "released"]

  resource "ip" "` + vip + `/24" {
    dev        = "eth1"
    on_acquire = ["/usr/local/sbin/beacon", "ip", "acquire"]
  }
  resource "ocf" "data" {
    agent = "ocf:lab:Filesystem"
    params {
      device    = "lab"
      directory = "/srv/data"
      fstype    = "tmpfs"
    }
  }
  resource "systemd" "apache2" {
    restarts = 2
    within   = "10m"
  }
  resource "systemd" "smbd" {}
}
`
	// beacon notes that somebody takes, or let go of, what must not run twice, and when:
	// the hosts have one clock.
	beacon = `#!/bin/sh
echo "$(date +%s%N) $1 $2" >>/var/lib/beacon
`
	// filesystem runs the real agent, which is not touched, between two beacons: before
	// anything of it is there and after all of it is gone.
	filesystem = `#!/bin/sh
[ "$1" = start ] && /usr/local/sbin/beacon data lock
/usr/lib/ocf/resource.d/heartbeat/Filesystem "$@"
rc=$?
[ "$1" = stop ] && [ $rc = 0 ] && /usr/local/sbin/beacon data unlock
exit $rc
`
	// beaconDropIn does the same for a unit.
	beaconDropIn = `[Service]
ExecStartPre=/usr/local/sbin/beacon %p lock
ExecStopPost=/usr/local/sbin/beacon %p unlock
`
)

// The order in which a host gives away what it has, and in which one gets it.
var (
	givesAway = []string{"smbd unlock", "apache2 unlock", "data unlock", "group released"}
	gets      = []string{"ip acquire", "data lock", "apache2 lock", "smbd lock"}
)

// services is the story's cluster with that group.
type services struct {
	*story
	seen   map[string]int    // lines of a host's beacons that were read
	holder map[string]string // who runs what, by its beacons
}

func servicesLab(t *testing.T) *services {
	t.Helper()
	s := &services{&story{t: t, Lab: lab(t, "primary", "secondary", "arbiter")}, map[string]int{}, map[string]string{}}
	s.primary, s.secondary, s.arbiter = s.on("primary"), s.on("secondary"), s.on("arbiter")
	t.Cleanup(s.tell)
	s.install()
	for _, h := range s.all() {
		h.write("/root/services.hcl", servicesFile, 0o644)
		h.write("/usr/local/sbin/beacon", beacon, 0o755)
		h.write("/usr/lib/ocf/resource.d/lab/Filesystem", filesystem, 0o755)
		for _, unit := range []string{"apache2", "smbd"} {
			h.write("/etc/systemd/system/"+unit+".service.d/beacon.conf", beaconDropIn, 0o644)
		}
		h.run("mkdir", "-p", "/srv/data")
		h.run("systemctl", "daemon-reload")
		h.run("systemctl", "start", "hanode")
	}
	eventually(t, time.Minute, "the cluster forms", func() bool {
		st, err := s.status(s.arbiter)
		return err == nil && st.Quorum && st.Leader != nil
	})
	s.primary.run("hanode", "apply", "--yes", "/root/services.hcl")
	s.settled()
	s.beacons("", "primary")
	return s
}

// settled is the story's, of this group.
func (s *services) settled() {
	s.t.Helper()
	s.serves("primary")
	s.alive()
	for _, unit := range []string{"apache2", "smbd"} {
		s.primary.says("active", "systemctl", "is-active", unit)
		s.secondary.says("inactive", "systemctl", "is-active", unit)
	}
}

// sign is one beacon.
type sign struct {
	at         time.Time
	host, what string // what: "apache2 lock"
}

// beacons reads what was noted since it was called last, wants the order of a move, and
// complains if something ran on two hosts.
func (s *services) beacons(from, to string) {
	s.t.Helper()
	var news []sign
	eventually(s.t, 20*time.Second, "every beacon of the move is there", func() bool {
		news = nil
		for _, h := range []on{s.primary, s.secondary} {
			news = append(news, s.signs(h)...)
		}
		return len(ordered(news, from, givesAway)) == len(givesAway)*min(1, len(from)) && len(ordered(news, to, gets)) == len(gets)
	})
	slices.SortStableFunc(news, func(a, b sign) int { return a.at.Compare(b.at) })
	for _, x := range news {
		s.seen[x.host]++
		thing, what, _ := strings.Cut(x.what, " ")
		switch holder := s.holder[thing]; {
		case what == "lock" && holder != "" && holder != x.host:
			s.t.Errorf("%s is started on %s while %s has it", thing, x.host, holder)
		case what == "lock":
			s.holder[thing] = x.host
		case what == "unlock" && holder == x.host:
			delete(s.holder, thing)
		}
	}
	var chain []sign
	if from != "" {
		chain = append(chain, ordered(news, from, givesAway[:3])...)
		released := ordered(news, from, givesAway[3:])
		if last := chain[len(chain)-1]; released[0].at.Before(last.at) {
			s.t.Errorf("%s told that it released before %s", from, last.what)
		}
	}
	chain = append(chain, ordered(news, to, gets)...)
	if !slices.IsSortedFunc(chain, func(a, b sign) int { return a.at.Compare(b.at) }) {
		s.t.Errorf("the order of %q to %s: %+v", from, to, chain)
	}
}

// ordered picks the first of each of what a host noted.
func ordered(news []sign, host string, what []string) (out []sign) {
	for _, w := range what {
		if i := slices.IndexFunc(news, func(x sign) bool { return x.host == host && x.what == w }); i >= 0 {
			out = append(out, news[i])
		}
	}
	return out
}

// signs are a host's beacons that were not read yet.
func (s *services) signs(h on) (out []sign) {
	b, err := os.ReadFile(filepath.Join(h.root, "var/lib/beacon"))
	if err != nil {
		return nil // none yet
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for _, l := range lines[min(s.seen[h.Name()], len(lines)):] {
		stamp, what, _ := strings.Cut(l, " ")
		ns, err := strconv.ParseInt(stamp, 10, 64)
		if err != nil {
			s.t.Fatalf("a beacon of %s: %q", h.Name(), l)
		}
		out = append(out, sign{time.Unix(0, ns), h.Name(), what})
	}
	return out
}

// leftovers is what is on a host of a group that it does not run; "" = nothing.
func (h on) leftovers() string {
	return h.run("sh", "-c", `pgrep -l "^(apache2|smbd)"; grep " /srv/data " /proc/mounts; ip -o addr show to `+vip+`; true`)
}

// TestServicesMove moves an address, a file system, a web server and a file server to and
// fro while clients ask: nothing is left behind, the order is kept, nothing runs twice.
func TestServicesMove(t *testing.T) {
	s := servicesLab(t)
	w, err := watch.Start(s.Client.Host, "eth0", netip.MustParseAddr(vip), netip.MustParseAddr("10.77.0.250"), time.Millisecond)
	s.do(err)
	p, err := watch.StartHTTP(s.Client.Host, page, 5*time.Millisecond, 200*time.Millisecond)
	s.do(err)
	var took []time.Duration
	left := 0
	for i := range *flagMoves {
		from, to := s.primary, s.secondary
		if i%2 == 1 {
			from, to = to, from
		}
		w.Mark(fmt.Sprint(i))
		p.Mark(fmt.Sprint(i))
		begin := time.Now()
		s.arbiter.run("hanode", "move", "web", to.Name())
		took = append(took, time.Since(begin))
		s.beacons(from.Name(), to.Name())
		var rest string
		for end := time.Now().Add(3 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if rest = from.leftovers(); rest == "" || time.Now().After(end) {
				break
			}
		}
		if rest != "" {
			left++
			t.Errorf("move %d left on %s:\n%s", i, from.Name(), rest)
		}
		if i%10 == 9 {
			s.share()
		}
	}
	pages, addresses := p.Stop(), w.Stop()
	if len(addresses.Overlaps) > 0 || len(pages.Overlaps) > 0 {
		t.Errorf("two hosts answered: %+v %+v", addresses.Overlaps, pages.Overlaps)
	}
	silent := func(r watch.Report) (out []time.Duration) {
		for i := range *flagMoves {
			out = append(out, r.Phase(fmt.Sprint(i)).LongestSilence)
		}
		return out
	}
	t.Logf("%d moves: left behind %d times; the command took %s; the page was silent for %s, the address for %s; %d of %d pages answered",
		*flagMoves, left, spread(took), spread(silent(pages)), spread(silent(addresses)), pages.Answered, pages.Sent)
}

// spread is the median and the largest of times, and all of them.
func spread(list []time.Duration) string {
	sorted := slices.Clone(list)
	slices.Sort(sorted)
	var all []string
	for _, d := range list {
		all = append(all, fmt.Sprintf("%.1f", float64(d.Microseconds())/1000))
	}
	return fmt.Sprintf("median %.1f ms, max %.1f ms (%s)", float64(sorted[len(sorted)/2].Microseconds())/1000,
		float64(sorted[len(sorted)-1].Microseconds())/1000, strings.Join(all, " "))
}

// TestServicesDie kills apache2: twice it is started again where it is, the third death
// moves the group.
func TestServicesDie(t *testing.T) {
	s := servicesLab(t)
	var known, again, outage [3][]time.Duration
	for range *flagRuns {
		for death := range 3 {
			p, err := watch.StartHTTP(s.Client.Host, page, 2*time.Millisecond, 200*time.Millisecond)
			s.do(err)
			time.Sleep(200 * time.Millisecond)
			since := s.lastEvent()
			at := s.primary.killed(s.primary.mainPid("apache2"))
			kind, done := "restarted", func() bool {
				return s.primary.property("apache2", "ActiveState") == "active" && s.primary.property("apache2", "MainPID") != "0"
			}
			if death == 2 {
				kind, done = "failed", func() bool { return len(s.eventsOf("started", since)) > 0 }
			}
			eventually(t, 30*time.Second, "the death is known: "+kind, func() bool { return len(s.eventsOf(kind, since)) > 0 })
			eventually(t, 30*time.Second, "it runs again", done)
			time.Sleep(300 * time.Millisecond)
			known[death] = append(known[death], s.eventsOf(kind, since)[0].Time.Sub(at))
			if death == 2 {
				again[death] = append(again[death], s.eventsOf("started", since)[0].Time.Sub(at))
			} else {
				again[death] = append(again[death], s.primary.active("apache2").Sub(at))
			}
			outage[death] = append(outage[death], longest(p.Stop()))
		}
		s.serves("secondary")
		s.primary.run("hanode", "clear", "web", "primary")
		s.primary.run("hanode", "move", "web", "primary")
		s.settled()
	}
	for death := range 3 {
		t.Logf("death %d: known after %s; runs again after %s; the page was silent for %s", death+1, spread(known[death]), spread(again[death]), spread(outage[death]))
	}
}

func (s *services) lastEvent() (index uint64) {
	for _, e := range s.events() {
		index = max(index, e.Index)
	}
	return index
}

func (s *services) eventsOf(kind string, after uint64) (out []api.Event) {
	for _, e := range s.events() {
		if e.Kind == kind && e.Index > after {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b api.Event) int { return cmp.Compare(a.Index, b.Index) })
	return out
}

// active is when a unit became active: the clock that systemd reads is this machine's too.
func (h on) active(unit string) time.Time {
	h.t.Helper()
	us, err := strconv.ParseInt(h.property(unit, "ActiveEnterTimestampMonotonic"), 10, 64)
	if err != nil {
		h.t.Fatal(err)
	}
	var mono unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono); err != nil {
		h.t.Fatal(err)
	}
	return time.Now().Add(time.Duration(us)*time.Microsecond - time.Duration(mono.Nano()))
}

// killed kills a process of the host and returns when: less than a millisecond before.
func (h on) killed(pid string) time.Time {
	h.t.Helper()
	ns, err := strconv.ParseInt(h.run("sh", "-c", `at=$(date +%s%N); kill -9 `+pid+`; echo $at`), 10, 64)
	if err != nil {
		h.t.Fatal(err)
	}
	return time.Unix(0, ns)
}
