package fsm_test

import (
	"bytes"
	"testing"

	"hanode/fsm"
)

// FuzzDecode: bytes off a damaged disk make an error, never a panic; what does
// decode is applied alike by two machines.
func FuzzDecode(f *testing.F) {
	for _, tt := range every() {
		b, err := fsm.Encode(tt.do)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("\x01{}"))
	f.Add([]byte("\x02{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := fsm.Decode(b)
		if err != nil {
			return
		}
		again, err := fsm.Encode(c)
		if err != nil {
			t.Fatalf("decoded %q and cannot encode it: %v", b, err)
		}
		x, y := running(t), running(t)
		x.Apply(100, b)
		y.Apply(100, again)
		if x.json() != y.json() {
			t.Fatalf("%q and its encoding %q lead to different states", b, again)
		}
	})
}

// FuzzRestore: a snapshot is taken whole or not at all, and a machine that took
// one works.
func FuzzRestore(f *testing.F) {
	m := fsm.NewMachine()
	b, err := m.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("\x01" + `{"cluster":"web","nodes":{"a":{"name":"a","inc":1}},"groups":{"g":{"spec":{"name":"g"},"epoch":3,"waits":[{"node":{"name":"a"}}]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newReplica(t)
		if r.Restore(b) != nil {
			if r.json() != newReplica(t).json() {
				t.Fatalf("%q failed and changed the state", b)
			}
			return
		}
		snap, err := r.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		twin := newReplica(t)
		if err := twin.Restore(snap); err != nil {
			t.Fatalf("%q: its own snapshot does not load: %v", b, err)
		}
		for _, tt := range every() {
			r.propose(tt.do)
			twin.propose(tt.do)
		}
		x, errX := r.Snapshot()
		y, errY := twin.Snapshot()
		if errX != nil || errY != nil || !bytes.Equal(x, y) {
			t.Fatalf("%q: a machine and its copy part ways", b)
		}
	})
}
