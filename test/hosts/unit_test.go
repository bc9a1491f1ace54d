package hosts

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hanode/api"
	"hanode/internal/netlab/watch"
	"hanode/internal/trust"
)

// dropIn is where an administrator changes the unit.
const dropIn = "/etc/systemd/system/hanode.service.d/"

// hanode installs the package and writes its files; nothing starts.
func (o on) hanode(node, key string) {
	o.t.Helper()
	o.dpkg(versionNew)
	o.write("/etc/hanode/hanode.hcl", node, 0o644)
	o.write("/etc/hanode/key", key, 0o600)
}

// network is what an agent may leave on a host: addresses on eth1, routes and rules of
// ours, the settings of the device, the guard's pins and its nftables table.
func (o on) network() string {
	o.t.Helper()
	return o.run("sh", "-c", `ip -o addr show dev eth1 | grep -o 'inet6* 10[^ ]*'
ip route show table all proto 104
ip rule show | grep -v 'lookup local\|lookup main\|lookup default'
for f in arp_ignore arp_announce promote_secondaries; do echo $f $(cat /proc/sys/net/ipv4/conf/eth1/$f); done
find /sys/fs/bpf /run/hanode/bpf -type f 2>/dev/null
exit 0`)
}

// TestCleanupUnderSystemd: an agent is killed and not started again. systemd runs the
// clean-up of the unit, and nothing of a group is left on the host; a second one
// changes nothing. Then the watchdog: an agent that hangs is killed and comes back.
func TestCleanupUnderSystemd(t *testing.T) {
	l := lab(t, "one")
	o := on{l.Get("one"), t}
	boot(t, o.Host)
	before := o.network()
	o.hanode(alone, trust.Generate()+"\n")
	o.write("/root/vip.hcl", `group "vip" {
  resource "ip" "10.77.0.100/24" {
    dev    = "eth1"
    source = true
    route "192.0.2.0/24" {
      via   = "10.77.0.1"
      table = 200
    }
    rule {
      table = 200
    }
  }
}
`, 0o644)
	// Systemd's own limit is what ends a hung agent; half a minute is for real hosts.
	o.write(dropIn+"test.conf", "[Service]\nRestart=no\nWatchdogSec=3s\n", 0o644)
	o.run("systemctl", "daemon-reload")
	o.run("systemctl", "start", "hanode")
	o.leads()
	o.apply("/root/vip.hcl")
	with := o.network()
	for _, want := range []string{"10.77.0.100", "192.0.2.0/24", "from 10.77.0.100", "arp_ignore 1", "/sys/fs/bpf/hanode"} {
		if !strings.Contains(with, want) {
			t.Errorf("the owner's network has no %s:\n%s", want, with)
		}
	}
	if err := o.Signal(o.mainPid("hanode"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the unit has failed", func() bool { return o.property("hanode", "ActiveState") == "failed" })
	if after := o.network(); after != before {
		t.Errorf("a killed agent left on the network:\n%s\nwhich was, before there was one:\n%s", after, before)
	}
	if out := o.run("hanode", "agent", "--cleanup"); strings.Contains(out, "10.77.0.100") {
		t.Errorf("a second clean-up found something:\n%s", out)
	}
	if after := o.network(); after != before {
		t.Errorf("a second clean-up changed the network to:\n%s", after)
	}

	o.write(dropIn+"test.conf", "[Service]\nWatchdogSec=3s\n", 0o644)
	o.run("systemctl", "daemon-reload")
	o.run("systemctl", "restart", "hanode")
	o.leads()
	eventually(t, 20*time.Second, "it has its address again", func() bool { return o.network() == with })
	hung := o.mainPid("hanode")
	if err := o.Signal(hung, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	took := eventually(t, 30*time.Second, "the watchdog has an agent started that has the address", func() bool {
		return o.property("hanode", "NRestarts") == "1" && o.property("hanode", "MainPID") != hung && o.property("hanode", "MainPID") != "0" && o.network() == with
	})
	t.Logf("SIGSTOP to the address back: %v, with WatchdogSec=3s", took.Round(time.Millisecond))
	o.run("systemctl", "stop", "hanode")
	if after := o.network(); after != before {
		t.Errorf("after a stop the network is:\n%s\nwhich was, before there was an agent:\n%s", after, before)
	}
}

const addressesOnly = `group "vip" {
  prefer   = ["primary"]
  failback = "on"
  resource "ip" "` + vip + `/24" {
    dev = "eth1"
  }
}
`

// TestAddressesOnly runs a cluster whose agents are not root, with the drop-in of the
// package: the guard is the full one, and the address goes along when its owner hands it
// over, dies or hangs, as ever.
func TestAddressesOnly(t *testing.T) {
	s := newStory(t)
	boot(t, s.Hosts...)
	key := trust.Generate() + "\n"
	for _, h := range s.all() {
		h.hanode(nodeFile, key)
		h.write("/root/vip.hcl", addressesOnly, 0o644)
		for command := range strings.Lines(switchOn(t)) {
			h.run("sh", "-c", command)
		}
	}
	s.formed()
	s.primary.apply("/root/vip.hcl")
	s.alive()
	for _, h := range s.all() {
		if user := h.run("ps", "-o", "user=", "-p", h.mainPid("hanode")); user != "hanode" {
			t.Errorf("the agent of %s runs as %s", h.Name(), user)
		}
		if out := h.run("journalctl", "--no-pager", "-u", "hanode"); !strings.Contains(out, "guard=ebpf") || strings.Contains(out, "realtime is set, but refused") {
			t.Errorf("%s has not the full guard:\n%s", h.Name(), out)
		}
	}
	// That this machine did not run an agent in time is shown for minutes.
	if st, err := s.status(s.primary); err != nil || slices.ContainsFunc(st.Problems, func(p api.StatusProblem) bool { return p.Code != "stalled" }) {
		t.Errorf("problems: %+v, %v", st, err)
	}
	w, err := watch.Start(s.Client.Host, "eth0", netip.MustParseAddr(vip), netip.MustParseAddr("10.77.0.250"), time.Millisecond)
	s.do(err)
	owner := func(want string) {
		t.Helper()
		eventually(t, 30*time.Second, want+" has the address", func() bool {
			return strings.Contains(s.on(want).network(), vip) && s.on(want).mainPid("hanode") != "0"
		})
		s.alive()
	}
	s.primary.run("hanode", "move", "vip", "secondary")
	owner("secondary")
	s.primary.run("hanode", "move", "vip", "--unpin")
	owner("primary")
	s.primary.run("hanode", "move", "vip", "secondary")
	owner("secondary")
	s.do(s.secondary.Signal(s.secondary.mainPid("hanode"), syscall.SIGKILL))
	owner("primary")
	s.do(s.primary.Signal(s.primary.mainPid("hanode"), syscall.SIGSTOP))
	owner("secondary")
	s.do(s.primary.Signal(s.primary.mainPid("hanode"), syscall.SIGCONT))
	owner("primary")
	if r := w.Stop(); len(r.Overlaps) > 0 {
		t.Errorf("two hosts answered: %+v", r.Overlaps)
	}
	s.primary.run("systemctl", "stop", "hanode")
	if out := s.primary.network(); strings.Contains(out, vip) {
		t.Errorf("after a stop: %s", out)
	}
	s.exposure(s.secondary, "addresses only")
	s.do(os.Remove(filepath.Join(s.secondary.root, dropIn, "addresses-only.conf")))
	s.secondary.run("systemctl", "daemon-reload")
	s.exposure(s.secondary, "as installed")
}

// switchOn is how the drop-in's own text says that it is switched on.
func switchOn(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../deploy/addresses-only.conf")
	if err != nil {
		t.Fatal(err)
	}
	commands := ""
	for _, m := range regexp.MustCompile(`(?m)^#   (.+)$`).FindAllStringSubmatch(string(b), -1) {
		commands += m[1] + "\n"
	}
	if strings.Count(commands, "\n") != 4 {
		t.Fatalf("the drop-in tells these commands:\n%s", commands)
	}
	return commands
}

// exposure holds what systemd thinks of the unit against the figure in the docs.
func (s *story) exposure(o on, as string) {
	s.t.Helper()
	out := o.run("systemd-analyze", "security", "--no-pager", "hanode.service")
	m := regexp.MustCompile(`Overall exposure level for hanode.service: ([0-9.]+)`).FindStringSubmatch(out)
	docs, err := os.ReadFile("../../docs/install.md")
	s.do(err)
	if m == nil || !strings.Contains(string(docs), "| "+as+" | "+m[1]+" |") {
		s.t.Errorf("systemd-analyze security says %q of the unit %s, docs/install.md says something else", m, as)
	}
}
