package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hanode/cluster"
	"hanode/config"
	"hanode/fsm"
)

// A majority that is lost for good (R13). What is lost with it nobody can tell: an entry
// that only the lost ones had on their disks. So it takes an operator who knows that they
// are lost, and says so; from then on this node alone is the cluster, in the next
// generation, and nobody of the last one is heard.

// Recovery is what recover would do, or did.
type Recovery struct {
	Cluster    string
	Node       string
	Generation uint64 // that begins
	// Position is how far this disk's log reaches; of several survivors the one whose
	// reaches furthest should go on.
	Term, Index uint64
	Voters      []string // that were
	Lost        []string // members that are put out
	Groups      []string // with the node that owned each, by this disk: "web (primary)"
	Confirm     string   // the sentence that must be said
	Backup      string   // where the data_dir is as it was; "" = there was none, or nothing was done
	Done        bool
}

// Recover makes this host's node, whose agent must not run, the whole cluster. Unless
// confirm is the sentence it only says what it would do.
func Recover(cfg *config.Node, confirm string, log *slog.Logger) (r Recovery, err error) {
	return recoverWith(cfg, confirm, log, func() (cluster.Stores, error) { return cluster.OpenStores(cfg.DataDir, log) })
}

func recoverWith(cfg *config.Node, confirm string, log *slog.Logger, open func() (cluster.Stores, error)) (r Recovery, err error) {
	if _, err := os.Stat(filepath.Join(cfg.DataDir, identityFile)); errors.Is(err, fs.ErrNotExist) {
		return r, fmt.Errorf("%s holds no node; recover runs on a host that was a member and still has its disk", cfg.DataDir)
	}
	d, err := openDisk(cfg)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if d.number() == 0 {
		return r, fmt.Errorf("the node in %s has never been in a cluster", cfg.DataDir)
	}
	stores, err := open()
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, closeStores(stores)) }()
	m, at, err := cluster.Replay(stores)
	if err != nil {
		return r, err
	}
	st := m.Copy()
	if r, err = assess(cfg, st, at); err != nil {
		return r, err
	}
	if strings.TrimSpace(confirm) != r.Confirm {
		return r, nil
	}
	if r.Backup, err = backUp(cfg.DataDir); err != nil {
		return r, err
	}
	disk := max(d.number(), st.Nodes[cfg.Name].Disk) + 1
	if err := d.reaches(r.Generation); err != nil {
		return r, err
	}
	change := fsm.Command{At: time.Now(), NewGeneration: &fsm.NewGeneration{Generation: r.Generation, Node: cfg.Name, Disk: disk}}
	if err := cluster.NextGeneration(stores, cfg.Name, disk, change, log); err != nil {
		return r, err
	}
	r.Done = true
	return r, d.setNumber(disk)
}

// assess says what recovery on this disk means.
func assess(cfg *config.Node, st *fsm.State, at cluster.Position) (r Recovery, err error) {
	n := st.Nodes[cfg.Name]
	if st.Manual {
		return r, errors.New("this cluster has two_node = \"manual\": start the agent, and if the other host is off or lost: hanode confirm-off NODE")
	}
	if !st.Founded() {
		return r, fmt.Errorf("%s has no log of the cluster in %s: it followed a voter; recover on one of those that had a vote, or the log (`hanode members` said which)", cfg.Name, cfg.DataDir)
	}
	if n == nil || n.Removed {
		return r, fmt.Errorf("%s is not a member of the cluster in %s; recover on one that is", cfg.Name, cfg.DataDir)
	}
	r = Recovery{
		Cluster: st.Cluster, Node: cfg.Name, Generation: st.Generation + 1,
		Term: at.LastTerm, Index: at.LastIndex, Voters: slices.Clone(st.Voters.Names), Lost: without(st.NodeNames(), cfg.Name),
	}
	r.Groups = owners(st)
	r.Confirm = fmt.Sprintf("%s goes on without %s", cfg.Name, strings.Join(r.Lost, ", "))
	if len(r.Lost) == 0 {
		return r, fmt.Errorf("%s is the only node of its cluster; there is nobody to recover from: start its agent", cfg.Name)
	}
	return r, nil
}

// backUp copies a data_dir beside itself, whole and on the disk, before it is changed.
func backUp(dir string) (string, error) {
	to := fmt.Sprintf("%s.before-recover-%s", dir, time.Now().UTC().Format("20060102T150405.000000000"))
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		return "", fmt.Errorf("back up %s: %w; nothing was changed", dir, err)
	}
	if err := os.Chmod(to, 0o700); err != nil {
		return "", err
	}
	err := filepath.WalkDir(to, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
	if err != nil {
		return "", fmt.Errorf("back up %s: %w; nothing was changed", dir, err)
	}
	return to, nil
}

// superseded is told that by is in a later generation: this node, and whoever it thinks
// is its cluster, was given up (R13). rosterLoop does what follows from it.
func (a *Agent) superseded(by string, generation uint64) {
	if a.old.Swap(true) {
		return
	}
	text := fmt.Sprintf("%s is in generation %d of the cluster, this node in %d: the cluster was recovered without it", by, generation, a.disk.generation())
	a.problems.set("old-generation", text)
	a.log.Error("this node was given up; dropping everything", "why", text)
	if err := a.disk.giveUp(); err != nil {
		a.log.Warn("cannot note that this node was given up", "err", err)
	}
}
