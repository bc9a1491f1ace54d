package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hanode/config"
	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/trust"
	"hanode/peer"
)

// keyring is this node's keys: in its file, and in use. The file comes first: what is in
// use was on the disk before, so that a crash at any step goes on with the same keys.
type keyring struct {
	*trust.Ring
	file string // that is written; "" = the keys are those of Heartbeat's authkeys
	// source is the file that is read, and reload reads it.
	source string
	reload func() (*trust.Keys, error)

	news   chan struct{} // one slot: what the cluster wants of the keys changed
	wanted *fsm.Rotation // onChange's, of the entry before
	gone   int           // as wanted: how many keys are retired

	// mu is held over writes of the file: nothing that dials, beats or votes takes it.
	mu     sync.Mutex
	stamp  stamp       // of the file as it was read or written last
	err    string      // why the file cannot be changed
	bad    string      // what is wrong with the file as it is
	parsed *trust.Keys // of the file as it was at tried, where it is not in use; passphrases take long
	tried  stamp
	heard  map[string]uint64 // datagrams by key, when last looked at
	deaf   int               // looks in a row without a lease and without a datagram by the active key
	adrift string            // see drift

	met strangers
}

// strangers are the nodes that showed a certificate of a key that this node has not got.
type strangers struct {
	mu sync.Mutex
	m  map[string]bool
}

// note takes what became of a call to node.
func (o *strangers) note(node string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil:
		delete(o.m, node)
	case errors.Is(err, trust.ErrOtherKey):
		o.m[node] = true
	}
}

func (o *strangers) names() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Sorted(maps.Keys(o.m))
}

// stamp tells one content of a file from another.
type stamp struct {
	at   time.Time
	size int64
	ino  uint64
}

func stampOf(path string) stamp {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return stamp{}
	}
	return stamp{time.Unix(st.Mtim.Unix()), st.Size, st.Ino}
}

// load reads the keys at the start.
func (k *keyring) load(cfg *config.Node) error {
	k.source, k.reload = cfg.KeyFile, cfg.ReloadKeys
	if len(cfg.Keys) == 0 {
		if real, err := filepath.EvalSymlinks(cfg.KeyFile); err == nil {
			k.source = real // to replace a link would leave what it points to behind
		}
		k.file = k.source
	}
	k.stamp = stampOf(k.source)
	keys, err := cfg.LoadKeys()
	if err != nil {
		return err
	}
	k.Ring, k.met.m, k.news = trust.NewRing(keys), map[string]bool{}, make(chan struct{}, 1)
	return nil
}

// errAuthkeys says why the agent does not change the keys itself.
var errAuthkeys = errors.New("the keys are those of Heartbeat's authkeys; add the new one to the file on every node, then make it the active one everywhere, then take the old one away; the agents read the file by themselves")

// setLocked writes the keys into the file and then uses them.
func (k *keyring) setLocked(keys *trust.Keys) error {
	if k.file == "" {
		return errAuthkeys
	}
	err := writeKey(k.file, keys.Text())
	k.err = ""
	if err != nil {
		k.err = err.Error()
		return err
	}
	k.stamp = stampOf(k.file)
	k.Set(keys)
	return nil
}

// add puts keys behind those that are there.
func (k *keyring) add(keys *trust.Keys) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.setLocked(k.Keys().Before(keys))
}

// report is what this node says of its keys.
func (k *keyring) report() peer.KeyReport {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := peer.KeyReport{Have: k.Keys().Fingerprints(), Err: k.err}
	switch {
	case k.file == "":
		r.Err = errAuthkeys.Error()
	case k.bad != "":
		r.Err = k.bad
	case r.Err == "":
		if err := unix.Access(filepath.Dir(k.file), unix.W_OK); err != nil {
			r.Err = fmt.Sprintf("%s cannot be written: %v", filepath.Dir(k.file), err)
		}
	}
	return r
}

// follow makes the keys those that are wanted, but for one that has to be fetched. A key
// to be dropped goes out of use also where the file cannot be changed.
func (k *keyring) follow(want failover.Keys) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	have := k.Keys()
	next := have.Only(want.Active).Before(have).Without(want.Drop...)
	if slices.Equal(next.Fingerprints(), have.Fingerprints()) && k.err == "" {
		return nil
	}
	err := k.setLocked(next)
	if err != nil && len(want.Drop) > 0 && next.Fingerprint() == have.Fingerprint() {
		k.Set(next)
	}
	return err
}

// reread takes the file as it is now, if somebody changed it: keys may be changed by hand
// as well, a step on every node before the next. A file that shares no key with those in
// use would cut the node off; it is taken where that is so already (apart). What is wrong
// with the file is told; "" = nothing.
func (k *keyring) reread(apart bool) (changed bool, bad string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := stampOf(k.source)
	if now == k.stamp && k.bad == "" {
		return false, ""
	}
	keys, err := k.parsed, error(nil)
	if keys == nil || now != k.tried {
		keys, err = k.reload()
		k.parsed, k.tried = keys, now
	}
	k.bad = ""
	switch {
	case err != nil:
		k.bad = err.Error()
	case !slices.ContainsFunc(keys.Fingerprints(), k.Keys().Has) && !apart:
		k.bad = k.source + " was changed and shares no key with those in use, so it is not taken while the node is in touch with the others"
	default:
		k.stamp, k.parsed = now, nil
		if !slices.Equal(keys.Fingerprints(), k.Keys().Fingerprints()) {
			k.Set(keys)
		}
	}
	return true, k.bad
}

// deafAfter is after how many looks without a word by the active key another is tried.
const deafAfter = 3

// drift uses the key by which the others are heard, if this node hears nobody by its own:
// it was away while a rotation ended the other way. apart: it has no lease. state names
// what it knows of rotations; until that changes, or this node is in touch again and knows
// that it has not, what is heard counts for more.
func (k *keyring) drift(apart bool, state string) (to string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys := k.Keys()
	now := keys.Heard()
	was := k.heard
	k.heard = now
	if !apart || len(now) < 2 {
		k.deaf = 0
		return ""
	}
	to = failover.KeyHeard(keys.Fingerprint(), was, now)
	if to == "" {
		if now[keys.Fingerprint()] > was[keys.Fingerprint()] {
			k.deaf = 0
		}
		return ""
	}
	if k.deaf++; k.deaf < deafAfter {
		return ""
	}
	k.deaf, k.adrift = 0, state
	if k.setLocked(keys.Only(to).Before(keys)) != nil {
		k.Set(keys.Only(to).Before(keys)) // the file follows when it can
	}
	return to
}

// isAdrift reports whether what is heard counts for more than state.
func (k *keyring) isAdrift(state string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.adrift == state
}

// anchor has what this node knows of rotations count again: it knows all that was decided.
func (k *keyring) anchor() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.adrift = ""
}

// knows names what this node knows of rotations.
func knows(s *fsm.State) string {
	out := fmt.Sprint(len(s.Retired))
	if n := len(s.Retired); n > 0 {
		out += " " + s.Retired[n-1].Key
	}
	if r := s.Rotation; r != nil {
		out += " " + r.To + " " + string(r.Phase)
	}
	return out
}

const keyTick = time.Second

// keyLoop keeps this node's keys as the cluster wants them.
func (a *Agent) keyLoop(ctx context.Context) {
	tick := a.grid.Ticker(keyTick)
	defer tick.Stop()
	for due := true; ; {
		if err := a.followKeys(ctx, due); err != nil && ctx.Err() == nil {
			a.log.Warn("cannot follow the change of the key", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-a.keys.news:
			due = false
		case <-tick.C:
			tick.Next()
			due = true
		}
	}
}

// followKeys looks once; due: a tick has passed, and files and datagrams are looked at.
func (a *Agent) followKeys(ctx context.Context, due bool) error {
	var state string
	var want failover.Keys
	have := a.keys.Keys().Fingerprints()
	a.machine.View(func(s *fsm.State) { state, want = knows(s), failover.WantedKeys(s, have) })
	if due {
		apart := !a.inTouch()
		if changed, bad := a.keys.reread(apart); changed {
			a.problems.set("key-file", bad)
			if bad == "" {
				a.log.Info("the key file was changed and is taken", "keys", shortKeys(a.keys.Keys().Fingerprints()))
			}
		}
		if to := a.keys.drift(apart, state); to != "" {
			a.log.Warn("nobody is heard by the active key; using the one by which others are", "key", shortKey(to))
		}
		a.tellOldKey(apart)
	}
	if a.keys.isAdrift(state) {
		if !due || !a.inTouch() {
			return nil
		}
		if _, ok := a.reachNow(ctx); !ok {
			return nil
		}
		a.keys.anchor()
	}
	if a.keys.file == "" {
		return nil
	}
	a.machine.View(func(s *fsm.State) { want = failover.WantedKeys(s, a.keys.Keys().Fingerprints()) })
	if want.Fetch != "" {
		if err := a.fetchKey(ctx, want.Fetch); err != nil {
			return err
		}
	}
	err := a.keys.follow(want)
	a.problems.set("key-stays", "")
	if err != nil && len(want.Drop) > 0 {
		a.problems.set("key-stays", fmt.Sprintf("a key that was dropped is still in %s: %v", a.keys.file, err))
	}
	return err
}

// inTouch: this node has a lease, or is on its own so that none is needed.
func (a *Agent) inTouch() bool {
	a.hold.Lock()
	defer a.hold.Unlock()
	return a.hold.holder != nil && a.hold.holder.Leased(a.host.Clock.Now())
}

// tellOldKey shows that this node has another key than the others.
func (a *Agent) tellOldKey(apart bool) {
	text := ""
	if others := a.keys.met.names(); apart && len(others) > 0 {
		text = fmt.Sprintf("%s have another key than this node (%s): it may have been changed while this node was away",
			strings.Join(others, ", "), shortKey(a.keys.Keys().Fingerprint()))
	}
	a.problems.set("key-old", text)
}

// fetchLimit bounds one question for a key.
const fetchLimit = 2 * time.Second

// fetchKey gets a key from whoever has it, and keeps it.
func (a *Agent) fetchKey(ctx context.Context, fingerprint string) error {
	if _, bad := a.keys.reread(false); bad != "" {
		return errors.New(bad)
	}
	if a.keys.Keys().Has(fingerprint) {
		return nil // an operator brought it
	}
	var names []string
	a.machine.View(func(s *fsm.State) { names = s.NodeNames() })
	if n := a.node.Load(); n != nil {
		if to, _ := a.leader(n); to != "" { // it had the key first
			names = append([]string{to}, without(names, to)...)
		}
	}
	var errs []error
	now := a.host.Clock.Now()
	for _, name := range without(names, a.cfg.Name) {
		if a.isSilent(name, now) {
			continue
		}
		short, cancel := context.WithTimeout(ctx, fetchLimit)
		text, err := a.peers.Key(short, name, fingerprint)
		cancel()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		keys, err := trust.Parse("the key that "+name+" sent", text)
		clear(text)
		if err != nil || keys.Only(fingerprint) == nil {
			errs = append(errs, fmt.Errorf("%s sent another key (%w)", name, err))
			continue
		}
		if err := a.keys.add(keys.Only(fingerprint)); err != nil {
			return err
		}
		a.log.Info("got the new key", "from", name, "key", shortKey(fingerprint))
		return nil
	}
	return fmt.Errorf("nobody gives the new key yet: %w", errors.Join(errs...))
}

// Keys answers another node.
func (s service) Keys() peer.KeyReport { return s.a.keys.report() }

// Key gives a member the key that the cluster changes to.
func (s service) Key(asker, fingerprint string) ([]byte, error) {
	ok := false
	s.a.machine.View(func(st *fsm.State) {
		n := st.Nodes[asker]
		ok = n != nil && !n.Removed && st.Rotation != nil && st.Rotation.To == fingerprint && st.Rotation.Phase != fsm.KeyUndo
	})
	if !ok {
		return nil, errors.New("the cluster does not change to that key, or the asker is no member")
	}
	k := s.a.keys.Keys().Only(fingerprint)
	if k == nil {
		return nil, fmt.Errorf("%s has not got that key yet", s.a.cfg.Name)
	}
	return k.Text(), nil
}

// shortKey names a key to people.
func shortKey(fingerprint string) string { return fingerprint[:min(12, len(fingerprint))] }

func shortKeys(fingerprints []string) []string {
	var out []string
	for _, f := range fingerprints {
		out = append(out, shortKey(f))
	}
	return out
}
