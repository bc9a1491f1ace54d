package hosts

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"hanode/internal/trust"
)

// depot serves files to the hosts by http from the client's address.
func (s *story) depot(files map[string]string) (address string) {
	s.t.Helper()
	address = s.Client.Addr("eth0").String()
	var l net.Listener
	s.do(s.Client.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(address, "80"))
		return err
	}))
	mux := http.NewServeMux()
	for name, text := range files {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) })
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	s.t.Cleanup(func() { _ = srv.Close(); <-done })
	return address
}

func (s *story) file(path string) string {
	s.t.Helper()
	b, err := os.ReadFile(path)
	s.do(err)
	return string(b)
}

// formed waits until the cluster has a leader and everybody is alive.
func (s *story) formed() {
	s.t.Helper()
	eventually(s.t, time.Minute, "the cluster forms", func() bool {
		st, err := s.status(s.arbiter)
		return err == nil && st.Quorum && st.Leader != nil
	})
	s.alive()
}

// TestCloudInit boots hosts that have cloud-init and the user data of deploy/images, and
// nothing of hanode: a minute later they are a cluster.
func TestCloudInit(t *testing.T) {
	s := newStory(t)
	pkg := s.file(deb(versionNew))
	sum := sha256.Sum256([]byte(pkg))
	server := s.depot(map[string]string{"hanode.deb": pkg})
	data := strings.NewReplacer("PACKAGE_URL", "http://"+server+"/hanode.deb", "PACKAGE_SHA256", hex.EncodeToString(sum[:]),
		"      KEY\n", "      "+trust.Generate()+"\n").Replace(s.file("../../deploy/images/cloud-init.yml"))
	for _, h := range s.all() {
		h.write("/var/lib/cloud/seed/nocloud/user-data", data, 0o600)
		h.write("/var/lib/cloud/seed/nocloud/meta-data", "instance-id: "+h.Name()+"\nlocal-hostname: "+h.Name()+"\n", 0o644)
		// The lab wires its hosts itself, its mirror is none of theirs, and there are no
		// locales to choose from: of the configuration stage only what is used here.
		h.write("/etc/cloud/cloud.cfg.d/99-lab.cfg", "datasource_list: [NoCloud]\nnetwork: {config: disabled}\ncloud_config_modules: [runcmd]\n", 0o644)
		s.do(h.remove("/etc/cloud/cloud-init.disabled"))
	}
	begin := time.Now()
	boot(t, s.Hosts...)
	s.formed()
	t.Logf("from power on of bare hosts to a formed cluster: %v", time.Since(begin).Round(time.Millisecond))
	for _, h := range s.all() {
		h.says("status: done", "cloud-init", "status", "--wait")
	}
}

// TestPreseed runs what debian-installer runs at its end, on booted hosts in place of the
// installed system, and reboots them.
func TestPreseed(t *testing.T) {
	s := newStory(t)
	server := s.depot(map[string]string{"hanode.deb": s.file(deb(versionNew)), "hanode.hcl": nodeFile, "key": trust.Generate() + "\n"})
	m := regexp.MustCompile(`(?s)late_command string \\\n(.*?)\n#`).FindStringSubmatch(s.file("../../deploy/images/preseed.cfg"))
	if m == nil {
		t.Fatal("deploy/images/preseed.cfg has no late_command")
	}
	command := strings.ReplaceAll(m[1], "SERVER", server)
	boot(t, s.Hosts...)
	for _, h := range s.all() {
		// In the installer in-target is a chroot into what was installed.
		h.write("/usr/local/bin/in-target", "#!/bin/sh\nexec \"$@\"\n", 0o755)
		h.run("sh", "-c", command)
		s.do(h.Reboot())
	}
	up(t, s.Hosts...)
	s.formed()
}

// TestKickstart: the script after an installation is one that sh takes. No host with
// Anaconda is installed here.
func TestKickstart(t *testing.T) {
	b, err := os.ReadFile("../../deploy/images/kickstart.cfg")
	if err != nil {
		t.Fatal(err)
	}
	_, script, ok := strings.Cut(string(b), "%post --erroronfail\n")
	script, _, end := strings.Cut(script, "%end\n")
	if !ok || !end {
		t.Fatalf("deploy/images/kickstart.cfg has no %s section", "%post")
	}
	cmd := exec.Command("sh", "-n")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// TestCloudInitSchema: cloud-init itself takes the user data.
func TestCloudInitSchema(t *testing.T) {
	needHosts(t)
	if out, err := exec.Command("cloud-init", "schema", "--config-file", "../../deploy/images/cloud-init.yml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestRPM installs the other package: by rpm's own means, on a Debian host, for there is
// no other here; so its dependencies are not looked at. Installed, configured, upgraded
// and removed as the Debian one.
func TestRPM(t *testing.T) {
	l := lab(t, "one")
	o := on{l.Get("one"), t}
	boot(t, o.Host)
	put := func(version, path string) {
		names, err := filepath.Glob(built("hanode-" + version + "-1.*.rpm"))
		if err != nil || len(names) != 1 {
			t.Fatalf("packages: %q, %v", names, err)
		}
		if err := o.Copy(names[0], path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(versionOld, "/root/old.rpm")
	put(versionNew, "/root/new.rpm")
	if out := o.run("rpm", "--nodeps", "--install", "/root/old.rpm"); out != "" {
		t.Logf("rpm says: %s", out)
	}
	o.run("rpm", "--verify", "--nodeps", "hanode")
	o.run("getent", "group", "hanode")
	o.says("inactive", "systemctl", "is-active", "hanode")
	o.write("/etc/hanode/hanode.hcl", alone, 0o644)
	o.write("/etc/hanode/key", trust.Generate()+"\n", 0o600)
	o.run("systemctl", "enable", "--now", "hanode") // Debian has no preset for it
	o.leads()
	before := o.mainPid("hanode")
	out := o.run("rpm", "--nodeps", "--upgrade", "/root/new.rpm")
	if !strings.Contains(out, "handed over") || o.mainPid("hanode") == before || !strings.Contains(o.run("hanode", "version"), versionNew) {
		t.Errorf("the upgrade left %s as %s, and says:\n%s", o.run("hanode", "version"), o.mainPid("hanode"), out)
	}
	o.leads()
	o.run("rpm", "--erase", "hanode")
	o.says("inactive", "systemctl", "is-active", "hanode")
	for path, want := range map[string]bool{"/usr/bin/hanode": false, "/usr/lib/systemd/system/hanode.service": false, "/var/lib/hanode/raft.db": true, "/etc/hanode/key": true} {
		if o.has(path) != want {
			t.Errorf("after the removal %s is there: %v", path, !want)
		}
	}
}
