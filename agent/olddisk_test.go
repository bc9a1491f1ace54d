package agent

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"hanode/cluster"
	"hanode/fsm"
	"hanode/internal/spec"
)

// backup copies raft's disk of a host, as a backup or a snapshot of its machine does.
func (h *host) backup() *memDisk {
	h.lab.t.Helper()
	d := newMemDisk()
	from := h.disk.store
	first, _ := from.FirstIndex()
	last, _ := from.LastIndex()
	for i := first; i > 0 && i <= last; i++ {
		var l raft.Log
		if err := from.GetLog(i, &l); err != nil {
			h.lab.t.Fatal(err)
		}
		if err := d.store.StoreLog(&l); err != nil {
			h.lab.t.Fatal(err)
		}
	}
	for _, k := range []string{"CurrentTerm", "LastVoteTerm"} {
		if v, err := from.GetUint64([]byte(k)); err == nil {
			_ = d.store.SetUint64([]byte(k), v)
		}
	}
	if v, err := from.Get([]byte("LastVoteCand")); err == nil {
		_ = d.store.Set([]byte("LastVoteCand"), v)
	}
	return d
}

// restore puts an older disk into a host that is down.
func (h *host) restore(d *memDisk) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disk = d
}

func (l *lab) maintained() (on bool) {
	l.view(func(s *fsm.State) { on = s.Maintenance })
	return on
}

// R12: two voters that acknowledged a command are down, one of them comes back with a
// disk from before it, and meets a third that never had the command. Together they
// would be a majority without it.
func TestOlderDiskLosesNothing(t *testing.T) {
	for _, guarded := range []bool{true, false} {
		name := "guarded"
		if !guarded {
			name = "nobody remembers"
		}
		t.Run(name, func(t *testing.T) {
			story(t, func(t *testing.T, l *lab) {
				l.leadBy("primary")
				old := l.hosts["secondary"].backup()
				l.net.CutStreams("arbiter", true) // its log lags; it is heard and hears
				if err := l.on("primary").Maintenance(t.Context(), true); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				l.hosts["primary"].powerCut()
				l.hosts["secondary"].powerCut()
				l.hosts["secondary"].restore(old)
				l.net.CutStreams("arbiter", false)
				if !guarded {
					k := &l.on("arbiter").known
					k.mu.Lock()
					clear(k.m)
					k.mu.Unlock()
				}
				l.hosts["secondary"].start()
				_, led := l.within(15*time.Second, func() bool { return l.reigns() != "" })
				if led == guarded {
					t.Errorf("elected: %v", led)
				}
				if !guarded {
					time.Sleep(time.Second)
					if l.maintained() {
						t.Error("the command is there: this story shows nothing")
					}
					l.mu.Lock()
					l.bad = nil // it is what the story is about
					l.mu.Unlock()
					return
				}
				l.hosts["primary"].start()
				l.until("it has a vote again, under a new identity", 15*time.Second, func() bool { return l.votes("secondary", 2) })
				if !l.maintained() {
					t.Error("an acknowledged command is lost")
				}
				if err := l.on("primary").Maintenance(t.Context(), false); err != nil {
					t.Fatal(err)
				}
				l.well(15 * time.Second)
			})
		})
	}
}

// An older disk among voters that are up joins anew by itself, and a disk that is only
// behind in its log, however far, goes on as it was.
func TestOlderDiskJoinsAnew(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		h := l.hosts["arbiter"]
		old := h.backup()
		for i := range 5 {
			if err := l.on("primary").Maintenance(t.Context(), i%2 == 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.on("primary").Maintenance(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		h.powerCut()
		for range 20 { // what it lacks because it was down says nothing against it
			l.until("a command", 20*time.Second, func() bool { return l.on("primary").Maintenance(t.Context(), false) == nil })
		}
		h.start()
		l.until("ready", 5*time.Second, func() bool { return l.unwell(0) == "" })
		if n := l.on("arbiter").disk.number(); n != 1 {
			t.Fatalf("it joined as disk %d although it forgot nothing", n)
		}
		h.powerCut()
		h.restore(old)
		h.start()
		t.Logf("a vote again after %v", l.until("its vote", 10*time.Second, func() bool { return l.votes("arbiter", 2) }))
		l.well(10 * time.Second)
	})
}

// Others remember across their own restarts.
func TestKnownIsSaved(t *testing.T) {
	path := filepath.Join(t.TempDir(), knownFile)
	var k known
	k.load(path)
	if err := k.save(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("nothing was heard, and something written")
	}
	h := cluster.Held{Disk: 1, Term: 2, Position: cluster.Position{LastTerm: 2, LastIndex: 9}}
	k.hear("a", h)
	k.hear("a", cluster.Held{Disk: 1, Term: 1, Position: cluster.Position{LastTerm: 1, LastIndex: 30}})
	if err := k.save(path); err != nil {
		t.Fatal(err)
	}
	var again known
	again.load(path)
	if again.of("a") != h || again.of("b") != (cluster.Held{}) {
		t.Errorf("%+v", again.m)
	}
	if err := k.save(filepath.Join(path, "no", "folder")); err != nil {
		t.Error("nothing is new, and it wrote")
	}
	k.hear("a", cluster.Held{Disk: 2})
	if err := k.save(filepath.Join(path, "no", "folder")); err == nil {
		t.Error("it did not say that it could not write")
	}
	if err := k.save(path); err != nil || !k.of("a").Behind(cluster.Held{Disk: 3}) {
		t.Error("what could not be written was not tried again", err)
	}
}

// TestVoterThatLeftIsNotWaitedFor: of four, primary loses power, then the arbiter
// leaves, then secondary loses its disk, then third restarts. primary still counts the
// arbiter as a voter; third knows better, and both of them are a majority.
func TestVoterThatLeftIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLabOf(t, fast, 1, []string{"primary", "secondary", "arbiter", "third"}, []spec.Group{groupOf("web", "10.77.0.100", "third")})
		defer l.close()
		l.startAll()
		l.well(20 * time.Second)
		l.hosts["primary"].powerCut()
		time.Sleep(2 * time.Second)
		if err := l.on("arbiter").Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.until("third knows that the arbiter left", 20*time.Second, func() bool {
			return !slices.Contains(l.on("third").raftVoters(l.on("third").node.Load()), "arbiter")
		})
		l.hosts["arbiter"].powerCut()
		l.hosts["secondary"].powerCut()
		l.hosts["secondary"].loseDisk()
		l.hosts["third"].powerCut()
		for _, name := range []string{"third", "secondary", "primary"} {
			l.hosts[name].start()
		}
		l.until("somebody leads", 20*time.Second, func() bool { return l.reigns() != "" })
		l.until("secondary votes again", 20*time.Second, func() bool { return l.votes("secondary", 2) })
	})
}

// The first node of a cluster comes back with the disk from when it alone had a vote. By
// that it would elect itself; but it knows of others, asks them, and joins anew.
func TestSoleVotersOldDisk(t *testing.T) {
	joinStory(t, nil, []string{"primary", "secondary", "arbiter"}, func(t *testing.T, l *lab) {
		first := l.hosts["primary"]
		f, err := Init(first.config(), spec.Node{Name: "primary", Address: "10.0.0.1", Role: spec.RoleNode})
		if err != nil {
			t.Fatal(err)
		}
		first.start()
		l.until("the first node holds", 20*time.Second, l.held("primary"))
		old := first.backup()
		for i, name := range []string{"secondary", "arbiter"} {
			role := spec.RoleNode
			if name == "arbiter" {
				role = spec.RoleWitness
			}
			if _, err := l.hosts[name].join(f.Tokens[i], JoinOptions{Role: role}, "primary", nil); err != nil {
				t.Fatal(err)
			}
			l.hosts[name].start()
		}
		l.until("three vote", 20*time.Second, l.allVote("primary", "secondary", "arbiter"))
		l.well(5 * time.Second)
		first.powerCut()
		l.until("takeover", 5*time.Second, l.held("secondary"))
		first.restore(old)
		first.start()
		l.until("it has a vote again, under a new identity", 20*time.Second, func() bool { return l.votes("primary", 2) })
		l.well(15 * time.Second)
	})
}
