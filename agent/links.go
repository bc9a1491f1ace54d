package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"hanode/api"
	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/linkstate"
	"hanode/lease"
)

// Each node tells the voters how the devices of the virtual addresses are: all of it,
// at each change and again and again, so that a lost datagram or a new leader changes
// nothing. The leader plans with what it was told last; failover.Plan says what follows.

// linkReport is what one node says.
type linkReport struct {
	// Session tells runs of the agent apart, Seq the reports of one run.
	Session uint64           `json:"session"`
	Seq     uint64           `json:"seq"`
	Links   []linkstate.Link `json:"links"`
	// Claims are what the network says of addresses, where it should say something else.
	Claims []claimReport `json:"claims,omitempty"`
	// Pings are the ping nodes; nil = there are none.
	Pings *pingReport `json:"pings,omitempty"`
	// Resources is the digest of this host's haresources; "" without Heartbeat's files.
	Resources string `json:"resources,omitempty"`
}

const (
	linksEvery  = time.Second // between two reports when nothing changes
	linksRepeat = 3           // how often a change is repeated, a keepalive apart
	// linksValid is how long a report counts: a node that is heard and does not report
	// any more runs a version that never does.
	linksValid = 10 * linksEvery
)

// linksLoop reports this node's devices.
func (a *Agent) linksLoop(ctx context.Context) {
	r := linkReport{Session: rand.Uint64()}
	repeat := linksRepeat
	for {
		links, changed := a.kernel.Links()
		r.Seq++
		claims, heard := a.claims()
		r.Links, r.Claims, r.Resources = worthTelling(links), claims, a.ownResources()
		if pings := a.pingReport(a.host.Clock.Now()); !pings.same(r.Pings) {
			r.Pings, repeat = pings, linksRepeat
		}
		a.gossip.Send(r.append([]byte{byte(lease.KindLinks)}), a.voters()...)
		wait := linksEvery
		if repeat > 0 {
			repeat--
			wait = min(wait, a.cfg.Timing.Keepalive)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-changed:
			repeat = linksRepeat
		case <-heard:
			repeat = linksRepeat
		case <-t.C:
		}
		t.Stop()
	}
}

// worthTelling leaves out what nobody needs to know and puts first what is wrong.
func worthTelling(links []linkstate.Link) []linkstate.Link {
	out := slices.DeleteFunc(slices.Clone(links), func(l linkstate.Link) bool { return l.State == linkstate.Up && l.For > forgetLinks })
	slices.SortStableFunc(out, func(a, b linkstate.Link) int {
		return cmp.Compare(b.State.Rank(), a.State.Rank())
	})
	return out
}

// maxClaims is more than a datagram holds. Where ARP does not decide, nobody answers for a
// thousand addresses.
const maxClaims = 64

// append encodes the report; of more devices than fit a datagram it leaves out the
// last.
func (r linkReport) append(dst []byte) []byte {
	r.Claims = r.Claims[:min(len(r.Claims), maxClaims)]
	for {
		b, err := json.Marshal(r)
		if err == nil && len(dst)+len(b) <= lease.MaxMessage || len(r.Links)+len(r.Claims) == 0 {
			return append(dst, b...)
		}
		if n := len(r.Claims); n > 0 { // where groups go matters more
			r.Claims = r.Claims[:n-1]
		} else {
			r.Links = r.Links[:len(r.Links)-1]
		}
	}
}

// parseLinks decodes a report.
func parseLinks(b []byte) (r linkReport, err error) {
	if err := json.Unmarshal(b, &r); err != nil {
		return linkReport{}, err
	}
	for _, l := range r.Links {
		if l.State.Rank() == 0 || l.For < 0 {
			return linkReport{}, lease.ErrMalformed
		}
	}
	for _, c := range r.Claims {
		if c.For < 0 {
			return linkReport{}, lease.ErrMalformed
		}
	}
	return r, nil
}

// forgetLinks is after how long a device that is up needs no mention: no group waits
// longer for its failback.
const forgetLinks = 31 * 24 * time.Hour

// onLinks takes a report.
func (a *Agent) onLinks(from string, body []byte, now clock.Instant) {
	r, err := parseLinks(body)
	if err != nil {
		return
	}
	if a.ears.noteLinks(from, r, now) {
		signal(a.lead.wake)
	}
}

// noteLinks keeps the newest report and says whether it tells anything new.
func (e *ears) noteLinks(from string, r linkReport, now clock.Instant) bool {
	x := e.of(from)
	x.mu.Lock()
	defer x.mu.Unlock()
	if r.Session == x.links.Session && r.Seq <= x.links.Seq {
		return false
	}
	same := slices.EqualFunc(r.Links, x.links.Links, func(a, b linkstate.Link) bool {
		return a.Dev == b.Dev && a.State == b.State && a.Why == b.Why && slices.Equal(a.Nets, b.Nets)
	})
	same = same && r.Pings.same(x.links.Pings)
	if len(r.Resources) > digestLength {
		r.Resources = r.Resources[:digestLength]
	}
	x.links, x.linksAt = r, now
	return !same
}

// report is what a node last said; empty if it does not say.
func (e *ears) report(name string, now clock.Instant) (r linkReport) {
	t := e.table.Load()
	if t == nil || (*t)[name] == nil {
		return r
	}
	x := (*t)[name]
	x.mu.Lock()
	defer x.mu.Unlock()
	age := now.Elapsed(x.linksAt)
	if x.linksAt.IsZero() || age > linksValid {
		return r
	}
	r.Pings = x.links.Pings // replaced, never changed
	r.Links, r.Claims, r.Resources = slices.Clone(x.links.Links), slices.Clone(x.links.Claims), x.links.Resources
	for i := range r.Links {
		r.Links[i].For += age
	}
	for i := range r.Claims {
		r.Claims[i].For += age
	}
	return r
}

// linkProblems says which devices keep nodes from serving which groups, and which
// groups no client reaches for it.
func (a *Agent) linkProblems(s *fsm.State) []api.StatusProblem {
	var out []api.StatusProblem
	in := a.inputs()
	in.State = s
	now := a.host.Clock.Wall()
	for _, node := range s.NodeNames() {
		for _, l := range in.Health[node].Links {
			if l.State != linkstate.Down || !in.Health[node].Alive {
				continue
			}
			since := now.Add(-l.For)
			n, some := needs(s, l)
			out = append(out, show("vip-link-down", fmt.Sprintf("%s of %s %s: it cannot serve %s", l.Dev, node, l.Why, count(n, some)), &since))
		}
	}
	for _, name := range s.GroupNames() {
		if text := failover.Unreachable(in, s.Groups[name]); text != "" {
			out = append(out, show("group-unreachable", text, nil))
		}
	}
	return out
}

// needs counts the groups that need a device, and names one.
func needs(s *fsm.State, l linkstate.Link) (n int, some string) {
	for _, name := range s.GroupNames() {
		if slices.ContainsFunc(s.Groups[name].Spec.Resources, l.Carries) {
			if n++; n == 1 {
				some = name
			}
		}
	}
	return n, some
}

func count(n int, some string) string {
	if n > 1 {
		return fmt.Sprintf("%s and %d other groups", some, n-1)
	}
	return some
}
