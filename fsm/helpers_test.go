package fsm_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/spec"
)

const bound = 250 * time.Millisecond

var wall = time.Date(2024, 5, 1, 3, 0, 0, 0, time.UTC)

// replica is a machine and the log that it was given.
type replica struct {
	*fsm.Machine
	t   *testing.T
	log [][]byte
}

func newReplica(t *testing.T) *replica { return &replica{Machine: fsm.NewMachine(), t: t} }

func (r *replica) propose(c fsm.Command) fsm.Result {
	r.t.Helper()
	c.At = wall.Add(time.Duration(len(r.log)) * time.Second)
	data, err := fsm.Encode(c)
	if err != nil {
		r.t.Fatal(err)
	}
	r.log = append(r.log, data)
	return r.Apply(uint64(len(r.log)), data)
}

func (r *replica) must(c fsm.Command) fsm.Result {
	r.t.Helper()
	res := r.propose(c)
	if res.Rejected != "" {
		r.t.Fatalf("rejected: %s", res.Rejected)
	}
	return res
}

// json renders the state without its index, which grows with every entry.
func (r *replica) json() string {
	r.t.Helper()
	s := r.Copy()
	s.Index = 0
	b, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func (r *replica) group(name string) *fsm.Group { return r.Copy().Groups[name] }

func (r *replica) wantOwner(group string, owner id.NodeRef, epoch id.Epoch, waits ...id.Claim) {
	r.t.Helper()
	g := r.group(group)
	got := []id.Claim{}
	for _, w := range g.Waits {
		got = append(got, w.Claim)
	}
	if g.Owner != owner || g.Epoch != epoch || len(waits) != len(got) || len(waits) > 0 && !cmp.Equal(waits, got) {
		r.t.Errorf("%s is at epoch %d of %s and waits for %v; want %d of %s and %v", group, g.Epoch, g.Owner, got, epoch, owner, waits)
	}
}

func ref(name string, inc uint64) id.NodeRef { return id.NodeRef{Name: name, Inc: inc} }

func claim(group string, node id.NodeRef, epoch id.Epoch) id.Claim {
	return id.Claim{Group: group, Node: node, Epoch: epoch}
}

func ips(name string, addrs ...string) spec.Group {
	g := spec.Group{Name: name}
	for _, a := range addrs {
		g.Resources = append(g.Resources, spec.Resource{Type: "ip", Name: a, Dev: "eth0"})
	}
	return g
}

func replaceOnce(t *testing.T, b []byte, old, now string) []byte {
	t.Helper()
	if n := bytes.Count(b, []byte(old)); n != 1 {
		t.Fatalf("%q is there %d times", old, n)
	}
	return bytes.Replace(b, []byte(old), []byte(now), 1)
}

// The commands of the stories below, in short.

func found() fsm.Command {
	return fsm.Command{Found: &fsm.Found{
		Cluster: "web", Digest: "d1", Timing: spec.Profiles["fast"],
		Nodes: []spec.Node{
			{Name: "a", Address: "10.0.0.1", Role: spec.RoleNode},
			{Name: "b", Address: "10.0.0.2", Role: spec.RoleNode},
			{Name: "c", Address: "10.0.0.3", Role: spec.RoleNode},
			{Name: "w", Address: "10.0.0.4", Role: spec.RoleWitness},
		},
		Voters: []string{"w", "a", "b"},
		Groups: []spec.Group{ips("web", "10.0.0.100/24"), ips("db", "10.0.0.101/24")},
	}}
}

func register(node string, from uint64, nonce, host string) fsm.Command {
	return fsm.Command{Register: &fsm.Register{Node: node, From: from, Nonce: nonce, HostID: host, Bound: bound, Version: "1.0"}}
}

func assign(group string, epoch id.Epoch, to id.NodeRef, released ...id.Claim) fsm.Command {
	return fsm.Command{Takeover: &fsm.Takeover{Cause: "switchover", Assigns: []fsm.Assign{{Group: group, Epoch: epoch, To: to, Released: released}}}}
}

func fence(node id.NodeRef, assigns ...fsm.Assign) fsm.Command {
	return fsm.Command{Takeover: &fsm.Takeover{Fence: node, Assigns: assigns, Cause: "failover", WhyFence: "silent for 250 ms"}}
}

func groups(g ...spec.Group) fsm.Command { return fsm.Command{SetGroups: &fsm.SetGroups{Groups: g}} }

func released(claims ...id.Claim) fsm.Command {
	return fsm.Command{Released: &fsm.Released{Claims: claims}}
}

func failed(group string, node id.NodeRef, epoch id.Epoch, why string, ran time.Duration) fsm.Command {
	return fsm.Command{Failed: &fsm.Failed{Group: group, Node: node, Epoch: epoch, Why: why, Ran: ran}}
}

func holdings(all ...fsm.Holding) fsm.Command { return fsm.Command{Holdings: &fsm.Holdings{All: all}} }

func holding(group string, node id.NodeRef, epoch id.Epoch) fsm.Command {
	return fsm.Command{Holding: &fsm.Holding{Group: group, Node: node, Epoch: epoch, Started: true}}
}

// running is a founded cluster of registered nodes in which a runs web and b db,
// both at epoch 1.
func running(t *testing.T) *replica {
	t.Helper()
	r := newReplica(t)
	r.must(found())
	for _, n := range []string{"a", "b", "c", "w"} {
		r.must(register(n, 0, n+"-1", "host-"+n))
	}
	r.must(assign("web", 1, ref("a", 1)))
	r.must(assign("db", 1, ref("b", 1)))
	r.must(holding("web", ref("a", 1), 1))
	r.must(holding("db", ref("b", 1), 1))
	return r
}
