package failover

import (
	"fmt"
	"testing"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
)

// BenchmarkPlan is what a leader thinks at each change, with a thousand groups on one
// node, while that is well and when it is dead.
func BenchmarkPlan(b *testing.B) {
	w := newWorld()
	w.found("a", "b", "w")
	var set fsm.SetGroups
	for i := range 1000 {
		set.Groups = append(set.Groups, spec.Group{
			Name: fmt.Sprintf("g%04d", i), Prefer: []string{"a"}, Failback: spec.Failback{On: true},
			Resources: []spec.Resource{{Type: "ip", Name: fmt.Sprintf("10.78.%d.%d/16", i/250, 1+i%250), Dev: "eth1"}},
		})
	}
	w.apply(fsm.Command{SetGroups: &set})
	w.formed = true
	for _, n := range []string{"a", "b", "w"} {
		r := w.register(n, "host-"+n)
		w.health[n] = Health{Inc: r.Inc, Alive: true, Leased: true, Healthy: time.Minute}
	}
	for _, c := range Plan(w.inputs()) {
		w.apply(c)
	}
	for name, g := range w.m.Copy().Groups {
		w.apply(fsm.Command{Holding: &fsm.Holding{Group: name, Node: g.Owner, Epoch: g.Epoch, Started: true}})
	}
	in := w.inputs()
	b.Run("copy", func(b *testing.B) {
		for b.Loop() {
			w.m.Copy()
		}
	})
	b.Run("well", func(b *testing.B) {
		for b.Loop() {
			if out := Plan(in); len(out) > 0 {
				b.Fatal(out)
			}
		}
	})
	b.Run("dead", func(b *testing.B) {
		h := in.Health["a"]
		in.Health["a"] = Health{Inc: h.Inc, Dead: true, Why: "silent"}
		for b.Loop() {
			if out := Plan(in); len(out) != 1 || len(out[0].Takeover.Assigns) != 1000 {
				b.Fatal(out)
			}
		}
		in.Health["a"] = h
	})
}
