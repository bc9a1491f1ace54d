package resource

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hanode/internal/spec"
)

// TestChildrenAreOrdinary: what is started for a group is not favoured as the agent is
// by Nice= of its unit, nor is what it leaves in the background.
func TestChildrenAreOrdinary(t *testing.T) {
	h := newHost(t)
	nice := func(n int) (errs error) {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range tasks {
			if tid, err := strconv.Atoi(task.Name()); err == nil {
				if err := unix.Setpriority(unix.PRIO_PROCESS, tid, n); err != nil {
					errs = err
				}
			}
		}
		return errs
	}
	for range 2 { // a thread that came meanwhile has what its parent had
		if err := nice(-5); err != nil {
			t.Skipf("an ordinary user may not favour a process: %v", err)
		}
	}
	t.Cleanup(func() { _ = nice(0) })
	look := "read pid comm state ppid pgrp session tty tpgid flags a b c d e f g h prio nice rest </proc/$$/stat; echo $nice"
	r := spec.Resource{
		Type: "exec", Name: "svc",
		Start: sh("sh -c '" + look + " >" + h.path("daemon.new") + "; mv " + h.path("daemon.new") + " " + h.path("daemon") + "' </dev/null >/dev/null 2>&1 & " + look),
		Stop:  sh("true"),
	}
	g := h.services.NewGroup()
	if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(output(g, 0, "start").Output); got != "0" {
		t.Errorf("nice of its start: %q", got)
	}
	h.until(func() bool { _, err := os.Stat(h.path("daemon")); return err == nil })
	b, err := os.ReadFile(h.path("daemon"))
	if got := strings.TrimSpace(string(b)); err != nil || got != "0" {
		t.Errorf("nice of its daemon: %q", got)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestReadjust: with numbers that nobody needs a privilege for.
func TestReadjust(t *testing.T) {
	h := newHost(t)
	r := spec.Resource{
		Type: "exec", Name: "svc", Stop: sh("true"),
		Start: sh("echo 300 >/proc/$$/oom_score_adj; sleep 1000 </dev/null >/dev/null 2>&1 & (echo 350 >/proc/self/oom_score_adj; exec sleep 1001 </dev/null >/dev/null 2>&1) &"),
	}
	g := h.services.NewGroup()
	if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil {
		t.Fatal(err)
	}
	pids := h.sleepers(r, 2)
	adjusted := func() (out []int) {
		for _, p := range pids {
			out = append(out, oomAdjust(strconv.Itoa(p)))
		}
		slices.Sort(out)
		return out
	}
	h.until(func() bool { return slices.Equal(adjusted(), []int{300, 350}) })
	readjust(300, 400, pids[0], func() []int { return pids })
	if got := adjusted(); !slices.Equal(got, []int{350, 400}) {
		t.Errorf("after it: %v; what a service chose itself is its own", got)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestEmptyGroupsGo: the control groups of an agent that was killed are gone after the
// next one's clean-up, also where that is in another control group.
func TestEmptyGroupsGo(t *testing.T) {
	h := newHost(t)
	c := &h.services.scripts.groups
	if c.open("probe") == nil {
		t.Skip("no control group can be made here")
	}
	r := h.service("svc")
	g := h.services.NewGroup()
	if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil {
		t.Fatal(err)
	}
	base := c.base
	h.boot() // as after kill -9: nothing was closed
	h.services.scripts.groups.base += "-elsewhere"
	if h.services.scripts.groups.open("x") == nil {
		t.Fatal("no group beside it")
	}
	if _, err := h.services.CleanUp(t.Context(), "primary"); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{base, base + "-elsewhere"} {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
}
