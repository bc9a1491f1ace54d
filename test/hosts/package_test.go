package hosts

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"hanode/internal/trust"
)

// The two versions of the package that are built and installed.
const (
	versionOld = "0.0.1"
	versionNew = "0.0.2"
)

// deb is a package that was built.
func deb(version string) string {
	return built(fmt.Sprintf("hanode_%s_%s.deb", version, runtime.GOARCH))
}

// on runs commands on a host and fails the test where they fail.
type on struct {
	*Host
	t *testing.T
}

func (o on) run(name string, args ...string) string {
	o.t.Helper()
	out, err := o.Run(name, args...)
	if err != nil {
		o.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// says runs a command that may fail and wants its first word.
func (o on) says(want, name string, args ...string) {
	o.t.Helper()
	out, _ := o.Run(name, args...) // the word is what counts
	if got, _, _ := strings.Cut(strings.TrimSpace(out), "\n"); got != want {
		o.t.Errorf("%s: %s %s says %q, want %q", o.Name(), name, strings.Join(args, " "), got, want)
	}
}

func (o on) write(path, text string, mode os.FileMode) {
	o.t.Helper()
	if err := o.Write(path, text, mode); err != nil {
		o.t.Fatal(err)
	}
}

// dpkg installs a package and returns what was said.
func (o on) dpkg(version string) string {
	o.t.Helper()
	if err := o.Copy(deb(version), "/root/hanode.deb", 0o644); err != nil {
		o.t.Fatal(err)
	}
	return o.run("dpkg", "--install", "/root/hanode.deb")
}

// boot boots hosts and waits until they are up.
func boot(t *testing.T, hosts ...*Host) {
	t.Helper()
	for _, h := range hosts {
		if err := h.Boot(); err != nil {
			t.Fatal(err)
		}
	}
	up(t, hosts...)
}

func up(t *testing.T, hosts ...*Host) {
	t.Helper()
	for _, h := range hosts {
		state, err := h.Up()
		if err != nil {
			t.Fatal(err)
		}
		if state != "running" {
			out, _ := h.Run("systemctl", "--failed", "--plain", "--no-legend")
			t.Errorf("%s is %s: %s", h.Name(), state, out)
		}
	}
}

// eventually asks until the answer is yes.
func eventually(t *testing.T, limit time.Duration, what string, ask func() bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for !ask() {
		if time.Since(begin) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(begin)
}

// alone is a node file of a cluster of one.
const alone = `cluster = "alone"
link "eth0" {}
node "one" { address = "10.0.0.1" }
`

// TestPackage: install, configure, upgrade, remove, install again, purge, on a booted
// host. Nothing starts before it is configured, and what an administrator wrote or
// chose stays.
func TestPackage(t *testing.T) {
	l := lab(t, "one")
	o := on{l.Get("one"), t}
	boot(t, o.Host)

	o.dpkg(versionOld)
	o.says("enabled", "systemctl", "is-enabled", "hanode")
	o.says("inactive", "systemctl", "is-active", "hanode")
	o.run("systemctl", "start", "hanode") // a condition that is not met is no error
	o.says("inactive", "systemctl", "is-active", "hanode")
	if out := o.run("hanode", "version"); !strings.Contains(out, versionOld) {
		t.Errorf("hanode version says %q", out)
	}
	o.run("getent", "group", "hanode")
	for _, path := range []string{
		"/usr/share/man/man1/hanode.1.gz", "/usr/share/man/man1/hanode-status.1.gz",
		"/usr/share/bash-completion/completions/hanode", "/usr/share/doc/hanode/examples/hanode.hcl",
	} {
		if !o.has(path) {
			t.Errorf("there is no %s", path)
		}
	}
	o.write("/etc/hanode/hanode.hcl", alone, 0o644)
	o.write("/etc/hanode/key", trust.Generate()+"\n", 0o600)
	o.run("systemctl", "start", "hanode")
	o.leads()
	if err := o.Reboot(); err != nil {
		t.Fatal(err)
	}
	up(t, o.Host)
	o.leads() // it is enabled, so it starts at boot once there is a file

	if out := o.run("cl_status", "hbstatus"); !strings.Contains(out, "running") {
		t.Errorf("cl_status hbstatus says %q", out)
	}
	// It exits with 1, as Heartbeat's does.
	if _, err := o.Run("/usr/share/heartbeat/hb_standby", "--help"); err == nil || !strings.Contains(err.Error(), "hb_standby [all|foreign|local|failback]") {
		t.Errorf("hb_standby --help: %v", err)
	}

	before := o.run("systemctl", "show", "--property=MainPID", "--value", "hanode")
	if out := o.dpkg(versionNew); !strings.Contains(out, "handed over") {
		t.Errorf("an upgrade does not say what it does:\n%s", out)
	}
	if now := o.run("systemctl", "show", "--property=MainPID", "--value", "hanode"); now == before || now == "0" {
		t.Errorf("after the upgrade the agent is process %s, before it was %s", now, before)
	}
	if out := o.run("hanode", "version"); !strings.Contains(out, versionNew) {
		t.Errorf("hanode version says %q", out)
	}
	o.leads()
	o.run("systemctl", "disable", "--now", "hanode")
	o.dpkg(versionOld)
	o.says("disabled", "systemctl", "is-enabled", "hanode")
	o.says("inactive", "systemctl", "is-active", "hanode")
	o.run("systemctl", "enable", "--now", "hanode")

	o.run("dpkg", "--remove", "hanode")
	o.says("inactive", "systemctl", "is-active", "hanode")
	for path, want := range map[string]bool{"/usr/bin/hanode": false, "/lib/systemd/system/hanode.service": false, "/var/lib/hanode/raft.db": true, "/etc/hanode/key": true} {
		if o.has(path) != want {
			t.Errorf("after the removal %s is there: %v", path, !want)
		}
	}
	o.dpkg(versionNew)
	o.run("systemctl", "start", "hanode")
	o.leads()
	if out := o.run("dpkg", "--purge", "hanode"); !strings.Contains(out, "/etc/hanode is left") {
		t.Errorf("a purge does not say what it leaves:\n%s", out)
	}
	for path, want := range map[string]bool{"/var/lib/hanode": false, "/run/hanode": false, "/etc/hanode/key": true} {
		if o.has(path) != want {
			t.Errorf("after the purge %s is there: %v", path, !want)
		}
	}
	if out := o.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "hanode*"); out != "" {
		t.Errorf("after the purge systemd knows of %s", out)
	}
}

// has asks the host, not the disk: /run is not on it.
func (o on) has(path string) bool {
	_, err := o.Run("test", "-e", path)
	return err == nil
}

// leads waits until the only node of a cluster leads it.
func (o on) leads() {
	o.t.Helper()
	eventually(o.t, 30*time.Second, "the node leads its cluster", func() bool {
		out, _ := o.Run("hanode", "status", "--json")
		return strings.Contains(strings.ReplaceAll(out, " ", ""), `"leader":"one"`)
	})
}

// apply gives the cluster its groups; a cluster that has just formed may take a moment.
func (o on) apply(file string) {
	o.t.Helper()
	var err error
	eventually(o.t, 30*time.Second, "the groups are applied", func() bool {
		_, err = o.Run("hanode", "apply", "--yes", file)
		return err == nil
	})
}

// TestLintian: Debian's own checker finds nothing but what is listed and explained in
// the package's overrides.
func TestLintian(t *testing.T) {
	needHosts(t) // the package is built for them
	if _, err := exec.LookPath("lintian"); err != nil {
		t.Fatal("lintian is missing: apt-get install lintian")
	}
	out, err := exec.Command("lintian", "--allow-root", "--fail-on=error,warning", deb(versionNew)).CombinedOutput()
	if err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}
