package demo

import (
	"context"
	"fmt"
	"slices"
	"time"

	"hanode/api"
	"hanode/internal/netlab/watch"
)

// step is a thing that is done to the cluster, and what must come of it.
type step struct {
	name     string // in the table
	announce string // a sentence, before it is done
	from, to string // who answers before and after

	act func(ctx context.Context, st *stage) (note string, err error)
	// look, if there is one, is what to tell of the moment at which to answers.
	look func(st *stage) (note string)

	within time.Duration // to must answer this long after act began
	silent time.Duration // nobody may answer for at most this long
	watch  time.Duration // from act on, at least this long is watched for from to answer again
}

// Bounds that a busy machine keeps as well: what is measured is shown, and on one
// that is not busy is far below.
const (
	moveBound    = 2 * time.Second
	moveTries    = 8 * time.Second // an election, say, lets a move be asked for again
	takeover     = 4 * time.Second
	failbackTime = 20 * time.Second // a node has to start, join and be found healthy first

	lead  = 600 * time.Millisecond  // shown of a step before it is done
	trail = 1200 * time.Millisecond // and after it is over

	// pageTime is how much longer than the address the page may take: the service
	// has to start.
	pageTime = 3 * time.Second
)

// hang is how long the agent hangs: more than ten deadtimes.
func hang() time.Duration { return 11 * timing().Deadtime }

// story is the demo, step by step; each begins as the one before ended.
func story() []step {
	return []step{
		{
			name: "move to secondary", announce: "Switchover: hanode move web secondary",
			from: primary, to: secondary, within: moveTries + moveBound, silent: moveBound, act: move(secondary),
		},
		{
			name: "move back", announce: "And back: hanode move web primary",
			from: secondary, to: primary, within: moveTries + moveBound, silent: moveBound, act: move(primary),
		},
		{
			name: "power cut", announce: "Power cut: primary goes dark, with everything on it.",
			from: primary, to: secondary, within: takeover, silent: takeover, watch: time.Second,
			act: func(_ context.Context, st *stage) (string, error) { return "", st.hosts[primary].PowerCut() },
		},
		{
			name: "power back", announce: "Power back: primary boots, joins, and the group fails back to it.",
			from: secondary, to: primary, within: failbackTime, silent: moveBound,
			act: func(_ context.Context, st *stage) (string, error) {
				if err := st.hosts[primary].PowerOn(); err != nil {
					return "", err
				}
				return "", st.start(primary)
			},
		},
		{
			name: "kill -9 agent", announce: "kill -9 of the agent on primary. The address stays there, without anybody to take it away.",
			from: primary, to: secondary, within: takeover, silent: takeover, watch: 10 * timing().Deadtime, look: leftBehind,
			act: func(_ context.Context, st *stage) (string, error) { return "", st.agents[primary].Kill() },
		},
		{
			name: "agent started", announce: "The agent on primary is started again, and the group fails back.",
			from: secondary, to: primary, within: failbackTime, silent: moveBound,
			act: func(_ context.Context, st *stage) (string, error) { return "", st.start(primary) },
		},
		{
			name:     "agent hangs",
			announce: fmt.Sprintf("The agent on primary hangs (SIGSTOP) for %v. It cannot let go: the kernel does.", hang()),
			from:     primary, to: secondary, within: takeover, silent: takeover, watch: hang(), look: leftBehind,
			act: func(_ context.Context, st *stage) (string, error) { return "", st.agents[primary].Stop() },
		},
		{
			name: "agent goes on", announce: "It goes on (SIGCONT), believing it still is the owner; it finds out, and the group fails back.",
			from: secondary, to: primary, within: failbackTime, silent: moveBound, watch: time.Second,
			act: func(_ context.Context, st *stage) (string, error) { return "", st.agents[primary].Cont() },
		},
	}
}

// move asks for a switchover as an operator does, at the node that is in neither
// part of it, and again if it did not come about.
func move(to string) func(context.Context, *stage) (string, error) {
	return func(ctx context.Context, st *stage) (string, error) {
		c := api.Dial(st.socket(arbiter))
		defer c.Close()
		for until := time.Now().Add(moveTries); ; {
			r, err := c.Move(ctx, api.MoveRequest{Group: group, To: to, Wait: moveTries})
			if err == nil {
				return fmt.Sprintf("epoch %d", r.Epoch), nil
			}
			if time.Now().After(until) || sleep(ctx, 50*time.Millisecond) != nil {
				return "", err
			}
		}
	}
}

// leftBehind tells whether the address is still on the host that lost it.
func leftBehind(st *stage) string {
	addrs, err := st.hosts[primary].Addrs(dev)
	if err != nil {
		return "" // not worth failing for
	}
	for _, a := range addrs {
		if a.Addr() == vip {
			return "the address was still on primary, silenced by its kernel"
		}
	}
	return "primary's kernel had taken the address away"
}

// tell plays the steps until one fails, and reports whether none did.
func (st *stage) tell(ctx context.Context, scr *screen, steps []step) (results []result, ok bool) {
	for i, s := range steps {
		scr.line("")
		scr.line("(%d) %s", i+1, s.announce)
		r := st.play(ctx, scr, s)
		if ctx.Err() != nil {
			return results, false
		}
		results = append(results, r)
		scr.line("    %s", r.sentence())
		if !r.ok {
			return results, false
		}
	}
	return results, true
}

// play does one step and judges what was seen of it.
func (st *stage) play(ctx context.Context, scr *screen, s step) result {
	st.address.Mark(s.name)
	st.page.Mark(s.name)
	shown := time.Now()
	scr.begin(func() []string { return st.strip(shown) })
	defer scr.end()
	_ = sleep(ctx, lead) // an end of ctx is seen by tell
	began := time.Now()
	note, err := s.act(ctx, st)
	if err != nil {
		stalled := st.address.Look().Phase(s.name).LongestPause
		return result{name: s.name, stalled: stalled, text: err.Error() + excuse(stalled)}
	}
	notes := []string{note}
	arrived := await(ctx, st.sample, s.to, began.Add(s.within))
	if arrived && s.look != nil {
		notes = append(notes, s.look(st))
	}
	_ = await(ctx, st.page.Now, s.to, time.Now().Add(pageTime)) // judged by the phase
	_ = sleep(ctx, max(trail, time.Until(began.Add(s.watch))))
	o := observed{
		began:   began,
		address: st.address.Look().Phase(s.name),
		page:    st.page.Look().Phase(s.name),
	}
	o.address = renamed(o.address, st.name)
	return s.judge(o, slices.DeleteFunc(notes, func(s string) bool { return s == "" }))
}

// await waits until who() is name, and reports whether it was in time.
func await(ctx context.Context, who func() string, name string, until time.Time) bool {
	for who() != name {
		if time.Now().After(until) || sleep(ctx, time.Millisecond) != nil {
			return false
		}
	}
	return true
}

// renamed is p with every holder called by its name.
func renamed(p watch.Phase, name func(string) string) watch.Phase {
	by := make(map[string]int, len(p.By))
	for who, n := range p.By {
		by[name(who)] += n
	}
	p.By = by
	p.Changes = slices.Clone(p.Changes)
	for i, c := range p.Changes {
		p.Changes[i].From, p.Changes[i].To = name(c.From), name(c.To)
	}
	p.Overlaps = slices.Clone(p.Overlaps)
	for i, o := range p.Overlaps {
		p.Overlaps[i].First, p.Overlaps[i].Second = name(o.First), name(o.Second)
	}
	return p
}
