package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"hanode/fsm"
)

// Three ports carry a cluster: beats go by UDP, gossip also by TCP, and raft and calls by
// TCP one higher. A firewall that lets some of them through leaves a cluster that hears
// itself and does not form, or that forms and loses its log: each node compares what
// arrives of the others by each way, and names the port that is missing.

// portsTick is how often they are compared while something is wrong, or this node has no
// lease; else one node in every portsRest of them.
const (
	portsTick = 2 * time.Second
	portsRest = 5
)

// ways are how a node is reached.
type ways struct {
	due      bool // it exchanges beats with this node, so that silence says something
	heard    bool // a datagram came lately, on any link
	answered bool // it took a connection on the port of calls
	refused  bool // and is there by both, but gossip cannot dial it
}

// missing names the port without which it would be so, and how many looks in a row
// must say it: gossip tries each few seconds only. 0 = nothing is missing.
func (w ways) missing(node string, port int) (text string, looks int) {
	switch {
	case w.heard && !w.answered:
		return fmt.Sprintf("%s is unreachable by TCP port %d though its beats arrive: open TCP %d on it", node, port+1, port+1), 2
	case w.due && !w.heard && w.answered:
		return fmt.Sprintf("%s is not heard by UDP port %d though it answers calls: open UDP %d on both", node, port, port), 2
	case w.heard && w.answered && w.refused:
		return fmt.Sprintf("%s is unreachable by TCP port %d though its beats arrive: open TCP %d on both", node, port, port), 5
	}
	return "", 0
}

// portLooks remembers what was missing in the last looks.
type portLooks map[string]struct {
	text string
	n    int
}

// note takes one look at a node.
func (p portLooks) note(node, text string) {
	x := p[node]
	if x.text != text {
		x.text, x.n = text, 0
	}
	x.n++
	p[node] = x
	if text == "" {
		delete(p, node)
	}
}

// portsLoop looks, and shows what is missing.
func (a *Agent) portsLoop(ctx context.Context) {
	tick := a.grid.Ticker(portsTick)
	defer tick.Stop()
	looks := portLooks{}
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
		}
		calm := a.inTouch()
		if calm && len(looks) == 0 && n%portsRest != 0 {
			continue
		}
		others := a.others()
		if calm && len(others) > 0 { // whom something was missing of, and the next one
			next := others[n/portsRest%len(others)]
			others = slices.DeleteFunc(others, func(o string) bool { _, ill := looks[o]; return !ill && o != next })
		}
		var said []string
		for node, w := range a.waysTo(ctx, others) {
			text, least := w.missing(node, a.cfg.Port)
			looks.note(node, text)
			if text != "" && looks[node].n >= least {
				said = append(said, text)
			}
		}
		slices.Sort(said)
		a.problems.set("port-blocked", strings.Join(said, "; "))
	}
}

// waysTo asks how each of the nodes is reached, all at once.
func (a *Agent) waysTo(ctx context.Context, nodes []string) map[string]ways {
	var voters []string
	a.machine.View(func(s *fsm.State) { voters = s.Voters.Names })
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := map[string]ways{}
	for _, node := range nodes {
		wg.Go(func() {
			w := ways{
				due:      slices.Contains(voters, node) || slices.Contains(voters, a.cfg.Name),
				answered: a.connects(ctx, node),
			}
			for _, l := range a.gossip.Links(node) {
				w.heard = w.heard || l.Up
			}
			w.refused = w.heard && w.answered && a.gossip.Refused(node)
			mu.Lock()
			defer mu.Unlock()
			out[node] = w
		})
	}
	wg.Wait()
	return out
}

// connects reports whether the node answers a call, or takes a connection at least.
func (a *Agent) connects(ctx context.Context, node string) bool {
	if _, err := a.hello(ctx, node); err == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := a.gossip.Dial(ctx, node, a.cfg.Port+1)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}
