package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
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
// checking every page and snapshot. hung is called when one write takes longer
// than limit: a leader with a hung disk keeps heartbeating for ever
// (hashicorp/raft #503), so the process must end; 0 = no limit.
func OpenStores(dir string, limit time.Duration, hung func(error), log *slog.Logger) (Stores, error) {
	path := filepath.Join(dir, "raft.db")
	if err := checkBolt(path); err != nil {
		return Stores{}, err
	}
	if err := checkSnapshots(filepath.Join(dir, "snapshots")); err != nil {
		return Stores{}, err
	}
	db, err := raftboltdb.New(raftboltdb.Options{
		Path:        path,
		BoltOptions: &bbolt.Options{Timeout: time.Second, FreelistType: bbolt.FreelistMapType},
	})
	if err != nil {
		return Stores{}, fmt.Errorf("open %s: %w", path, err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, logbridge.HCLog(log, "raft"))
	if err != nil {
		return Stores{}, errors.Join(fmt.Errorf("open snapshots in %s: %w", dir, err), db.Close())
	}
	if err := checkJoint(path, db, snaps); err != nil {
		return Stores{}, errors.Join(err, db.Close())
	}
	fs := failStop{store: db, stable: db, limit: limit, hung: hung}
	cache, err := raft.NewLogCache(512, fs)
	if err != nil {
		return Stores{}, errors.Join(err, db.Close())
	}
	return Stores{Log: cache, Stable: fs, Snapshots: snaps, Close: db.Close}, nil
}

// checkBolt walks every page of the file. A truncated file makes reads of the
// memory map fault; that becomes an error here and not a crash later.
func checkBolt(path string) (err error) {
	if st, statErr := os.Stat(path); errors.Is(statErr, os.ErrNotExist) {
		return nil
	} else if statErr != nil {
		return statErr
	} else if st.Size() == 0 {
		return fmt.Errorf("%s is empty: %w: %s", path, ErrCorrupt, wayOut)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: %w (%v): %s", path, ErrCorrupt, r, wayOut)
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if errors.Is(err, bbolt.ErrTimeout) {
		return fmt.Errorf("%s is in use by another agent: %w", path, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w (%v): %s", path, ErrCorrupt, err, wayOut)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				sum := 0
				for _, x := range [][]byte{k, v} {
					for _, c := range x {
						sum += int(c)
					}
				}
				_ = sum // the read is the point
				return nil
			})
		})
	})
}

// checkSnapshots refuses a snapshot directory that raft would silently skip.
func checkSnapshots(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	store, err := raft.NewFileSnapshotStoreWithLogger(filepath.Dir(dir), 2, nil)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".tmp") || !e.IsDir() {
			continue // an unfinished one; raft never counted on it
		}
		_, r, err := store.Open(e.Name())
		if err != nil {
			return fmt.Errorf("snapshot %s: %w (%v): %s", filepath.Join(dir, e.Name()), ErrCorrupt, err, wayOut)
		}
		_ = r.Close()
	}
	return nil
}

// checkJoint refuses a log that does not reach back to the newest snapshot.
func checkJoint(path string, db *raftboltdb.BoltStore, snaps raft.SnapshotStore) error {
	first, err := db.FirstIndex()
	if err != nil {
		return fmt.Errorf("%s: %w (%v): %s", path, ErrCorrupt, err, wayOut)
	}
	last, err := db.LastIndex()
	if err != nil {
		return fmt.Errorf("%s: %w (%v): %s", path, ErrCorrupt, err, wayOut)
	}
	list, err := snaps.List()
	if err != nil {
		return err
	}
	var snap uint64
	if len(list) > 0 {
		snap = list[0].Index
	}
	if first > snap+1 {
		return fmt.Errorf("%s begins at entry %d but the newest snapshot ends at %d: %w: %s", path, first, snap, ErrCorrupt, wayOut)
	}
	for i := first; i > 0 && i <= last; i++ {
		var l raft.Log
		if err := db.GetLog(i, &l); err != nil {
			return fmt.Errorf("%s: entry %d: %w (%v): %s", path, i, ErrCorrupt, err, wayOut)
		}
	}
	return nil
}

// failStop ends the process when the disk hangs.
type failStop struct {
	store  raft.LogStore
	stable raft.StableStore
	limit  time.Duration
	hung   func(error)
}

func (f failStop) watch(op string) func() {
	if f.limit <= 0 {
		return func() {}
	}
	t := time.AfterFunc(f.limit, func() { f.hung(fmt.Errorf("%s has not returned for %v: the disk hangs", op, f.limit)) })
	return func() { t.Stop() }
}

func (f failStop) FirstIndex() (uint64, error)        { return f.store.FirstIndex() }
func (f failStop) LastIndex() (uint64, error)         { return f.store.LastIndex() }
func (f failStop) GetLog(i uint64, l *raft.Log) error { return f.store.GetLog(i, l) }
func (f failStop) Get(k []byte) ([]byte, error)       { return f.stable.Get(k) }
func (f failStop) GetUint64(k []byte) (uint64, error) { return f.stable.GetUint64(k) }
func (f failStop) StoreLog(l *raft.Log) error {
	defer f.watch("store log")()
	return f.store.StoreLog(l)
}
func (f failStop) StoreLogs(l []*raft.Log) error {
	defer f.watch("store logs")()
	return f.store.StoreLogs(l)
}
func (f failStop) DeleteRange(a, b uint64) error {
	defer f.watch("delete logs")()
	return f.store.DeleteRange(a, b)
}
func (f failStop) Set(k, v []byte) error { defer f.watch("set")(); return f.stable.Set(k, v) }
func (f failStop) SetUint64(k []byte, v uint64) error {
	defer f.watch("set")()
	return f.stable.SetUint64(k, v)
}
