package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"hanode/fsm"
)

// sick is a disk whose writes can be made to take long, to hang and to fail.
type sick struct {
	*raft.InmemStore
	takes  atomic.Int64 // time.Duration
	hangs  atomic.Bool
	fails  atomic.Pointer[error]
	writes atomic.Int64 // that came to this disk, whatever became of them
}

func newSick() *sick { return &sick{InmemStore: raft.NewInmemStore()} }

func (s *sick) fail(err error) { s.fails.Store(&err) }

// try is one write.
func (s *sick) try(fn func() error) error {
	s.writes.Add(1)
	time.Sleep(time.Duration(s.takes.Load()))
	for s.hangs.Load() {
		time.Sleep(time.Millisecond)
	}
	if err := s.fails.Load(); err != nil && *err != nil {
		return *err
	}
	return fn()
}

func (s *sick) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }
func (s *sick) StoreLogs(l []*raft.Log) error {
	return s.try(func() error { return s.InmemStore.StoreLogs(l) })
}

func (s *sick) DeleteRange(a, b uint64) error {
	return s.try(func() error { return s.InmemStore.DeleteRange(a, b) })
}

func (s *sick) Set(k, v []byte) error {
	return s.try(func() error { return s.InmemStore.Set(k, v) })
}

func (s *sick) SetUint64(k []byte, v uint64) error {
	return s.try(func() error { return s.InmemStore.SetUint64(k, v) })
}

// ops are the ways to write.
var ops = map[string]func(*diskWatch) error{
	"StoreLog":    func(d *diskWatch) error { return d.StoreLog(&raft.Log{Index: 1}) },
	"StoreLogs":   func(d *diskWatch) error { return d.StoreLogs([]*raft.Log{{Index: 1}}) },
	"DeleteRange": func(d *diskWatch) error { return d.DeleteRange(1, 1) },
	"Set":         func(d *diskWatch) error { return d.Set([]byte("k"), nil) },
	"SetUint64":   func(d *diskWatch) error { return d.SetUint64([]byte("k"), 1) },
}

func TestDiskWatchKnowsTheAgeOfAWrite(t *testing.T) {
	for name, op := range ops {
		synctest.Test(t, func(t *testing.T) {
			s := newSick()
			n := &Node{disk: newDiskWatch(Stores{Log: s, Stable: s})}
			s.takes.Store(int64(time.Minute))
			done := make(chan error, 1)
			go func() { done <- op(n.disk) }()
			time.Sleep(HungAfter - time.Millisecond)
			if age, _ := n.DiskHangs(); age != 0 {
				t.Errorf("%s: %v of a write count as a hang", name, age)
			}
			time.Sleep(time.Millisecond)
			if age, failed := n.DiskHangs(); age != HungAfter || failed != nil {
				t.Errorf("%s: hangs for %v, %v", name, age, failed)
			}
			n.ExcuseDisk()
			if age, _ := n.DiskHangs(); age != 0 {
				t.Errorf("%s: hangs for %v after the excuse", name, age)
			}
			time.Sleep(2 * HungAfter)
			if age, _ := n.DiskHangs(); age != 2*HungAfter {
				t.Errorf("%s: hangs for %v, two seconds after the excuse", name, age)
			}
			if err := <-done; err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if age, _ := n.disk.state(); age != 0 {
				t.Errorf("%s: done, and still %v old", name, age)
			}
		})
	}
}

// TestFullDiskIsASlowDisk: no space is not an error that raft sees, and space that
// comes back ends it. An I/O error is one.
func TestFullDiskIsASlowDisk(t *testing.T) {
	for name, op := range ops {
		synctest.Test(t, func(t *testing.T) {
			s := newSick()
			n := &Node{disk: newDiskWatch(Stores{Log: s, Stable: s})}
			for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
				s.fail(fmt.Errorf("write raft.db: %w", errno))
				done := make(chan error, 1)
				go func() { done <- op(n.disk) }()
				time.Sleep(time.Minute)
				if age, failed := n.DiskHangs(); age != time.Minute || !errors.Is(failed, errno) {
					t.Errorf("%s: hangs for %v, %v; want a minute of %v", name, age, failed, errno)
				}
				s.fail(nil)
				if err := <-done; err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if age, failed := n.disk.state(); age != 0 || failed != nil {
					t.Errorf("%s: done, and yet %v, %v", name, age, failed)
				}
			}
			s.fail(syscall.EIO)
			if err := op(n.disk); !errors.Is(err, syscall.EIO) {
				t.Errorf("%s: an I/O error became %v", name, err)
			}
		})
	}
}

// sickLab is a lab on sick disks.
func sickLab(t *testing.T, n int, fn func(l *lab, disks map[string]*sick)) {
	t.Helper()
	disks := map[string]*sick{}
	bubbleOn(t, n, func(name string) Stores {
		s := newSick()
		disks[name] = s
		return Stores{Log: s, Stable: s, Snapshots: raft.NewInmemSnapshotStore()}
	}, func(l *lab) {
		defer func() {
			for _, d := range disks { // or nobody could stop
				d.hangs.Store(false)
				d.takes.Store(0)
				d.fail(nil)
			}
			time.Sleep(2 * time.Second)
		}()
		fn(l, disks)
	})
}

// say proposes one line at m and does not wait for longer than d.
func (m *member) say(text string, d time.Duration) error {
	ctx, cancel := context.WithTimeout(m.lab.t.Context(), d)
	defer cancel()
	_, err := m.Propose(ctx, fsm.Command{Report: &fsm.Report{Events: []fsm.Event{{Kind: "test", Text: text}}}})
	return err
}

// TestHungLeaderIsReplaced: its heartbeats would keep the others from electing for
// ever. It falls silent, so that raft's own timers act although nothing else does;
// and it knows itself that it does not lead.
func TestHungLeaderIsReplaced(t *testing.T) {
	for _, how := range []string{"hangs", "full"} {
		t.Run(how, func(t *testing.T) {
			sickLab(t, 3, func(l *lab, disks map[string]*sick) {
				old := l.found()
				l.propose("before")
				term, leads := old.Reign()
				if !leads || term == 0 {
					t.Fatalf("the leader's reign is %d, %v", term, leads)
				}
				d := disks[old.name]
				if how == "full" {
					d.fail(syscall.ENOSPC)
				} else {
					d.hangs.Store(true)
				}
				begin := time.Now()
				if err := old.say("never", time.Minute); !errors.Is(err, ErrHung) || time.Since(begin) > 2*HungAfter {
					t.Errorf("a proposal on a disk that hangs: %v after %v", err, time.Since(begin))
				}
				if now, leads := old.Reign(); now != term || leads {
					t.Errorf("its reign is %d, %v", now, leads)
				}
				if err := old.say("refused", time.Minute); !errors.Is(err, ErrNotLeader) {
					t.Errorf("a proposal at a leader that cannot lead: %v", err)
				}
				next := l.other(old)
				l.until("another leads", func() bool {
					for _, n := range l.names {
						if m := l.all[n]; m != old && m.IsLeader() {
							next = m
							return true
						}
					}
					return false
				})
				took := time.Since(begin)
				t.Logf("replaced by raft's own timers after %v", took)
				if took > HungAfter+4*raftTimeout {
					t.Errorf("it took %v", took)
				}
				if err := next.say("after", time.Second); err != nil {
					t.Errorf("the next leader cannot commit: %v", err)
				}
				d.hangs.Store(false)
				d.fail(nil)
				l.until("the old one follows", func() bool { who, _ := old.Leader(); return who == next.name && !old.IsLeader() })
				l.applied(must[uint64](t)(next.Mark(l.t.Context())))
				for _, m := range l.all {
					if got := m.history(); !slices.Equal(got, []string{"before", "after"}) {
						t.Errorf("history on %s: %q", m.name, got)
					}
				}
			})
		})
	}
}

// TestHungFollowerCostsNothing: the others commit and keep their leader. Settled, it
// still says that it has caught up, so that what it acknowledged is taken for granted for
// a while, until an append hangs.
func TestHungFollowerCostsNothing(t *testing.T) {
	for _, settled := range []bool{false, true} {
		t.Run(fmt.Sprintf("settled %v", settled), func(t *testing.T) {
			sickLab(t, 3, func(l *lab, disks map[string]*sick) {
				l.settled.Store(settled)
				lead := l.found()
				time.Sleep(time.Second)
				term, _ := lead.Reign()
				weak := l.other(lead)
				disks[weak.name].hangs.Store(true)
				for i := range 100 {
					if err := lead.say(fmt.Sprint(i), time.Second); err != nil {
						t.Fatalf("number %d: %v", i, err)
					}
					time.Sleep(100 * time.Millisecond)
				}
				if age, _ := weak.DiskHangs(); age < 5*time.Second {
					t.Errorf("its disk hangs for %v only", age)
				}
				if now, leads := lead.Reign(); now != term || !leads {
					t.Errorf("reign %d, %v; it was %d", now, leads, term)
				}
				disks[weak.name].hangs.Store(false)
				l.applied(must[uint64](t)(lead.Mark(l.t.Context())))
				if now, leads := lead.Reign(); now != term || !leads {
					t.Errorf("reign %d, %v after the hang; it was %d", now, leads, term)
				}
			})
		})
	}
}

// TestSlowDisks: every write of every voter takes 200 ms. Nobody loses the
// leadership over it and nothing acknowledged is lost.
func TestSlowDisks(t *testing.T) {
	sickLab(t, 3, func(l *lab, disks map[string]*sick) {
		lead := l.found()
		term, _ := lead.Reign()
		for _, d := range disks {
			d.takes.Store(int64(200 * time.Millisecond))
		}
		var acked []string
		for i := range 100 {
			if err := lead.say(fmt.Sprint(i), 3*time.Second); err != nil {
				t.Fatalf("number %d: %v", i, err)
			}
			acked = append(acked, fmt.Sprint(i))
		}
		if now, leads := lead.Reign(); now != term || !leads {
			t.Errorf("reign %d, %v; it was %d", now, leads, term)
		}
		l.applied(must[uint64](t)(lead.Mark(l.t.Context())))
		for _, m := range l.all {
			if got := m.history(); !slices.Equal(got, acked) {
				t.Errorf("%s has %d lines of %d", m.name, len(got), len(acked))
			}
		}
	})
}

// TestStopWithAHungDisk: nobody waits for ever for a write that does not return.
func TestStopWithAHungDisk(t *testing.T) {
	sickLab(t, 3, func(l *lab, disks map[string]*sick) {
		old := l.found()
		disks[old.name].hangs.Store(true)
		_ = old.say("never", HungAfter)
		begin := time.Now()
		if err := old.Stop(); !errors.Is(err, errStuck) {
			t.Errorf("stopped: %v", err)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		disks[old.name].hangs.Store(false)
		old.Node = nil
		time.Sleep(time.Second)
	})
}

func TestProbeDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Node{disk: newDiskWatch(Stores{})}
		if _, known, err := n.ProbeDisk(t.Context()); known || err != nil {
			t.Errorf("no probe: %v", err)
		}
		var probes atomic.Int32
		n.cfg.Stores.Probe = func() (uint64, error) { probes.Add(1); time.Sleep(3 * time.Second); return 4096, nil }
		done := make(chan error, 1)
		go func() {
			free, known, err := n.ProbeDisk(t.Context())
			if free != 4096 || !known {
				t.Errorf("%d bytes are free", free)
			}
			done <- err
		}()
		time.Sleep(2 * time.Second)
		if age, _ := n.DiskHangs(); age != 2*time.Second {
			t.Errorf("hangs for %v", age)
		}
		if _, known, err := n.ProbeDisk(t.Context()); known || err != nil || probes.Load() != 1 {
			t.Errorf("a disk that hangs was asked again: %v", err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		n.cfg.Stores.Probe = func() (uint64, error) { return 0, syscall.EIO }
		if _, known, err := n.ProbeDisk(t.Context()); known || !errors.Is(err, syscall.EIO) {
			t.Error(err)
		}
	})
}
