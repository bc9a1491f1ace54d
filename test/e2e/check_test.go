package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hanode/test/livelab"
)

// envServe makes the test's own program a small web server: it is the folder in
// which a file NODE.sick makes it answer 500.
const envServe = "HANODE_E2E_SERVE"

// serve answers on port 8080 of all addresses, until it is killed.
func serve(dir string) int {
	sick := filepath.Join(dir, os.Getenv("HANODE_NODE")+".sick")
	err := http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat(sick); err == nil {
			http.Error(w, "the database is gone", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, os.Getenv("HANODE_NODE"))
	}))
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// newServer is a daemon that is that server.
func newServer(t *testing.T) *daemon {
	t.Helper()
	d := newDaemon(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(d.script)
	if err != nil {
		t.Fatal(err)
	}
	src := strings.Replace(string(b), "sleep 1000 ", fmt.Sprintf("%s=%s %s ", envServe, d.dir, self), 1)
	if err := os.WriteFile(d.script, []byte(src), 0o700); err != nil {
		t.Fatal(err)
	}
	return d
}

// A service whose process runs and that does not answer: only a check through its own
// address can tell. It fails by what it answers, by silence, and by a port that is shut;
// each moves the group, and the history says which check it was.
func TestChecksThroughTheVIP(t *testing.T) {
	d := newServer(t)
	sick := func(node string) string { return filepath.Join(d.dir, node+".sick") }
	x := form(t, livelab.Options{Groups: d.group(`retry_after = "1s"
  check "http" "http://`+livelab.VIP+`:8080/healthz" {
    interval = "100ms"
    timeout  = "300ms"
    fall     = 3
    grace    = "10s"
  }
  check "tcp" "`+livelab.VIP+`:8080" {
    interval = "100ms"
    timeout  = "300ms"
    fall     = 3
    grace    = "10s"
  }`, "")})
	d.x = x
	x.holds("primary")
	pid := d.await("primary", 0)
	x.groupSays(t, "web", []string{"check http http://" + livelab.VIP + ":8080/healthz: running", "check tcp " + livelab.VIP + ":8080: running"})

	begin := time.Now()
	x.do(os.WriteFile(sick("primary"), nil, 0o600))
	x.holds("secondary")
	t.Logf("answers 500: elsewhere after %v", time.Since(begin).Round(time.Millisecond))
	d.await("secondary", 0)
	if d.runs("primary") || d.pid("primary") == pid {
		t.Error("it still runs where its check failed")
	}
	x.history(t, "it answers 500 Internal Server Error")
	x.history(t, "| the database is gone")
	x.groupSays(t, "web", []string{"check http"})
	x.do(os.Remove(sick("primary")))

	// Neither is too soon for the next: the last move was an operator's.
	x.hanode("arbiter", 0, "clear", "web")
	x.hanode("arbiter", 0, "move", "web", "primary")
	x.holds("primary")
	pid = d.await("primary", 0)
	x.groupSays(t, "web", []string{":8080/healthz: running"})
	begin = time.Now()
	x.do(syscall.Kill(pid, syscall.SIGSTOP))
	x.holds("secondary")
	t.Logf("hangs: elsewhere after %v", time.Since(begin).Round(time.Millisecond))
	if d.runs("primary") {
		t.Error("a stopped process was left on the host")
	}
	x.history(t, `healthz" failed 3 times in a row: Get "http://`+livelab.VIP)
}

// What a host lacks is found before anything is changed: apply is refused if no node can
// run the group, and says for each node and each resource what is missing; a node that
// alone lacks something is not given the group.
func TestPreflight(t *testing.T) {
	x := form(t, livelab.Options{})
	x.holds("primary")
	dir := x.Get("primary").Dir
	file := filepath.Join(dir, "preflight.hcl")
	group := func(resources string) string {
		return livelab.Groups + "group \"lacking\" {\n" + resources + "\n}\n"
	}
	x.do(os.WriteFile(file, []byte(group(`
  resource "ip" "10.77.0.150/24" { dev = "eth9" }
  resource "lsb" "no-such-script" {}
  resource "heartbeat" "NoSuchScript::x" {}
  resource "ocf" "agent" { agent = "ocf:heartbeat:NoSuchAgent" }
  resource "exec" "program" {
    start = ["/no/such/program"]
    stop  = ["/no/such/program"]
  }`)), 0o600))
	_, errs := x.hanode("arbiter", 1, "apply", "--yes", file)
	for _, node := range []string{"primary", "secondary"} {
		for _, want := range []string{
			node + `: ip "10.77.0.150/24": `, "eth9 does not exist", node + `: lsb "no-such-script": `, node + `: heartbeat "NoSuchScript::x": `,
			node + `: ocf "agent": `, node + `: exec "program": /no/such/program does not exist`,
		} {
			if !strings.Contains(errs, want) {
				t.Errorf("apply does not say %q: %s", want, errs)
			}
		}
	}
	if out, _ := x.hanode("arbiter", 0, "export"); strings.Contains(out, "lacking") {
		t.Errorf("it was applied all the same:\n%s", out)
	}
	plan, _ := x.hanode("secondary", 0, "plan", file)
	if !strings.Contains(plan, "not on primary: it lacks something: ") {
		t.Errorf("plan:\n%s", plan)
	}

	// One of the two has it.
	x.do(x.Get("secondary").AddMacvlan("eth9", "eth0"))
	x.do(os.WriteFile(file, []byte(group("prefer = [\"primary\"]\n  resource \"ip\" \"10.77.0.150/24\" { dev = \"eth9\" }")), 0o600))
	x.hanode("arbiter", 0, "apply", "--yes", file)
	x.says("secondary", "primary cannot run lacking: ip \"10.77.0.150/24\"", 0)
	x.hanode("arbiter", 1, "move", "lacking", "primary")
	x.do(x.Get("primary").AddMacvlan("eth9", "eth0"))
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if !strings.Contains(statusOf(x, "secondary"), "node-unfit") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("it has the device now:\n%s", statusOf(x, "secondary"))
		}
	}
	x.hanode("arbiter", 0, "move", "lacking", "primary")
}
