package failover

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"hanode/fsm"
	"hanode/internal/grid"
	"hanode/internal/id"
	"hanode/internal/spec"
)

// Leader is what Lead needs of the world while this node is raft's leader.
type Leader interface {
	// Inputs gathers facts; its State is a copy or locked for the call's user.
	Inputs() Inputs
	// Propose commits the command and waits for its verdict. Called by many at once.
	Propose(ctx context.Context, c fsm.Command) (fsm.Result, error)
	// Committed is told each command that went through, after its commit: the place
	// to push records and send REVOKE. Called by many at once.
	Committed(c fsm.Command, r fsm.Result)
}

// Lead plans and proposes until ctx ends. wake is a one-slot "look again"; it also
// looks at each tick, and stops the ticker at the end. Run it from WhileLeader only, after the
// barrier.
func Lead(ctx context.Context, l Leader, wake <-chan struct{}, tick *grid.Ticker) {
	defer tick.Stop()
	for {
		for plan := Plan(l.Inputs()); len(plan) > 0; {
			n := batch(plan)
			if !propose(ctx, l, plan[:n]) {
				break // it may commit all the same; the next look sees what is
			}
			plan = plan[n:]
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-tick.C:
			tick.Next()
		}
	}
}

// batch is how many of the first commands are proposed at once: takeovers say nothing about
// each other, so that a rack of hosts that is lost takes a write or two to the disk and not
// one for each host.
func batch(plan []fsm.Command) int {
	n := 0
	for n < len(plan) && plan[n].Takeover != nil {
		n++
	}
	return max(n, 1)
}

// propose commits some commands at once; false: not all of them went through.
func propose(ctx context.Context, l Leader, cs []fsm.Command) bool {
	one := func(c fsm.Command) bool {
		r, err := l.Propose(ctx, c)
		if err == nil {
			l.Committed(c, r)
		}
		return err == nil
	}
	if len(cs) == 1 {
		return one(cs[0])
	}
	var all sync.WaitGroup
	var failed atomic.Bool
	for _, c := range cs {
		all.Go(func() {
			if !one(c) {
				failed.Store(true)
			}
		})
	}
	all.Wait()
	return !failed.Load()
}

// Opinion is what one voter last said about who is silent.
type Opinion struct {
	Silent map[id.NodeRef]bool
	Age    time.Duration // since it said so
}

// Silent reports whether a majority of the voters says that ref is silent. A
// voter that was not heard for deadtime itself has no say.
func Silent(ref id.NodeRef, voters fsm.VoterList, opinions map[string]Opinion, t spec.Timing) bool {
	n := 0
	for _, v := range voters.Names {
		if o, ok := opinions[v]; ok && o.Age < t.Deadtime && o.Silent[ref] {
			n++
		}
	}
	return n >= voters.Majority()
}
