package fsm_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hanode/fsm"
	"hanode/internal/spec"
)

func (r *replica) wantFailed(what string, want map[string]fsm.Failure) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.group("web").Failed); diff != "" {
		r.t.Errorf("%s: %s", what, diff)
	}
}

// A failure counts once for each epoch, whatever comes between it and its echo.
func TestFailuresCount(t *testing.T) {
	r := running(t)
	a1, b1 := ref("a", 1), ref("b", 1)
	r.must(failed("web", a1, 1, "no", 0))
	if g := r.group("web"); !g.GaveUp() || g.Started {
		t.Errorf("%+v", g)
	}
	r.must(assign("web", 2, b1))
	r.must(failed("web", a1, 1, "no", 0))
	r.must(failed("web", b1, 2, "nor here", 0))
	one := map[string]fsm.Failure{"a": {1, 1, "no"}, "b": {1, 2, "nor here"}}
	r.wantFailed("once each", one)
	r.must(assign("web", 3, a1))
	r.wantFailed("another attempt forgives nothing", one)
	if r.group("web").GaveUp() {
		t.Error("it did not give up its new epoch")
	}
	r.must(failed("web", a1, 3, "no", time.Minute))
	r.wantFailed("twice", map[string]fsm.Failure{"a": {2, 3, "no"}, "b": {1, 2, "nor here"}})

	r.must(fsm.Command{Clear: &fsm.Clear{Group: "web", Node: "a"}})
	r.must(failed("web", a1, 3, "no", time.Minute))
	r.wantFailed("what was cleared stays so", map[string]fsm.Failure{"a": {0, 3, ""}, "b": {1, 2, "nor here"}})
	if diff := cmp.Diff([]string{"b"}, r.group("web").FailedOn()); diff != "" {
		t.Error(diff)
	}
	r.must(assign("web", 4, b1))
	r.must(failed("web", b1, 4, "after a long time", spec.MaxRetry))
	r.wantFailed("a long life is a new start", map[string]fsm.Failure{"a": {0, 3, ""}, "b": {1, 4, "after a long time"}})
}

// A failure of a registration that is over, or of an epoch that never was, says
// nothing about the node of now.
func TestFailuresOfAnother(t *testing.T) {
	r := running(t)
	r.must(register("a", 1, "a-2", "host-a"))
	r.must(failed("web", ref("a", 1), 1, "no", 0))
	r.must(failed("web", ref("a", 2), 2, "no", 0))
	r.must(failed("web", ref("x", 1), 1, "no", 0))
	r.must(failed("x", ref("a", 2), 1, "no", 0))
	r.wantFailed("nothing", nil)
}

// What ends the memory of a failure: a clear, a new registration, an apply.
func TestFailuresEnd(t *testing.T) {
	for name, c := range map[string]fsm.Command{
		"clear": {Clear: &fsm.Clear{}}, "register": register("a", 1, "a-2", "host-a"),
		"apply": groups(ips("web", "10.0.0.100/24"), ips("db", "10.0.0.101/24")), "change": groups(ips("web", "10.0.0.103")),
	} {
		r := running(t)
		r.must(failed("web", ref("a", 1), 1, "no", 0))
		r.must(c)
		if on := r.group("web").FailedOn(); len(on) > 0 {
			t.Errorf("%s: %v", name, on)
		}
	}
}

// The first snapshots hold the reason alone.
func TestFailureOfTheFirstSnapshots(t *testing.T) {
	r := running(t)
	r.must(failed("web", ref("a", 1), 1, "no", 0))
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	old := replaceOnce(t, snap, `{"count":1,"epoch":1,"why":"no"}`, `"no"`)
	o := newReplica(t)
	if err := o.Restore(old); err != nil {
		t.Fatal(err)
	}
	o.wantFailed("old", map[string]fsm.Failure{"a": {Count: 1, Why: "no"}})
	if err := newReplica(t).Restore(replaceOnce(t, snap, `{"count":1,`, `{"counts":1,`)); !isTooNew(err) {
		t.Errorf("an unknown key: %v", err)
	}
}

// The history has what the program said that failed.
func TestFailureHasItsOutput(t *testing.T) {
	r := running(t)
	c := failed("web", ref("a", 1), 1, "no", 0)
	c.Failed.Output = "no such device\n"
	r.must(c)
	for _, e := range r.Copy().Events {
		if (e.Kind == "failed") != (e.Output == c.Failed.Output) {
			t.Errorf("%+v", e)
		}
	}
}

// A permission to adopt is one registration's, and over once the group runs.
func TestAdopt(t *testing.T) {
	r := running(t)
	before := r.group("web").Revision
	set := fsm.Command{SetGroups: &fsm.SetGroups{Groups: r.Copy().Specs(), Adopt: []fsm.Adopt{
		{Group: "web", Node: ref("b", 1)}, {Group: "none", Node: ref("b", 1)},
	}}}
	if res := r.must(set); len(res.Touched) != 1 {
		t.Errorf("touched %v", res.Touched)
	}
	g := r.group("web")
	if g.Adopt.Node != ref("b", 1) || g.Adopt.Revision != g.Revision || g.Revision <= before || !g.Started {
		t.Errorf("a group that is as it was: %+v", g)
	}
	r.must(assign("web", 2, ref("b", 1)))
	r.must(fsm.Command{Holding: &fsm.Holding{Group: "web", Node: ref("b", 1), Epoch: 2}})
	if r.group("web").Adopt.Node.Zero() {
		t.Error("it has not started yet")
	}
	r.must(fsm.Command{Holding: &fsm.Holding{Group: "web", Node: ref("b", 1), Epoch: 2, Started: true}})
	if g := r.group("web"); !g.Adopt.Node.Zero() {
		t.Errorf("it runs: %+v", g.Adopt)
	}
	set.SetGroups.Adopt[0].Node.Inc = 7
	r.must(set)
	if g := r.group("web"); !g.Adopt.Node.Zero() {
		t.Errorf("a registration that is none: %+v", g.Adopt)
	}
}
