package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"hanode/api"
	"hanode/internal/netlab"
	"hanode/internal/netlab/watch"
	"hanode/internal/spec"
	"hanode/internal/trust"
)

// The hosts. primary and secondary run the group, arbiter only votes.
const (
	primary   = "primary"
	secondary = "secondary"
	arbiter   = "arbiter"
)

// nodes is every host with an agent; its number is its place here, from 1.
var nodes = [...]string{primary, secondary, arbiter}

const (
	group = "web"
	dev   = "eth1"

	clientNumber = 9
	askEvery     = time.Millisecond
	pageEvery    = 10 * time.Millisecond
	pageTimeout  = 200 * time.Millisecond

	// longestSocket is what the kernel takes as the path of a unix socket, less
	// what the agent needs beside it.
	longestSocket = 100

	foundTime = 20 * time.Second // for the cluster to form and the group to run
)

var (
	vip      = netip.AddrFrom4([4]byte{10, 77, 0, 100})
	observer = netip.AddrFrom4([4]byte{10, 77, 0, 250}) // asks by ARP; on no host
)

func timing() spec.Timing { return spec.Profiles["fast"] }

// stage is the hosts, what runs on them, and who watches. Not safe for concurrent
// use, but for strip.
type stage struct {
	dir    string // everything on disk
	binary string
	lab    *netlab.Lab
	client *netlab.Host
	hosts  map[string]*netlab.Host
	agents map[string]*netlab.Process // the last started on each host
	names  map[string]string          // host by the hardware address of its dev

	address *watch.Watcher
	page    *watch.Prober
}

// build makes the folder and the hosts; nothing runs on them yet.
func build(binary string) (*stage, error) {
	dir, err := makeDir()
	if err != nil {
		return nil, err
	}
	st := &stage{
		dir: dir, binary: binary,
		hosts: map[string]*netlab.Host{}, agents: map[string]*netlab.Process{}, names: map[string]string{},
	}
	if err := st.build(); err != nil {
		return nil, errors.Join(err, st.close(true))
	}
	return st, nil
}

// makeDir makes a folder that is seen from outside as well: /run is not, in here.
func makeDir() (string, error) {
	base := os.TempDir()
	long := len(filepath.Join(base, "hanode-demo-1234567890", arbiter+".sock")) > longestSocket
	if !filepath.IsAbs(base) || base == "/run" || strings.HasPrefix(base, "/run/") || long {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "hanode-demo-")
	if err != nil {
		return "", fmt.Errorf("make a folder for the demo: %w", err)
	}
	return dir, nil
}

func (st *stage) build() (err error) {
	if st.lab, err = netlab.New(netlab.Options{}); err != nil {
		return err
	}
	for i, name := range nodes {
		h, err := st.lab.AddHost(name, i+1)
		if err != nil {
			return err
		}
		st.hosts[name], st.names[h.MAC(dev).String()] = h, name
	}
	for _, name := range nodes {
		if err := os.WriteFile(st.config(name), []byte(st.nodeFile(name)), 0o600); err != nil {
			return fmt.Errorf("write a node file: %w", err)
		}
	}
	if st.client, err = st.lab.AddClient("client", clientNumber); err != nil {
		return err
	}
	if err := os.WriteFile(st.keyFile(), []byte(trust.Generate()+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the key file: %w", err)
	}
	return nil
}

func (st *stage) config(name string) string  { return filepath.Join(st.dir, name+".hcl") }
func (st *stage) socket(name string) string  { return filepath.Join(st.dir, name+".sock") }
func (st *stage) logFile(name string) string { return filepath.Join(st.dir, name+".log") }
func (st *stage) keyFile() string            { return filepath.Join(st.dir, "key") }

// nodeFile is the node file of a host.
func (st *stage) nodeFile(name string) string {
	var b strings.Builder
	set := func(key, value string) { fmt.Fprintf(&b, "%-8s = %s\n", key, quote(value)) }
	set("cluster", "demo")
	set("name", name)
	set("data_dir", filepath.Join(st.dir, name))
	set("key_file", st.keyFile())
	set("socket", st.socket(name))
	set("http", "")
	b.WriteString("link \"eth0\" {}\nlink \"eth1\" {}\ntiming { profile = \"fast\" }\n")
	for _, n := range nodes {
		role := spec.RoleNode
		if n == arbiter {
			role = spec.RoleWitness
		}
		fmt.Fprintf(&b, "node %q {\n  address = %q\n  role    = %q\n}\n", n, st.hosts[n].Addr("eth0").String(), role)
	}
	return b.String()
}

// quote is s as HCL takes it: ${ and %{ would begin a template.
func quote(s string) string {
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(strconv.Quote(s))
}

// webGroup is what the demo applies: the address, and a service behind it.
func (st *stage) webGroup() spec.Group {
	act := func(action string) []string { return []string{st.binary, "demo-web", action, "--dir", st.dir} }
	return spec.Group{
		Name: group, Prefer: []string{primary}, Failback: spec.Failback{On: true},
		Resources: []spec.Resource{
			{Type: "ip", Name: vip.String() + "/24", Dev: dev},
			{
				Type: "exec", Name: "page", Start: act("start"), Stop: act("stop"), Monitor: act("monitor"),
				Every: 5 * time.Second, Timeout: 5 * time.Second,
			},
		},
	}
}

// start starts the agent of a host; its log goes on where it was.
func (st *stage) start(name string) error {
	log, err := os.OpenFile(st.logFile(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer log.Close() // the agent has its own
	cmd := exec.Command(st.binary, "agent", "--config", st.config(name))
	cmd.Stdout, cmd.Stderr = log, log
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "HANODE_") { // such as a socket for all of them
			cmd.Env = append(cmd.Env, v)
		}
	}
	p, err := st.hosts[name].Start(cmd)
	if err != nil {
		return err
	}
	st.agents[name] = p
	return nil
}

// watch puts the client to work.
func (st *stage) watch() (err error) {
	if st.address, err = watch.Start(st.client, "eth0", vip, observer, askEvery); err != nil {
		return err
	}
	st.page, err = watch.StartHTTP(st.client, "http://"+vip.String()+"/", pageEvery, pageTimeout)
	return err
}

// strip is who answered for the address since then, by name and cell. Safe for
// concurrent use while the client watches.
func (st *stage) strip(since time.Time) []string {
	cells := st.address.Cells(since, cell)
	for i, mac := range cells {
		cells[i] = st.name(mac)
	}
	return cells
}

// sample is who answers for the address now, by name; "" = nobody.
func (st *stage) sample() string { return st.name(st.address.Now()) }

// name is the host with that hardware address, or the address if none has it.
func (st *stage) name(mac string) string {
	if n, ok := st.names[mac]; ok {
		return n
	}
	return mac
}

// open starts the agents and has the group run.
func (st *stage) open(ctx context.Context, scr *screen) error {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, foundTime, fmt.Errorf("the group does not run within %v", foundTime))
	defer cancel()
	for _, name := range nodes {
		if err := st.start(name); err != nil {
			return err
		}
	}
	if err := st.apply(ctx); err != nil {
		return err
	}
	for st.sample() != primary || st.page.Now() != primary {
		if err := st.pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("%q answers for %v: %w", st.sample(), vip, err)
		}
	}
	scr.line("Three agents started, cluster founded, group %s applied: primary answers after %s.", group, short(time.Since(began)))
	return nil
}

// apply waits until the cluster has its nodes and takes the group: until then, and
// while it elects a leader, it says so.
func (st *stage) apply(ctx context.Context) error {
	c := api.Dial(st.socket(primary))
	defer c.Close()
	for {
		members, err := c.Members(ctx)
		if n := alive(members); err == nil && n < len(nodes) {
			err = fmt.Errorf("%d of %d nodes are members", n, len(nodes))
		}
		if err == nil {
			_, err = c.Apply(ctx, api.ApplyRequest{Groups: []spec.Group{st.webGroup()}, Wait: foundTime})
		}
		if err == nil {
			return nil
		}
		if pauseErr := st.pause(ctx, 20*time.Millisecond); pauseErr != nil {
			return fmt.Errorf("%w: %w", pauseErr, err)
		}
	}
}

func alive(members []api.Member) (n int) {
	for _, m := range members {
		if m.State == api.MemberAlive {
			n++
		}
	}
	return n
}

// pause waits, unless an agent ends by itself.
func (st *stage) pause(ctx context.Context, d time.Duration) error {
	for _, name := range nodes {
		select {
		case <-st.agents[name].Done:
			return fmt.Errorf("the agent on %s ended: %v", name, st.agents[name].Wait())
		default:
		}
	}
	return sleep(ctx, d)
}

// sleep waits for d or for the end of ctx, and says why that came.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// close takes everything down, and the folder away if that is wanted.
func (st *stage) close(remove bool) error {
	st.unwatch()
	var errs []error
	if st.lab != nil {
		errs = append(errs, st.lab.Close())
	}
	if remove {
		errs = append(errs, os.RemoveAll(st.dir))
	}
	return errors.Join(errs...)
}

func (st *stage) unwatch() {
	if st.address != nil {
		st.address.Stop()
		st.address = nil
	}
	if st.page != nil {
		st.page.Stop()
		st.page = nil
	}
}

// watchSlowly replaces the observers by one that can go on for hours, and prints
// every change of who answers. stop may be called in any case.
func (st *stage) watchSlowly(scr *screen) (stop func(), err error) {
	st.unwatch()
	w, err := watch.StartConfig(st.client, watch.Config{
		Dev: "eth0", VIP: vip, Observer: observer, Every: 20 * time.Millisecond,
		OnChange: func(c watch.Change) {
			scr.line("  %s  %s answers (nobody for %s)", c.At.Format("15:04:05.000"), st.name(c.To), short(c.Silent))
		},
	})
	if err != nil {
		return func() {}, err
	}
	return func() { w.Stop() }, nil
}
