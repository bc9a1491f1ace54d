package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"hanode/api"
)

// TestSimTwoNodes is TestSim with two nodes and no third vote (two_node = "manual"),
// and an operator who says that a host is off, and only ever while that is true. Nobody
// may take over because of silence; what an agent that lives holds, it holds whatever
// the other one does.
func TestSimTwoNodes(t *testing.T) {
	campaignOf(t, true)
}

// confirmOff is that operator: looks at times, and where a host has no power, or came
// back with an empty disk, says so on the other one. A careful one: never where that
// would bring back an older copy of the cluster while a newer one exists.
func (s *simRun) confirmOff(l *lab, rng *rand.Rand, stop <-chan struct{}) {
	for {
		t := time.NewTimer(span(rng, 50*time.Millisecond, 800*time.Millisecond))
		select {
		case <-stop:
			t.Stop()
			return
		case <-l.broken:
			t.Stop()
			return
		case <-t.C:
		}
		for i, h := range l.order {
			if rng.Float64() < 0.7 {
				s.lookAt(l, h, l.order[1-i])
			}
		}
	}
}

// lookAt says on one host what is the matter with the other, if it is.
func (s *simRun) lookAt(l *lab, off, on *host) {
	select {
	case off.power <- struct{}{}: // nobody switches it on while that is said
	default:
		return
	}
	defer func() { <-off.power }()
	off.mu.Lock()
	dark, knows := off.off, off.agent != nil && off.ready
	off.mu.Unlock()
	a, sys := on.running()
	if a == nil || sys.isFrozen() || !knows {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	res, err := a.ConfirmOff(ctx, api.ConfirmOffRequest{Node: off.name})
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Code != api.CodeNeedsConfirmation || res == nil {
		return
	}
	emptied := strings.Contains(res.Confirm, "empty disk")
	if !dark && !emptied {
		return // silent is not off
	}
	// What is on an emptied disk is nowhere else: loseDisk sees to it that the other one
	// had all of it.
	if !emptied && strings.Contains(res.Confirm, "older copy") || off.fork().newer(on.fork()) {
		s.tally.add("operator: does not count on an older copy", 1, 1)
		return
	}
	_, err = a.ConfirmOff(ctx, api.ConfirmOffRequest{Node: off.name, Confirm: res.Confirm})
	l.note("operator at %s: %s: %v", on.name, res.Confirm, err)
	took := 0
	if err == nil {
		took = 1
	}
	s.tally.add(map[bool]string{true: "operator: confirms an empty disk", false: "operator: confirms a host off"}[emptied], 1, took)
}

// fork is the newest point at which this host's disk, or one that it lost, is known to
// have gone on alone.
func (h *host) fork() fork {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.agent != nil && h.ready { // its disk is open
		if f := h.agent.disk.fork(); f.newer(h.forked) {
			h.forked = f
		}
	}
	return h.forked
}

// otherIsComplete: the disk of the only other node holds all that was committed, so
// that h's may be lost.
func (c *chaos) otherIsComplete(h *host) bool {
	h.fork()
	for _, o := range c.order {
		if o != h {
			a, _ := o.running()
			return a != nil && a.node.Load() != nil && a.disk.recovering() == nil && a.complete()
		}
	}
	return false
}
