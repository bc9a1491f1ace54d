package agent

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"hanode/config"
	"hanode/internal/atomicfile"
)

// disk is data_dir: locked, with this node's identity in it.
type disk struct {
	dir  string
	lock *os.File

	mu sync.Mutex
	id identity
}

// identity is what the node must never forget, nor confuse with another disk's.
type identity struct {
	Cluster string `json:"cluster"`
	Name    string `json:"name"`
	// ID tells this data directory from every other.
	ID string `json:"id"`
	// Disk counts this node's data directories; 0 = not a raft server yet (R12).
	Disk uint64 `json:"disk"`
	// Asking names the request for the next number while it is not answered: it may be
	// made many times, also by the next process, and must be one to the cluster.
	Asking string `json:"asking,omitempty"`
	// Boot is the host ID under which this data directory last took part (see skipsAsking).
	Boot string `json:"boot,omitempty"`
	// Fork is where a node of the two last went on alone, as far as this log reaches.
	Fork fork `json:"fork,omitzero"`
	// SteppedOut: this node was stopped in order, so the other one may have committed
	// what is not on this disk; see stepOut.
	SteppedOut bool `json:"stepped_out,omitempty"`
	// Recovering is there while this node is being made the only server.
	Recovering *recovery `json:"recovering,omitempty"`
	// Token is the ID of the one that this directory asked to be let in with: with it,
	// `join --fresh` goes on and does not begin again. "" = a founder's.
	Token string `json:"token,omitempty"`
	// Generation of the cluster in which this directory was last; see fsm.NewGeneration.
	Generation uint64 `json:"generation,omitempty"`
	// GivenUp: a later generation began without this directory.
	GivenUp bool `json:"given_up,omitempty"`
}

const identityFile = "identity.json"

// openDisk makes and locks data_dir and reads the identity, or makes one.
func openDisk(cfg *config.Node) (*disk, error) {
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make data_dir: %w", err)
	}
	d := &disk{dir: cfg.DataDir}
	f, err := lockDir(d.dir)
	if err != nil {
		return nil, err
	}
	d.lock = f
	if err := d.load(cfg); err != nil {
		_ = f.Close()
		return nil, err
	}
	return d, nil
}

// lockDir makes the caller the only one who uses a data_dir, until the file is closed.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of data_dir: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("data_dir %s is in use by another agent; stop it, or give this one a data_dir of its own", dir)
	}
	return f, nil
}

func (d *disk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *disk) load(cfg *config.Node) error {
	path := d.path(identityFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(d.path("raft.db")); err == nil {
			return fmt.Errorf("%s is missing but %s is there: the stored state is damaged; nothing was changed. Restore %s from a backup, "+
				"or move the data directory aside and start again: the node then joins anew", path, d.path("raft.db"), d.dir)
		}
		d.id = identity{Cluster: cfg.Cluster, Name: cfg.Name, ID: rand.Text()}
		return d.save()
	}
	if err != nil {
		return fmt.Errorf("read the node's identity: %w", err)
	}
	if err := json.Unmarshal(b, &d.id); err != nil || d.id.ID == "" {
		return fmt.Errorf("%s is damaged (%v); nothing was changed. Restore it from a backup, "+
			"or move the data directory aside and start again: the node then joins anew", path, err)
	}
	if d.id.Cluster != cfg.Cluster || d.id.Name != cfg.Name {
		return fmt.Errorf("data_dir %s belongs to node %q of cluster %q, but %s says node %q of cluster %q; correct the file or give a data_dir of its own",
			d.dir, d.id.Name, d.id.Cluster, cfg.File, cfg.Name, cfg.Cluster)
	}
	return nil
}

func (d *disk) save() error {
	b, err := json.MarshalIndent(d.id, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(d.path(identityFile), b)
}

// change edits the identity: on the disk, or not at all.
func (d *disk) change(edit func(*identity)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.id
	edit(&d.id)
	if d.id == old {
		return nil
	}
	if err := d.save(); err != nil {
		d.id = old
		return err
	}
	return nil
}

// asking names the request for the next number. A new one is on the disk before it is
// used.
func (d *disk) asking() (string, error) {
	err := d.change(func(id *identity) {
		if id.Asking == "" {
			id.Asking = rand.Text()
		}
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id.Asking, err
}

// asks reports whether this directory has no place in the cluster until a new number
// comes, and has asked for one.
func (d *disk) asks() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id.Asking != ""
}

// knows reports whether this directory, which is no raft server yet, has asked a cluster
// to be let in. It founds no other one then, whoever agrees: what that one decided may be
// on a disk that is away.
func (d *disk) knows() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id.Disk == 0 && d.id.Asking != ""
}

// joinsWith notes the token that this directory joins with.
func (d *disk) joinsWith(token string) error {
	return d.change(func(id *identity) { id.Token = token })
}

// number is which data directory this is; 0 = not a raft server yet.
func (d *disk) number() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id.Disk
}

// generation is the cluster's as this directory last knew it.
func (d *disk) generation() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id.Generation
}

// reaches notes a generation before anything of it counts; it never goes back.
func (d *disk) reaches(generation uint64) error {
	return d.change(func(id *identity) { id.Generation = max(id.Generation, generation) })
}

// giveUp notes that a later generation began without this directory.
func (d *disk) giveUp() error {
	return d.change(func(id *identity) { id.GivenUp = true })
}

func (d *disk) givenUp() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id.GivenUp
}

func (d *disk) setNumber(n uint64) error { return d.joined(n, d.fork()) }

// bootIs reports whether this data directory took part already since the host booted.
func (d *disk) bootIs(host string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id.Boot == host
}

func (d *disk) setBoot(host string) error {
	return d.change(func(id *identity) { id.Boot = host })
}

// recovering is a copy of what is noted about going on alone; nil = nothing.
func (d *disk) recovering() *recovery {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.id.Recovering == nil {
		return nil
	}
	r := *d.id.Recovering
	return &r
}

func (d *disk) fork() fork {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id.Fork
}

func (d *disk) steppedOut() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.id.SteppedOut
}

func (d *disk) setSteppedOut(on bool) error {
	return d.change(func(id *identity) { id.SteppedOut = on })
}

// setFork notes that this node goes on alone from here.
func (d *disk) setFork(f fork, r *recovery) error {
	return d.change(func(id *identity) { id.Fork, id.Recovering = f, r })
}

// joined notes the number that the cluster gave, and where that cluster forked.
func (d *disk) joined(n uint64, f fork) error {
	return d.change(func(id *identity) { id.Disk, id.Asking, id.Fork, id.GivenUp = n, "", f, false })
}

func (d *disk) setRecovering(r *recovery) error {
	return d.change(func(id *identity) { id.Recovering = r })
}

func (d *disk) close() error { return d.lock.Close() }

// setAside renames data_dir: what left a cluster must not come back by accident.
func (d *disk) setAside() error {
	to := fmt.Sprintf("%s.left-%s", d.dir, time.Now().UTC().Format("20060102T150405"))
	return os.Rename(d.dir, to)
}

// loadPeers reads the link addresses learned earlier. They are a hint: a file that
// cannot be read is as good as none.
func (d *disk) loadPeers() map[string][]netip.Addr {
	var m map[string][]netip.Addr
	b, err := os.ReadFile(d.path("peers.json"))
	if err != nil || json.Unmarshal(b, &m) != nil {
		return nil
	}
	return m
}

func (d *disk) savePeers(m map[string][]netip.Addr) {
	if b, err := json.Marshal(m); err == nil {
		_ = atomicfile.Write(d.path("peers.json"), b) // a hint
	}
}
