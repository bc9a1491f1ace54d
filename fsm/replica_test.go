package fsm_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/spec"
)

// randomCommand makes a command that often fits the state and often does not.
func randomCommand(r *rand.Rand, s *fsm.State) fsm.Command {
	names := []string{"a", "b", "c", "w", "x"}
	node := func() id.NodeRef {
		n := names[r.IntN(len(names))]
		if m := s.Nodes[n]; m != nil && r.IntN(8) > 0 {
			return m.Ref()
		}
		return ref(n, uint64(r.IntN(4)))
	}
	gnames := []string{"web", "db", "new"}
	group := func() (string, id.Epoch) {
		name := gnames[r.IntN(len(gnames))]
		g := s.Groups[name]
		if g == nil {
			return name, 0
		}
		return name, g.Epoch
	}
	anyClaim := func() id.Claim {
		name, epoch := group()
		if g := s.Groups[name]; g != nil && len(g.Waits) > 0 && r.IntN(2) == 0 {
			return g.Waits[r.IntN(len(g.Waits))].Claim
		}
		return claim(name, node(), epoch)
	}
	next := func() fsm.Assign {
		name, epoch := group()
		return fsm.Assign{Group: name, Epoch: epoch + 1, To: node(), Released: []id.Claim{anyClaim()}, Pin: r.IntN(5) == 0}
	}
	switch r.IntN(13) {
	case 0:
		n := node()
		return register(n.Name, n.Inc, fmt.Sprint(r.IntN(1000)), fmt.Sprintf("host%d", r.IntN(3)))
	case 1:
		return fence(node(), next(), next())
	case 2, 3:
		a := next()
		return fsm.Command{Takeover: &fsm.Takeover{Cause: "switchover", Assigns: []fsm.Assign{a}}}
	case 4:
		name, epoch := group()
		owner := node()
		if g := s.Groups[name]; g != nil && r.IntN(4) > 0 {
			owner = g.Owner
		}
		if r.IntN(3) == 0 {
			other, at := group()
			return holdings(fsm.Holding{Group: name, Node: owner, Epoch: epoch, Started: true}, fsm.Holding{Group: other, Node: owner, Epoch: at, Started: true})
		}
		return holding(name, owner, epoch)
	case 5:
		return released(anyClaim(), anyClaim())
	case 6:
		var gs []spec.Group
		for _, name := range gnames {
			if r.IntN(4) > 0 {
				gs = append(gs, ips(name, fmt.Sprintf("10.0.0.%d/24", r.IntN(4))))
			}
		}
		return groups(gs...)
	case 7:
		list := slices.Clone(s.Voters.Names)
		if n := names[r.IntN(4)]; s.Voters.Has(n) {
			list = slices.DeleteFunc(list, func(x string) bool { return x == n })
		} else {
			list = append(list, n)
		}
		return fsm.Command{SetVoters: &fsm.SetVoters{Version: s.Voters.Version + 1, Names: list}}
	case 8:
		return fsm.Command{Standby: &fsm.Standby{Node: node().Name, On: r.IntN(2) == 0}}
	case 9:
		return fsm.Command{Leave: &fsm.Leave{Node: node().Name, Done: r.IntN(2) == 0}}
	case 10:
		name, _ := group()
		return fsm.Command{Pin: &fsm.Pin{Group: name, On: r.IntN(2) == 0}}
	}
	if r.IntN(2) == 0 {
		n := node()
		return fsm.Command{PowerOff: &fsm.PowerOff{Node: ref(n.Name, n.Inc-uint64(r.IntN(2)))}}
	}
	return fsm.Command{SetDisk: &fsm.SetDisk{Node: node().Name, From: uint64(r.IntN(3))}}
}

// Replicas that apply one log hold one state and give one verdict each time,
// also one that took a snapshot and went on from it in the middle. On the way:
// epochs and incarnations never go back, and an owner changes only with its
// epoch.
func TestReplicasAgree(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		a := running(t)
		b := fsm.NewMachine()
		for i, data := range a.log {
			b.Apply(uint64(i+1), data)
		}
		for range 150 {
			before := a.Copy()
			res := a.propose(randomCommand(r, before))
			if got := b.Apply(uint64(len(a.log)), a.log[len(a.log)-1]); !cmp.Equal(res, got) {
				t.Fatalf("seed %d: verdicts %+v and %+v", seed, res, got)
			}
			after := a.Copy()
			for name, g := range before.Groups {
				now := after.Groups[name]
				if now == nil || now.Epoch < g.Epoch || now.Epoch == g.Epoch && now.Owner != g.Owner {
					t.Fatalf("seed %d: %s went from %+v to %+v", seed, name, g, now)
				}
			}
			for name, n := range before.Nodes {
				now := after.Nodes[name]
				if now.Inc < n.Inc || now.Inc == n.Inc && n.Fenced && !now.Fenced {
					t.Fatalf("seed %d: %s went from %+v to %+v", seed, name, n, now)
				}
			}
			if r.IntN(10) == 0 {
				snap, err := b.Snapshot()
				if err != nil {
					t.Fatal(err)
				}
				b = fsm.NewMachine()
				if err := b.Restore(snap); err != nil {
					t.Fatal(err)
				}
			}
		}
		sa, errA := a.Snapshot()
		sb, errB := b.Snapshot()
		if errA != nil || errB != nil || !bytes.Equal(sa, sb) {
			t.Fatalf("seed %d: the replicas differ: %v %v\n%s", seed, errA, errB, cmp.Diff(string(sa), string(sb)))
		}
	}
}

// No wait is ever forgotten: whoever owned a group stays in its waits until its
// token, its host's newer registration, or the owner's report cleared it.
func TestNoWaitIsForgotten(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 8))
		a := running(t)
		for range 150 {
			before := a.Copy()
			c := randomCommand(r, before)
			a.propose(c)
			after := a.Copy()
			for name, g := range before.Groups {
				may := slices.Clone(g.Waits)
				if !g.Owner.Zero() && !g.OwnerReleased && after.Groups[name].Epoch > g.Epoch {
					may = append(may, fsm.Wait{Claim: claim(name, g.Owner, g.Epoch), HostID: g.OwnerHost})
				}
				for _, w := range may {
					cleared := c.Holding != nil || c.Holdings != nil || c.Released != nil && slices.Contains(c.Released.Claims, w.Claim) ||
						c.Register != nil && c.Register.HostID == w.HostID && c.Register.Node == w.Node.Name
					if c.Takeover != nil {
						for _, x := range c.Takeover.Assigns {
							cleared = cleared || x.Group == name && slices.Contains(x.Released, w.Claim)
						}
					}
					kept := slices.ContainsFunc(after.Groups[name].Waits, func(x fsm.Wait) bool { return x.Claim == w.Claim })
					if !kept && !cleared {
						t.Fatalf("seed %d: %+v made %s forget %s", seed, c, name, w.Claim)
					}
				}
			}
		}
	}
}

func TestSnapshotOfDamage(t *testing.T) {
	r := running(t)
	r.must(assign("web", 2, ref("b", 1)))
	whole, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	m := running(t)
	before := m.json()
	bad := map[string][]byte{
		"nothing": {}, "version 0": append([]byte{0}, whole[1:]...), "no state": []byte("\x01null"), "empty state": []byte("\x01{}"),
		"null node": []byte(`` + "\x01" + `{"nodes":{"a":null},"groups":{}}`), "null group": []byte("\x01" + `{"nodes":{},"groups":{"web":null}}`),
		"node under another name": []byte("\x01" + `{"nodes":{"a":{"name":"b"}},"groups":{}}`),
		"trailing bytes":          append(bytes.Clone(whole), '{'), "unknown field": []byte("\x01" + `{"nodes":{},"groups":{},"later":1}`),
	}
	for n := 1; n < len(whole); n += 1 + len(whole)/97 {
		bad[fmt.Sprintf("cut to %d bytes", n)] = whole[:n]
	}
	for name, b := range bad {
		if err := m.Restore(b); err == nil {
			t.Errorf("%s: taken", name)
		}
		if m.json() != before {
			t.Fatalf("%s: changed the state", name)
		}
	}
	if err := m.Restore(whole); err != nil || m.json() != r.json() {
		t.Errorf("the whole one: %v", err)
	}
}

func TestWatch(t *testing.T) {
	r := newReplica(t)
	var got []fsm.Change
	r.Watch(func(c fsm.Change) { got = append(got, c) })
	r.must(found())
	r.must(register("a", 0, "a-1", "host-a"))
	r.must(assign("web", 1, ref("a", 1)))
	r.propose(assign("web", 1, ref("b", 1)))
	r.Advance(9)
	snap, err := r.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Restore(snap); err != nil {
		t.Fatal(err)
	}
	type brief struct {
		all    bool
		groups string
	}
	var short []brief
	for _, c := range got {
		short = append(short, brief{c.All, fmt.Sprint(c.Groups)})
	}
	want := []brief{{true, "[]"}, {false, "[db web]"}, {false, "[]"}, {false, "[web]"}, {false, "[]"}, {false, "[]"}, {true, "[]"}}
	if fmt.Sprint(short) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", short, want)
	}
	if s := r.Copy(); s.Index != 9 || got[len(got)-1].State.Index != 9 {
		t.Errorf("index %d", s.Index)
	}
	r.Advance(3)
	if r.Copy().Index != 9 {
		t.Error("the index went back")
	}
}

func TestCopyIsACopy(t *testing.T) {
	r := running(t)
	r.must(assign("web", 2, ref("b", 1)))
	before := r.json()
	same := r.Copy()
	if r.Copy() != same {
		t.Error("a second copy was made although nothing changed")
	}
	c := same.Clone()
	c.Groups["web"].Waits[0].Epoch = 99
	c.Groups["web"].Owner = id.NodeRef{}
	c.Nodes["a"].Fenced = true
	c.Events[0].Text = "spoilt"
	delete(c.Nodes, "b")
	if r.json() != before {
		t.Error("changing a clone changed the machine")
	}
	had, err := json.Marshal(same)
	if err != nil {
		t.Fatal(err)
	}
	rec := same.Groups["web"].Record()
	r.must(released(claim("web", ref("a", 1), 1)))
	if now, err := json.Marshal(same); err != nil || string(now) != string(had) || r.Copy() == same {
		t.Errorf("an entry changed a copy that was made before it: %v", err)
	}
	if len(rec.Waits) != 1 || rec.Waits[0].Epoch != 1 {
		t.Error("a record changed after it was made")
	}
}

func TestTooNewStopsTheMachine(t *testing.T) {
	r := running(t)
	before := r.json()
	data := append([]byte{2}, r.log[len(r.log)-1][1:]...)
	res := r.Apply(100, data)
	if res.Rejected == "" || !isTooNew(r.Broken()) {
		t.Fatalf("%+v, %v", res, r.Broken())
	}
	good, err := fsm.Encode(fsm.Command{Maintenance: &fsm.Maintenance{On: true}})
	if err != nil {
		t.Fatal(err)
	}
	if res := r.Apply(101, good); res.Rejected == "" || !isTooNew(r.Broken()) {
		t.Error("a machine that skipped an entry went on")
	}
	if diff := cmp.Diff(before, r.json()); diff != "" {
		t.Error(diff)
	}
	if _, err := fsm.Decode(data); !isTooNew(err) {
		t.Errorf("decode: %v", err)
	}
	if err := r.Restore(append([]byte{2}, '{', '}')); !isTooNew(err) {
		t.Errorf("restore: %v", err)
	}
	damaged := running(t)
	damaged.Apply(100, []byte("\x01{"))
	if err := damaged.Broken(); err == nil || isTooNew(err) {
		t.Errorf("a damaged entry: %v", err)
	}
	if running(t).Broken() != nil {
		t.Error("a healthy machine calls itself broken")
	}
}
