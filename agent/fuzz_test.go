package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hanode/config"
	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/lease"
)

// FuzzRecord: a record that a member pushes leaves a holder that still answers, and that
// holds nothing which it did not own by it.
func FuzzRecord(f *testing.F) {
	for _, s := range []string{
		`{"group":"web","epoch":3,"owner":{"name":"a","inc":1},"voters":{"version":1,"names":["a","b","c"]}}`,
		`{"group":"web","epoch":2,"owner":{"name":"b","inc":9},"waits":[{"group":"db","node":{"name":"a","inc":1},"epoch":1,"bound":1}]}`,
		`{"group":"","epoch":18446744073709551615}`, `null`, `{"waits":[{}]}`,
	} {
		f.Add([]byte(s), []byte(`{"group":"web","epoch":4}`))
	}
	self := id.NodeRef{Name: "a", Inc: 1}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		h := lease.NewHolder(self, time.Second, clock.Instant{})
		for _, b := range [][]byte{one, two, one} {
			var r fsm.Record
			if json.Unmarshal(b, &r) != nil {
				continue
			}
			before, had := h.Right(r.Group)
			h.Adopt(rightOf(r))
			after, _ := h.Right(r.Group)
			if had && after.Epoch < before.Epoch {
				t.Errorf("%q set the epoch back from %d to %d", b, before.Epoch, after.Epoch)
			}
			if v := h.May(r.Group, clock.Instant{}); v.OK {
				t.Errorf("%q: held without a lease", b)
			}
			h.Release(r.Group, after.Epoch)
			h.Owed()
			h.Due(r.Group)
			h.Unsatisfied()
		}
	})
}

// FuzzDataDir: files of data_dir that are damaged are an error or as good as none.
func FuzzDataDir(f *testing.F) {
	f.Add([]byte(`{"cluster":"web","name":"a","id":"X","disk":1}`), []byte(`{"cluster":"web","timing":{},"nodes":[{"name":"a","address":"10.0.0.1","role":"node"}]}`), []byte(`{"b":["10.0.0.2",""]}`), []byte(`{"b":{"disk":1}}`))
	f.Add([]byte(`{}`), []byte(`{"cluster":"web"}`), []byte(`null`), []byte(`[]`))
	f.Fuzz(func(t *testing.T, identity, members, peers, disks []byte) {
		dir := t.TempDir()
		for name, b := range map[string][]byte{identityFile: identity, membersFile: members, "peers.json": peers, knownFile: disks} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if m, err := readMembership(dir); err == nil && (m == nil || len(m.Nodes) == 0) {
			t.Errorf("%q was taken for a membership", members)
		}
		var k known
		k.load(filepath.Join(dir, knownFile))
		d, err := openDisk(&config.Node{Cluster: "web", Name: "a", DataDir: dir})
		if err != nil {
			return
		}
		d.loadPeers()
		d.number()
		d.generation()
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
}
