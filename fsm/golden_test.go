package fsm_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hanode/fsm"
)

var update = flag.Bool("fsm.update", false, "write the files of testdata/v1 that do not exist yet; those that do are for ever")

func isTooNew(err error) bool { return errors.Is(err, fsm.ErrTooNew) }

// golden returns the file of that name, made from data if it is new.
func golden(t *testing.T, name string, data func() []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", "v1", name)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && *update {
		b = data()
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		t.Fatalf("%v; is the command new? then write its file once with -fsm.update", err)
	}
	return b
}

// Logs and snapshots written by version 1 must be read for ever.
func TestCommandsOfVersion1(t *testing.T) {
	commands := map[string]fsm.Command{"found": found()}
	for name, tt := range every() {
		commands[name] = tt.do
	}
	for name, want := range commands {
		t.Run(name, func(t *testing.T) {
			file := strings.NewReplacer(", ", "-", " ", "-").Replace(name) + ".bin"
			want.At = wall
			b := golden(t, file, func() []byte {
				b, err := fsm.Encode(want)
				if err != nil {
					t.Fatal(err)
				}
				return b
			})
			got, err := fsm.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The log of version 1 must lead to the state of version 1, or nodes that are
// being upgraded one by one would disagree.
func TestLogOfVersion1(t *testing.T) {
	r := running(t)
	for _, c := range []fsm.Command{
		assign("web", 2, ref("b", 1)),
		groups(ips("web"), ips("db", dbIP, webIP)),
		fence(ref("a", 1), fsm.Assign{Group: "web", Epoch: 4, To: ref("c", 1)}),
		register("a", 1, "a-2", "host-a"),
		{SetVoters: &fsm.SetVoters{Version: 2, Names: []string{"a", "b", "c", "w"}}},
		{Standby: &fsm.Standby{Node: "c", On: true}},
		register("b", 1, "b-2", "host-z"),
	} {
		r.must(c)
	}
	log := golden(t, "log.bin", func() []byte { return bytes.Join(r.log, []byte("\n")) })
	snap := golden(t, "snapshot.bin", func() []byte {
		b, err := r.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
	old, replayed := newReplica(t), newReplica(t)
	if err := old.Restore(snap); err != nil {
		t.Fatal(err)
	}
	for i, data := range bytes.Split(log, []byte("\n")) {
		if res := replayed.Apply(uint64(i+1), data); res.Rejected != "" {
			t.Fatalf("entry %d: %s", i+1, res.Rejected)
		}
	}
	if diff := cmp.Diff(old.json(), replayed.json()); diff != "" {
		t.Error(diff)
	}
}
