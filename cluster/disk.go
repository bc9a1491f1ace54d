package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// HungAfter is how long one write may take before the disk counts as hung: longer
// than a busy disk takes, short beside the time that a leader which cannot commit
// would cost.
const HungAfter = time.Second

// diskWatch stands between raft and its stores and knows what the writes are up to.
//
// Raft's library makes two bad things of a bad disk. A leader whose write does not
// return goes on with its heartbeats for ever, commits nothing and cannot be
// replaced (hashicorp/raft #503, #666). And a term or a vote that cannot be written,
// on a full disk say, panics, which would take away the groups of a node whose
// lease needs no disk. So the age of every write is known here, and a write that
// fails for want of space is no error but a slow write: it is tried again until
// there is some.
type diskWatch struct {
	log    raft.LogStore
	stable raft.StableStore
	stored func() // told after each write to the log; nil = nobody is
	// snapshot is where raft's newest one ends; nil = nobody knows.
	snapshot func() Position

	mu     sync.Mutex
	last   uint64               // write begun last
	begun  map[uint64]time.Time // writes under way
	failed error                // why the newest of them did not work so far; nil = it did
}

func newDiskWatch(s Stores) *diskWatch {
	return &diskWatch{log: s.Log, stable: s.Stable, begun: map[uint64]time.Time{}}
}

// retryWrite is how often a write that found no space is tried again.
const retryWrite = 100 * time.Millisecond

// write makes one write. It returns when it is on the disk, or with an error that
// raft can live with.
func (d *diskWatch) write(fn func() error) error {
	d.mu.Lock()
	d.last++
	n := d.last
	d.begun[n] = time.Now()
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.begun, n)
		if len(d.begun) == 0 {
			d.failed = nil
		}
	}()
	for {
		err := fn()
		if !waitOut(err) {
			return err
		}
		d.mu.Lock()
		d.failed = err
		d.mu.Unlock()
		time.Sleep(retryWrite)
	}
}

// waitOut: nothing was written, and somebody can make the same write work: there
// is no space, or the file system is read-only for now. After an I/O error nobody
// knows what was written, so that one is raft's to judge, and it ends the process.
//
// The words are looked at as well: raft's LogCache, and bbolt where it makes its
// file longer, keep the words of an error and drop the error.
func waitOut(err error) bool {
	if err == nil {
		return false
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		if errors.Is(err, errno) || strings.Contains(err.Error(), errno.Error()) {
			return true
		}
	}
	return false
}

// state is how long the oldest write under way has taken, 0 = there is none, and
// what kept one from working.
func (d *diskWatch) state() (age time.Duration, failed error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, at := range d.begun {
		age = max(age, time.Since(at))
	}
	return age, d.failed
}

// excuse counts every write under way from now: the process was stalled, so that
// they may be younger than they look.
func (d *diskWatch) excuse() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n := range d.begun {
		d.begun[n] = time.Now()
	}
}

// GetLog also knows the entry that the newest snapshot ends with, but for what it says. A
// follower whose log begins behind a snapshot does not know it: raft compares an append
// with its last entry, or with one in its log. So if the answer to the first append behind
// the snapshot is lost, the next try is rejected, the leader sends the snapshot anew, and
// so for ever. Nobody takes the entry for what it is not: with the one before it missing,
// too, a leader finds nothing here to send.
func (d *diskWatch) GetLog(i uint64, l *raft.Log) error {
	err := d.log.GetLog(i, l)
	if !errors.Is(err, raft.ErrLogNotFound) || d.snapshot == nil || i < 2 {
		return err
	}
	if s := d.snapshot(); s.LastIndex == i && errors.Is(d.log.GetLog(i-1, &raft.Log{}), raft.ErrLogNotFound) {
		*l = raft.Log{Index: i, Term: s.LastTerm, Type: raft.LogNoop}
		return nil
	}
	return err
}

func (d *diskWatch) FirstIndex() (uint64, error)        { return d.log.FirstIndex() }
func (d *diskWatch) LastIndex() (uint64, error)         { return d.log.LastIndex() }
func (d *diskWatch) Get(k []byte) ([]byte, error)       { return d.stable.Get(k) }
func (d *diskWatch) GetUint64(k []byte) (uint64, error) { return d.stable.GetUint64(k) }
func (d *diskWatch) StoreLog(l *raft.Log) error         { return d.StoreLogs([]*raft.Log{l}) }
func (d *diskWatch) StoreLogs(l []*raft.Log) error {
	err := d.write(func() error { return d.log.StoreLogs(l) })
	if err == nil && d.stored != nil {
		d.stored()
	}
	return err
}

func (d *diskWatch) DeleteRange(a, b uint64) error {
	return d.write(func() error { return d.log.DeleteRange(a, b) })
}

func (d *diskWatch) Set(k, v []byte) error {
	return d.write(func() error { return d.stable.Set(k, v) })
}

func (d *diskWatch) SetUint64(k []byte, v uint64) error {
	return d.write(func() error { return d.stable.SetUint64(k, v) })
}

// DiskHangs reports for how long the disk has not finished a write that it was
// given, once that is HungAfter or more; 0 = it works, as far as anybody tried.
// failed says why, where the system gave a reason.
func (n *Node) DiskHangs() (age time.Duration, failed error) {
	age, failed = n.disk.state()
	if age < HungAfter {
		age = 0
	}
	return age, failed
}

// ExcuseDisk forgives the writes under way the time up to now: this process did
// not run meanwhile.
func (n *Node) ExcuseDisk() { n.disk.excuse() }

// ProbeDisk writes a few bytes, waits until they are on the disk and returns how
// much space is left there: an idle cluster writes nothing, and would learn of a
// disk that hangs only when it needs it. A disk that is writing is not asked, and
// neither is one that cannot be: then known is false.
func (n *Node) ProbeDisk(ctx context.Context) (free uint64, known bool, err error) {
	if age, _ := n.disk.state(); age > 0 || n.cfg.Stores.Probe == nil {
		return 0, false, nil
	}
	var left atomic.Uint64 // the write may outlast this call
	err = n.await(ctx, false, func() error {
		return n.disk.write(func() error {
			b, err := n.cfg.Stores.Probe()
			left.Store(b)
			return err
		})
	})
	if err != nil {
		return 0, false, fmt.Errorf("probe the disk: %w", err)
	}
	return left.Load(), true, nil
}

func (n *Node) hung() bool { age, _ := n.DiskHangs(); return age > 0 }
