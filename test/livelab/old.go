package livelab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hanode/internal/netlab"
)

// Old is the Heartbeat that Debian packages, on hosts like those of a [Cluster], for
// comparisons with it. Each host has the package's /etc/ha.d with the files of
// OldOptions, and a /run, a hosts file, a hostname and a /var/lib/heartbeat of its own.
type Old struct {
	Lab    *netlab.Lab
	Client *netlab.Host
	Nodes  []*OldNode
	dir    string
}

// OldOptions say what to build.
type OldOptions struct {
	Dir   string   // needed: files of all hosts
	HADir string   // needed: ha.cf, haresources and authkeys, and resource.d if there are scripts
	Names []string // the hosts; nil = primary, secondary
}

// OldNode is one host and its Heartbeat.
type OldNode struct {
	*netlab.Host
	Node  string
	Dir   string
	proc  *netlab.Process
	hosts string
}

// oldDaemon is the master process of Heartbeat.
const oldDaemon = "/usr/libexec/heartbeat/heartbeat"

// OldMissing says what it takes to run Heartbeat; nil = it is here.
func OldMissing() error {
	if _, err := os.Stat(oldDaemon); err != nil {
		return errors.New("heartbeat is not installed; run: apt-get install --no-install-recommends heartbeat net-tools")
	}
	if os.Getuid() != 0 || !netlab.Privileged() {
		return errors.New("heartbeat runs as root only, and so does what starts it")
	}
	return nil
}

// NewOld builds the hosts and writes the files; it starts nothing.
func NewOld(opts OldOptions) (*Old, error) {
	if opts.Names == nil {
		opts.Names = []string{"primary", "secondary"}
	}
	if err := OldMissing(); err != nil {
		return nil, err
	}
	lab, err := netlab.New(netlab.Options{})
	if err != nil {
		return nil, err
	}
	o := &Old{Lab: lab, dir: opts.Dir}
	if err := o.build(opts); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

func (o *Old) build(opts OldOptions) error {
	hosts := filepath.Join(opts.Dir, "hosts")
	if err := writeHosts(hosts, opts.Names); err != nil {
		return err
	}
	for i, name := range opts.Names {
		h, err := o.Lab.AddHost(name, i+1)
		if err != nil {
			return err
		}
		n := &OldNode{Host: h, Node: name, Dir: filepath.Join(opts.Dir, name), hosts: hosts}
		o.Nodes = append(o.Nodes, n)
		if err := os.MkdirAll(n.Dir, 0o755); err != nil {
			return err
		}
		for _, dir := range []string{n.haDir(), n.lib()} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		for _, c := range [][2]string{{"/etc/ha.d/.", n.haDir()}, {opts.HADir + "/.", n.haDir()}, {"/var/lib/heartbeat/.", n.lib()}} {
			if out, err := exec.Command("cp", "-a", c[0], c[1]).CombinedOutput(); err != nil {
				return fmt.Errorf("copy %s: %w: %s", c[0], err, out)
			}
		}
	}
	var err error
	o.Client, err = o.Lab.AddClient("client", 200)
	return err
}

func (n *OldNode) haDir() string { return filepath.Join(n.Dir, "ha.d") }
func (n *OldNode) lib() string   { return filepath.Join(n.Dir, "lib") }

// LogFile is where Heartbeat's output goes.
func (n *OldNode) LogFile() string { return filepath.Join(n.Dir, "log") }

// asOldHost becomes Heartbeat on a host called $1, with the hosts file $2, the /etc/ha.d
// $3 and the /var/lib/heartbeat $4.
const asOldHost = `hostname "$1"
[ -e /etc/hosts ] || touch /etc/hosts
mount --bind "$2" /etc/hosts
mount --bind "$3" /etc/ha.d
mount --bind "$4" /var/lib/heartbeat
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/resource-agents
for d in heartbeat heartbeat/ccm heartbeat/crm heartbeat/dopd; do
	mkdir -m 750 "/run/$d"
	chown hacluster:haclient "/run/$d"
done
exec ` + oldDaemon + ` -f`

// Get returns a node by name; nil = there is none.
func (o *Old) Get(name string) *OldNode {
	for _, n := range o.Nodes {
		if n.Node == name {
			return n
		}
	}
	return nil
}

// StartHeartbeat starts the node's Heartbeat.
func (n *OldNode) StartHeartbeat() error {
	log, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own
	cmd := exec.Command("unshare", "--mount", "--uts", "sh", "-euc", asOldHost, "sh", n.Node, n.hosts, n.haDir(), n.lib())
	cmd.Stdout, cmd.Stderr = log, log
	n.proc, err = n.Start(cmd)
	return err
}

// StopHeartbeat asks for an orderly stop, as `heartbeat -k` does; it does not wait.
func (n *OldNode) StopHeartbeat() error { return n.proc.Signal(syscall.SIGTERM) }

// Process is the running master process.
func (n *OldNode) Process() *netlab.Process { return n.proc }

// Run runs a program of the package on the node, such as cl_status, and returns what it
// printed and its exit code.
func (n *OldNode) Run(args ...string) (stdout, stderr string, code int, err error) {
	var out, errs strings.Builder
	cmd := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(n.proc.Pid), "-m", "-u", "-n", "--"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out.String(), errs.String(), exit.ExitCode(), nil
	}
	return out.String(), errs.String(), 0, err
}

// Settled waits until both say that they are up, and who holds what: each node's word
// of `cl_status rscstatus`, by name.
func (o *Old) Settled(want map[string]string, limit time.Duration) error {
	var last string
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		last = ""
		for _, n := range o.Nodes {
			out, errs, _, err := n.Run("cl_status", "rscstatus")
			if got := strings.TrimSpace(out); err != nil || got != want[n.Node] {
				last = fmt.Sprintf("%s holds %q, not %s: %s", n.Node, got, want[n.Node], strings.TrimSpace(errs))
				break
			}
		}
		if last == "" {
			return nil
		}
	}
	return fmt.Errorf("heartbeat is not settled within %v: %s", limit, last)
}

// Close ends everything.
func (o *Old) Close() error { return o.Lab.Close() }
