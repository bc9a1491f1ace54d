package agent

import (
	"testing"

	"github.com/hashicorp/raft"
)

// The fake disk is as a real one: a snapshot that was cut off on its way, or that a dead
// process still closes, is none.
func TestSnapshotsOfTheFakeDisk(t *testing.T) {
	d, process := newMemDisk(), newLife()
	begin := func() raft.SnapshotSink {
		t.Helper()
		sink, err := d.mount(process).snaps.Create(1, 7, 2, raft.Configuration{}, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Write([]byte("state")); err != nil {
			t.Fatal(err)
		}
		return sink
	}
	has := func() int {
		t.Helper()
		list, err := d.mount(newLife()).snaps.List()
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	cut := begin()
	if n := has(); n != 0 {
		t.Error("a snapshot that was only begun counts")
	}
	_, _ = cut.Cancel(), cut.Close()
	if n := has(); n != 0 {
		t.Error("a snapshot that was cut off counts")
	}
	if err := begin().Close(); err != nil || has() != 1 {
		t.Errorf("%d snapshots, %v", has(), err)
	}
	d.empty()
	late := begin()
	process.end()
	if err := late.Close(); err == nil || has() != 0 {
		t.Errorf("a dead process wrote: %d snapshots, %v", has(), err)
	}
}
