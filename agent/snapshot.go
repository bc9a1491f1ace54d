package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hanode/api"
	"hanode/cluster"
	"hanode/config"
	"hanode/fsm"
	"hanode/internal/atomicfile"
	"hanode/internal/spec"
)

// The state of the cluster in a file, and the way back from it when every disk is lost.

// Snapshot is the state with all that was committed before the call. Without a leader it
// is what this node knows, together with the error that says so.
func (a *Agent) Snapshot(ctx context.Context) (*api.Snapshot, error) {
	at, err := ask(ctx, a, readPatience, func() (uint64, error) { return service{a}.Mark(ctx) }, func(c *api.Client) (uint64, error) {
		n := a.node.Load()
		to, _ := a.leader(n)
		return a.peers.Mark(ctx, to)
	})
	if _, ok := errors.AsType[*api.Error](err); err != nil && !ok {
		err = a.noQuorum()
	}
	if err == nil {
		a.wait(ctx, 5*time.Second, func(s *fsm.State) bool { return s.Index >= at })
	}
	if !a.founded() {
		return nil, fail("refused", "look with `hanode members` what it waits for", "this node has no copy of the cluster's state yet")
	}
	b, berr := a.machine.Backup(a.cfg.Name, a.host.Clock.Wall())
	if berr != nil {
		return nil, berr
	}
	return &api.Snapshot{Data: string(b)}, err
}

// SnapshotInfo is what a snapshot holds.
type SnapshotInfo struct {
	fsm.Backup
	Nodes  []string
	Voters []string
	Groups []string // with their owners
}

// ReadSnapshot reads a snapshot that `snapshot save` wrote.
func ReadSnapshot(path string) (SnapshotInfo, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return SnapshotInfo{}, err
	}
	s, err := fsm.ReadBackup(b)
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("%s: %w", path, err)
	}
	return SnapshotInfo{Backup: s, Nodes: s.State.NodeNames(), Voters: s.State.Voters.Names, Groups: owners(s.State)}, nil
}

// WriteSnapshot writes what an agent answered, whole or not at all, after a look whether
// it can be read back.
func WriteSnapshot(path string, data []byte) (SnapshotInfo, error) {
	if _, err := fsm.ReadBackup(data); err != nil {
		return SnapshotInfo{}, fmt.Errorf("what the agent sent cannot be used: %w", err)
	}
	if err := atomicfile.Write(path, data); err != nil {
		return SnapshotInfo{}, fmt.Errorf("write the snapshot: %w", err)
	}
	return ReadSnapshot(path)
}

// generationOf is the generation that begins with a restored snapshot. The cluster may
// have gone on after it, and may have been recovered; and one snapshot may be restored
// twice. So it is no count but a time, in minutes, which only grows.
func generationOf(saved, known uint64, now time.Time) uint64 {
	minutes := now.Sub(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) / time.Minute
	return max(saved, known, uint64(max(minutes, 0))) + 1
}

// Restore makes this host's node, whose agent must not run, the whole cluster, with the
// state of a snapshot. Unless confirm is the sentence it only says what it would do.
func Restore(cfg *config.Node, path, confirm string, log *slog.Logger) (Recovery, error) {
	return restoreWith(cfg, path, confirm, log, cluster.OpenStores)
}

func restoreWith(cfg *config.Node, path, confirm string, log *slog.Logger, open func(dir string, log *slog.Logger) (cluster.Stores, error)) (r Recovery, err error) {
	info, err := ReadSnapshot(path)
	if err != nil {
		return r, err
	}
	had, err := lastIdentity(cfg)
	if err != nil {
		return r, err
	}
	if r, err = assessRestore(cfg, info, had); err != nil || strings.TrimSpace(confirm) != r.Confirm {
		return r, err
	}
	// All of it beside data_dir, and then put in its place: a restore that is cut short
	// leaves what was there.
	fresh := *cfg
	fresh.DataDir = cfg.DataDir + ".restoring"
	if err := os.RemoveAll(fresh.DataDir); err != nil {
		return r, fmt.Errorf("remove what an earlier restore left: %w", err)
	}
	if err := fill(&fresh, info.State, r.Generation, max(had.Disk, info.State.Nodes[cfg.Name].Disk)+1, log, open); err != nil {
		return r, err
	}
	aside := cfg.DataDir + ".before-restore-" + time.Now().UTC().Format("20060102T150405.000000000")
	switch err := os.Rename(cfg.DataDir, aside); {
	case err == nil:
		r.Backup = aside
	case !errors.Is(err, fs.ErrNotExist):
		return r, fmt.Errorf("set data_dir aside: %w; nothing was changed", err)
	}
	if err := os.Rename(fresh.DataDir, cfg.DataDir); err != nil {
		return r, fmt.Errorf("put the restored data_dir in place: %w; run it again", err)
	}
	r.Done = true
	return r, atomicfile.SyncDir(filepath.Dir(cfg.DataDir))
}

// lastIdentity is that of the data_dir that is there, or zero. It fails while an agent
// uses it.
func lastIdentity(cfg *config.Node) (identity, error) {
	if _, err := os.Stat(filepath.Join(cfg.DataDir, identityFile)); errors.Is(err, fs.ErrNotExist) {
		return identity{}, nil
	}
	d, err := openDisk(cfg)
	if err != nil {
		return identity{}, err
	}
	return d.id, d.close()
}

// assessRestore says what a restore means.
func assessRestore(cfg *config.Node, info SnapshotInfo, had identity) (r Recovery, err error) {
	st := info.State
	n := st.Nodes[cfg.Name]
	switch {
	case st.Cluster != cfg.Cluster:
		return r, fmt.Errorf("the snapshot is of cluster %q, %s says %q", st.Cluster, cfg.File, cfg.Cluster)
	case n == nil || n.Removed:
		return r, fmt.Errorf("%s was no member when the snapshot was made; restore on a host of: %s", cfg.Name, strings.Join(info.Nodes, ", "))
	case n.Role != spec.RoleNode:
		return r, fmt.Errorf("%s is a witness and could own nothing; restore on another host of: %s", cfg.Name, strings.Join(info.Nodes, ", "))
	case st.Manual:
		return r, errors.New("the snapshot is of a cluster with two_node = \"manual\"; found it anew and `hanode apply` its groups")
	}
	r = Recovery{
		Cluster: st.Cluster, Node: cfg.Name, Generation: generationOf(st.Generation, had.Generation, time.Now()),
		Index: st.Index, Voters: st.Voters.Names, Lost: without(st.NodeNames(), cfg.Name), Groups: owners(st),
	}
	r.Confirm = fmt.Sprintf("%s begins cluster %s anew from entry %d", cfg.Name, st.Cluster, st.Index)
	return r, nil
}

// fill makes a data_dir with the state, as the whole cluster.
func fill(cfg *config.Node, st *fsm.State, generation, disk uint64, log *slog.Logger, open func(string, *slog.Logger) (cluster.Stores, error)) (err error) {
	m := fsm.MachineOf(st)
	change := fsm.Command{At: time.Now(), NewGeneration: &fsm.NewGeneration{Generation: generation, Node: cfg.Name, Disk: disk}}
	if res := m.Amend(change); res.Rejected != "" {
		return errors.New(res.Rejected)
	}
	d, err := openDisk(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	stores, err := open(cfg.DataDir, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStores(stores)) }()
	if err := cluster.Begin(stores, cfg.Name, disk, m, log); err != nil {
		return err
	}
	members := &membership{Cluster: cfg.Cluster, Timing: st.Timing, Nodes: members(m.Copy())}
	return errors.Join(members.write(cfg.DataDir), d.reaches(generation), d.setNumber(disk))
}

// owners lists the groups with who owned each: "web (primary)".
func owners(st *fsm.State) (out []string) {
	for _, name := range st.GroupNames() {
		owner := st.Groups[name].Owner.Name
		if owner == "" {
			owner = "nobody"
		}
		out = append(out, fmt.Sprintf("%s (%s)", name, owner))
	}
	return out
}
