package fsm_test

import (
	"slices"
	"strings"
	"testing"

	"hanode/fsm"
)

// rotate moves the rotation of key k1 to key k2 into a phase.
func rotate(phase fsm.KeyPhase) fsm.Command {
	c := &fsm.RotateKey{From: "k1", To: "k2", Phase: phase}
	switch phase {
	case fsm.KeyAdd:
		c.Without = []string{"c"}
	case fsm.KeyUndo:
		c.Why = "b does not answer"
	case fsm.KeyUse, fsm.KeyDrop, fsm.KeyDone:
	}
	return fsm.Command{RotateKey: c}
}

func TestRotation(t *testing.T) {
	r := running(t)
	r.must(token("t1"))
	for _, phase := range []fsm.KeyPhase{fsm.KeyAdd, fsm.KeyUse, fsm.KeyDrop} {
		r.must(rotate(phase))
		if s := r.Copy(); s.Rotation.Phase != phase || !slices.Equal(s.Rotation.Without, []string{"c"}) || s.IsRetired("k1") {
			t.Errorf("%+v", s.Rotation)
		}
		if res := r.propose(joins("d", "10.0.0.5", "t1", "r1")); res.Rejected == "" {
			t.Errorf("phase %s: a host was let in, with keys that may be dropped before it has started", phase)
		}
	}
	r.must(rotate(fsm.KeyDone))
	s := r.Copy()
	if s.Rotation != nil || !s.IsRetired("k1") || s.IsRetired("k2") || s.Tokens["t1"].Over(wall) != "revoked" {
		t.Errorf("%+v, retired %v, token %+v", s.Rotation, s.Retired, s.Tokens["t1"])
	}
	if res := r.propose(rotate(fsm.KeyAdd)); !strings.Contains(res.Rejected, "retired") {
		t.Errorf("a late copy began it again: %+v", res)
	}
}

func TestRotationUndone(t *testing.T) {
	for _, after := range [][]fsm.KeyPhase{{fsm.KeyAdd}, {fsm.KeyAdd, fsm.KeyUse}} {
		r := running(t)
		for _, phase := range append(after, fsm.KeyUndo, fsm.KeyDone) {
			r.must(rotate(phase))
		}
		s := r.Copy()
		if s.Rotation != nil || s.IsRetired("k1") || !s.IsRetired("k2") || s.Retired[0].Undone != "b does not answer" {
			t.Errorf("%+v, retired %+v", s.Rotation, s.Retired)
		}
	}
}

func TestRotationGoesNoOtherWay(t *testing.T) {
	all := []fsm.KeyPhase{fsm.KeyAdd, fsm.KeyUse, fsm.KeyDrop, fsm.KeyUndo, fsm.KeyDone}
	for _, tt := range []struct{ after, may []fsm.KeyPhase }{
		{nil, []fsm.KeyPhase{fsm.KeyAdd}},
		{[]fsm.KeyPhase{fsm.KeyAdd}, []fsm.KeyPhase{fsm.KeyAdd, fsm.KeyUse, fsm.KeyUndo}},
		{[]fsm.KeyPhase{fsm.KeyAdd, fsm.KeyUse}, []fsm.KeyPhase{fsm.KeyUse, fsm.KeyDrop, fsm.KeyUndo}},
		{[]fsm.KeyPhase{fsm.KeyAdd, fsm.KeyUse, fsm.KeyDrop}, []fsm.KeyPhase{fsm.KeyDrop, fsm.KeyDone}},
		{[]fsm.KeyPhase{fsm.KeyAdd, fsm.KeyUndo}, []fsm.KeyPhase{fsm.KeyUndo, fsm.KeyDone}},
	} {
		for _, phase := range all {
			r := running(t)
			for _, p := range tt.after {
				r.must(rotate(p))
			}
			before := r.json()
			res := r.propose(rotate(phase))
			if may := slices.Contains(tt.may, phase); (res.Rejected == "") != may {
				t.Errorf("%v then %s: %+v", tt.after, phase, res)
			} else if !may && r.json() != before {
				t.Errorf("%v then %s was refused and changed something", tt.after, phase)
			}
		}
	}
	r := running(t)
	r.must(rotate(fsm.KeyAdd))
	for name, c := range map[string]fsm.RotateKey{
		"another one":  {From: "k1", To: "k3", Phase: fsm.KeyUse},
		"the same key": {From: "k1", To: "k1", Phase: fsm.KeyUse},
		"no key":       {From: "k1", Phase: fsm.KeyUse},
	} {
		if res := r.propose(fsm.Command{RotateKey: &c}); res.Rejected == "" {
			t.Errorf("%s was taken", name)
		}
	}
}
