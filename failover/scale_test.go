package failover

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
)

// A thousand nodes in racks, one of which is lost at once.
const (
	scaleNodes  = 1000
	scaleGroups = 10_000
	rackNodes   = 100
)

// bigWorld is a cluster of a thousand nodes in racks of a hundred, five of which vote,
// with ten groups to a node. With rules, each group has one, as a file may ask for.
func bigWorld(tb testing.TB, nodes, groups int, ruled bool) *world {
	tb.Helper()
	w := newWorld()
	f := &fsm.Found{Cluster: "web", Digest: "d", Timing: spec.Profiles["lan"]}
	name := func(i int) string { return fmt.Sprintf("rack%02d-node%02d", i%nodes/rackNodes, i%nodes%rackNodes) }
	for i := range nodes {
		f.Nodes = append(f.Nodes, spec.Node{Name: name(i), Address: fmt.Sprintf("10.0.%d.%d", i/250, 1+i%250), Role: spec.RoleNode, Zone: name(i)[:6]})
		if i < 5 {
			f.Voters = append(f.Voters, name(i*rackNodes*2%nodes))
		}
	}
	w.apply(fsm.Command{At: w.wall, Found: f})
	var set fsm.SetGroups
	for i := range groups {
		g := spec.Group{
			Name: fmt.Sprintf("g%05d", i), Prefer: []string{name(i), name(i + nodes/2)}, Failback: spec.Failback{On: true},
			Resources: []spec.Resource{{Type: "ip", Name: fmt.Sprintf("10.%d.%d.%d/16", 78+i/50000, i/250, 1+i%250), Dev: "eth1"}},
		}
		if ruled {
			switch i % 4 {
			case 0:
				g.MaxPerNode = 50
			case 1:
				g.With = fmt.Sprintf("g%05d", i-1)
				g.Prefer = nil
			case 2:
				g.Apart = fmt.Sprintf("g%05d", i-2)
			}
		}
		set.Groups = append(set.Groups, g)
	}
	if r := w.apply(fsm.Command{At: w.wall, SetGroups: &set}); r.Rejected != "" {
		tb.Fatal(r.Rejected)
	}
	for i := range nodes {
		w.register(name(i), "host-"+name(i))
	}
	for range 3 { // what is with another group comes after it
		for _, c := range Plan(w.inputs()) {
			w.apply(c)
		}
	}
	for name, g := range w.m.Copy().Groups {
		if g.Owner.Zero() {
			tb.Fatalf("%s has no owner", name)
		}
		w.apply(fsm.Command{Holding: &fsm.Holding{Group: name, Node: g.Owner, Epoch: g.Epoch, Started: true}})
	}
	return w
}

// loseRack makes the last hundred nodes silent; it returns how many groups they own.
func (w *world) loseRack() (owned int) {
	s := w.m.Copy()
	load := Load(s)
	names := s.NodeNames()
	for _, n := range names[len(names)-rackNodes:] {
		owned += load[n]
		w.health[n] = Health{Inc: 1, Dead: true, Why: "silent for deadtime (1s), say a majority of the voters"}
	}
	return owned
}

// cpu is the processor time of this process so far.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// spent reports the processor time of an operation, which says more than ns/op where
// others use the processors too.
func spent(b *testing.B, since time.Duration) {
	b.ReportMetric(float64((cpu(b)-since).Microseconds())/1000/float64(b.N), "cpu-ms/op")
}

// BenchmarkRack is what the loss of a rack costs the leader of a thousand nodes and ten
// thousand groups: to look at it all while all is well, and to plan; what the plan takes
// in the log, and each node to apply it.
func BenchmarkRack(b *testing.B) {
	for _, ruled := range []bool{false, true} {
		b.Run(fmt.Sprintf("ruled=%v", ruled), func(b *testing.B) {
			w := bigWorld(b, scaleNodes, scaleGroups, ruled)
			snapshot, err := w.m.Snapshot()
			if err != nil {
				b.Fatal(err)
			}
			b.Run("copy", func(b *testing.B) {
				defer spent(b, cpu(b))
				for b.Loop() {
					w.m.Copy()
				}
			})
			b.Run("inputs", func(b *testing.B) {
				defer spent(b, cpu(b))
				for b.Loop() {
					w.inputs()
				}
			})
			b.Run("well", func(b *testing.B) {
				in := w.inputs()
				defer spent(b, cpu(b))
				for b.Loop() {
					if out := Plan(in); len(out) > 0 {
						b.Fatalf("%d commands", len(out))
					}
				}
			})
			owned := w.loseRack()
			var plan []fsm.Command
			b.Run("lost", func(b *testing.B) {
				in := w.inputs()
				defer spent(b, cpu(b))
				for b.Loop() {
					plan = Plan(in)
				}
				assigned, size := 0, 0
				for _, c := range plan {
					data, err := fsm.Encode(c)
					if err != nil {
						b.Fatal(err)
					}
					size += len(data)
					assigned += len(c.Takeover.Assigns)
				}
				if assigned != owned || owned == 0 {
					b.Fatalf("%d of %d groups assigned", assigned, owned)
				}
				b.ReportMetric(float64(len(plan)), "commands")
				b.ReportMetric(float64(assigned), "moves")
				b.ReportMetric(float64(size), "log-B")
				b.ReportMetric(float64(len(snapshot)), "snapshot-B")
			})
			b.Run("apply", func(b *testing.B) {
				took := time.Duration(0)
				for b.Loop() {
					b.StopTimer()
					m := fsm.NewMachine()
					if err := m.Restore(snapshot); err != nil {
						b.Fatal(err)
					}
					var data [][]byte
					for _, c := range plan {
						d, err := fsm.Encode(c)
						if err != nil {
							b.Fatal(err)
						}
						data = append(data, d)
					}
					before := cpu(b)
					b.StartTimer()
					for i, d := range data {
						if r := m.Apply(w.index+uint64(i)+1, d); r.Rejected != "" {
							b.Fatal(r.Rejected)
						}
					}
					took += cpu(b) - before
				}
				b.ReportMetric(float64(took.Microseconds())/1000/float64(b.N), "cpu-ms/op")
			})
			b.Run("report", func(b *testing.B) {
				c := fsm.Command{Holding: &fsm.Holding{Group: "g00000", Started: true}}
				w.m.View(func(s *fsm.State) {
					c.Holding.Node, c.Holding.Epoch = s.Groups["g00000"].Owner, s.Groups["g00000"].Epoch
				})
				for b.Loop() {
					w.apply(c)
				}
			})
		})
	}
}

// TestRack: the whole of a rack is taken over by one plan, and the plan after it has
// nothing to add.
func TestRack(t *testing.T) {
	for _, ruled := range []bool{false, true} {
		w := bigWorld(t, 300, 900, ruled)
		owned := w.loseRack()
		moved := 0
		for _, c := range Plan(w.inputs()) {
			moved += len(c.Takeover.Assigns)
			if r := w.apply(c); r.Rejected != "" {
				t.Fatal(r.Rejected)
			}
		}
		if moved != owned || owned == 0 {
			t.Errorf("ruled %v: %d of %d groups were moved", ruled, moved, owned)
		}
		most := 0
		for _, n := range Load(w.m.Copy()) {
			most = max(most, n)
		}
		if most > 900/200+5 {
			t.Errorf("ruled %v: one node got %d groups", ruled, most)
		}
		for name, g := range w.m.Copy().Groups {
			w.apply(fsm.Command{At: w.wall.Add(time.Second), Holding: &fsm.Holding{Group: name, Node: g.Owner, Epoch: g.Epoch, Started: true}})
		}
		if again := Plan(w.inputs()); len(again) > 0 {
			t.Errorf("ruled %v: still to do: %d commands", ruled, len(again))
		}
	}
}
