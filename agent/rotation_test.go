package agent

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"hanode/api"
	"hanode/fsm"
	"hanode/internal/trust"
)

// keysOf are the fingerprints in a host's key file.
func (h *host) keysOf() []string {
	k, err := trust.Load(h.config().KeyFile)
	if err != nil {
		h.lab.t.Fatalf("%s: %v", h.name, err)
	}
	return k.Fingerprints()
}

// uses: the nodes' files and rings hold exactly this key.
func (l *lab) uses(key string, names ...string) func() bool {
	return func() bool {
		for _, n := range names {
			a, _ := l.hosts[n].running()
			if a == nil || !slices.Equal(l.hosts[n].keysOf(), []string{key}) || !slices.Equal(a.keys.Keys().Fingerprints(), []string{key}) {
				return false
			}
		}
		return true
	}
}

func (l *lab) phase(want fsm.KeyPhase) func() bool {
	return func() bool {
		ok := false
		l.view(func(s *fsm.State) { ok = s.Rotation != nil && s.Rotation.Phase == want })
		return ok
	}
}

func (l *lab) rotationOver() bool {
	ok := false
	l.view(func(s *fsm.State) { ok = s.Rotation == nil && len(s.Retired) > 0 })
	return ok
}

// shows: the node's own problems have that code.
func (l *lab) shows(node, code string) func() bool {
	return func() bool {
		a, _ := l.hosts[node].running()
		return a != nil && slices.ContainsFunc(a.local(), func(p api.StatusProblem) bool { return p.Code == code })
	}
}

// rotate begins a rotation, wherever the leader is.
func (l *lab) rotate(without ...string) (to string) {
	l.t.Helper()
	st, err := l.on("primary").RotateKey(l.t.Context(), api.RotateKeyRequest{Without: without})
	if err != nil {
		l.t.Fatal(err)
	}
	if st.Rotation == nil { // it is over already
		return l.hosts["primary"].keysOf()[0]
	}
	return st.Rotation.To
}

var three = []string{"primary", "secondary", "arbiter"}

// The key is changed on a running cluster: clients notice nothing, the old key opens
// nothing any more, and a token of it is void.
func TestKeyRotation(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		old := l.hosts["primary"].keysOf()[0]
		l.token("primary")
		silence := l.silence(vipA)
		begin := time.Now()
		st, err := l.on("secondary").RotateKey(t.Context(), api.RotateKeyRequest{Wait: 5 * time.Minute})
		longest, moves := silence()
		if err != nil || st.Rotation != nil || len(st.Retired) != 1 || st.Retired[0].Key != old {
			t.Fatalf("%+v, %v", st, err)
		}
		t.Logf("changed in %v", time.Since(begin))
		to := *st.Nodes[0].Active
		if to == old || !l.uses(to, three...)() {
			t.Errorf("from %s to %s; %+v", old, to, st.Nodes)
		}
		if longest > 0 || moves > 0 {
			t.Errorf("clients noticed: %v, %d moves", longest, moves)
		}
		if tokens, err := l.on("primary").Tokens(t.Context()); err != nil || tokens[0].State != "revoked" {
			t.Errorf("%+v, %v", tokens, err)
		}
		if again := l.rotate(); again == to {
			t.Error("the same key twice")
		}
		l.until("changed again", time.Minute, func() bool { n := 0; l.view(func(s *fsm.State) { n = len(s.Retired) }); return n == 2 })
		l.well(30 * time.Second)
	})
}

// An agent dies in each phase, leader or not, and comes back: the rotation ends all the
// same, and every node has the one new key.
func TestKeyRotationGoesOnAfterACrash(t *testing.T) {
	for _, phase := range []fsm.KeyPhase{fsm.KeyAdd, fsm.KeyUse, fsm.KeyDrop} {
		for _, who := range []string{"leader", "owner", "other"} {
			t.Run(string(phase)+" "+who, func(t *testing.T) {
				story(t, func(t *testing.T, l *lab) {
					victim := map[string]string{"leader": l.leader(), "owner": "primary", "other": "secondary"}[who]
					to := l.rotate()
					l.until("in phase "+string(phase), 20*time.Second, l.phase(phase))
					l.hosts[victim].powerCut()
					time.Sleep(5 * time.Second)
					l.hosts[victim].start()
					l.until("over", 5*time.Minute, l.rotationOver)
					l.until("all have the new key alone", 30*time.Second, l.uses(to, three...))
					l.until("held again", 30*time.Second, func() bool { return len(l.answers(vipA)) == 1 })
					l.well(30 * time.Second)
				})
			})
		}
	}
}

// A node that dies and stays away ends the rotation: all go back to the key they had.
func TestKeyRotationIsUndone(t *testing.T) {
	for _, phase := range []fsm.KeyPhase{fsm.KeyAdd, fsm.KeyUse} {
		if testing.Short() && phase == fsm.KeyAdd {
			continue
		}
		t.Run(string(phase), func(t *testing.T) {
			story(t, func(t *testing.T, l *lab) {
				old := l.hosts["primary"].keysOf()[0]
				epoch := l.epoch("web")
				l.rotate()
				l.until("in phase "+string(phase), 20*time.Second, l.phase(phase))
				l.hosts["arbiter"].powerCut()
				l.until("undone", 5*time.Minute, l.rotationOver)
				l.until("the others are as before", 30*time.Second, l.uses(old, "primary", "secondary"))
				if e := l.epoch("web"); e != epoch || !l.held("primary")() {
					t.Errorf("the group moved: epoch %d, then %d", epoch, e)
				}
				st, err := l.on("primary").KeyStatus(t.Context())
				if err != nil || st.Retired[0].Undone == nil || !strings.Contains(*st.Retired[0].Undone, "arbiter does not answer") {
					t.Errorf("%+v, %v", st, err)
				}
				// It has both keys, or uses the one that nobody has any more; either way it is let
				// back by what it hears.
				l.hosts["arbiter"].start()
				l.until("the one that was away too", time.Minute, l.uses(old, three...))
				l.well(time.Minute)
			})
		})
	}
}

// A node whose key file cannot be written is no candidate, and one that finds out in the
// middle takes the rotation back at once.
func TestKeyRotationNeedsTheFile(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		old := l.hosts["primary"].keysOf()[0]
		path := l.hosts["secondary"].config().KeyFile
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if _, err := l.on("primary").RotateKey(t.Context(), api.RotateKeyRequest{}); err == nil || !strings.Contains(err.Error(), "secondary cannot change its keys") {
			t.Errorf("began: %v", err)
		}
		if !l.shows("secondary", "key-file")() {
			t.Error("nothing is said of the file that is gone")
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		l.until("the file is there again", 5*time.Second, func() bool { return !l.shows("secondary", "key-file")() })
		l.rotate()
		if err := errors.Join(os.Remove(path), os.MkdirAll(path+"/in the way", 0o700)); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		l.until("undone", 5*time.Minute, l.rotationOver)
		if d := time.Since(begin); d > time.Minute {
			t.Errorf("undone after %v", d)
		}
		if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, text, 0o600)); err != nil {
			t.Fatal(err)
		}
		l.until("as before", time.Minute, l.uses(old, three...))
		l.well(30 * time.Second)
	})
}

// A node that is down has to be named. When it comes back it says what it is, and takes a
// member's file without a restart.
func TestKeyRotationLeavesOneBehind(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.hosts["secondary"].powerCut()
		time.Sleep(3 * time.Second)
		_, err := l.on("primary").RotateKey(t.Context(), api.RotateKeyRequest{})
		if e, ok := errors.AsType[*api.Error](err); !ok || !strings.Contains(e.Fix, "--without secondary") {
			t.Fatalf("%v", err)
		}
		to := l.rotate("secondary")
		l.until("over", time.Minute, l.rotationOver)
		l.until("two have it", 10*time.Second, l.uses(to, "primary", "arbiter"))
		l.hosts["secondary"].start()
		l.until("it is told", 30*time.Second, l.shows("secondary", "key-old"))
		if !l.held("primary")() {
			t.Error("the one that was left behind disturbs")
		}
		text, err := os.ReadFile(l.hosts["primary"].config().KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(l.hosts["secondary"].config().KeyFile, text, 0o600); err != nil {
			t.Fatal(err)
		}
		l.until("it is back", time.Minute, func() bool { return l.uses(to, three...)() && !l.shows("secondary", "key-old")() })
		l.well(time.Minute)
	})
}

// A node that heard only one which had not followed yet went back to the old key. In touch
// again it follows, and does not hold the rotation up until that is undone.
func TestKeyRotationIsFollowedAgain(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		old := l.hosts["primary"].keysOf()[0]
		leader := l.leader()
		rest := without(three, leader)
		late, adrift := rest[1], rest[0]
		cut := func(a, b string, on bool) {
			l.net.Cut(a, b, "", on)
			l.net.Cut(b, a, "", on)
		}
		uses := func(node, key string) func() bool {
			return func() bool { return l.on(node).keys.Keys().Fingerprint() == key }
		}
		to := l.rotate()
		for !l.phase(fsm.KeyUse)() {
			time.Sleep(20 * time.Microsecond)
		}
		cut(late, leader, true) // before it hears of it
		cut(late, adrift, true)
		l.until("it is used", 5*time.Second, func() bool { return uses(leader, to)() && uses(adrift, to)() && uses(late, old)() })
		cut(leader, adrift, true)
		l.net.Cut(late, adrift, "", false) // one way
		l.until("it uses the key that it hears", 20*time.Second, uses(adrift, old))
		for i, n := range three {
			cut(n, three[(i+1)%3], false)
		}
		l.until("over", 20*time.Second, l.rotationOver)
		l.until("all have it", 10*time.Second, l.uses(to, three...))
		l.well(time.Minute)
	})
}

// An operator takes it back in the middle; and without a rotation there is nothing to.
func TestKeyRotationTakenBack(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		old := l.hosts["primary"].keysOf()[0]
		if _, err := l.on("primary").RotateKey(t.Context(), api.RotateKeyRequest{Undo: true}); err == nil {
			t.Error("took back nothing")
		}
		l.rotate()
		l.hosts["arbiter"].powerCut()
		if _, err := l.on("primary").RotateKey(t.Context(), api.RotateKeyRequest{Undo: true, Wait: 5 * time.Minute}); err != nil {
			t.Error(err)
		}
		l.until("as before", time.Minute, l.uses(old, "primary", "secondary"))
	})
}

// Keys are changed by hand, a step on all nodes before the next, and no agent restarts.
func TestKeysChangedByHand(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		old, err := trust.Parse("old", l.key)
		if err != nil {
			t.Fatal(err)
		}
		next, err := trust.Parse("next", []byte(trust.Generate()))
		if err != nil {
			t.Fatal(err)
		}
		silence := l.silence(vipA)
		for _, keys := range []*trust.Keys{old.Before(next), next.Before(old), next} {
			for _, n := range three {
				if err := writeKey(l.hosts[n].config().KeyFile, keys.Text()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Second)
			}
		}
		if !l.uses(next.Fingerprint(), three...)() {
			t.Error("not taken")
		}
		// A file of another cluster is not taken by a node that is in touch.
		if err := writeKey(l.hosts["secondary"].config().KeyFile, []byte(trust.Generate())); err != nil {
			t.Fatal(err)
		}
		l.until("it says so", 5*time.Second, l.shows("secondary", "key-file"))
		if longest, moves := silence(); longest > 0 || moves > 0 {
			t.Errorf("clients noticed: %v, %d moves", longest, moves)
		}
	})
}
