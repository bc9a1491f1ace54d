package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hanode/test/livelab"
)

// daemon is a service of two hosts: a real process for each, started in the
// background by a script that keeps its pid, and monitored by it.
type daemon struct {
	x      *world
	dir    string
	script string
}

func newDaemon(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{dir: t.TempDir()}
	d.script = filepath.Join(d.dir, "svc")
	src := `#!/bin/sh
# start, stop, monitor of a sleep; refuses to start where a file says so.
pid=` + d.dir + `/$HANODE_NODE.pid
case $1 in
start)
	[ -e ` + d.dir + `/$HANODE_NODE.broken ] && { echo "its disk is missing"; exit 1; }
	sleep 1000 </dev/null >/dev/null 2>&1 &
	echo $! >$pid.new && mv $pid.new $pid ;;
stop) [ -e $pid ] && kill $(cat $pid) && rm $pid; exit 0 ;;
monitor) [ -e $pid ] && grep -q "^State:.[^Z]" /proc/$(cat $pid)/status && exit 0; exit 7 ;;
esac
`
	if err := os.WriteFile(d.script, []byte(src), 0o700); err != nil {
		t.Fatal(err)
	}
	return d
}

// group is a cluster file of the VIP and the daemon.
func (d *daemon) group(keys, resource string) string {
	return fmt.Sprintf(`group "web" {
  prefer = ["primary"]
  %s
  resource "ip" %q { dev = "eth1" }
  resource "exec" "svc" {
    start   = [%q, "start"]
    stop    = [%q, "stop"]
    monitor = [%q, "monitor"]
    every   = "50ms"
    %s
  }
}
`, keys, livelab.VIP+"/24", d.script, d.script, d.script, resource)
}

func (d *daemon) pid(node string) int {
	b, err := os.ReadFile(filepath.Join(d.dir, node+".pid"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

func (d *daemon) runs(node string) bool {
	pid := d.pid(node)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return pid > 0 && err == nil && !strings.Contains(string(b), "State:\tZ")
}

// await waits until the daemon runs on node, as another process than not.
func (d *daemon) await(node string, not int) int {
	d.x.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if pid := d.pid(node); pid != not && d.runs(node) {
			return pid
		}
		if time.Now().After(end) {
			d.x.t.Fatalf("the service does not run on %s", node)
		}
	}
}

// A service that dies is started again here as often as it may be, then it moves;
// where it failed it is not tried again until somebody repaired it.
func TestServiceThatKeepsDying(t *testing.T) {
	d := newDaemon(t)
	x := form(t, livelab.Options{Groups: d.group(`failback = "on"`, "restarts = 2\n    within = \"10m\"")})
	d.x = x
	x.holds("primary")
	pid := d.await("primary", 0)
	for death := range 3 {
		begin := time.Now()
		x.do(syscall.Kill(pid, syscall.SIGKILL))
		where := "primary"
		if death == 2 {
			where, pid = "secondary", 0
		}
		pid = d.await(where, pid)
		t.Logf("death %d: runs on %s after %v", death+1, where, time.Since(begin).Round(time.Millisecond))
	}
	x.holds("secondary")
	if d.runs("primary") {
		t.Error("it runs on both")
	}
	events, _ := x.hanode("arbiter", 0, "events")
	if strings.Count(events, "is started again there") != 2 || !strings.Contains(events, "web failed on primary") {
		t.Errorf("events:\n%s", events)
	}
	x.says("secondary", "it is tried there again in", 0)
	why, _ := x.hanode("primary", 0, "why", "web")
	if !strings.Contains(why, "failed here (once)") {
		t.Errorf("why:\n%s", why)
	}
	x.hanode("arbiter", 0, "clear", "web", "primary")
	x.w.Mark("cleared")
	// Failback is automatic too: it waits until 30 s have passed since the move.
	if err := x.w.WaitHolder(x.Get("primary").MAC("eth1").String(), 45*time.Second); err != nil {
		t.Fatal(err)
	}
	d.await("primary", 0)

	// Neither can start it: failed, with both reasons; then one is repaired.
	for _, n := range []string{"primary", "secondary"} {
		x.do(os.WriteFile(filepath.Join(d.dir, n+".broken"), nil, 0o600))
	}
	x.hanode("arbiter", 1, "move", "web", "secondary")
	x.says("arbiter", "failed on secondary", 0)
	x.says("arbiter", "failed on primary", 0)
	x.says("primary", "its disk is missing", 0)
	status, _ := x.hanode("secondary", 0, "status", "--json")
	if !strings.Contains(status, `"state": "failed"`) || strings.Count(status, `"count": 1`) != 2 {
		t.Errorf("status:\n%s", status)
	}
	x.do(os.Remove(filepath.Join(d.dir, "secondary.broken")))
	x.hanode("primary", 0, "clear", "web", "secondary")
	d.await("secondary", 0)
	x.holds("secondary")
}
