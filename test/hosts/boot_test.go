package hosts

import (
	"os"
	"strings"
	"testing"
	"time"
)

// A host is one: it boots, keeps its disk over a power cut and nothing else, and a
// client reaches its services.
func TestHost(t *testing.T) {
	l := lab(t, "one", "two")
	begin := time.Now()
	for _, h := range l.Hosts {
		if err := h.Boot(); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range l.Hosts {
		state, err := h.Up()
		if err != nil {
			b, _ := os.ReadFile(h.console())
			p, _ := h.Pids()
			t.Fatalf("%v\n%s %v", err, b, p)
		}
		if state != "running" {
			out, _ := h.Run("systemctl", "--failed", "--plain")
			t.Errorf("%s is %s:\n%s", h.Name(), state, out)
		}
	}
	t.Logf("two hosts are up after %v", time.Since(begin).Round(time.Millisecond))
	one := l.Get("one")
	must := func(name string, args ...string) string {
		t.Helper()
		out, err := one.Run(name, args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	must("systemctl", "start", "apache2", "smbd")
	addr := one.Addr("eth1").String()
	text, err := l.Client.FetchFile(addr, "share", "hello.txt", 10*time.Second)
	if err != nil || text != pages["/srv/share/hello.txt"] {
		t.Errorf("the share has %q: %v", text, err)
	}
	if err := one.Write("/srv/kept", "kept", 0o600); err != nil {
		t.Fatal(err)
	}
	must("sh", "-c", "ip addr add 10.77.0.50/32 dev eth1; echo gone > /run/gone; cat /proc/sys/kernel/random/boot_id > /srv/boot; sync")
	if err := one.PowerCut(); err != nil {
		t.Fatal(err)
	}
	if err := one.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Up(); err != nil {
		t.Fatal(err)
	}
	if out := must("cat", "/srv/kept"); out != "kept" {
		t.Errorf("the disk lost what was on it: %q", out)
	}
	out := must("sh", "-c", "ls /run/gone; ip addr; cmp /srv/boot /proc/sys/kernel/random/boot_id; ls /sys/fs/bpf; stat -f -c %T /sys/fs/bpf")
	if strings.Contains(out, "10.77.0.50") || strings.Contains(out, "/run/gone\n") || !strings.Contains(out, "differ") || !strings.Contains(out, "bpf") {
		t.Errorf("after a power cut: %s", out)
	}
	if err := one.Reboot(); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Up(); err != nil {
		t.Fatal(err)
	}
	if err := one.PowerOff(); err != nil {
		t.Fatal(err)
	}
	if !one.Halted() || one.On() {
		t.Error("it runs after its power-off")
	}
}
