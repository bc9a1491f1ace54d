package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"hanode/internal/logbridge"
)

// ErrCorrupt means that the disk holds something that this node must not build
// on. Nothing was touched.
var ErrCorrupt = errors.New("the stored state is damaged")

// wayOut is the remedy of every ErrCorrupt.
const wayOut = "nothing was changed; either restore the data directory from a backup, or move it aside and start again: " +
	"the node then joins anew with an empty disk"

// OpenStores opens (and makes, if they are not there) raft's files in dir after
// checking every page and snapshot.
func OpenStores(dir string, log *slog.Logger) (Stores, error) {
	path := filepath.Join(dir, "raft.db")
	found, err := checkBolt(path)
	if err != nil {
		return Stores{}, err
	}
	if err := checkSnapshots(filepath.Join(dir, "snapshots"), log); err != nil {
		return Stores{}, err
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, logbridge.HCLog(log, "raft"))
	if err != nil {
		return Stores{}, fmt.Errorf("open snapshots in %s: %w", dir, err)
	}
	if err := checkJoint(path, found, snaps); err != nil {
		return Stores{}, err
	}
	db, err := raftboltdb.New(raftboltdb.Options{
		Path:        path,
		BoltOptions: &bbolt.Options{Timeout: time.Second, FreelistType: bbolt.FreelistMapType},
	})
	if err != nil {
		return Stores{}, fmt.Errorf("open %s: %w", path, err)
	}
	cache, err := raft.NewLogCache(512, db)
	if err != nil {
		return Stores{}, errors.Join(err, db.Close())
	}
	probe := func() (uint64, error) { return touch(filepath.Join(dir, "probe")) }
	return Stores{Log: cache, Stable: db, Snapshots: snaps, Probe: probe, Close: db.Close}, nil
}

// touch writes a small file in place, waits until it is on the disk and returns
// how many bytes are free there. On a full disk it works as long as the file is
// there: what is full shows in the bytes, not in an error.
func touch(path string) (free uint64, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	_, err = f.WriteString(time.Now().UTC().Format("2006-01-02T15:04:05.000000000Z\n"))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(filepath.Dir(path), &st); err != nil {
		return 0, err
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// checkBolt checks every page of the file and reads what raft keeps in it; zero if
// raft never wrote to it.
func checkBolt(path string) (k kept, err error) {
	if st, statErr := os.Stat(path); errors.Is(statErr, os.ErrNotExist) {
		return k, nil
	} else if statErr != nil {
		return k, statErr
	} else if st.Size() == 0 {
		return k, fmt.Errorf("%s is empty: %w: %s", path, ErrCorrupt, wayOut)
	}
	defer guard(path, &err)()
	opts := &bbolt.Options{ReadOnly: true, Timeout: time.Second} // read only: a refusal changes no byte
	db, err := bbolt.Open(path, 0o600, opts)
	if errors.Is(err, bbolt.ErrTimeout) {
		return k, fmt.Errorf("%s is in use by another agent: %w", path, err)
	}
	if err != nil {
		return k, fmt.Errorf("%s: %w (%v): %s", path, ErrCorrupt, err, wayOut)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	b, err := os.ReadFile(path)
	if err != nil {
		return k, err
	}
	if err := checkBoltFile(b); err != nil {
		return k, fmt.Errorf("%s: %w (%v): %s", path, ErrCorrupt, err, wayOut)
	}
	fresh := false
	if err := db.View(func(tx *bbolt.Tx) error {
		name, _ := tx.Cursor().First()
		fresh = name == nil // made, but ended before its first entry
		return nil
	}); err != nil || fresh {
		return k, err
	}
	store, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: opts})
	if err != nil {
		return k, fmt.Errorf("%s: %w (%v): %s", path, ErrCorrupt, err, wayOut)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return readKept(path, store)
}

// guard turns a panic of bbolt, or a fault of its memory map (the file was cut
// short meanwhile), into ErrCorrupt.
func guard(path string, err *error) func() {
	old := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			*err = fmt.Errorf("%s: %w (%v): %s", path, ErrCorrupt, r, wayOut)
		}
	}
}

// kept is what raft.db holds, in short.
type kept struct {
	first, last uint64 // entries; 0 = none
	// whole: every entry from here to last is there and can be read. An older gap is
	// no damage: raft leaves one when it installs a leader's snapshot.
	whole uint64
	gap   error  // what ends whole; nil = nothing, all are there
	term  uint64 // newest term that this node knows
}

func readKept(path string, db *raftboltdb.BoltStore) (k kept, err error) {
	bad := func(err error) error { return fmt.Errorf("%s: %w (%v): %s", path, ErrCorrupt, err, wayOut) }
	if k.first, err = db.FirstIndex(); err != nil {
		return k, bad(err)
	}
	if k.last, err = db.LastIndex(); err != nil {
		return k, bad(err)
	}
	if k.term, err = db.GetUint64([]byte("CurrentTerm")); err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return k, bad(err)
	}
	k.whole = k.last + 1
	for i := k.last; i >= k.first && i > 0; i-- {
		var l raft.Log
		if err := db.GetLog(i, &l); err != nil {
			k.gap = fmt.Errorf("entry %d: %v", i, err)
			break
		}
		if l.Index != i || l.Term > k.term {
			k.gap = fmt.Errorf("entry %d calls itself %d of term %d, in term %d", i, l.Index, l.Term, k.term)
			break
		}
		k.whole = i
	}
	return k, nil
}

// checkSnapshots refuses a snapshot directory that raft would silently skip.
func checkSnapshots(dir string, log *slog.Logger) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	store, err := raft.NewFileSnapshotStoreWithLogger(filepath.Dir(dir), 2, logbridge.HCLog(log, "raft"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") || !e.IsDir() {
			continue // an unfinished one; raft never counted on it
		}
		meta, r, err := store.Open(e.Name())
		if err == nil {
			err = r.Close()
		}
		if err == nil && !strings.HasPrefix(e.Name(), fmt.Sprintf("%d-%d-", meta.Term, meta.Index)) {
			err = fmt.Errorf("meta.json says term %d, entry %d", meta.Term, meta.Index)
		}
		if err != nil {
			return fmt.Errorf("snapshot %s: %w (%v): %s", filepath.Join(dir, e.Name()), ErrCorrupt, err, wayOut)
		}
	}
	return nil
}

// checkJoint refuses a log that does not reach back to the newest snapshot, and a
// snapshot without the votes that came with it: a node that forgot its vote could
// vote twice.
func checkJoint(path string, k kept, snaps raft.SnapshotStore) error {
	list, err := snaps.List()
	if err != nil {
		return err
	}
	var snap uint64
	if len(list) > 0 {
		snap = list[0].Index
		if k.term < list[0].Term {
			return fmt.Errorf("%s is missing or lost its votes: it is in term %d but the newest snapshot in term %d: %w: %s",
				path, k.term, list[0].Term, ErrCorrupt, wayOut)
		}
	}
	switch {
	case k.first > snap+1:
		return fmt.Errorf("%s begins at entry %d but the newest snapshot ends at %d: %w: %s", path, k.first, snap, ErrCorrupt, wayOut)
	case k.gap != nil && k.whole > snap+1:
		return fmt.Errorf("%s: %w (%v): %s", path, ErrCorrupt, k.gap, wayOut)
	}
	return nil
}
