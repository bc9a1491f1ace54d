package fsm_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hanode/fsm"
)

func TestBackup(t *testing.T) {
	r := running(t)
	b, err := r.Backup("a", wall)
	if err != nil {
		t.Fatal(err)
	}
	back, err := fsm.ReadBackup(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.Copy(), back.State); diff != "" || back.Node != "a" || !back.At.Equal(wall) {
		t.Errorf("%+v %s", back, diff)
	}
	for i := range b { // half of it, and each byte changed
		if _, err := fsm.ReadBackup(b[:i]); err == nil {
			t.Errorf("%d bytes of %d were taken", i, len(b))
		}
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, err := fsm.ReadBackup(bad); err == nil {
			t.Errorf("byte %d was changed, and it was taken", i)
		}
	}
	empty, err := fsm.NewMachine().Backup("a", wall)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fsm.ReadBackup(empty); err == nil || !strings.Contains(err.Error(), "another state") {
		t.Errorf("a state before the founding was taken: %v", err)
	}
}

// A saved state begins far later than the next generation: the cluster may have gone on
// after it, and no number of then is used again.
func TestGenerationOfASavedState(t *testing.T) {
	r := running(t)
	before := r.Copy()
	r.must(recovery(51, "c", 60))
	s := r.Copy()
	if s.Generation != 51 || s.Nodes["a"].Disk != before.Nodes["a"].Disk+50 || s.Nodes["a"].Inc != before.Nodes["a"].Inc+51_000_000 ||
		s.Groups["web"].Epoch < before.Groups["web"].Epoch+51_000_000 {
		t.Errorf("%+v, web %+v", s.Nodes["a"], s.Groups["web"])
	}
	if res := r.propose(recovery(51, "b", 60)); res.Rejected == "" {
		t.Error("a generation was begun twice")
	}
}
