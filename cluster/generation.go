package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/hashicorp/raft"

	"hanode/fsm"
	"hanode/internal/logbridge"
)

// Replay applies all that is in the stores, committed or not, to a new machine, and says
// how far that reaches. No raft may run on them.
func Replay(s Stores) (*fsm.Machine, Position, error) {
	m := fsm.NewMachine()
	var at Position
	snaps, err := s.Snapshots.List()
	if err != nil {
		return nil, at, fmt.Errorf("list snapshots: %w", err)
	}
	if len(snaps) > 0 {
		_, r, err := s.Snapshots.Open(snaps[0].ID)
		if err != nil {
			return nil, at, fmt.Errorf("open snapshot %s: %w", snaps[0].ID, err)
		}
		if err := (&machine{m: m}).Restore(r); err != nil {
			return nil, at, fmt.Errorf("read snapshot %s: %w", snaps[0].ID, err)
		}
		at = Position{snaps[0].Term, snaps[0].Index}
	}
	last, err := s.Log.LastIndex()
	if err != nil {
		return nil, at, fmt.Errorf("read raft's log: %w", err)
	}
	for i := at.LastIndex + 1; i <= last; i++ {
		var l raft.Log
		if err := s.Log.GetLog(i, &l); err != nil {
			return nil, at, fmt.Errorf("read entry %d of raft's log: %w", i, err)
		}
		(&machine{m: m}).Apply(&l)
		at = Position{l.Term, l.Index}
	}
	return m, at, m.Broken()
}

// NextGeneration makes this node's disk, under a new number, the only server of the cluster,
// with the state that its stores hold, changed by change. No raft may run on them. The
// old servers have other configurations and IDs: what they say is not heard, and what
// this one says they do not hear (R13).
//
// It may be killed at any moment and called again.
func NextGeneration(s Stores, name string, disk uint64, change fsm.Command, log *slog.Logger) error {
	m, _, err := Replay(s)
	if err != nil {
		return err
	}
	if res := m.Amend(change); res.Rejected != "" {
		return errors.New(res.Rejected)
	}
	id := raft.ServerID(ServerID(name, disk))
	rc := raft.DefaultConfig()
	rc.LocalID, rc.Logger = id, logbridge.HCLog(log, "raft")
	_, trans := raft.NewInmemTransport(raft.ServerAddress(name))
	defer func() { _ = trans.Close() }()
	only := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: id, Address: raft.ServerAddress(name)}}}
	return raft.RecoverCluster(rc, recovered{m}, logs{s.Log}, s.Stable, s.Snapshots, trans, only)
}

// recovered hands raft a state that is whole already: it replays nothing into it.
type recovered struct{ m *fsm.Machine }

func (recovered) Apply(*raft.Log) any { return nil }

func (r recovered) Snapshot() (raft.FSMSnapshot, error) {
	b, err := r.m.Snapshot()
	return snapshot(b), err
}

func (recovered) Restore(r io.ReadCloser) error { return r.Close() }

// Begin writes a state into empty stores, as that of a raft whose only server is this
// node's disk-th data directory.
func Begin(s Stores, name string, disk uint64, m *fsm.Machine, log *slog.Logger) (err error) {
	const term = 1
	_, trans := raft.NewInmemTransport(raft.ServerAddress(name))
	defer func() { _ = trans.Close() }()
	if has, err := raft.HasExistingState(s.Log, s.Stable, s.Snapshots); err != nil || has {
		return errors.Join(errors.New("there is a raft log already"), err)
	}
	id := raft.ServerID(ServerID(name, disk))
	only := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: id, Address: raft.ServerAddress(name)}}}
	index := m.Copy().Index
	sink, err := s.Snapshots.Create(raft.SnapshotVersionMax, index, term, only, index, trans)
	if err != nil {
		return fmt.Errorf("begin raft's snapshot: %w", err)
	}
	snap, err := recovered{m}.Snapshot()
	if err == nil {
		err = snap.Persist(sink)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write raft's snapshot: %w", err), sink.Cancel())
	}
	if err := s.Stable.SetUint64([]byte("CurrentTerm"), term); err != nil {
		return fmt.Errorf("write raft's term: %w", err)
	}
	log.Info("a state was put on the disk", "index", index, "server", id)
	return nil
}
