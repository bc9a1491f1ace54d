package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hanode/internal/netlab"
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

// neverStops makes the daemon's stop useless: it ignores SIGTERM and never ends.
func (d *daemon) neverStops() {
	d.x.t.Helper()
	b, err := os.ReadFile(d.script)
	d.x.do(err)
	src := strings.Replace(string(b), "stop) ", "stop) trap '' TERM; sleep 1000; sleep 1000 ;;\nignored) ", 1)
	d.x.do(os.WriteFile(d.script+".new", []byte(src), 0o700))
	d.x.do(os.Rename(d.script+".new", d.script))
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

// The owner of an exclusive group lost its power: it may still write, as far as
// anybody can tell, so the group waits for the word of an operator.
func TestConfirmOffStartsAnExclusiveGroup(t *testing.T) {
	d := newDaemon(t)
	told := filepath.Join(d.dir, "told")
	hook := fmt.Sprintf(`on_problem = ["/bin/sh", "-c", "echo $HANODE_NODE $HANODE_EPOCH $HANODE_PROBLEM >>%s"]`, told)
	x := form(t, livelab.Options{Groups: d.group("exclusive = true\n  "+hook, "")})
	d.x = x
	x.holds("primary")
	d.await("primary", 0)
	x.do(x.Get("primary").PowerCut())
	x.says("secondary", "blocked", 0)
	x.history(t, "web waits for primary/1, which may still run it")
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if st, err := os.Stat(told); err == nil && st.Size() > 0 {
			break // nothing waits for a hook
		}
	}
	if b, err := os.ReadFile(told); err != nil || strings.Count(string(b), "\n") != 1 || !strings.HasPrefix(string(b), "secondary 2 web waits for primary/1") {
		t.Errorf("on_problem was told %q, %v", b, err)
	}
	x.says("arbiter", "`hanode confirm-off primary`", 0)
	time.Sleep(time.Second) // four deadtimes
	if d.runs("secondary") {
		t.Fatal("it was started elsewhere on an expired lease alone")
	}
	_, errs := x.hanode("arbiter", 1, "confirm-off", "secondary", "--confirm", "secondary is off")
	if !strings.Contains(errs, "not off") {
		t.Errorf("a node that is heard: %s", errs)
	}
	_, errs = x.hanode("arbiter", 1, "confirm-off", "primary")
	if !strings.Contains(errs, `--confirm "primary is off"`) {
		t.Errorf("without its sentence: %s", errs)
	}
	x.hanode("arbiter", 0, "confirm-off", "primary", "--confirm", "primary is off")
	x.holds("secondary")
	d.await("secondary", 0)
	x.says("secondary", "running", 0)

	x.do(x.Get("primary").PowerOn())
	x.do(x.Get("primary").StartAgent())
	x.well("primary")
	if d.runs("primary") {
		t.Error("it runs on both")
	}
}

// The stop command hangs and ignores SIGTERM: what the service is made of is killed,
// and only then does it start elsewhere.
func TestServiceThatIgnoresItsStop(t *testing.T) {
	d := newDaemon(t)
	x := form(t, livelab.Options{Groups: d.group("", `stop_timeout = "300ms"`)})
	d.x = x
	x.holds("primary")
	d.await("primary", 0)
	d.neverStops()
	begin := time.Now()
	x.hanode("arbiter", 0, "move", "web", "secondary")
	t.Logf("moved in %v", time.Since(begin).Round(time.Millisecond))
	x.holds("secondary")
	d.await("secondary", 0)
	if d.runs("primary") {
		t.Error("it runs on both")
	}
}

// A process that waits in the kernel survives SIGKILL: the group is blocked, starts
// nowhere else, says what to do, and goes on by itself once the process is gone.
func TestServiceThatCannotBeKilled(t *testing.T) {
	mayFreeze(t)
	disk, err := netlab.NewDisk(filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "disk"), 16)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Thaw(); _ = disk.Close() })
	d := newDaemon(t)
	b, err := os.ReadFile(d.script)
	if err != nil {
		t.Fatal(err)
	}
	// On primary it writes to the disk all the time.
	writer := "sh -c 'while [ $HANODE_NODE = primary ]; do echo x >" + disk.Dir + "/x; sleep 0.01; done; exec sleep 1000' </dev/null"
	src := strings.Replace(string(b), "sleep 1000 </dev/null", writer, 1)
	if err := os.WriteFile(d.script, []byte(src), 0o700); err != nil {
		t.Fatal(err)
	}
	x := form(t, livelab.Options{Groups: d.group("", `stop_timeout = "300ms"`)})
	d.x = x
	x.holds("primary")
	d.await("primary", 0)
	x.do(disk.Freeze())
	time.Sleep(200 * time.Millisecond)
	x.hanode("arbiter", 0, "move", "web", "secondary", "--wait", "0")
	x.says("secondary", "blocked", 0)
	x.says("arbiter", "does not stop on primary", 0)
	x.says("primary", "stop it by hand on primary", 0)
	for range 20 {
		if d.runs("secondary") {
			t.Fatal("it was started elsewhere while it could not be killed here")
		}
		time.Sleep(100 * time.Millisecond)
	}
	begin := time.Now()
	x.do(disk.Thaw())
	d.await("secondary", 0)
	t.Logf("runs elsewhere %v after the thaw", time.Since(begin).Round(time.Millisecond))
	x.holds("secondary")
	if d.runs("primary") {
		t.Error("it runs on both")
	}
}

// An owner that is cut off stops its services within a bound, though it can tell
// nobody and does not know what the others do. An exclusive group is blocked
// meanwhile; when the network is back the old owner's word is enough.
func TestCutOffOwnerStopsItsServices(t *testing.T) {
	for _, keys := range []string{"", "exclusive = true"} {
		t.Run(map[string]string{"": "shared"}[keys]+keys, func(t *testing.T) {
			d := newDaemon(t)
			x := form(t, livelab.Options{Groups: d.group(keys, "")})
			d.x = x
			x.holds("primary")
			d.await("primary", 0)
			p, s, a := x.Get("primary").Host, x.Get("secondary").Host, x.Get("arbiter").Host
			begin := time.Now()
			x.do(x.Lab.Partition([]*netlab.Host{p}, []*netlab.Host{s, a}))
			for d.runs("primary") {
				if time.Since(begin) > 20*time.Second {
					t.Fatal("it still runs on the host that is cut off")
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Logf("stopped %v after the cut (initdead is 5 s)", time.Since(begin).Round(10*time.Millisecond))
			if keys == "" {
				x.holds("secondary")
			} else if x.says("secondary", "blocked", 0); d.runs("secondary") {
				t.Error("an exclusive group was started elsewhere")
			}
			x.do(x.Lab.HealAll())
			x.holds("secondary")
			d.await("secondary", 0)
			if d.runs("primary") {
				t.Error("it runs on both")
			}
		})
	}
}

// Hooks are told what happened, in order, and nobody waits for them; that of an
// address comes before the address.
func TestHooks(t *testing.T) {
	d := newDaemon(t)
	said := filepath.Join(d.dir, "said")
	hook := filepath.Join(d.dir, "hook")
	src := "#!/bin/sh\necho \"$HANODE_NODE $HANODE_OPERATION $HANODE_GROUP $HANODE_EPOCH $HANODE_VIP $HANODE_REASON $HANODE_PROBLEM\" >>" + said +
		"\n[ $HANODE_OPERATION = on_problem ] && { echo the mail server is down; exit 3; }\n[ \"$1\" = slow ] && sleep 3\nexit 0\n"
	if err := os.WriteFile(hook, []byte(src), 0o700); err != nil {
		t.Fatal(err)
	}
	groups := d.group(fmt.Sprintf("on_acquire = [%[1]q, \"slow\"]\n  on_release = [%[1]q]\n  on_problem = [%[1]q]", hook), "restarts = 1")
	groups = strings.Replace(groups, `{ dev = "eth1" }`, fmt.Sprintf("{\n    dev = \"eth1\"\n    on_acquire = [%q]\n  }", hook), 1)
	x := form(t, livelab.Options{Groups: groups, Profile: "lan"}) // it looks at one owner for seconds
	d.x = x
	x.holds("primary")
	d.await("primary", 0)
	begin := time.Now()
	x.hanode("arbiter", 0, "move", "web", "secondary")
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the move waited for a hook: %v", took)
	}
	x.holds("secondary")
	pid := d.await("secondary", 0)
	x.do(syscall.Kill(pid, syscall.SIGKILL))
	d.await("secondary", pid)
	x.says("secondary", "hook-failed", 0)
	want := []string{
		"primary on_acquire web 1 10.77.0.100 start ",        // the address's
		"primary on_acquire web 1 10.77.0.100 start ",        // the group's
		"secondary on_acquire web 2 10.77.0.100 switchover ", // the address's
		"primary on_release web 1 10.77.0.100 switchover ",
		"secondary on_acquire web 2 10.77.0.100 switchover ", // the group's
		"secondary on_problem web 2 10.77.0.100 switchover exec \"svc\" of web failed on secondary and is started again there (1 of 1): not running",
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		b, err := os.ReadFile(said)
		x.do(err)
		missing := ""
		for _, w := range want {
			if !strings.Contains(string(b), w+"\n") {
				missing = w
			}
		}
		lines := strings.Count(string(b), "\n")
		if missing == "" && lines == len(want) && strings.HasPrefix(string(b), want[0]) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("said (%d lines), lacks %q:\n%s", lines, missing, b)
		}
	}
	events, _ := x.hanode("arbiter", 0, "events")
	if !strings.Contains(events, "on_problem of web failed on secondary") || !strings.Contains(events, "the mail server is down") {
		t.Errorf("events:\n%s", events)
	}
}

// A concurrent service runs on every node that may own the group; a move leaves it
// alone, and so does the death of the one elsewhere.
func TestConcurrentService(t *testing.T) {
	d := newDaemon(t)
	x := form(t, livelab.Options{Groups: d.group("", "concurrent = true\n    restarts = 1")})
	d.x = x
	x.holds("primary")
	p, s := d.await("primary", 0), d.await("secondary", 0)
	out, _ := x.hanode("arbiter", 0, "move", "web", "secondary")
	t.Logf("%s", strings.TrimSpace(out))
	x.holds("secondary")
	x.hanode("arbiter", 0, "move", "web", "primary")
	x.holds("primary")
	if d.pid("primary") != p || d.pid("secondary") != s || !d.runs("primary") || !d.runs("secondary") || d.runs("arbiter") {
		t.Error("a move touched the service")
	}
	x.do(syscall.Kill(s, syscall.SIGKILL))
	s = d.await("secondary", s)
	if d.pid("primary") != p {
		t.Error("the other one was touched")
	}
	// The owner's dies once too often: the group moves, and finds it running.
	x.do(syscall.Kill(p, syscall.SIGKILL))
	p = d.await("primary", p)
	x.do(syscall.Kill(p, syscall.SIGKILL))
	x.holds("secondary")
	if d.pid("secondary") != s {
		t.Error("it was started anew where it ran")
	}
	d.await("primary", p) // it is tried again, in case the node is needed
	x.hanode("arbiter", 0, "standby", "primary")
	for end := time.Now().Add(20 * time.Second); d.runs("primary"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it runs on a node in standby")
		}
	}
	file := filepath.Join(t.TempDir(), "none.hcl")
	x.do(os.WriteFile(file, []byte("# nothing\n"), 0o600))
	x.hanode("arbiter", 0, "apply", "--yes", file)
	for end := time.Now().Add(20 * time.Second); d.runs("secondary"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it outlived its group")
		}
	}
}

// What runs on a host before the cluster does, and is not its own, is reported until
// somebody stops it.
func TestForeignService(t *testing.T) {
	d := newDaemon(t)
	cmd := exec.Command(d.script, "start")
	cmd.Env = append(os.Environ(), "HANODE_NODE=secondary")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	pid := d.pid("secondary")
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	x := form(t, livelab.Options{Groups: d.group("", "")})
	d.x = x
	x.holds("primary")
	x.says("secondary", `secondary: the cluster did not start exec "svc" of web, and it is there`, 0)
	time.Sleep(3 * time.Second)
	if out, _ := x.hanode("primary", 0, "status"); strings.Contains(out, "primary: the cluster") {
		t.Errorf("the owner's own is reported:\n%s", out)
	}
	if !d.runs("secondary") {
		t.Error("what is not ours was stopped")
	}
	x.do(syscall.Kill(pid, syscall.SIGTERM))
	x.well("secondary")
}
