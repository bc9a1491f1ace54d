package agents

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hanode/config"
	"hanode/internal/spec"
	"hanode/resource"
)

// host runs groups, with a journal of its own.
type host struct {
	*testing.T
	services *resource.Services
	dir      string
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir := t.TempDir()
	s, err := resource.Open(nil, filepath.Join(dir, "running.json"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return &host{t, s, dir}
}

var env = resource.Env{Group: "web", Node: "primary", Epoch: 7, Reason: "start", Exclusive: true}

// check is what a preflight says of the resources.
func (h *host) check(rs ...spec.Resource) []resource.Lack {
	h.Helper()
	return h.services.Check(h.Context(), []spec.Group{{Name: "web", Resources: rs}}, resource.CheckOptions{Limit: time.Minute, Fresh: true})
}

func (h *host) fits(rs ...spec.Resource) {
	h.Helper()
	for _, l := range h.check(rs...) {
		h.Errorf("%+v", l)
	}
}

// start starts a group, and stops it at the end of the test unless it was.
func (h *host) start(rs ...spec.Resource) *resource.Group {
	h.Helper()
	g := h.services.NewGroup()
	if err := g.Start(h.Context(), rs, env); err != nil {
		h.report(g)
		h.Fatal(err)
	}
	h.Cleanup(func() {
		if err := g.Stop(context.Background()); err != nil {
			h.report(g)
			h.Error(err)
		}
	})
	return g
}

func (h *host) stop(g *resource.Group) {
	h.Helper()
	if err := g.Stop(h.Context()); err != nil {
		h.report(g)
		h.Fatal(err)
	}
	// A second agent finds nothing to clean up.
	var left map[string]any
	b, err := os.ReadFile(filepath.Join(h.dir, "running.json"))
	if err == nil {
		err = json.Unmarshal(b, &left)
	}
	if err != nil || len(left) > 0 {
		h.Errorf("the journal holds %s (%v)", b, err)
	}
}

func (h *host) report(g *resource.Group) {
	h.Helper()
	for _, s := range g.Status() {
		h.Logf("%s %s is %s %s", s.Type, s.Name, s.State, s.Err)
		for _, o := range s.Operations {
			h.Logf("  %s: %s\n%s", o.Name, o.Err, o.Output)
		}
	}
}

// broken waits until the monitors say that something failed.
func (h *host) broken(g *resource.Group) error {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), 30*time.Second)
	defer cancel()
	err := g.Watch(ctx)
	if err == nil {
		h.report(g)
		h.Error("the failure was not seen")
	}
	return err
}

// shell runs a script as an operator would; it must succeed.
func (h *host) shell(script string) string {
	h.Helper()
	out, err := exec.Command("sh", "-c", script).CombinedOutput()
	if err != nil {
		h.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func (h *host) mounted(dir string) bool {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		h.Fatal(err)
	}
	return bytes.Contains(b, []byte(" "+dir+" "))
}

func TestDummy(t *testing.T) {
	h := newHost(t)
	state := filepath.Join(h.dir, "state")
	r := spec.Resource{
		Type: "ocf", Name: "dummy", Agent: "heartbeat:Dummy", Every: 50 * time.Millisecond,
		Params: map[string]string{"state": state},
	}
	h.fits(r)
	g := h.start(r)
	if !exists(state) {
		t.Error("the agent keeps no state: it does not run")
	}
	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	t.Log(h.broken(g))
	h.stop(g)

	r.Params = map[string]string{"stat": state}
	if l := h.check(r); len(l) != 1 || l[0].Meaning != resource.Nowhere || !strings.Contains(l[0].Text, `it has no parameter "stat"; it takes fake, state`) {
		t.Errorf("%+v", l)
	}
}

// TestPromotable: agents with two roles are refused, with a reason, wherever they
// are.
func TestPromotable(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{"Stateful", "pgsql", "redis"} {
		l := h.check(spec.Resource{Type: "ocf", Name: "x", Agent: "heartbeat:" + name})
		if len(l) != 1 || l[0].Meaning != resource.Nowhere || !strings.Contains(l[0].Text, "is a promotable agent") {
			t.Errorf("%s: %+v", name, l)
		}
	}
}

// TestEveryAgent: the metadata of every agent in the package can be read, so that a
// parameter that none has is refused by each.
func TestEveryAgent(t *testing.T) {
	h := newHost(t)
	agents, err := os.ReadDir("/usr/lib/ocf/resource.d/heartbeat")
	if err != nil || len(agents) < 80 {
		t.Fatalf("%d agents, %v", len(agents), err)
	}
	refused, promotable := 0, 0
	for _, a := range agents {
		if strings.HasPrefix(a.Name(), ".") || a.IsDir() {
			continue
		}
		lacks := h.check(spec.Resource{Type: "ocf", Name: "x", Agent: "heartbeat:" + a.Name(), Params: map[string]string{"no_such": "1"}})
		said := false
		for _, l := range lacks {
			switch {
			case strings.Contains(l.Text, `"no_such"`):
				said = true
				refused++
			case strings.Contains(l.Text, "promotable"):
				said = true
				promotable++
			}
		}
		if !said {
			t.Errorf("%s: %+v", a.Name(), lacks)
		}
	}
	t.Logf("%d agents refuse a parameter that they do not have, %d are promotable", refused, promotable)
}

// TestFilesystem: a file system in memory; one that somebody uses is unmounted all
// the same, because the agent kills who uses it.
func TestFilesystem(t *testing.T) {
	h := newHost(t)
	dir := filepath.Join(h.dir, "mnt")
	r := spec.Resource{
		Type: "ocf", Name: "data", Agent: "heartbeat:Filesystem", Every: 100 * time.Millisecond,
		Params: map[string]string{"device": "tmpfs", "directory": dir, "fstype": "tmpfs"},
	}
	h.fits(r)
	g := h.start(r)
	if !h.mounted(dir) {
		t.Fatal("not mounted")
	}
	user := exec.Command("sleep", "600")
	user.Dir = dir
	if err := user.Start(); err != nil {
		t.Fatal(err)
	}
	h.stop(g)
	_ = user.Wait()
	if h.mounted(dir) {
		t.Error("still mounted")
	}

	g = h.start(r)
	if err := syscall.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	t.Log(h.broken(g))
	h.stop(g)

	r.Params["fstype"] = "nofs"
	l := h.check(r)
	if len(l) == 0 {
		g := h.services.NewGroup()
		if err := g.Start(t.Context(), []spec.Resource{r}, env); err == nil {
			t.Error("a file system that the kernel does not know was mounted")
		} else {
			t.Log(err)
		}
		if err := g.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestFilesystemOnLoop: a block device, which makes the group exclusive.
func TestFilesystemOnLoop(t *testing.T) {
	isRoot(t)
	h := newHost(t)
	image, dir := filepath.Join(h.dir, "image"), filepath.Join(h.dir, "mnt")
	h.shell(fmt.Sprintf("truncate -s 16M %s && mkfs.ext4 -q -F %s", image, image))
	dev := strings.TrimSpace(h.shell("losetup --find --show " + image))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", dev).Run() })
	for _, r := range []spec.Resource{
		{Type: "ocf", Name: "data", Agent: "heartbeat:Filesystem", Params: map[string]string{"device": dev, "directory": dir, "fstype": "ext4"}},
		{Type: "heartbeat", Name: "Filesystem::" + dev + "::" + dir + "::ext4"},
	} {
		if !(spec.Group{Resources: []spec.Resource{r}}).IsExclusive() {
			t.Error("not exclusive")
		}
		h.fits(r)
		g := h.start(r)
		if !h.mounted(dir) {
			t.Error("not mounted")
		}
		h.stop(g)
		if h.mounted(dir) {
			t.Error("still mounted")
		}
	}
	// One that another host has not got is missing there.
	gone := spec.Resource{Type: "ocf", Name: "data", Agent: "heartbeat:Filesystem", Params: map[string]string{"device": "/dev/nobody", "directory": dir, "fstype": "ext4"}}
	if l := h.check(gone); len(l) != 1 || l[0].Meaning != resource.NotHere || !strings.Contains(l[0].Text, "there is no device /dev/nobody") {
		t.Errorf("%+v", l)
	}
}

// isRoot skips what a user namespace does not let one do: a loop device, another
// user's rights.
func isRoot(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "4294967295") {
		t.Skip("needs root: a user namespace has no loop devices and one user")
	}
}

// apacheConf is all that an Apache needs to answer.
const apacheConf = `
ServerName localhost
ServerRoot %[1]s
PidFile %[1]s/apache.pid
ErrorLog %[1]s/error.log
DocumentRoot %[1]s
User www-data
Group www-data
Listen 127.0.0.1:%[2]d
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule status_module /usr/lib/apache2/modules/mod_status.so
<Location /server-status>
SetHandler server-status
</Location>
`

func TestApache(t *testing.T) {
	isRoot(t)
	h := newHost(t)
	h.shell("chmod 755 " + h.dir + " $(dirname " + h.dir + ")")
	const port = 8080
	conf := filepath.Join(h.dir, "apache.conf")
	for path, text := range map[string]string{conf: fmt.Sprintf(apacheConf, h.dir, port), filepath.Join(h.dir, "index.html"): "hello\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := spec.Resource{
		Type: "ocf", Name: "site", Agent: "heartbeat:apache", Every: 100 * time.Millisecond,
		Params: map[string]string{
			"configfile": conf, "httpd": "/usr/sbin/apache2", "envfiles": "",
			"statusurl": fmt.Sprintf("http://127.0.0.1:%d/server-status", port),
		},
	}
	h.fits(r)
	g := h.start(r)
	if got := h.get(port); got != "hello\n" {
		t.Errorf("it answers %q", got)
	}
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		pid, err := strconv.Atoi(strings.TrimSpace(h.shell("cat " + filepath.Join(h.dir, "apache.pid"))))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
		t.Logf("after %v: %v", sig, h.broken(g))
		h.stop(g)
		g = h.start(r)
		if got := h.get(port); got != "hello\n" {
			t.Errorf("it answers %q", got)
		}
	}
	h.stop(g)
	if out, err := exec.Command("pgrep", "-x", "apache2").Output(); err == nil {
		t.Errorf("processes are left: %s", out)
	}
	r.Params["configfile"] = filepath.Join(h.dir, "nobody.conf")
	if l := h.check(r); len(l) != 1 || l[0].Meaning != resource.NotHere || !strings.Contains(l[0].Text, "nobody.conf") {
		t.Errorf("%+v", l)
	}
}

func (h *host) get(port int) string {
	h.Helper()
	c := http.Client{Timeout: 10 * time.Second}
	resp, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d/index.html", port))
	if err != nil {
		h.Error(err)
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.Error(err)
	}
	return string(b)
}

// TestInitScript: apache2 by its own init script.
func TestInitScript(t *testing.T) {
	isRoot(t)
	h := newHost(t)
	h.shell("mkdir -p /var/log/apache2 /etc/apache2/mods-enabled /etc/apache2/conf-enabled /etc/apache2/sites-enabled" +
		" && chmod 755 /var/log/apache2" +
		" && for m in mpm_event authz_core mime; do for f in /etc/apache2/mods-available/$m.*; do ln -sf $f /etc/apache2/mods-enabled/; done; done" +
		" && echo ServerName localhost > /etc/apache2/conf-enabled/name.conf")
	r := spec.Resource{Type: "lsb", Name: "apache2", Every: 100 * time.Millisecond}
	h.fits(r)
	g := h.start(r)
	pid, err := strconv.Atoi(strings.TrimSpace(h.shell("cat /run/apache2/apache2.pid")))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	t.Log(h.broken(g))
	h.stop(g)
	// Heartbeat finds it too, after its own scripts.
	r.Type = "heartbeat"
	r.Name = "apache2"
	h.fits(r)
	g = h.start(r)
	h.stop(g)
	if out, err := exec.Command("pgrep", "-x", "apache2").Output(); err == nil {
		t.Errorf("processes are left: %s", out)
	}
}

// TestHeartbeatScripts: the scripts of Debian's heartbeat package, and the same
// without them.
func TestHeartbeatScripts(t *testing.T) {
	h := newHost(t)
	dir := filepath.Join(h.dir, "mnt")
	mail := filepath.Join(h.dir, "mails")
	if err := os.WriteFile("/usr/bin/mailx", []byte("#!/bin/sh\n(echo \"$@\"; cat) >> "+mail+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.shell("ln -sf mailx /usr/bin/mail; ln -sf mailx /usr/bin/bsd-mailx")
	rs := []spec.Resource{
		{Type: "heartbeat", Name: "Filesystem::tmpfs::" + dir + "::tmpfs", Every: 100 * time.Millisecond},
		{Type: "heartbeat", Name: "MailTo::root@example.com::web"},
	}
	for _, scripts := range []string{"with", "without"} {
		t.Run(scripts, func(t *testing.T) {
			h := &host{t, h.services, h.dir}
			h.fits(rs...)
			_ = os.Remove(mail)
			g := h.start(rs...)
			if !h.mounted(dir) {
				t.Error("not mounted")
			}
			if b, err := os.ReadFile(mail); err != nil || !strings.Contains(string(b), "root@example.com") {
				t.Errorf("no mail went out: %q %v", b, err)
			}
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Fatal(err)
			}
			t.Log(h.broken(g))
			h.stop(g)
		})
		if err := os.RemoveAll("/etc/ha.d/resource.d"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDrbddisk: no DRBD device is configured; the script says so.
func TestDrbddisk(t *testing.T) {
	h := newHost(t)
	if _, err := os.Stat("/etc/ha.d/resource.d/drbddisk"); err != nil {
		h.shell("mkdir -p /etc/ha.d/resource.d && cp " + os.Getenv(insideVariable) + "/etc/ha.d/resource.d/drbddisk /etc/ha.d/resource.d/")
	}
	r := spec.Resource{Type: "heartbeat", Name: "drbddisk::r0", StartTimeout: 2 * time.Second, StopTimeout: 2 * time.Second}
	if !(spec.Group{Resources: []spec.Resource{r}}).IsExclusive() {
		t.Error("not exclusive")
	}
	h.fits(r)
	g := h.services.NewGroup()
	err := g.Start(t.Context(), []spec.Resource{r}, env)
	if err == nil || !strings.Contains(err.Error(), "no resources defined") {
		t.Error("start:", err)
	}
	// Its stop fails as well; it counts because the status then says "stopped".
	if err := g.Stop(t.Context()); err != nil {
		t.Error("stop:", err)
	}
	kill := g.Status()[0].Operations[0]
	if kill.Name != "kill" || kill.Err != "" || !strings.Contains(kill.Output, "stopped (Unconfigured)") {
		h.report(g)
	}
}

// TestIPaddr2IsShadowed: the agent is there, and a cluster file that names it gets
// hanode's own ip instead, with a line that says so: what the agent puts on is behind no
// guard.
func TestIPaddr2IsShadowed(t *testing.T) {
	if _, err := os.Stat("/usr/lib/ocf/resource.d/heartbeat/IPaddr2"); err != nil {
		t.Fatal(err)
	}
	src := []byte(`group "web" {
  resource "ocf" "vip" {
    agent = "ocf:heartbeat:IPaddr2"
    params {
      ip           = "10.0.0.100"
      cidr_netmask = "24"
      nic          = "eth1"
    }
  }
}
`)
	groups, err := config.ParseCluster("web.hcl", src)
	if err != nil || len(groups) != 1 || len(groups[0].Resources) != 1 {
		t.Fatalf("%+v, %v", groups, err)
	}
	if r := groups[0].Resources[0]; r.Type != "ip" || r.Name != "10.0.0.100/24" || r.Dev != "eth1" {
		t.Errorf("%+v", r)
	}
	said := fmt.Sprint(config.ClusterWarnings("web.hcl", src))
	if !strings.Contains(said, "not ocf:heartbeat:IPaddr2") || !strings.Contains(said, "behind no guard") {
		t.Errorf("warnings: %s", said)
	}
}
