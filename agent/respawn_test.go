package agent

import (
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"hanode/config"
)

// A program of respawn runs as the user that the file names, with nothing of the agent's
// groups, and with HA_ variables; it is told to end with the agent.
func TestRespawnAsAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("to run a program as somebody else takes root")
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("/tmp", "hanode-respawn-") // where nobody may go
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // another user writes to it
		t.Fatal(err)
	}
	said := filepath.Join(dir, "said")
	err = runAs(t.Context(), config.Respawn{
		User: "nobody", Env: []string{"HA_X=y"},
		Command: []string{"/bin/sh", "-c", `echo "$(id -u) $(id -g) $(id -G) $USER $HA_X" >` + said + `; exit 100`},
	})
	if err == nil || !strings.Contains(err.Error(), "100") {
		t.Errorf("ended with %v", err)
	}
	b, err := os.ReadFile(said)
	if want := u.Uid + " " + u.Gid + " " + u.Gid + " nobody y"; err != nil || strings.TrimSpace(string(b)) != want {
		t.Errorf("it was %q (%v), not %q", strings.TrimSpace(string(b)), err, want)
	}
	if err := runAs(t.Context(), config.Respawn{User: "no-such-user", Command: []string{"/bin/true"}}); err == nil {
		t.Error("a user that is not there is no error")
	}
}

// What runs is known by its name while it does.
func TestClients(t *testing.T) {
	var c clients
	if got := c.list(); len(got) != 0 {
		t.Error(got)
	}
	c.add("/usr/lib/b", 1)
	c.add("/opt/a", 1)
	c.add("/usr/bin/b", 1)
	c.add("/usr/lib/b", -1)
	if got := strings.Join(c.list(), " "); got != "a b" {
		t.Error(got)
	}
	c.add("/usr/bin/b", -1)
	if got := strings.Join(c.list(), " "); got != "a" {
		t.Error(got)
	}
}

// Echo and its answer over both protocols, on the loopback device.
func TestICMPEcho(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		err := icmpEcho(t.Context(), host)
		if err != nil && (strings.Contains(err.Error(), "not permitted") || strings.Contains(err.Error(), "cannot assign") || strings.Contains(err.Error(), "unreachable")) {
			t.Logf("%s: not here: %v", host, err) // no raw socket, or no IPv6
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
}
