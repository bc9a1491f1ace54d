package fsm_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
)

func recovery(gen uint64, node string, disk uint64) fsm.Command {
	return fsm.Command{NewGeneration: &fsm.NewGeneration{Generation: gen, Node: node, Disk: disk}}
}

// Generation 1 begins with c alone. What a and b held is waited for, and only the word
// of c counts for it.
func TestNewGeneration(t *testing.T) {
	r := running(t)
	r.must(token("t1"))
	r.must(fsm.Command{Register: &fsm.Register{Node: "b", From: 1, Nonce: "b-2", HostID: "host-b", Bound: 2 * time.Second}})
	r.must(assign("db", 2, ref("c", 1))) // c waits for b
	r.must(recovery(1, "c", 2))
	st := r.Copy()
	if st.Generation != 1 || !slices.Equal(st.Voters.Names, []string{"c"}) || st.Voters.Version != 1000001 || len(st.Tokens) != 0 {
		t.Errorf("generation %d, voters %v, tokens %v", st.Generation, st.Voters, st.Tokens)
	}
	if got := st.NodeNames(); !slices.Equal(got, []string{"c"}) {
		t.Errorf("members are %v", got)
	}
	for name, n := range st.Nodes {
		if n.Registered() {
			t.Errorf("%s is still registered", name)
		}
	}
	// c registers, and is given what a held.
	r.must(register("c", 1000001, "c-2", "host-c2"))
	r.must(assign("web", 1000003, ref("c", 1000002)))
	st = r.Copy()
	web := st.Groups["web"]
	if len(web.Waits) != 1 || web.Waits[0].Node != ref("a", 1) || web.Waits[0].Live || web.Waits[0].Bound != 2*time.Second || !slices.Equal(web.Voters.Names, []string{"c"}) {
		t.Errorf("web waits for %+v, by the word of %v", web.Waits, web.Voters)
	}
	if db := st.Groups["db"]; !slices.Equal(db.Voters.Names, []string{"c"}) {
		t.Errorf("db is released by the word of %v", db.Voters)
	}
	// The others come back as other disks, by new tokens only.
	if res := r.propose(joins("a", "10.0.0.1", "t1", "r1")); !strings.Contains(res.Rejected, "not one of this cluster") {
		t.Errorf("a token of the generation before: %+v", res)
	}
	r.must(token("t2"))
	if res := r.must(joins("a", "10.0.0.1", "t2", "r1")); res.Disk != 2 {
		t.Errorf("a came back as disk %d", res.Disk)
	}
	if res := r.propose(register("a", 0, "x", "host-a")); res.Rejected == "" {
		t.Error("an incarnation was used again")
	}
}

func TestNewGenerationIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		do   fsm.Command
		want string
	}{
		"a stranger":    {recovery(1, "x", 2), "not a member"},
		"its old disk":  {recovery(1, "c", 1), "not a new one"},
		"back in order": {recovery(0, "c", 2), "cannot be next"},
	} {
		t.Run(name, func(t *testing.T) {
			r := running(t)
			before := r.json()
			if res := r.propose(tt.do); !strings.Contains(res.Rejected, tt.want) || r.json() != before {
				t.Errorf("%+v", res)
			}
		})
	}
}

// A lease without a guard ends by no clock, and does not make the others endless.
func TestNewGenerationKeepsEndlessBoundsApart(t *testing.T) {
	r := running(t)
	r.must(fsm.Command{Register: &fsm.Register{Node: "b", From: 1, Nonce: "b-2", HostID: "host-b", Bound: spec.Unbounded}})
	r.must(recovery(1, "c", 2))
	for _, w := range r.group("web").Waits {
		if w.Bound >= spec.Unbounded {
			t.Errorf("web waits for %+v", w)
		}
	}
}
