// Package livelab runs real agents (the real binary) on hosts made of network
// namespaces, for the end-to-end tests and the benchmarks: files, processes,
// power, and the API of each node. Faults are netlab's, observation is watch's;
// nothing here asks an agent who holds what.
package livelab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hanode/api"
	"hanode/config"
	"hanode/internal/netlab"
	"hanode/internal/trust"
)

// VIP is the address of the group that Groups asks for.
const VIP = "10.77.0.100"

// Groups is a cluster file with one group of a bare VIP, preferring primary.
const Groups = `group "web" {
  prefer   = ["primary"]
  failback = "on"
  resource "ip" "` + VIP + `/24" { dev = "eth1" }
}
`

// Options say what to build. Zero values have a meaning.
type Options struct {
	Dir     string // needed: files of all hosts
	Binary  string // needed: hanode
	Profile string // timing profile; "" = fast
	// Names are the hosts, "arbiter" is a witness; nil = primary, secondary, arbiter. Of
	// two the node files say two_node = "manual".
	Names   []string
	Groups  string   // applied at founding; "" = Groups
	Level   string   // log level; "" = debug
	Joins   []string // hosts of Names that are no founders: init or join is up to the test
	Disks   bool     // each data_dir is on a Disk of its own; takes root
	Cgroups bool     // each agent is in a Cgroup of its own; takes root
	// HADir has Heartbeat's files, which the agents run instead of node files of their own:
	// each in a mount and UTS namespace, with its name for a hostname, a hosts file that
	// knows all names, and a /var/lib of its own. "" = node files.
	HADir string
	// Unnamed has the hosts file of such a host know its own name only, as Debian writes it.
	Unnamed bool
	// Through starts the agent of a node by another command, which becomes it.
	Through map[string][]string
}

// Cluster is the hosts, a client on the external network, and the agents.
type Cluster struct {
	Lab    *netlab.Lab
	Client *netlab.Host
	Nodes  []*Node
	opts   Options
}

// Node is one host and its agent.
type Node struct {
	*netlab.Host
	Node   string
	Socket string
	Dir    string
	Disk   *netlab.Disk   // holds data_dir; nil without Options.Disks
	Cgroup *netlab.Cgroup // holds the agent; nil without Options.Cgroups
	Binary string         // of the agent that is started next; "" = Options.Binary
	file   string
	agent  *netlab.Process
	c      *Cluster
}

// New builds the hosts and writes the files; it starts nothing.
func New(opts Options) (*Cluster, error) {
	if opts.Profile == "" {
		opts.Profile = "fast"
	}
	if opts.Names == nil {
		opts.Names = []string{"primary", "secondary", "arbiter"}
	}
	if opts.Groups == "" {
		opts.Groups = Groups
	}
	if opts.Level == "" {
		opts.Level = "debug"
	}
	lab, err := netlab.New(netlab.Options{})
	if err != nil {
		return nil, err
	}
	c := &Cluster{Lab: lab, opts: opts}
	if err := c.build(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) build() error {
	key := []byte(trust.Generate() + "\n")
	groups := filepath.Join(c.opts.Dir, "groups.hcl")
	if err := os.WriteFile(groups, []byte(c.opts.Groups), 0o600); err != nil {
		return err
	}
	var founders strings.Builder
	for i, n := range c.opts.Names {
		if slices.Contains(c.opts.Joins, n) {
			continue
		}
		role := ""
		if n == "arbiter" {
			role = "  role = \"witness\"\n"
		}
		fmt.Fprintf(&founders, "node %q {\n  address = \"10.0.0.%d\"\n%s}\n", n, i+1, role)
	}
	if len(c.opts.Names) == 2 {
		founders.WriteString("two_node = \"manual\"\n")
	}
	for i, name := range c.opts.Names {
		h, err := c.Lab.AddHost(name, i+1)
		if err != nil {
			return err
		}
		n := &Node{Host: h, Node: name, c: c, Dir: filepath.Join(c.opts.Dir, name)}
		c.Nodes = append(c.Nodes, n)
		if err := n.furnish(); err != nil {
			return err
		}
		n.Socket, n.file = filepath.Join(n.Dir, "s"), filepath.Join(n.Dir, "hanode.hcl")
		nodes := founders.String()
		if n.Joins() {
			nodes = ""
		} else if err := os.WriteFile(n.KeyFile(), key, 0o600); err != nil {
			return err
		}
		src := fmt.Sprintf("cluster = \"web\"\nname = %q\ndata_dir = %q\nkey_file = %q\nsocket = %q\nhttp = \"\"\ngroups = %q\nlog_level = %q\n"+
			"link \"eth0\" {}\nlink \"eth1\" {}\ntiming {\n  profile = %q\n}\n%s",
			name, n.DataDir(), n.KeyFile(), n.Socket, groups, c.opts.Level, c.opts.Profile, nodes)
		if err := os.WriteFile(n.file, []byte(src), 0o600); err != nil {
			return err
		}
	}
	var err error
	c.Client, err = c.Lab.AddClient("client", 200)
	return err
}

// furnish makes the node's folder, its disk and its control group.
func (n *Node) furnish() (err error) {
	if err := os.MkdirAll(n.Dir, 0o700); err != nil {
		return err
	}
	if n.c.opts.Disks {
		n.Disk, err = netlab.NewDisk(filepath.Join(n.Dir, "image"), filepath.Join(n.Dir, "disk"), diskMB)
		if err != nil {
			return err
		}
	}
	if n.c.opts.Cgroups {
		n.Cgroup, err = netlab.NewCgroup()
	}
	if n.c.opts.HADir != "" && err == nil {
		err = copyFiles(n.c.opts.HADir, n.HAFiles())
	}
	return err
}

// diskMB is room for raft's log of some hours.
const diskMB = 64

// KeyFile is the node's own copy of the cluster's secret.
func (n *Node) KeyFile() string { return filepath.Join(n.Dir, "key") }

// DataDir is the node's data_dir.
func (n *Node) DataDir() string {
	if n.Disk != nil {
		return filepath.Join(n.Disk.Dir, "data")
	}
	return filepath.Join(n.Dir, "data")
}

// Close ends everything.
func (c *Cluster) Close() error {
	var errs []error
	for _, n := range c.Nodes {
		if n.Disk != nil {
			errs = append(errs, n.Disk.Thaw()) // or its writers cannot be killed
		}
	}
	errs = append(errs, c.Lab.Close())
	for _, n := range c.Nodes {
		if n.Disk != nil {
			errs = append(errs, n.Disk.Close())
		}
		if n.Cgroup != nil {
			errs = append(errs, n.Cgroup.Close())
		}
	}
	return errors.Join(errs...)
}

// Get returns a node by name; nil = there is none.
func (c *Cluster) Get(name string) *Node {
	for _, n := range c.Nodes {
		if n.Node == name {
			return n
		}
	}
	return nil
}

// Holder names the host whose MAC this is.
func (c *Cluster) Holder(mac string) string {
	for _, n := range c.Nodes {
		if n.MAC("eth1").String() == mac {
			return n.Node
		}
	}
	return mac
}

// Joins reports that the node is no founder.
func (n *Node) Joins() bool { return slices.Contains(n.c.opts.Joins, n.Node) }

// StartAll starts the agent of every founder.
func (c *Cluster) StartAll() error {
	for _, n := range c.Nodes {
		if n.Joins() {
			continue
		}
		if err := n.StartAgent(); err != nil {
			return err
		}
	}
	return nil
}

// StartAgent starts the node's agent; its output goes to DIR/log.
func (n *Node) StartAgent() error {
	log, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own
	args := append(slices.Clone(n.c.opts.Through[n.Node]), cmp.Or(n.Binary, n.c.opts.Binary), "agent", "--config", n.file)
	if n.c.opts.HADir != "" {
		hosts, err := n.asHost()
		if err != nil {
			return err
		}
		args = append(slices.Clone(n.c.opts.Through[n.Node]), "unshare", "--mount", "--uts", "sh", "-euc", asHost, "sh",
			n.Node, hosts, n.DataDir(), n.c.opts.Binary, "--socket", n.Socket, "agent", "--ha-dir", n.HAFiles())
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	p, err := n.Start(cmd)
	if err != nil {
		return err
	}
	n.agent = p
	if n.Cgroup != nil {
		return n.Cgroup.Add(p.Pid)
	}
	return nil
}

// asHost becomes its fourth argument and those after it on a host called $1, with the
// hosts file $2 and /var/lib/hanode being $3. A Debian that was only bootstrapped has no
// hosts file to mount it over.
const asHost = `hostname "$1"
[ -e /etc/hosts ] || touch /etc/hosts
mount --bind "$2" /etc/hosts
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/hanode
mount --bind "$3" /var/lib/hanode
shift 3
exec "$@"`

// asHost writes the node's hosts file and makes what is mounted.
func (n *Node) asHost() (hosts string, err error) {
	hosts = filepath.Join(n.Dir, "hosts")
	err = os.MkdirAll(n.DataDir(), 0o700)
	if n.c.opts.Unnamed {
		return hosts, errors.Join(err, os.WriteFile(hosts, fmt.Appendf(nil, "127.0.0.1 localhost\n127.0.1.1 %s\n", n.Node), 0o644))
	}
	return hosts, errors.Join(err, writeHosts(hosts, n.c.opts.Names))
}

// writeHosts writes a hosts file that knows the hosts of a lab.
func writeHosts(file string, names []string) error {
	text := "127.0.0.1 localhost\n"
	for i, name := range names {
		text += fmt.Sprintf("10.0.0.%d %s\n", i+1, name)
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// copyFiles copies the files of a folder to a new one, for their owner only; no folders.
func copyFiles(from, to string) error {
	list, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	errs := []error{os.MkdirAll(to, 0o700)}
	for _, f := range list {
		if f.IsDir() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(from, f.Name()))
		errs = append(errs, err, os.WriteFile(filepath.Join(to, f.Name()), text, 0o600))
	}
	return errors.Join(errs...)
}

// HAFiles is the folder of this node's own copy of Heartbeat's files.
func (n *Node) HAFiles() string { return filepath.Join(n.Dir, "ha.d") }

// LogFile is where the agent's output goes.
func (n *Node) LogFile() string { return filepath.Join(n.Dir, "log") }

// Config is the node's file.
func (n *Node) Config() string { return n.file }

// Agent is the running process.
func (n *Node) Agent() *netlab.Process { return n.agent }

// API talks to the node's agent.
func (n *Node) API() *api.Client { return api.Dial(n.Socket) }

// Run runs the binary with this node's socket and returns what it printed and its
// exit code.
func (n *Node) Run(args ...string) (stdout, stderr string, code int, err error) {
	var out, errs strings.Builder
	cmd := exec.Command(n.c.opts.Binary, append([]string{"--socket", n.Socket}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out.String(), errs.String(), exit.ExitCode(), nil
	}
	return out.String(), errs.String(), 0, err
}

// Here begins the binary on the node's host, in its network, with its file; it is for
// commands that act while no agent runs. What it prints goes to the buffers once it has
// ended.
func (n *Node) Here(stdout, stderr io.Writer, args ...string) (*netlab.Process, error) {
	cmd := exec.Command(n.c.opts.Binary, append(args, "--config", n.file)...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return n.Start(cmd)
}

// Leader asks any agent that answers who leads.
func (c *Cluster) Leader(ctx context.Context) string {
	for _, n := range c.Nodes {
		s, err := n.Status(ctx)
		if err == nil && s.Leader != nil {
			return *s.Leader
		}
	}
	return ""
}

// Settled waits until the whole cluster is as it should be: every member alive
// with a lease on every node's word, and every group running, those of
// Options.Groups where their first preference is.
func (c *Cluster) Settled(limit time.Duration) error {
	end := time.Now().Add(limit)
	var last error
	for time.Now().Before(end) {
		if last = c.settled(); last == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("not settled within %v: %w", limit, last)
}

func (c *Cluster) settled() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	groups, err := config.ParseCluster("groups.hcl", []byte(c.opts.Groups))
	if err != nil {
		return err
	}
	for _, n := range c.Nodes {
		ms, err := n.Members(ctx)
		if err != nil {
			return err
		}
		votes := 0
		for _, m := range ms {
			if m.State != api.MemberAlive || m.LeaseMS == nil || *m.LeaseMS <= 0 {
				return fmt.Errorf("%s sees %s %s", n.Node, m.Name, m.State)
			}
			// Who came late to the founding is alive by a stream before it has its vote.
			if m.Voter {
				votes++
			}
			if m.Voter && m.Follows != nil {
				return fmt.Errorf("%s says that %s has no vote yet", n.Node, m.Name)
			}
			for _, l := range m.Links {
				if l.State != api.MemberAlive {
					return fmt.Errorf("%s sees %s's link %s %s", n.Node, m.Name, l.Name, l.State)
				}
			}
		}
		if votes%2 == 0 && len(ms) > 2 {
			return fmt.Errorf("%s sees %d votes: one is on its way", n.Node, votes)
		}
		s, err := n.Status(ctx)
		if err != nil {
			return err
		}
		for _, g := range s.Groups {
			if g.Owner == nil || g.State == nil || *g.State != api.GroupRunning {
				return fmt.Errorf("%s: group %s is not running", n.Node, g.Name)
			}
			for _, want := range groups {
				if want.Name == g.Name && len(want.Prefer) > 0 && *g.Owner != want.Prefer[0] {
					return fmt.Errorf("%s: group %s is not running on %s", n.Node, g.Name, want.Prefer[0])
				}
			}
		}
	}
	return nil
}

// Back waits until every agent sees n alive and with a lease, as an operator does
// before he restarts the next one.
func (c *Cluster) Back(n *Node, limit time.Duration) error {
	end := time.Now().Add(limit)
	var last error
	for time.Now().Before(end) {
		if last = c.back(n); last == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s is not back within %v: %w", n.Node, limit, last)
}

func (c *Cluster) back(n *Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, o := range c.Nodes {
		list, err := o.Members(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(m api.Member) bool { return m.Name == n.Node })
		if i < 0 || list[i].State != api.MemberAlive || list[i].LeaseMS == nil || *list[i].LeaseMS <= 0 {
			return fmt.Errorf("%s does not see it alive with a lease", o.Node)
		}
	}
	return nil
}

// Status asks the node's agent.
func (n *Node) Status(ctx context.Context) (*api.Status, error) {
	c := n.API()
	defer c.Close()
	return c.Status(ctx, "")
}

// Members asks the node's agent.
func (n *Node) Members(ctx context.Context) ([]api.Member, error) {
	c := n.API()
	defer c.Close()
	return c.Members(ctx)
}

// Restart ends the agent by a signal, waits for its end, and starts it again.
func (n *Node) Restart(how os.Signal, limit time.Duration) error {
	p := n.agent
	if err := p.Signal(how); err != nil {
		return err
	}
	select {
	case <-p.Done:
	case <-time.After(limit):
		return fmt.Errorf("the agent of %s does not end within %v after %v", n.Node, limit, how)
	}
	return n.StartAgent()
}

// Logs writes the end of each agent's log to w.
func (c *Cluster) Logs(w io.Writer, lines int) {
	for _, n := range c.Nodes {
		b, err := os.ReadFile(n.LogFile())
		if err != nil {
			continue
		}
		all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
		fmt.Fprintf(w, "--- %s\n%s\n", n.Node, strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
}
