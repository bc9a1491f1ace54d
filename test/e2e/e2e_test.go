// Package e2e runs the real binary on hosts made of network namespaces and looks
// at the wire from outside: an observer that never asks hanode counts who answers
// for the VIP. Not root? Then the tests re-run themselves in a user namespace,
// where the nftables tier guards instead of eBPF.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "hanode/agent" // so that a cached result does not outlive a change of what is tested
	"hanode/api"
	"hanode/internal/netlab"
	"hanode/internal/netlab/watch"
	"hanode/test/livelab"
)

var binary string

func TestMain(m *testing.M) {
	if code, yes := another(); yes {
		os.Exit(code)
	}
	os.Exit(netlab.Main(built{m}))
}

// built builds the binary once, inside whatever namespace the tests run in.
type built struct{ m *testing.M }

func (b built) Run() int {
	dir, err := os.MkdirTemp("", "hanode-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if binary = os.Getenv("HANODE_BINARY"); binary != "" {
		return b.m.Run()
	}
	binary = filepath.Join(dir, "hanode")
	if out, err := exec.Command("go", "build", "-o", binary, "hanode/cmd/hanode").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build hanode: %v\n%s", err, out)
		return 1
	}
	return b.m.Run()
}

// world is a running cluster and the observer of its VIP.
type world struct {
	*livelab.Cluster
	t *testing.T
	w *watch.Watcher
}

// form builds, starts and settles a cluster, and begins to watch.
func form(t *testing.T, opts livelab.Options) *world {
	t.Helper()
	x := build(t, opts)
	if err := x.StartAll(); err != nil {
		t.Fatal(err)
	}
	x.settle()
	x.observe()
	return x
}

func build(t *testing.T, opts livelab.Options) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "hanode-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	opts.Dir, opts.Binary = dir, binary
	c, err := livelab.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	x := &world{Cluster: c, t: t}
	t.Cleanup(func() {
		if x.w != nil {
			r := x.w.Stop()
			if len(r.Overlaps) > 0 {
				t.Errorf("two hosts answered: %+v", r.Overlaps)
			}
			if r.Lost > 0 {
				t.Errorf("the observer lost %d replies; its word does not count", r.Lost)
			}
		}
		if t.Failed() {
			var b bytes.Buffer
			c.Logs(&b, 60)
			t.Logf("%s", b.String())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return x
}

func (x *world) settle() {
	x.t.Helper()
	if err := x.Settled(60 * time.Second); err != nil {
		x.t.Fatal(err)
	}
}

func (x *world) observe() {
	x.t.Helper()
	w, err := watch.Start(x.Client, "eth0", netip.MustParseAddr(livelab.VIP), netip.MustParseAddr("10.77.0.250"), time.Millisecond)
	if err != nil {
		x.t.Fatal(err)
	}
	x.w = w
}

// holds waits until the host answers for the VIP.
func (x *world) holds(name string) {
	x.t.Helper()
	if err := x.w.WaitHolder(x.Get(name).MAC("eth1").String(), 20*time.Second); err != nil {
		x.t.Fatalf("%s does not answer for the VIP: %v", name, err)
	}
}

func (x *world) do(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

// hanode runs a command on a node and demands its exit code.
func (x *world) hanode(node string, want int, args ...string) (string, string) {
	x.t.Helper()
	out, errs, code, err := x.Get(node).Run(args...)
	if err != nil {
		x.t.Fatal(err)
	}
	if code != want {
		x.t.Fatalf("hanode %s on %s: exit %d, want %d\n%s%s", strings.Join(args, " "), node, code, want, out, errs)
	}
	return out, errs
}

func TestPowerCutMovesTheVIPAndItsReturnBringsItBack(t *testing.T) {
	x := form(t, livelab.Options{})
	x.holds("primary")
	x.do(x.Get("primary").PowerCut())
	x.holds("secondary")
	x.do(x.Get("primary").PowerOn())
	x.do(x.Get("primary").StartAgent())
	x.holds("primary")
	x.settle()
}

func TestKilledAgentFallsSilentAndIsReplaced(t *testing.T) {
	x := form(t, livelab.Options{})
	x.holds("primary")
	x.do(x.Get("primary").Agent().Kill())
	x.holds("secondary")
	time.Sleep(time.Second) // the old host's address is still on it: it must not answer again
	x.do(x.Get("primary").StartAgent())
	x.holds("primary")
}

func TestHungAgentFallsSilentAndIsReplaced(t *testing.T) {
	x := form(t, livelab.Options{})
	x.holds("primary")
	x.do(x.Get("primary").Agent().Stop())
	x.holds("secondary")
	time.Sleep(2500 * time.Millisecond) // ten deadtimes
	x.do(x.Get("primary").Agent().Cont())
	x.holds("primary") // fenced, registered anew, failed back
}

func TestCutEth0CostsNothing(t *testing.T) {
	x := form(t, livelab.Options{})
	x.holds("primary")
	x.w.Mark("cut")
	x.do(x.Get("primary").CutLink("eth0"))
	time.Sleep(4 * time.Second)
	out, _ := x.hanode("primary", 0, "members")
	if !strings.Contains(out, "primary") {
		t.Errorf("members says:\n%s", out)
	}
	x.do(x.Get("primary").HealLink("eth0"))
	x.settle()
	r := x.w.Stop()
	x.w = nil
	if len(r.Changes) > 0 || len(r.Overlaps) > 0 {
		t.Errorf("the VIP moved: %+v %+v", r.Changes, r.Overlaps)
	}
}

func TestPartitionedOwnerMutesItself(t *testing.T) {
	x := form(t, livelab.Options{})
	x.holds("primary")
	p, s, a := x.Get("primary").Host, x.Get("secondary").Host, x.Get("arbiter").Host
	x.do(x.Lab.Partition([]*netlab.Host{p}, []*netlab.Host{s, a}))
	x.holds("secondary")
	_, errs := x.hanode("primary", api.ExitNoQuorum, "members")
	for _, missing := range []string{"secondary", "arbiter"} {
		if !strings.Contains(errs, missing) {
			t.Errorf("the sentence does not name %s: %s", missing, errs)
		}
	}
	x.do(x.Lab.HealAll())
	x.holds("primary")
}

func TestOrderlyStopHandsOver(t *testing.T) {
	x := form(t, livelab.Options{})
	x.holds("primary")
	p := x.Get("primary").Agent()
	x.do(p.Signal(os.Interrupt))
	if err := p.Wait(); err != nil {
		t.Errorf("the agent ended with %v", err)
	}
	x.holds("secondary")
	out, _ := x.hanode("secondary", 0, "members", "--json")
	if !strings.Contains(out, `"left"`) {
		time.Sleep(time.Second)
		if out, _ = x.hanode("secondary", 0, "members", "--json"); !strings.Contains(out, `"left"`) {
			t.Errorf("primary is not shown as left:\n%s", out)
		}
	}
	x.do(x.Get("primary").StartAgent())
	x.holds("primary")
}

func TestCommandsOnANonLeader(t *testing.T) {
	x := form(t, livelab.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	on := "secondary"
	if x.Leader(ctx) == on {
		on = "arbiter"
	}
	out, _ := x.hanode(on, 0, "move", "web", "secondary")
	if !strings.HasPrefix(out, "web: primary -> secondary, epoch ") || !strings.Contains(out, " ms") {
		t.Errorf("move printed %q", out)
	}
	x.holds("secondary")
	_, errs := x.hanode(on, 1, "move", "web", "arbiter")
	if !strings.Contains(errs, "witness") {
		t.Errorf("moving to a witness said %q", errs)
	}
	x.hanode(on, 0, "move", "web", "--unpin")
	x.holds("primary")
	x.hanode(on, 0, "standby", "primary")
	x.holds("secondary")
	x.hanode(on, 0, "online", "primary")
	x.holds("primary")
	x.hanode(on, 0, "maintenance", "on")
	x.do(x.Get("primary").Agent().Kill())
	time.Sleep(time.Second)
	out, _ = x.hanode(on, 0, "status")
	if !strings.Contains(out, "maintenance") {
		t.Errorf("status says nothing of maintenance:\n%s", out)
	}
	x.do(x.Get("primary").StartAgent())
	x.hanode(on, 0, "maintenance", "off")
	x.holds("primary")
	out, _ = x.hanode(on, 0, "why", "web")
	if !strings.Contains(out, "primary") || !strings.Contains(out, "secondary") {
		t.Errorf("why printed:\n%s", out)
	}
	out, _ = x.hanode(on, 0, "events", "--json")
	if !strings.Contains(out, `"kind":"started"`) {
		t.Errorf("events printed:\n%s", out)
	}
	exported, _ := x.hanode(on, 0, "export")
	file := filepath.Join(t.TempDir(), "export.hcl")
	x.do(os.WriteFile(file, []byte(exported), 0o600))
	out, _ = x.hanode(on, 0, "plan", file)
	if !strings.Contains(out, "stays") {
		t.Errorf("plan of the export is not empty:\n%s", out)
	}
	x.hanode(on, 0, "apply", "--yes", file)
	again, _ := x.hanode(on, 0, "export")
	if again != exported {
		t.Errorf("export changed:\n%s\n%s", exported, again)
	}
}

func TestLeaveEndsMembership(t *testing.T) {
	x := form(t, livelab.Options{})
	x.holds("primary")
	x.hanode("primary", 0, "leave")
	x.holds("secondary")
	out, _ := x.hanode("secondary", 0, "members")
	if strings.Contains(out, "primary") {
		t.Errorf("primary is still a member:\n%s", out)
	}
	<-x.Get("primary").Agent().Done
	left, err := filepath.Glob(filepath.Join(x.Get("primary").Dir, "data.left-*"))
	if err != nil || len(left) != 1 {
		t.Errorf("data_dir was not set aside: %v %v", left, err)
	}
}

// A group with a service: real processes, started after the address and stopped
// before it, on the new owner and on the old one.
func TestServiceMovesWithItsAddress(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "svc")
	x := func() *world {
		src := fmt.Sprintf("#!/bin/sh\necho \"$HANODE_NODE $HANODE_EPOCH $1\" >>%s/order\n", dir)
		if err := os.WriteFile(script, []byte(src), 0o700); err != nil {
			t.Fatal(err)
		}
		groups := fmt.Sprintf("group \"web\" {\n  prefer = [\"primary\"]\n  failback = \"on\"\n  resource \"ip\" %q { dev = \"eth1\" }\n"+
			"  resource \"exec\" \"svc\" {\n    start = [%q, \"start\"]\n    stop = [%q, \"stop\"]\n  }\n}\n", livelab.VIP+"/24", script, script)
		return form(t, livelab.Options{Groups: groups})
	}()
	x.hanode("arbiter", 0, "move", "web", "secondary")
	x.holds("secondary")
	b, err := os.ReadFile(filepath.Join(dir, "order"))
	x.do(err)
	runs := ""
	for _, l := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		node, op, _ := strings.Cut(l, " ")
		_, op, _ = strings.Cut(op, " ")
		switch {
		case op == "start" && runs == "":
			runs = node
		case op == "stop" && runs == node:
			runs = ""
		default:
			t.Errorf("%q while it runs on %q:\n%s", l, runs, b)
		}
	}
	if runs != "secondary" {
		t.Errorf("it runs on %q in the end:\n%s", runs, b)
	}
	// kill -9: what the dead agent left running is stopped when it starts again.
	x.do(x.Get("secondary").Agent().Kill())
	x.holds("primary")
	x.do(x.Get("secondary").StartAgent())
	x.settle()
	b, err = os.ReadFile(filepath.Join(dir, "order"))
	x.do(err)
	if !strings.Contains(string(b), "secondary 0 stop\n") {
		t.Errorf("the left-over service was not stopped:\n%s", b)
	}
}

func TestBadStarts(t *testing.T) {
	x := form(t, livelab.Options{})
	p := x.Get("primary")
	run := func(file string) (string, int) {
		t.Helper()
		var out bytes.Buffer
		cmd := exec.Command(binary, "agent", "--config", file)
		cmd.Stdout, cmd.Stderr = &out, &out
		proc, err := p.Start(cmd)
		x.do(err)
		select {
		case <-proc.Done:
		case <-time.After(20 * time.Second):
			t.Errorf("%s: the agent did not refuse", file)
			x.do(proc.Kill())
			<-proc.Done
		}
		_ = proc.Wait()
		return out.String(), cmd.ProcessState.ExitCode()
	}
	out, code := run(p.Config())
	if code != 1 || !strings.Contains(out, "in use by another agent") {
		t.Errorf("second agent on one data_dir: exit %d: %s", code, out)
	}
	base, err := os.ReadFile(p.Config())
	x.do(err)
	variant := func(name string, from, to string) string {
		file := filepath.Join(p.Dir, name+".hcl")
		x.do(os.WriteFile(file, bytes.ReplaceAll(base, []byte(from), []byte(to)), 0o600))
		return file
	}
	out, code = run(variant("other-dir", filepath.Join(p.Dir, "data"), filepath.Join(p.Dir, "data2")))
	if code != 1 || !strings.Contains(out, "already runs on this host") {
		t.Errorf("second agent in one network namespace: exit %d: %s", code, out)
	}
	out, code = run(variant("no-device", `link "eth1"`, `link "eth7"`))
	if code != 2 || !strings.Contains(out, "eth7") || !strings.Contains(out, "eth0, eth1") {
		t.Errorf("missing device: exit %d: %s", code, out)
	}
	// A damaged store: named, refused, untouched.
	x.do(p.Agent().Kill())
	<-p.Agent().Done
	store := filepath.Join(p.Dir, "data", "raft.db")
	whole, err := os.ReadFile(store)
	x.do(err)
	x.do(os.WriteFile(store, whole[:len(whole)/3], 0o600))
	out, code = run(p.Config())
	after, err := os.ReadFile(store)
	x.do(err)
	if code != 1 || !strings.Contains(out, store) || !strings.Contains(out, "move it aside") || !bytes.Equal(after, whole[:len(whole)/3]) {
		t.Errorf("damaged store: exit %d, untouched %v: %s", code, bytes.Equal(after, whole[:len(whole)/3]), out)
	}
	x.do(os.WriteFile(store, whole, 0o600))
	// Another host has this node's address.
	own := netip.PrefixFrom(p.Addr("eth1"), 32)
	x.do(x.Client.AddAddr("eth0", own))
	out, code = run(p.Config())
	if code != 1 || !strings.Contains(out, "uses this node's address "+own.Addr().String()) {
		t.Errorf("address taken: exit %d: %s", code, out)
	}
	x.do(x.Client.DelAddr("eth0", own))
	// An emptied disk joins anew.
	x.do(os.RemoveAll(filepath.Join(p.Dir, "data")))
	x.do(p.StartAgent())
	x.settle()
}
