package hosts

import (
	"strings"
	"testing"
)

// TestSystemdResources runs resource's own tests of systemd units on a host made for
// them: they start, kill and mask units there.
func TestSystemdResources(t *testing.T) {
	l := lab(t, "one")
	o := on{l.Get("one"), t}
	boot(t, o.Host)
	if err := o.Copy(built("resource.test"), "/root/resource.test", 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := o.Run("env", "HANODE_SYSTEMD=1", "TMPDIR=/var/tmp", "/root/resource.test", "-test.v", "-test.run", "^TestSystemd")
	if err != nil || strings.Contains(out, "--- SKIP") || strings.Count(out, "\n--- PASS") < 8 {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "median") || strings.Contains(line, "--- PASS") {
			t.Log(strings.TrimSpace(line))
		}
	}
}
