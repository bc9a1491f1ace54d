package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hanode/internal/netlab"
	"hanode/internal/netlab/watch"
	"hanode/test/livelab"
)

// The old story: Heartbeat's own files, run by hanode and by Debian's heartbeat, each on
// hosts of its own that are built alike, in one run, event by event: an orderly stop of
// the primary, its return, a crash, its return.

// storyDeadtime is deadtime of storyCf.
const storyDeadtime = 30 * time.Second

const storyCf = `logfacility none
logfile %s
keepalive 2
warntime 10
deadtime 30
bcast eth0
auto_failback on
node primary
node secondary
`

const (
	storyResources = "primary IPaddr::" + livelab.VIP + "/24/eth1 storyweb storyfiles\n"
	storyKeys      = "auth 1\n1 sha1 an old secret\n"
	storyWitness   = "witness arbiter 10.0.0.3\n"
)

// storyScript is a service as an old resource.d has it; %s is this program, %d a port. It
// drops its environment, and each agent has a control group of its own: hosts of the lab
// share one /proc, and an agent must not take another host's service for a leftover of
// its own.
const storyScript = `#!/bin/sh
pid=/run/story-%[2]d.pid
runs() { kill -0 "$(cat $pid 2>/dev/null)" 2>/dev/null; }
case $1 in
start) runs || { env -i PATH="$PATH" setsid %[1]s -serve %[2]d </dev/null >/dev/null 2>&1 & echo $! >$pid; } ;;
stop) if runs; then kill "$(cat $pid)"; while runs; do sleep 0.01; done; fi; rm -f $pid ;;
status) if runs; then echo running; else echo stopped; fi ;;
esac
`

// storyPorts are those of the services, in the order in which they start.
var storyPorts = map[string]int{"storyweb": 8001, "storyfiles": 8002}

// serveName is the service: it answers with the name of the host, until it is killed.
func serveName(port int) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, name)
	})}
	return s.Serve(l)
}

// player is one of the two clusters.
type player interface {
	client() *netlab.Host
	mac(node string) string
	start(node string) error
	stop(node string) error // orderly; returns when it is over
	cut(node string) error
	powerOn(node string) error
	settled() error
	logs()
	close() error
}

// storyFiles writes Heartbeat's files to a new folder.
func storyFiles(dir, cf string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	errs := []error{os.MkdirAll(filepath.Join(dir, "resource.d"), 0o755)}
	for name, text := range map[string]string{"ha.cf": cf, "haresources": storyResources, "authkeys": storyKeys} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	for name, port := range storyPorts {
		errs = append(errs, os.WriteFile(filepath.Join(dir, "resource.d", name), fmt.Appendf(nil, storyScript, self, port), 0o755))
	}
	return errors.Join(errs...)
}

// newPlayer is hanode on the same files with a third vote.
type newPlayer struct{ *livelab.Cluster }

func (p newPlayer) client() *netlab.Host      { return p.Client }
func (p newPlayer) mac(node string) string    { return p.Get(node).MAC("eth1").String() }
func (p newPlayer) start(node string) error   { return p.Get(node).StartAgent() }
func (p newPlayer) cut(node string) error     { return p.Get(node).PowerCut() }
func (p newPlayer) powerOn(node string) error { return p.Get(node).PowerOn() }
func (p newPlayer) settled() error            { return p.Settled(60 * time.Second) }
func (p newPlayer) logs()                     { p.Logs(os.Stderr, 60) }
func (p newPlayer) close() error              { return p.Close() }

func (p newPlayer) stop(node string) error {
	a := p.Get(node).Agent()
	return errors.Join(a.Signal(syscall.SIGTERM), a.Wait())
}

// asStoryHost becomes its second argument and those after it on a host whose
// /etc/ha.d is $0, and that has a /run of its own.
const asStoryHost = `mount --bind "$0" /etc/ha.d
mount -t tmpfs tmpfs /run
exec "$@"`

func newStory(o options) (player, error) {
	dir := filepath.Join(o.dir, "hanode-story")
	files := filepath.Join(dir, "files")
	if err := storyFiles(files, fmt.Sprintf(storyCf, filepath.Join(dir, "ha-log"))+storyWitness); err != nil {
		return nil, err
	}
	names := []string{"primary", "secondary", "arbiter"}
	through := map[string][]string{}
	for _, n := range names {
		through[n] = []string{"unshare", "--mount", "sh", "-euc", asStoryHost, files}
	}
	groups := fmt.Sprintf("group %q {\n  prefer = [\"primary\"]\n  resource \"ip\" \"%s/24\" { dev = \"eth1\" }\n}\n", livelab.VIP, livelab.VIP) // what Settled looks at
	c, err := livelab.New(livelab.Options{Dir: dir, Binary: o.binary, HADir: files, Names: names, Through: through, Groups: groups, Level: "info", Cgroups: true})
	if err != nil {
		return nil, err
	}
	if err := c.StartAll(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return newPlayer{c}, nil
}

// oldPlayer is Debian's heartbeat.
type oldPlayer struct{ *livelab.Old }

func (p oldPlayer) client() *netlab.Host      { return p.Client }
func (p oldPlayer) mac(node string) string    { return p.Get(node).MAC("eth1").String() }
func (p oldPlayer) start(node string) error   { return p.Get(node).StartHeartbeat() }
func (p oldPlayer) cut(node string) error     { return p.Get(node).PowerCut() }
func (p oldPlayer) powerOn(node string) error { return p.Get(node).PowerOn() }
func (p oldPlayer) close() error              { return p.Close() }

func (p oldPlayer) stop(node string) error {
	n := p.Get(node)
	return errors.Join(n.StopHeartbeat(), n.Process().Wait())
}

func (p oldPlayer) settled() error {
	return p.Settled(map[string]string{"primary": "local", "secondary": "local"}, 90*time.Second)
}

func (p oldPlayer) logs() {
	for _, n := range p.Nodes {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(n.Dir), "ha-log"))
		lines := strings.Split(string(b), "\n")
		fmt.Fprintln(os.Stderr, strings.Join(lines[max(0, len(lines)-60):], "\n"), err)
		return
	}
}

func oldStory(o options) (player, error) {
	dir := filepath.Join(o.dir, "heartbeat-story")
	files := filepath.Join(dir, "files")
	if err := storyFiles(files, fmt.Sprintf(storyCf, filepath.Join(dir, "ha-log"))); err != nil {
		return nil, err
	}
	c, err := livelab.NewOld(livelab.OldOptions{Dir: dir, HADir: files})
	if err != nil {
		return nil, err
	}
	for _, n := range c.Nodes {
		if err := n.StartHeartbeat(); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return oldPlayer{c}, nil
}

// event is a chapter of the story, for one cluster.
type event struct {
	name  string
	about string
	slow  bool // it is mostly waiting: both clusters go through it at once
	to    string
	do    func(player) error
}

func events() []event {
	start := func(p player) error { return p.start("primary") }
	return []event{
		{"stop", "orderly stop of the primary", false, "secondary", func(p player) error { return p.stop("primary") }},
		{"return", "its return, and failback", false, "primary", start},
		{"crash", "power cut of the primary", true, "secondary", func(p player) error { return p.cut("primary") }},
		{"power on", "its return, and failback", false, "primary", func(p player) error { return errors.Join(p.powerOn("primary"), start(p)) }},
	}
}

// story tells the old story of both clusters.
func story(o options) error {
	if err := livelab.OldMissing(); err != nil {
		return err
	}
	fmt.Printf("heartbeat: its files (keepalive 2, warntime 10, deadtime 30, bcast eth0, auto_failback on), one address and two services; how long an outside observer had no answer, ms\n")
	players := map[string]player{}
	var err error
	defer func() {
		for _, p := range players {
			_ = p.close()
		}
	}()
	for name, build := range map[string]func(options) (player, error){"hanode": newStory, "heartbeat": oldStory} {
		if players[name], err = build(o); err != nil {
			delete(players, name)
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	f := map[string]*figures{"hanode": {}, "heartbeat": {}}
	for k := range o.runs {
		if err := storyOnce(players, f, k); err != nil {
			return err
		}
	}
	for _, e := range events() {
		fmt.Printf("  %s (%s):\n", e.name, e.about)
		for _, name := range []string{"hanode", "heartbeat"} {
			for _, what := range []string{"the address by ARP", "the second service by HTTP"} {
				fmt.Printf("    %-9s %s\n", name, f[name].line(e.name+", "+what))
			}
		}
	}
	return nil
}

// storyWatch is what is seen of one cluster.
type storyWatch struct {
	arp  *watch.Watcher
	http *watch.Prober
}

func storyOnce(players map[string]player, f map[string]*figures, k int) error {
	watches := map[string]storyWatch{}
	for name, p := range players {
		if err := p.settled(); err != nil {
			p.logs()
			return fmt.Errorf("%s: %w", name, err)
		}
		arp, err := watch.Start(p.client(), "eth0", netip.MustParseAddr(livelab.VIP), netip.MustParseAddr("10.77.0.250"), time.Millisecond)
		if err != nil {
			return err
		}
		defer arp.Stop()
		h, err := watch.StartHTTP(p.client(), fmt.Sprintf("http://%s:%d/", livelab.VIP, storyPorts["storyfiles"]), 5*time.Millisecond, 0)
		if err != nil {
			return err
		}
		defer h.Stop()
		watches[name] = storyWatch{arp, h}
		if err := errors.Join(arp.WaitHolder(p.mac("primary"), 10*time.Second), h.WaitHolder("primary", 10*time.Second)); err != nil {
			return err
		}
	}
	for _, e := range events() {
		errs := make(chan error, len(players))
		for name, p := range players {
			one := func() error {
				if err := tell(p, watches[name], e); err != nil {
					p.logs()
					return fmt.Errorf("%s: %s: %w", name, e.name, err)
				}
				return nil
			}
			if e.slow {
				go func() { errs <- one() }()
			} else {
				errs <- one()
			}
		}
		var all []error
		for range players {
			all = append(all, <-errs)
		}
		if err := errors.Join(all...); err != nil {
			return err
		}
	}
	for name, w := range watches {
		arp, h := w.arp.Stop(), w.http.Stop()
		fmt.Printf("  run %d, %-9s", k+1, name)
		for _, e := range events() {
			a, s := arp.Phase(e.name).LongestSilence, h.Phase(e.name).LongestSilence
			fmt.Printf(" %s %.1f / %.1f;", e.name, ms(a), ms(s))
			f[name].add(e.name+", the address by ARP", ms(a))
			f[name].add(e.name+", the second service by HTTP", ms(s))
		}
		fmt.Printf(" instants with two holders: %d\n", len(arp.Overlaps))
	}
	return nil
}

// tell lets one event happen and waits until the other host serves and all is calm.
func tell(p player, w storyWatch, e event) error {
	w.arp.Mark(e.name)
	w.http.Mark(e.name)
	if err := e.do(p); err != nil {
		return err
	}
	const limit = 3 * storyDeadtime
	if err := errors.Join(w.arp.WaitHolder(p.mac(e.to), limit), w.http.WaitHolder(e.to, limit)); err != nil {
		return err
	}
	if e.to == "primary" {
		if err := p.settled(); err != nil {
			return err
		}
	}
	time.Sleep(500 * time.Millisecond)
	w.arp.Mark("")
	w.http.Mark("")
	return nil
}
