package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hanode/test/livelab"
)

// The remote API is off; a line in the node file switches it on. A certificate allows what
// its role says, from another host, and ends with the key.
func TestRemoteAPI(t *testing.T) {
	x := build(t, livelab.Options{Profile: "lan"})
	p := x.Get("primary")
	x.edit(p, "cluster = ", "remote_api = true\ncluster = ")
	x.do(x.StartAll())
	x.settle()
	x.observe()
	cert := map[string]string{}
	for _, role := range []string{"read", "operate", "admin"} {
		cert[role] = filepath.Join(p.Dir, role+".pem")
		x.here("primary", 0, "cert", "ops", "--role", role, "--out", cert[role])
		if st, err := os.Stat(cert[role]); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", st, err)
		}
	}
	remote := func(want int, to, role string, args ...string) string {
		t.Helper()
		var out strings.Builder
		cmd := exec.Command(binary, append([]string{"--remote", to, "--cert", cert[role]}, args...)...)
		cmd.Stdout, cmd.Stderr = &out, &out
		proc, err := x.Get("secondary").Start(cmd)
		x.do(err)
		_ = proc.Wait() // the exit code says it
		if got := cmd.ProcessState.ExitCode(); got != want {
			t.Fatalf("as %s, %v: exit %d, want %d\n%s", role, args, got, want, out.String())
		}
		return out.String()
	}
	if out := remote(0, "10.0.0.1", "read", "status"); !strings.Contains(out, "primary") {
		t.Errorf("status: %s", out)
	}
	if out := remote(1, "10.0.0.1", "read", "maintenance", "on"); !strings.Contains(out, "has the role read here, and this takes operate") {
		t.Errorf("read may operate: %s", out)
	}
	remote(0, "10.0.0.1", "operate", "maintenance", "on")
	remote(0, "10.0.0.1", "operate", "maintenance", "off")
	if out := remote(1, "10.0.0.1", "operate", "token", "create"); !strings.Contains(out, "takes admin") {
		t.Errorf("operate may let hosts in: %s", out)
	}
	remote(4, "10.0.0.2", "admin", "status") // off there
	if out := remote(2, "10.0.0.1", "admin", "recover"); !strings.Contains(out, "about the host where it runs") {
		t.Errorf("recover: %s", out)
	}
	remote(0, "10.0.0.1", "admin", "key", "rotate", "--wait", "0s")
	x.hanode("primary", 0, "key", "rotate") // waits for the end, or begins the next
	remote(4, "10.0.0.1", "read", "status")
}
