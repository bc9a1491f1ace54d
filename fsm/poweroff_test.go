package fsm_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/spec"
)

func powerOff(node id.NodeRef) fsm.Command {
	return fsm.Command{PowerOff: &fsm.PowerOff{Node: node, By: "an operator"}}
}

func exclusive(g spec.Group) spec.Group {
	g.Exclusive = true
	return g
}

// wantStuck checks which registrations only an operator can end.
func (r *replica) wantStuck(group string, want ...id.NodeRef) {
	r.t.Helper()
	var got []id.NodeRef
	for _, w := range r.group(group).Stuck() {
		got = append(got, w.Node)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		r.t.Errorf("%s is stuck on %s", group, diff)
	}
}

// A host that was switched off and came back: its old registration is still waited
// for, because its new one could be a clone's, until somebody says that it was off.
func TestPowerOffOfOneRegistration(t *testing.T) {
	a1, b1 := ref("a", 1), ref("b", 1)
	r := running(t)
	r.must(groups(exclusive(ips("web", webIP)), ips("db", dbIP)))
	r.must(holding("web", a1, 2))
	r.wantStuck("web")
	r.must(fence(a1, fsm.Assign{Group: "web", Epoch: 3, To: b1}))
	r.wantStuck("web", a1)
	r.must(register("a", 1, "a-2", "host-a after a reboot"))
	r.wantStuck("web", a1)

	r.must(powerOff(ref("a", 2))) // not the one that is waited for
	r.wantStuck("web", a1)
	if r.Copy().Nodes["a"].Registered() {
		t.Error("a host that is off is still registered")
	}
	r.must(register("a", 2, "a-3", "host-a after another"))
	r.must(powerOff(a1))
	r.wantStuck("web")
	if n := r.Copy().Nodes["a"]; !n.Registered() || n.Off {
		t.Errorf("what was said of an older registration touched the newer one: %+v", n)
	}
	// The address still waits for EXPIRED: the word may have been wrong.
	r.wantOwner("web", b1, 3, claim("web", a1, 2))
	if w := r.group("web").Record().Waits[0]; !w.Off || w.Live {
		t.Errorf("the record does not carry it: %+v", w)
	}
}

// Said while it was still the owner of record, because nobody could take over yet.
func TestPowerOffOfAnOwner(t *testing.T) {
	a1, b1 := ref("a", 1), ref("b", 1)
	r := running(t)
	r.must(groups(exclusive(ips("web", webIP)), ips("db", dbIP)))
	r.must(holding("web", a1, 2))
	r.must(powerOff(a1))
	if r.group("web").Started {
		t.Error("it runs on a host that is off")
	}
	r.must(assign("web", 3, b1))
	r.wantOwner("web", b1, 3, claim("web", a1, 2))
	r.wantStuck("web")
	// Also after it came back.
	r.must(register("a", 1, "a-2", "host-a after a reboot"))
	r.wantStuck("web")
}

// A registration without a guard has no bound: its groups wait for a word too,
// whether they are exclusive or not.
func TestUnboundedIsStuck(t *testing.T) {
	r := newReplica(t)
	r.must(found())
	reg := register("a", 0, "a-1", "host-a")
	reg.Register.Bound = spec.Unbounded
	r.must(reg)
	r.must(register("b", 0, "b-1", "host-b"))
	r.must(assign("web", 1, ref("a", 1)))
	r.must(holding("web", ref("a", 1), 1))
	r.must(fence(ref("a", 1), fsm.Assign{Group: "web", Epoch: 2, To: ref("b", 1)}))
	r.wantStuck("web", ref("a", 1))
	r.must(powerOff(ref("a", 1)))
	r.wantStuck("web")
}

// The record says what belongs to its revision: the spec may come later.
func TestRecordSaysExclusive(t *testing.T) {
	r := running(t)
	if r.group("web").Record().Exclusive {
		t.Error("web is not exclusive")
	}
	disk := ips("web", webIP)
	disk.Resources = append(disk.Resources, spec.Resource{Type: "heartbeat", Name: "Filesystem::/dev/sdb1::/data::ext4"})
	r.must(groups(disk, exclusive(ips("db", dbIP))))
	for _, name := range []string{"web", "db"} {
		if !r.group(name).Record().Exclusive {
			t.Errorf("%s is exclusive, and its record does not say so", name)
		}
	}
}
