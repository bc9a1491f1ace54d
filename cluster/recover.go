package cluster

import (
	"fmt"
	"log/slog"

	"github.com/hashicorp/raft"

	"hanode/fsm"
	"hanode/internal/logbridge"
)

// Recover makes node name, as its disk-th data directory, the only server of the
// cluster whose log is in stores, on which no raft runs. All that is in the log counts
// from then on. It is for two_node = "manual" alone, where the other server is known
// to be off or to have lost its disk, and for a log that holds all that was
// committed: that of one of two voters does. It returns the state that the node goes on
// from. Doing it again, as after a crash in the middle, changes nothing.
func Recover(stores Stores, name string, disk uint64, log *slog.Logger) (*fsm.State, error) {
	m := fsm.NewMachine()
	id := raft.ServerID(ServerID(name, disk))
	rc := raft.DefaultConfig()
	rc.LocalID = id
	rc.Logger = logbridge.HCLog(log, "raft")
	_, trans := raft.NewInmemTransport(raft.ServerAddress(name)) // it only renders names
	servers := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: id, Address: raft.ServerAddress(name)}}}
	if err := raft.RecoverCluster(rc, &machine{m: m}, logs{stores.Log}, stores.Stable, stores.Snapshots, trans, servers); err != nil {
		return nil, fmt.Errorf("make %s the only server: %w", id, err)
	}
	if err := m.Broken(); err != nil {
		return nil, fmt.Errorf("make %s the only server: %w", id, err)
	}
	return m.Copy(), nil
}

// logs is a log of which an empty range can be deleted: a recovery that is made again
// finds none, and takes it for entries 0 to 0.
type logs struct{ raft.LogStore }

func (l logs) DeleteRange(first, last uint64) error {
	if first == 0 {
		return nil
	}
	return l.LogStore.DeleteRange(first, last)
}
