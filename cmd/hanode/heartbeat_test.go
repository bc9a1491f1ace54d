package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What validate says at the end of Heartbeat's files is what an agent here would do.
func TestValidateHeartbeat(t *testing.T) {
	h := newHost(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"ha.cf":       "keepalive 2\ndeadtime 30\nbcast nosuchdev0\nauto_failback on\nnode of.nobody1 of.nobody2\n",
		"haresources": "of.nobody1 10.0.0.100/24/nosuchdev0\n",
		"authkeys":    "auth 1\n1 sha1 a secret of some length\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string // the end of what is printed
	}{
		{"another host's", []string{"--ha-dir", dir}, 0, "can be used, but an agent on this host refuses them for what the last 3 warnings say\n"},
		{"for that host", []string{"--ha-dir", dir, "--skip-host"}, 0, dir + ": Heartbeat's files can be used\n"},
		{"no such folder", []string{"--ha-dir", dir + ".x"}, 2, "error: " + dir + ".x: there is no such folder; Heartbeat's is /etc/ha.d\n" + dir + ".x: Heartbeat's files cannot be used as they are\n"},
		{"a file", []string{"--ha-dir", filepath.Join(dir, "ha.cf")}, 2, "it is a file; --ha-dir takes the folder of ha.cf, haresources and authkeys; name " + dir + "\n" + dir + "/ha.cf: Heartbeat's files cannot be used as they are\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := h.run(append([]string{"validate"}, c.args...)...)
			if code != c.code || errs != "" || !strings.HasSuffix(out, c.want) || strings.Contains(out, ": warning: ") {
				t.Errorf("exit %d, stderr %q, stdout\n%s", code, errs, out)
			}
		})
	}
}
