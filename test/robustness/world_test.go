package robustness

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"hanode/api"
	"hanode/internal/netlab"
	"hanode/internal/netlab/watch"
	"hanode/test/livelab"
)

// shape is what a cluster consists of. The leader prefers to own nothing, so with
// a witness it owns nothing, and without one it always owns something.
type shape string

const (
	withWitness shape = "two nodes and a witness"
	threeNodes  shape = "three nodes"
)

func (s shape) nodes() []string {
	if s == withWitness {
		return []string{"primary", "secondary", "arbiter"}
	}
	return []string{"primary", "secondary", "third"}
}

// owners are the nodes that may own groups.
func (s shape) owners() []string {
	if s == withWitness {
		return s.nodes()[:2]
	}
	return s.nodes()
}

// groups are the groups that stay, each at home on another node, by name; and tag,
// which the operator moves and changes.
func (s shape) groups() map[string]string {
	if s == withWitness {
		return map[string]string{"web": "primary", "db": "secondary"}
	}
	return map[string]string{"web": "primary", "db": "secondary", "mail": "third"}
}

var vips = map[string]netip.Addr{
	"web":   netip.MustParseAddr("10.77.0.100"),
	"db":    netip.MustParseAddr("10.77.0.101"),
	"mail":  netip.MustParseAddr("10.77.0.102"),
	"tag":   netip.MustParseAddr("10.77.0.103"),
	"extra": netip.MustParseAddr("10.77.0.104"),
}

// file is the cluster file that the cluster is founded with.
func (s shape) file() string {
	var b strings.Builder
	group := func(name, options string) {
		fmt.Fprintf(&b, "group %q {\n%s  resource \"ip\" \"%s/24\" { dev = \"eth1\" }\n}\n", name, options, vips[name])
	}
	for name, home := range s.groups() {
		group(name, fmt.Sprintf("  prefer = [%q]\n  failback = \"on\"\n", home))
	}
	group("tag", "  failback = \"after 1h\"\n")
	return b.String()
}

// world is one running cluster, who watches it, and what was asked of it.
type world struct {
	*livelab.Cluster
	shape shape
	dir   string
	line  timeline
	names map[string]string // node by MAC of eth1

	echo     map[string]*watch.Echo
	watchers map[string]*watch.Watcher // by group; of the present run
	took     holders
	read     map[string]int64 // how far each agent's log was checked
	wanted   *wanted

	mu      sync.Mutex
	down    map[string]bool // ended by us; guarded by mu
	hung    map[string]bool // does not answer now, by us; guarded by mu
	mayExit map[string]bool // its disk hung, so that it may end itself; guarded by mu
}

// newWorld builds, starts and settles a cluster in dir.
func newWorld(s shape, dir string) (*world, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root := netlab.Privileged()
	c, err := livelab.New(livelab.Options{
		Dir: dir, Binary: binary, Profile: *flagProfile, Names: s.nodes(), Groups: s.file(), Disks: root, Cgroups: root,
	})
	if err != nil {
		return nil, err
	}
	w := &world{
		Cluster: c, shape: s, dir: dir, names: map[string]string{}, echo: map[string]*watch.Echo{}, took: holders{},
		read: map[string]int64{}, wanted: newWanted(s), down: map[string]bool{}, hung: map[string]bool{}, mayExit: map[string]bool{},
	}
	for _, n := range c.Nodes {
		w.names[n.MAC("eth1").String()] = n.Node
		if err := errors.Join(w.serve(n), w.start(n)); err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	if err := w.Settled(60 * time.Second); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) close() error {
	for _, e := range w.echo {
		e.Close()
	}
	return w.Close()
}

// serve starts the echo service of a host that has power.
func (w *world) serve(n *livelab.Node) error {
	if e := w.echo[n.Node]; e != nil {
		e.Close()
	}
	e, err := watch.StartEcho(n.Host)
	if err == nil {
		w.echo[n.Node] = e
	}
	return err
}

func (w *world) start(n *livelab.Node) error {
	w.line.now("fault", "start the agent of %s", n.Node)
	w.set(w.down, n, false)
	return n.StartAgent()
}

func (w *world) set(m map[string]bool, n *livelab.Node, v bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m[n.Node] = v
}

func (w *world) is(m map[string]bool, n *livelab.Node) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return m[n.Node]
}

// answering lists the nodes whose agent was not taken away by us.
func (w *world) answering() []*livelab.Node {
	var list []*livelab.Node
	for _, n := range w.Nodes {
		if n.On() && !w.is(w.down, n) && !w.is(w.hung, n) {
			list = append(list, n)
		}
	}
	return list
}

// leader asks the nodes that answer; nil = none says one.
func (w *world) leader() *livelab.Node {
	for _, n := range w.answering() {
		if s, err := w.status(n); err == nil && s.Leader != nil {
			return w.Get(*s.Leader)
		}
	}
	return nil
}

// askTime is how long one question to an agent may take.
const askTime = 500 * time.Millisecond

func (w *world) status(n *livelab.Node) (*api.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	return n.Status(ctx)
}

// watch begins to look at every group's address.
func (w *world) watch() error {
	w.watchers = map[string]*watch.Watcher{}
	names := []string{"tag"}
	for name := range w.shape.groups() {
		names = append(names, name)
	}
	for i, name := range names {
		cfg := watch.Config{
			Dev: "eth0", VIP: vips[name], Observer: netip.AddrFrom4([4]byte{10, 77, 0, byte(240 + i)}), Port: watch.Port,
			OnChange: func(c watch.Change) {
				w.line.add(c.At, "wire", "%s: %s -> %s, silent %.1f ms", name, w.name(c.From), w.name(c.To), ms(c.Silent))
			},
		}
		if name == "tag" {
			cfg.Port, cfg.Every = 0, 10*time.Millisecond // the operator moves it all the time
		}
		o, err := watch.StartConfig(w.Client, cfg)
		if err != nil {
			return err
		}
		w.watchers[name] = o
	}
	return nil
}

// unwatch ends the watch.
func (w *world) unwatch() map[string]watch.Report {
	reports := map[string]watch.Report{}
	for name, o := range w.watchers {
		reports[name] = o.Stop()
	}
	w.watchers = nil
	return reports
}

// name is the node with that MAC, or what was given.
func (w *world) name(mac string) string {
	if n, ok := w.names[mac]; ok {
		return n
	}
	if mac == "" {
		return "nobody"
	}
	return mac
}

// holder is the node that answers for a group's address; nil = none.
func (w *world) holder(group string) *livelab.Node { return w.Get(w.name(w.watchers[group].Now())) }

// unheld lists the groups that nobody answers for, or that no agent says is running.
func (w *world) unheld() []string {
	var list []string
	running := map[string]bool{}
	for _, n := range w.answering() {
		s, err := w.status(n)
		if err != nil || s.Leader == nil {
			continue
		}
		for _, g := range s.Groups {
			if g.Owner != nil && g.State != nil && *g.State == api.GroupRunning {
				running[g.Name] = true
			}
		}
		break
	}
	for name, o := range w.watchers {
		if o.Now() == "" || !running[name] {
			list = append(list, name)
		}
	}
	return list
}

// logs copies every agent's whole log to a folder.
func (w *world) logs(dir string) error {
	var errs []error
	for _, n := range w.Nodes {
		errs = append(errs, os.WriteFile(filepath.Join(dir, n.Node+".log"), tail(n.LogFile(), 0), 0o600))
	}
	return errors.Join(errs...)
}
