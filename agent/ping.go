package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"hanode/api"
	"hanode/config"
	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/clock"
)

// Ping nodes are hosts beside the cluster that show whether the network of the clients
// is reached. Each node asks them all and tells the voters how many answer, with its
// link report; with ipfail, failover.Plan moves groups to who reaches more. They break
// no tie: nothing here says who lives or who may hold.

// pings is what this node hears of the ping nodes.
type pings struct {
	mu   sync.Mutex
	last map[string]clock.Instant // host -> its newest answer
	// reached is what the newest report said; dipped: it was more once; rose is when it
	// last grew again after that, zero = never.
	reached int
	dipped  bool
	rose    clock.Instant
}

// pingReport is what one node says of them.
type pingReport struct {
	Reached int `json:"reached"`
	// Settling: it reached fewer not long ago.
	Settling bool     `json:"settling,omitempty"`
	Lost     []string `json:"lost,omitempty"` // names, sorted
	IPFail   bool     `json:"ipfail,omitempty"`
}

// pingLost bounds the names in a report.
const pingLost = 20

// pingEvery is how often each host is asked, at most.
const pingEvery = 100 * time.Millisecond

// startPings asks each host of each ping node in a loop of its own: one that does not
// answer delays no other.
func (a *Agent) startPings() {
	ask := a.host.Ping
	if ask == nil {
		ask = icmpEcho
	}
	a.pings.mu.Lock() // the links' loop runs already
	a.pings.last = map[string]clock.Instant{}
	a.pings.mu.Unlock()
	for _, p := range a.cfg.Ping {
		for _, host := range p.Hosts {
			a.goLoop(func(ctx context.Context) { a.pingLoop(ctx, host, ask) })
		}
	}
}

func (a *Agent) pingLoop(ctx context.Context, host string, ask func(context.Context, string) error) {
	every := max(a.cfg.Timing.Keepalive, pingEvery)
	for ctx.Err() == nil {
		one, cancel := context.WithTimeout(ctx, max(every, time.Second))
		err := ask(one, host)
		cancel()
		if err == nil {
			a.pings.mu.Lock()
			a.pings.last[host] = a.host.Clock.Now()
			a.pings.mu.Unlock()
		}
		sleepCtx(ctx, every)
	}
}

// deadping is for how long a ping node may be silent.
func (a *Agent) deadping() time.Duration { return cmp.Or(a.cfg.Deadping, a.timing().Deadtime) }

// reaches: one of the node's hosts answered less than dead ago. The caller has mu.
func (p *pings) reaches(n config.PingNode, now clock.Instant, dead time.Duration) bool {
	return slices.ContainsFunc(n.Hosts, func(h string) bool {
		at, ok := p.last[h]
		return ok && now.Elapsed(at) < dead
	})
}

// pingReport is what to tell now; nil = there are no ping nodes. One counts as reached
// while any of its hosts answered less than deadping ago.
func (a *Agent) pingReport(now clock.Instant) *pingReport {
	if len(a.cfg.Ping) == 0 {
		return nil
	}
	dead := a.deadping()
	r := &pingReport{IPFail: a.cfg.IPFail}
	a.pings.mu.Lock()
	defer a.pings.mu.Unlock()
	for _, p := range a.cfg.Ping {
		if a.pings.reaches(p, now, dead) {
			r.Reached++
		} else if len(r.Lost) < pingLost {
			r.Lost = append(r.Lost, p.Name)
		}
	}
	slices.Sort(r.Lost)
	switch was := a.pings.reached; {
	case r.Reached < was:
		a.pings.dipped = true
	case r.Reached > was && a.pings.dipped:
		a.pings.rose = now
	}
	a.pings.reached = r.Reached
	r.Settling = !a.pings.rose.IsZero() && now.Elapsed(a.pings.rose) < pingSettle
	return r
}

// same reports whether both say the same.
func (r *pingReport) same(o *pingReport) bool {
	if r == nil || o == nil {
		return r == o
	}
	return r.Reached == o.Reached && r.Settling == o.Settling && r.IPFail == o.IPFail && slices.Equal(r.Lost, o.Lost)
}

// How long a node must reach less than another before that counts, as a leader sees it;
// and for how long the node itself says after a loss that it is settling: one lost
// answer moves nothing, and a gateway that flaps moves a group once.
const (
	pingDelay  = 3 * linksEvery
	pingSettle = 10 * time.Second
)

// compareReach fills in who reaches less. The caller holds lead.mu.
func (a *Agent) compareReach(in failover.Inputs, now clock.Instant) {
	said, most := map[string]*pingReport{}, 0
	for name, h := range in.Health {
		if r := a.ears.report(name, now).Pings; h.Alive && r != nil && r.IPFail {
			said[name] = r
			most = max(most, r.Reached)
		}
	}
	if a.lead.worse == nil {
		a.lead.worse = map[string]clock.Instant{}
	}
	for name, r := range said {
		h := in.Health[name]
		h.Regained = r.Settling
		switch since := a.lead.worse[name]; {
		case r.Reached == most:
			delete(a.lead.worse, name)
		case since.IsZero():
			a.lead.worse[name] = now
		case now.Elapsed(since) >= pingDelay:
			h.Unreached = most - r.Reached
		}
		in.Health[name] = h
	}
}

// pingProblems says which ping nodes are not reached, and by whom.
func (a *Agent) pingProblems(s *fsm.State) (out []api.StatusProblem) {
	now := a.host.Clock.Now()
	for _, node := range s.NodeNames() {
		if r := a.ears.report(node, now).Pings; r != nil && len(r.Lost) > 0 {
			out = append(out, show("ping-lost", fmt.Sprintf("%s does not reach %s", node, strings.Join(r.Lost, ", ")), nil))
		}
	}
	return out
}
