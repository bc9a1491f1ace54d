package resource

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"hanode/internal/spec"
)

// output is what the newest run of an operation printed.
func output(g *Group, i int, op string) Operation {
	for _, o := range g.Status()[i].Operations {
		if o.Name == op {
			return o
		}
	}
	return Operation{}
}

// sleepers waits until n processes of r are a sleep each, and returns them.
func (h *host) sleepers(r spec.Resource, n int) []int {
	h.t.Helper()
	for range 6000 {
		var pids []int
		for _, pid := range h.services.scripts.groups.left(key("web", r)) {
			if strings.HasPrefix(describe(pid), "sleep ") {
				pids = append(pids, pid)
			}
		}
		if len(pids) == n {
			return pids
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.t.Fatalf("%s never had %d children", r.Name, n)
	return nil
}

// TestIgnoresSIGTERM: neither the start that hangs nor what it left survives.
func TestIgnoresSIGTERM(t *testing.T) {
	h := newHost(t)
	r := spec.Resource{
		Type: "exec", Name: "deaf", StartTimeout: 2 * time.Second, StopTimeout: time.Minute,
		Start: sh("trap '' TERM INT HUP; echo $$ > " + h.path("pid") + "; while :; do sleep 1; done"),
		Stop:  sh("kill $(cat " + h.path("pid") + "); true"),
	}
	g := h.services.NewGroup()
	err := g.Start(t.Context(), []spec.Resource{r}, env)
	if err == nil || !strings.Contains(err.Error(), "did not end within 2s and was killed") {
		t.Error(err)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if pid := h.readPid("pid"); !gone(pid) {
		t.Errorf("%d lives", pid)
	}
}

// TestSleepsForEver: a daemon that ignores the stop script is killed, with its
// children, wherever they went; the stop is then verified and said so.
func TestSleepsForEver(t *testing.T) {
	h := newHost(t)
	r := spec.Resource{
		Type: "exec", Name: "stays", StopTimeout: time.Minute,
		// Two that left session, process group and parent.
		Start:   sh("setsid sh -c 'trap \"\" TERM; sleep 600 & sleep 600' >/dev/null 2>&1 & echo $! > " + h.path("pid")),
		Stop:    sh("echo I will not; exit 1"),
		Monitor: sh(`grep -q "^State:.[^Z]" /proc/$(cat ` + h.path("pid") + `)/status || exit 7`),
	}
	g := h.services.NewGroup()
	if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil {
		t.Fatal(err)
	}
	h.sleepers(r, 2)
	if err := h.drivers["exec"].Monitor(t.Context(), r, env); err != nil {
		t.Fatal("it does not run:", err)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if o := output(g, 0, "stop"); !strings.Contains(o.Err, "I will not") || o.Output != "I will not\n" {
		t.Errorf("%+v", o)
	}
	if o := output(g, 0, "kill"); o.Err != "" || strings.Count(o.Output, "sleep (pid ") != 2 {
		t.Errorf("%+v", o)
	}
	if left := h.services.scripts.groups.left(key("web", r)); len(left) != 0 {
		t.Error("left:", left)
	}
	if b := must[[]byte](t)(os.ReadFile(h.path("running.json"))); string(b) != "{}" {
		t.Errorf("journal %s", b)
	}
}

// TestLeavesChildren: a stop that ends the service but not its children.
func TestLeavesChildren(t *testing.T) {
	h := newHost(t)
	r := spec.Resource{
		Type: "exec", Name: "sheds", StopTimeout: time.Minute,
		Start: sh("for i in 1 2 3; do setsid sleep 600 & done"),
		Stop:  sh("echo all gone"),
	}
	g := h.services.NewGroup()
	if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil {
		t.Fatal(err)
	}
	left := h.sleepers(r, 3)
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if o := output(g, 0, "stop"); !strings.HasPrefix(o.Output, "all gone\nhanode: killed what was left of it: ") || strings.Count(o.Output, "sleep (pid ") != 3 {
		t.Errorf("%+v", o)
	}
	for _, pid := range left {
		if alive(pid) {
			t.Error("lives:", pid)
		}
	}
}

// TestKillWithoutCgroups: the same where none can be made.
func TestKillWithoutCgroups(t *testing.T) {
	h := newHost(t)
	h.services.scripts.groups.base = ""
	r := spec.Resource{Type: "exec", Name: "sheds", StopTimeout: time.Minute, Start: sh("setsid sleep 600 &"), Stop: sh(":")}
	g := h.services.NewGroup()
	if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil {
		t.Fatal(err)
	}
	left := h.sleepers(r, 1)
	if err := errors.Join(g.Stop(t.Context())); err != nil || alive(left[0]) {
		t.Error(err)
	}
}

// TestMuchOutput: a gigabyte passes through, its end is kept, and nothing else is.
func TestMuchOutput(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 1 GiB through a pipe")
	}
	h := newHost(t)
	r := spec.Resource{
		Type: "exec", Name: "loud", StartTimeout: 10 * time.Minute,
		Start: sh("head -c 1073741824 /dev/zero | tr '\\0' x; echo; echo the end; exit 1"), Stop: sh(":"),
	}
	g := h.services.NewGroup()
	err := g.Start(t.Context(), []spec.Resource{r}, env)
	if err == nil || !strings.HasSuffix(err.Error(), ": the end") || len(err.Error()) > 1000 {
		t.Error(err)
	}
	if o := output(g, 0, "start"); len(o.Output) != keepOutput || !strings.HasSuffix(o.Output, "x\nthe end\n") {
		t.Errorf("%d bytes of output", len(o.Output))
	}
}

// TestStartsNothing: exit 0 without a service is found by the first monitor.
func TestStartsNothing(t *testing.T) {
	h := newHost(t)
	r := spec.Resource{
		Type: "exec", Name: "lazy", Every: 20 * time.Millisecond, StopTimeout: time.Minute, MonitorTimeout: time.Minute,
		Start: sh("echo started"), Stop: sh(":"), Monitor: sh("exit 7"),
	}
	g := h.services.NewGroup()
	if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil {
		t.Fatal(err)
	}
	if err := g.Watch(t.Context()); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	if s := g.Status()[0]; s.State != Failed || !strings.Contains(s.Err, "not running") {
		t.Errorf("%+v", s)
	}
}

// TestHungMonitorAlone: a monitor that hangs does not keep another resource's death
// from being seen.
func TestHungMonitorAlone(t *testing.T) {
	h := newHost(t)
	hung, dies := h.service("hung"), h.service("dies")
	hung.Every, hung.Monitor = time.Millisecond, sh("sleep 600")
	hung.MonitorTimeout = 10 * time.Minute
	dies.Every = 20 * time.Millisecond
	g := h.services.NewGroup()
	if err := g.Start(t.Context(), []spec.Resource{hung, dies}, env); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(h.path("dies.up")); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- g.Watch(t.Context()) }()
	select {
	case err := <-ended:
		if !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), `"dies"`) {
			t.Error(err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("the death was not seen")
	}
}

// TestExclusiveStop: where two must never run, a monitor that does not know is no
// proof.
func TestExclusiveStop(t *testing.T) {
	h := newHost(t)
	r := h.service("db")
	r.Monitor = sh("exit 1")
	x := env
	x.Exclusive = true
	if err := h.drivers["exec"].Stop(t.Context(), r, env); err != nil {
		t.Error("not exclusive:", err)
	}
	if err := h.drivers["exec"].Stop(t.Context(), r, x); err == nil || !strings.Contains(err.Error(), "in doubt") {
		t.Error("exclusive:", err)
	}
	r.Monitor = sh("exit 7")
	if err := h.drivers["exec"].Stop(t.Context(), r, x); err != nil {
		t.Error("cleanly stopped:", err)
	}
}

// TestDaemonMayWrite: what a daemon prints after its start neither kills it nor is
// lost.
func TestDaemonMayWrite(t *testing.T) {
	h := newHost(t)
	fifo := h.path("fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r := spec.Resource{
		Type: "exec", Name: "talks", StartTimeout: time.Minute, StopTimeout: time.Minute,
		Start: sh("echo begin; setsid sh -c 'read x < " + fifo + "; echo $x; touch " + h.path("wrote") + "; sleep 600' &"), Stop: sh(":"),
	}
	g := h.services.NewGroup()
	if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fifo, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 6000 {
		if _, err := os.Stat(h.path("wrote")); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := os.Stat(h.path("wrote")); err != nil {
		t.Error("it was killed by its own output")
	}
	if err := g.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

func TestTail(t *testing.T) {
	for _, sizes := range [][]int{{3, 5}, {keepOutput}, {keepOutput, 1}, {1, keepOutput}, {keepOutput - 1, 3, 7}, {3 * keepOutput, 2}, {100, keepOutput - 50, 200, 5000}} {
		var all []byte
		out := &tail{}
		for i, n := range sizes {
			p := []byte(strings.Repeat(string(rune('a'+i)), n))
			p[0] = 'A'
			all = append(all, p...)
			if m, err := out.Write(p); m != n || err != nil {
				t.Fatal(m, err)
			}
		}
		want := string(all[max(0, len(all)-keepOutput):])
		if out.String() != want {
			t.Errorf("%v: differs", sizes)
		}
	}
}

// TestMonitorThatHangsEndsNoStop: what verifies a stop has a monitor's time, not that of
// the stop.
func TestMonitorThatHangsEndsNoStop(t *testing.T) {
	h := newHost(t)
	r := spec.Resource{
		Type: "exec", Name: "thinker", Start: sh("true"), Stop: sh("true"), Monitor: sh("exec sleep 1000"),
		StopTimeout: time.Hour, MonitorTimeout: 200 * time.Millisecond,
	}
	g := h.services.NewGroup()
	if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil {
		t.Fatal(err)
	}
	if err := g.Stop(t.Context()); err != nil { // within the hour that a test may take, or not
		t.Error(err)
	}
}
