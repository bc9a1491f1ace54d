package fsm_test

import (
	"strings"
	"testing"

	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/spec"
)

// pair founds two nodes and no third vote; a owns web.
func pair(t *testing.T) *fsm.Machine {
	t.Helper()
	m := fsm.NewMachine()
	for i, c := range []fsm.Command{
		{Found: &fsm.Found{
			Cluster: "web", Digest: "d", Timing: spec.Profiles["fast"], Manual: true, Voters: []string{"a", "b"},
			Nodes:  []spec.Node{{Name: "a", Role: spec.RoleNode}, {Name: "b", Role: spec.RoleNode}},
			Groups: []spec.Group{{Name: "web"}},
		}},
		{Register: &fsm.Register{Node: "a", Nonce: "a1", HostID: "a/1" + fsm.RebootMark("boot1", "box"), Bound: spec.Unbounded}},
		{Register: &fsm.Register{Node: "b", Nonce: "b1", HostID: "b/1" + fsm.RebootMark("boot1", "other"), Bound: spec.Unbounded}},
		{Takeover: &fsm.Takeover{Assigns: []fsm.Assign{{Group: "web", Epoch: 1, To: id.NodeRef{Name: "a", Inc: 1}}}}},
	} {
		if r := put(t, m, uint64(i+1), c); r.Rejected != "" {
			t.Fatal(r.Rejected)
		}
	}
	return m
}

func put(t *testing.T, m *fsm.Machine, index uint64, c fsm.Command) fsm.Result {
	t.Helper()
	b, err := fsm.Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	return m.Apply(index, b)
}

// A reboot of the same machine ends what it ran; nothing else does.
func TestRebootReleases(t *testing.T) {
	for _, c := range []struct {
		name, host string
		released   bool
	}{
		{"the same boot and machine", "a/1" + fsm.RebootMark("boot1", "box"), true},
		{"a reboot", "a/2" + fsm.RebootMark("boot2", "box"), true},
		{"a reboot with another disk", "z/2" + fsm.RebootMark("boot2", "box"), true},
		{"a clone", "a/2" + fsm.RebootMark("boot2", "copy"), false},
		{"the same boot in another namespace", "a/2" + fsm.RebootMark("boot1", "box"), false},
		{"a machine that cannot be told", "a/2" + fsm.RebootMark("boot2", ""), false},
	} {
		m := pair(t)
		if r := put(t, m, 5, fsm.Command{Register: &fsm.Register{Node: "a", From: 1, Nonce: "a2", HostID: c.host, Bound: spec.Unbounded}}); r.Rejected != "" {
			t.Fatal(r.Rejected)
		}
		if got := m.Copy().Groups["web"].OwnerReleased; got != c.released {
			t.Errorf("%s: released %v", c.name, got)
		}
	}
}

// Where time ends a claim a reboot does not: that needs no trust in numbers.
func TestRebootReleasesOnlyByHand(t *testing.T) {
	m := fsm.NewMachine()
	for i, c := range []fsm.Command{
		{Found: &fsm.Found{Cluster: "web", Nodes: []spec.Node{{Name: "a", Role: spec.RoleNode}}, Voters: []string{"a"}, Groups: []spec.Group{{Name: "web"}}}},
		{Register: &fsm.Register{Node: "a", Nonce: "a1", HostID: "a/1" + fsm.RebootMark("boot1", "box")}},
		{Takeover: &fsm.Takeover{Assigns: []fsm.Assign{{Group: "web", Epoch: 1, To: id.NodeRef{Name: "a", Inc: 1}}}}},
		{Register: &fsm.Register{Node: "a", From: 1, Nonce: "a2", HostID: "a/2" + fsm.RebootMark("boot2", "box")}},
	} {
		put(t, m, uint64(i+1), c)
	}
	if m.Copy().Groups["web"].OwnerReleased {
		t.Error("released by a reboot")
	}
}

// One goes on alone: both disks are new, and the other's claims are off.
func TestRecoverAlone(t *testing.T) {
	rec := fsm.Recover{Node: "b", Disk: 7, Gone: "a", GoneDisk: 9, Off: true, By: "operator"}
	m := pair(t)
	for range 2 { // proposed twice
		if r := put(t, m, m.Copy().Index+1, fsm.Command{Recover: &rec}); r.Rejected != "" {
			t.Fatal(r.Rejected)
		}
	}
	s := m.Copy()
	if s.Nodes["b"].Disk != 7 || s.Nodes["a"].Disk != 9 || !s.Nodes["a"].Off || !s.Nodes["a"].Fenced || s.Nodes["b"].Fenced {
		t.Errorf("a %+v, b %+v", s.Nodes["a"], s.Nodes["b"])
	}
	put(t, m, s.Index+1, fsm.Command{Takeover: &fsm.Takeover{Assigns: []fsm.Assign{{Group: "web", Epoch: 2, To: id.NodeRef{Name: "b", Inc: 1}}}}})
	if w := m.Copy().Groups["web"].Waits; len(w) != 1 || !w[0].Off || w[0].Live {
		t.Errorf("waits %+v", w)
	}
	n := 0
	for _, e := range m.Copy().Events {
		if e.Kind == "recovered" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d events", n)
	}

	m = pair(t)
	rec.Off = false // only its disk is gone: its claims stay
	put(t, m, 5, fsm.Command{Recover: &rec})
	if s := m.Copy(); s.Nodes["a"].Off || s.Nodes["a"].Fenced || s.Nodes["a"].Disk != 9 {
		t.Errorf("a %+v", s.Nodes["a"])
	}
	for _, bad := range []fsm.Recover{{Node: "b", Disk: 20, Gone: "b"}, {Node: "b", Disk: 20, Gone: "c"}, {Node: "c", Disk: 20, Gone: "a"}} {
		if r := put(t, m, m.Copy().Index+1, fsm.Command{Recover: &bad}); r.Rejected == "" {
			t.Errorf("%+v was taken", bad)
		}
	}
	other := fsm.NewMachine()
	put(t, other, 1, fsm.Command{Found: &fsm.Found{Cluster: "web", Nodes: []spec.Node{{Name: "a"}, {Name: "b"}}}})
	if r := put(t, other, 2, fsm.Command{Recover: &rec}); !strings.Contains(r.Rejected, "two_node") {
		t.Errorf("elsewhere: %q", r.Rejected)
	}
}

// A leader sends its snapshot again, and raft applies anew what came after it: the
// machine never goes back, and does nothing twice.
func TestOlderSnapshot(t *testing.T) {
	m := pair(t)
	old, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	fence := fsm.Command{Takeover: &fsm.Takeover{Fence: id.NodeRef{Name: "a", Inc: 1}}}
	put(t, m, 5, fence)
	events := m.Copy().EventSeq
	if err := m.Restore(old); err != nil {
		t.Fatal(err)
	}
	if s := m.Copy(); s.Index != 5 || !s.Nodes["a"].Fenced {
		t.Errorf("went back to entry %d, fenced %v", s.Index, s.Nodes["a"].Fenced)
	}
	put(t, m, 5, fence)
	if s := m.Copy(); s.EventSeq != events {
		t.Errorf("%d events, not %d", s.EventSeq, events)
	}
	fresh := fsm.NewMachine()
	if err := fresh.Restore(old); err != nil || fresh.Copy().Index != 4 {
		t.Errorf("a fresh one: %v, entry %d", err, fresh.Copy().Index)
	}
}
