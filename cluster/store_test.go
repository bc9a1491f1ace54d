package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

var quietLog = slog.New(slog.DiscardHandler)

// must makes a value or ends the test.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// disk is a data directory as raft leaves it: entries first to last in term 3, and
// a snapshot up to snap; 0 = none.
func disk(t testing.TB, first, last, snap uint64) string {
	t.Helper()
	dir := t.TempDir()
	s := must[Stores](t)(OpenStores(dir, quietLog))
	check(t, s.Stable.SetUint64([]byte("CurrentTerm"), 3))
	for i := first; i > 0 && i <= last; i++ {
		check(t, s.Log.StoreLog(&raft.Log{Index: i, Term: 3, Data: fmt.Appendf(nil, "entry %d %0200d", i, i)}))
	}
	if snap > 0 {
		addSnapshot(t, s, 3, snap)
	}
	check(t, s.Close())
	return dir
}

func addSnapshot(t testing.TB, s Stores, term, index uint64) {
	t.Helper()
	_, trans := raft.NewInmemTransport("x")
	sink := must[raft.SnapshotSink](t)(s.Snapshots.Create(1, index, term, raft.Configuration{}, 1, trans))
	_, err := sink.Write([]byte(strings.Repeat("state ", 100)))
	check(t, errors.Join(err, sink.Close()))
}

// fingerprint lists every file with its content's hash.
func fingerprint(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	check(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		sum := sha256.Sum256(b)
		out[path] = hex.EncodeToString(sum[:8])
		return err
	}))
	return out
}

// refused checks that dir is not built on and not touched.
func refused(t *testing.T, dir, file string) {
	t.Helper()
	before := fingerprint(t, dir)
	s, err := OpenStores(dir, quietLog)
	if err == nil {
		_ = s.Close()
		t.Fatal("opened")
	}
	if !errors.Is(err, ErrCorrupt) {
		t.Fatal("not ErrCorrupt:", err)
	}
	for _, want := range []string{filepath.Join(dir, file), "nothing was changed", "from a backup", "move it aside"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
	if d := cmp.Diff(before, fingerprint(t, dir)); d != "" {
		t.Error("files changed:", d)
	}
}

func edit(t *testing.T, path string, fn func([]byte) []byte) {
	t.Helper()
	check(t, os.WriteFile(path, fn(must[[]byte](t)(os.ReadFile(path))), 0o600))
}

func TestOpenStores(t *testing.T) {
	for _, c := range []struct{ first, last, snap uint64 }{{0, 0, 0}, {1, 9, 0}, {1, 9, 5}, {6, 9, 5}, {0, 0, 5}, {4, 9, 5}, {1, 5, 5}, {1, 3, 5}} {
		dir := disk(t, c.first, c.last, c.snap)
		s := must[Stores](t)(OpenStores(dir, quietLog))
		last := must[uint64](t)(s.Log.LastIndex())
		list := must[[]*raft.SnapshotMeta](t)(s.Snapshots.List())
		if last != c.last || (len(list) > 0) != (c.snap > 0) {
			t.Errorf("%+v: entries to %d, %d snapshots", c, last, len(list))
		}
		check(t, s.Close())
	}
}

func TestOpenStoresTwice(t *testing.T) {
	dir := disk(t, 1, 3, 0)
	s := must[Stores](t)(OpenStores(dir, quietLog))
	_, err := OpenStores(dir, quietLog)
	if err == nil || errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "in use by another agent") {
		t.Error(err)
	}
	check(t, s.Close())
}

// TestGapUnderSnapshot: raft leaves a gap when a leader's snapshot is installed over
// a log that ended long before it. That is no damage.
func TestGapUnderSnapshot(t *testing.T) {
	dir := disk(t, 1, 4, 10)
	s := must[Stores](t)(OpenStores(dir, quietLog))
	for i := uint64(11); i < 14; i++ {
		check(t, s.Log.StoreLog(&raft.Log{Index: i, Term: 3, Data: []byte("x")}))
	}
	check(t, s.Close())
	s = must[Stores](t)(OpenStores(dir, quietLog))
	check(t, s.Log.StoreLog(&raft.Log{Index: 15, Term: 3, Data: []byte("x")}))
	check(t, s.Close())
	refused(t, dir, "raft.db") // but 14 is missing now
}

func TestDamagedLogIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		fn   func([]byte) []byte
	}{
		{"empty", func([]byte) []byte { return nil }},
		{"one byte", func(b []byte) []byte { return b[:1] }},
		{"half a page", func(b []byte) []byte { return b[:os.Getpagesize()/2] }},
		{"two pages", func(b []byte) []byte { return b[:2*os.Getpagesize()] }},
		{"zeroes", func(b []byte) []byte { return make([]byte, len(b)) }},
		{"text", func(b []byte) []byte { return []byte(strings.Repeat("not a database\n", 2000)) }},
		{"first meta page", func(b []byte) []byte { b[40] ^= 1; return b }},
		{"second meta page", func(b []byte) []byte { b[os.Getpagesize()+40] ^= 1; return b }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := disk(t, 1, 200, 0)
			edit(t, filepath.Join(dir, "raft.db"), c.fn)
			refused(t, dir, "raft.db")
		})
	}
}

// TestDamagedPages overwrites and cuts off each page in use in turn: never a crash,
// and never opened with entries missing.
func TestDamagedPages(t *testing.T) {
	dir := disk(t, 1, 60, 0)
	path := filepath.Join(dir, "raft.db")
	whole := must[[]byte](t)(os.ReadFile(path))
	f := &boltFile{b: whole, seen: map[uint64]bool{}}
	_, free, err := f.meta()
	check(t, err)
	unused := map[uint64]bool{}
	list := &boltFile{b: whole, page: f.page, high: f.high, seen: map[uint64]bool{}}
	check(t, list.freelist(free))
	for id := range list.seen {
		if id != free {
			unused[id] = true // free: nobody reads what is in it
		}
	}
	for id := range f.high {
		if unused[id] {
			continue
		}
		b := append([]byte(nil), whole...)
		for i := range b[id*uint64(f.page):][:f.page] {
			b[id*uint64(f.page)+uint64(i)] = 0xA5
		}
		check(t, os.WriteFile(path, b, 0o600))
		refused(t, dir, "raft.db")
	}
	check(t, os.WriteFile(path, whole[:int(f.high-1)*f.page], 0o600))
	refused(t, dir, "raft.db")
	check(t, os.WriteFile(path, whole, 0o600))
	s := must[Stores](t)(OpenStores(dir, quietLog))
	check(t, s.Close())
}

// TestCyclicPages: a page that refers back to itself must end in an error, not in a
// walk without end.
func TestCyclicPages(t *testing.T) {
	dir := disk(t, 1, 2000, 0) // deep enough for a branch page
	path := filepath.Join(dir, "raft.db")
	changed := false
	edit(t, path, func(b []byte) []byte {
		for at := 2 * os.Getpagesize(); at+32 <= len(b); at += os.Getpagesize() {
			if b[at+8] == boltBranch && b[at+9] == 0 {
				copy(b[at+24:at+32], b[at:at+8]) // its first child is itself
				changed = true
			}
		}
		return b
	})
	if !changed {
		t.Fatal("the file has no branch page")
	}
	refused(t, dir, "raft.db")
}

func FuzzBoltFile(f *testing.F) {
	whole, err := os.ReadFile(filepath.Join(disk(f, 1, 20, 0), "raft.db"))
	check(f, err)
	f.Add(40, []byte{1}, len(whole))
	f.Add(2*4096+10, []byte{255, 255, 255, 255}, len(whole))
	f.Fuzz(func(t *testing.T, at int, with []byte, size int) {
		b := append([]byte(nil), whole[:max(0, min(size, len(whole)))]...)
		if at >= 0 && at < len(b) {
			copy(b[at:], with)
		}
		_ = checkBoltFile(b) // must return
	})
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, file string
		fn         func([]byte) []byte
	}{
		{"state flipped", "state.bin", func(b []byte) []byte { b[77] ^= 1; return b }},
		{"state cut", "state.bin", func(b []byte) []byte { return b[:50] }},
		{"state empty", "state.bin", func([]byte) []byte { return nil }},
		{"meta is no JSON", "meta.json", func(b []byte) []byte { return b[:20] }},
		{"meta empty", "meta.json", func([]byte) []byte { return nil }},
		{"meta of another index", "meta.json", func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"Index":5`, `"Index":4`, 1))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := disk(t, 1, 9, 5)
			found := must[[]string](t)(filepath.Glob(filepath.Join(dir, "snapshots", "*", c.file)))
			if len(found) != 1 {
				t.Fatal(found)
			}
			edit(t, found[0], c.fn)
			refused(t, dir, "snapshots")
		})
	}
	t.Run("state missing", func(t *testing.T) {
		dir := disk(t, 1, 9, 5)
		found := must[[]string](t)(filepath.Glob(filepath.Join(dir, "snapshots", "*", "state.bin")))
		check(t, os.Remove(found[0]))
		refused(t, dir, "snapshots")
	})
}

func TestUnfinishedSnapshotIsIgnored(t *testing.T) {
	dir := disk(t, 1, 9, 5)
	part := filepath.Join(dir, "snapshots", "3-9-1234.tmp")
	check(t, os.Mkdir(part, 0o700))
	check(t, os.WriteFile(filepath.Join(part, "state.bin"), []byte("half"), 0o600))
	s := must[Stores](t)(OpenStores(dir, quietLog))
	defer func() { _ = s.Close() }()
	list := must[[]*raft.SnapshotMeta](t)(s.Snapshots.List())
	if len(list) != 1 || list[0].Index != 5 {
		t.Errorf("snapshots %+v", list)
	}
}

func TestLogThatDoesNotReachTheSnapshot(t *testing.T) {
	refused(t, disk(t, 7, 9, 5), "raft.db")
	refused(t, disk(t, 2, 9, 0), "raft.db")
}

// TestForgottenVotes: a snapshot without raft.db, or with one of an earlier term,
// is a node that forgot what it voted.
func TestForgottenVotes(t *testing.T) {
	dir := disk(t, 1, 9, 5)
	check(t, os.Remove(filepath.Join(dir, "raft.db")))
	refused(t, dir, "raft.db")

	dir = disk(t, 1, 9, 0)
	s := must[Stores](t)(OpenStores(dir, quietLog))
	addSnapshot(t, s, 4, 9)
	check(t, s.Close())
	refused(t, dir, "raft.db")
}

// TestHalfMadeStore: the process ended after it made the file and before raft wrote
// to it. Nothing is lost; it goes on.
func TestHalfMadeStore(t *testing.T) {
	dir := t.TempDir()
	s := must[Stores](t)(OpenStores(dir, quietLog))
	check(t, s.Close())
	s = must[Stores](t)(OpenStores(dir, quietLog))
	if state := must[bool](t)(HasState(s)); state {
		t.Error("an empty store has state")
	}
	check(t, s.Close())
}
