package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
	"hanode/peer"
	"hanode/resource"
)

// fitness is what this node knows of every node: whether it has what each group
// takes. A node judges itself, at its start, when the groups change and every so
// often, and tells the voters, any of which may lead next. What is not known counts
// as fit, and what is known counts until the node says otherwise: one that does
// not answer is judged by its last word.
type fitness struct {
	wake chan struct{} // one slot: the groups changed
	// asked is in how many ticks this node says again what it says of itself, because
	// somebody asked it: what he was told may be over, and was never said to others. 0 = it
	// need not.
	asked atomic.Int32

	mu sync.Mutex
	of map[string]map[string]opinion // node -> digest of a group -> what it said

	// A lock of its own: a start of a group waits for it, and mu is held while all nodes and
	// groups are gone through.
	digesting sync.Mutex
	digests   map[string]digested // by group
}

type opinion struct {
	findings []peer.Finding
	at       time.Time
}

// digested is a form of a group and its digest.
type digested struct {
	resources []spec.Resource
	checks    []spec.Check
	digest    string
}

func (f *fitness) init() {
	f.wake = make(chan struct{}, 1)
	f.of, f.digests = map[string]map[string]opinion{}, map[string]digested{}
}

// formOf tells one form of a group from another: all that a host could lack
// something for.
func formOf(g spec.Group) string {
	b, err := json.Marshal([]any{g.Name, g.Resources, g.Checks})
	if err != nil {
		return "" // strings and numbers only
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// keepVerdict is how long an opinion on a form of a group that nobody wants any more is
// kept: an apply asks before it commits.
const keepVerdict = 2 * time.Minute

// note takes a node's word. What cannot be told leaves what was known.
func (f *fitness) note(node string, said peer.Fitness, wanted map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := f.of[node]
	if m == nil {
		m = map[string]opinion{}
		f.of[node] = m
	}
	now := time.Now()
	for _, j := range said.Groups {
		if !slices.ContainsFunc(j.Findings, func(x peer.Finding) bool { return x.Kind == peer.Unsure }) {
			m[j.Digest] = opinion{j.Findings, now}
		}
	}
	maps.DeleteFunc(m, func(digest string, v opinion) bool { return !wanted[digest] && now.Sub(v.at) > keepVerdict })
}

// digest is formOf of a group in a state, which takes a millisecond for one of a thousand
// addresses. It is remembered by what it is of: a revision would not do, because what is
// only planned has one that something else gets later. The states share their slices, so
// that to compare costs nothing.
func (f *fitness) digest(g spec.Group) string {
	f.digesting.Lock()
	defer f.digesting.Unlock()
	d, ok := f.digests[g.Name]
	if !ok || !reflect.DeepEqual(d.resources, g.Resources) || !reflect.DeepEqual(d.checks, g.Checks) {
		d = digested{g.Resources, g.Checks, formOf(g)}
		f.digests[g.Name] = d
	}
	return d.digest
}

// each calls fn with all that is known of the groups in s as they stand there.
func (f *fitness) each(s *fsm.State, fn func(node, group string, found peer.Finding)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, node := range slices.Sorted(maps.Keys(f.of)) {
		if n := s.Nodes[node]; n == nil || n.Removed || n.Role != spec.RoleNode {
			continue
		}
		for _, name := range s.GroupNames() {
			for _, found := range f.of[node][f.digest(s.Groups[name].Spec)].findings {
				fn(node, name, found)
			}
		}
	}
}

// lacks says for each node why it cannot be given a group; nil = every node can be
// given all. adopt: what is foreign there is no reason, as if that had been permitted.
func (f *fitness) lacks(s *fsm.State, adopt bool) map[string]map[string]string {
	type place struct{ node, group string }
	missing, there := map[place][]string{}, map[place][]string{}
	f.each(s, func(node, group string, found peer.Finding) {
		p := place{node, group}
		switch {
		case found.Kind == peer.Lacks || found.Kind == peer.Nowhere:
			missing[p] = append(missing[p], found.Text)
		case found.Kind == peer.Foreign && !adopt && s.Groups[group].Adopt.Node != s.Nodes[node].Ref():
			there[p] = append(there[p], found.Text)
		}
	})
	var out map[string]map[string]string
	add := func(p place, why string) {
		if out == nil {
			out = map[string]map[string]string{}
		}
		if out[p.node] == nil {
			out[p.node] = map[string]string{}
		}
		if was := out[p.node][p.group]; was != "" {
			why = was + "; " + why
		}
		out[p.node][p.group] = why
	}
	for p, list := range missing {
		add(p, "it lacks something: "+strings.Join(list, "; "))
	}
	for p, list := range there {
		add(p, "the cluster did not start what is there: "+strings.Join(list, ", "))
	}
	return out
}

// Check answers another node, or this one's own apply.
func (s service) Check(ctx context.Context, groups []spec.Group) peer.Fitness {
	defer s.a.fit.asked.Store(2) // not before he has noted the answer
	return s.a.judge(ctx, groups, true)
}

// Fit takes another node's word of itself.
func (s service) Fit(asker string, f peer.Fitness) {
	s.a.fit.note(asker, f, s.a.wantedDigests())
	signal(s.a.lead.wake)
}

func (a *Agent) wantedDigests() map[string]bool {
	out := map[string]bool{}
	a.machine.View(func(s *fsm.State) {
		for _, name := range s.GroupNames() {
			out[formOf(s.Groups[name].Spec)] = true
		}
	})
	return out
}

// judgeLimit bounds one look at this host.
const judgeLimit = 3 * time.Second

// judge looks whether this host has what the groups take. fresh: services are asked
// themselves, too, although that was done a moment ago.
func (a *Agent) judge(ctx context.Context, groups []spec.Group, fresh bool) peer.Fitness {
	ctx, cancel := context.WithTimeout(ctx, judgeLimit)
	defer cancel()
	there := make([][]resource.Stray, len(groups))
	var wg sync.WaitGroup
	for i, g := range groups {
		wg.Go(func() { there[i] = a.strays(ctx, g, fresh) })
	}
	found := a.services.Check(ctx, groups, resource.CheckOptions{Limit: judgeLimit, Fresh: fresh})
	wg.Wait()
	f := peer.Fitness{}
	for i, g := range groups {
		j := peer.Judgement{Group: g.Name, Digest: formOf(g)}
		for _, s := range there[i] {
			j.Findings = append(j.Findings, peer.Finding{Kind: peer.Foreign, Code: "foreign-service", Text: s.String()})
		}
		if w := a.groups.get(g.Name); w != nil && w.warm.trouble() != nil {
			j.Findings = append(j.Findings, peer.Finding{Kind: peer.Note, Code: "warm-failed", Text: fmt.Sprintf("%s: %v", g.Name, w.warm.trouble())})
		}
		for _, l := range found {
			if l.Group == g.Name {
				j.Findings = append(j.Findings, peer.Finding{Kind: kindOf(l.Finding), Code: l.Code, Text: l.Text})
			}
		}
		f.Groups = append(f.Groups, j)
	}
	return f
}

func kindOf(f resource.Finding) peer.Kind {
	switch {
	case f.Unsure:
		return peer.Unsure
	case f.Meaning == resource.NotHere:
		return peer.Lacks
	case f.Meaning == resource.Nowhere:
		return peer.Nowhere
	}
	return peer.Note
}

const (
	fitEvery = 10 * time.Second // between two looks at this host
	fitTick  = time.Second      // between two tries to tell those who do not know yet
)

// fitLoop judges this host, and sees to it that every voter knows.
func (a *Agent) fitLoop(ctx context.Context) {
	tick := a.grid.Ticker(fitTick)
	defer tick.Stop()
	var own self
	told := map[string]uint64{} // voter -> which of its registrations knows the present word
	for due := true; ; {
		again := a.fit.asked.Load() == 1
		if again {
			a.fit.asked.Store(0)
		}
		if due && own.look(ctx, a) || again {
			clear(told)
			signal(a.lead.wake)
		}
		a.tell(ctx, own.word, told)
		select {
		case <-ctx.Done():
			return
		case <-a.fit.wake:
			due = true
		case <-tick.C:
			tick.Next()
			own.ticks++
			if n := a.fit.asked.Load(); n > 1 {
				a.fit.asked.CompareAndSwap(n, n-1)
			}
			due = a.fit.asked.Load() == 1 || own.doubt || own.ticks%int(fitEvery/fitTick) == 0 || own.strange() && own.ticks%int(foreignSoon/fitTick) == 0
		}
	}
}

// self is a node's opinion of itself. One bad look is not believed: a unit may be
// missing for the moment of a daemon-reload, and a node must not seem fit and unfit
// in turns. The first look at a group is.
type self struct {
	word  peer.Fitness
	known map[string]peer.Judgement // by digest
	doubt bool                      // something looks worse than before: look again soon
	ticks int
}

// strange: something is known to be foreign here.
func (s *self) strange() bool {
	return slices.ContainsFunc(s.word.Groups, func(j peer.Judgement) bool {
		return slices.ContainsFunc(j.Findings, func(f peer.Finding) bool { return f.Kind == peer.Foreign })
	})
}

// look reports whether the word changed.
func (s *self) look(ctx context.Context, a *Agent) bool {
	var groups []spec.Group
	owns := false
	a.machine.View(func(st *fsm.State) {
		n := st.Nodes[a.cfg.Name]
		owns = n != nil && n.Role == spec.RoleNode
		groups = st.Specs()
	})
	if !owns {
		return false
	}
	now := a.judge(ctx, groups, false)
	if ctx.Err() != nil {
		return false
	}
	changed := s.take(now)
	a.fit.note(a.cfg.Name, s.word, a.wantedDigests())
	return changed
}

// take makes the newest look the word, apart from what is doubted.
func (s *self) take(now peer.Fitness) (changed bool) {
	known, doubt := map[string]peer.Judgement{}, false
	var word peer.Fitness
	for _, j := range now.Groups {
		old, seen := s.known[j.Digest]
		unsure := slices.ContainsFunc(j.Findings, func(f peer.Finding) bool { return f.Kind == peer.Unsure })
		switch {
		case unsure && seen:
			j = old
		case unsure:
			j.Findings = nil
		case seen && cannot(j) && !cannot(old) && !s.doubt:
			j, doubt = old, true
		}
		known[j.Digest] = j
		word.Groups = append(word.Groups, j)
	}
	changed = !equalWord(s.word, word) || s.known == nil
	s.word, s.known, s.doubt = word, known, doubt
	return changed
}

func cannot(j peer.Judgement) bool {
	return slices.ContainsFunc(j.Findings, func(f peer.Finding) bool { return f.Kind == peer.Lacks || f.Kind == peer.Nowhere })
}

func equalWord(a, b peer.Fitness) bool {
	return slices.EqualFunc(a.Groups, b.Groups, func(x, y peer.Judgement) bool {
		return x.Group == y.Group && x.Digest == y.Digest && slices.Equal(x.Findings, y.Findings)
	})
}

// tellLimit bounds telling one voter; all are told side by side.
const tellLimit = 2 * time.Second

// tell gives the word to every voter that has not heard it since it registered.
func (a *Agent) tell(ctx context.Context, word peer.Fitness, told map[string]uint64) {
	if word.Groups == nil {
		return
	}
	owe := map[string]uint64{}
	now := a.host.Clock.Now()
	a.machine.View(func(s *fsm.State) {
		for _, v := range s.Voters.Names {
			if n := s.Nodes[v]; v != a.cfg.Name && n != nil && n.Inc > 0 && told[v] != n.Inc {
				owe[v] = n.Inc
			}
		}
	})
	maps.DeleteFunc(owe, func(v string, _ uint64) bool { return a.isSilent(v, now) })
	var mu sync.Mutex
	var wg sync.WaitGroup
	for v, inc := range owe {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, tellLimit)
			defer cancel()
			if err := a.peers.Fit(ctx, v, word); err != nil {
				a.log.Debug("cannot tell a voter what this host lacks", "voter", v, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			told[v] = inc
		})
	}
	wg.Wait()
}
