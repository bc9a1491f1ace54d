// Package spec holds what an operator can ask for: timing, nodes, groups and
// resources, as plain values. Package config reads them from files, fsm
// replicates them, resource and vip carry them out.
package spec

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Role says what a node is for.
type Role string

const (
	RoleNode    Role = "node"    // may own groups
	RoleWitness Role = "witness" // votes, owns nothing
)

// Timing is the cluster's idea of time. Every field is > 0.
// Invariants: Deadtime > 2*Keepalive, Warntime < Deadtime, Initdead >= Deadtime.
type Timing struct {
	Keepalive time.Duration `json:"keepalive"` // a beat is sent this often
	Warntime  time.Duration `json:"warntime"`  // no beat for this long = late
	Deadtime  time.Duration `json:"deadtime"`  // no beat for this long = dead; also the longest a lease can last, plus clock rate
	Initdead  time.Duration `json:"initdead"`  // replaces Deadtime until the cluster first formed
}

const (
	// RatePermille bounds how wrong a clock's rate may be: 5 %.
	RatePermille = 50
	// Unbounded is the bound of a registration whose lease ends nothing, because no
	// guard could be loaded: EXPIRED is never said of it. It fits every encoding.
	Unbounded = 300 * 24 * time.Hour
	// leaseSlack is what the bound keeps back for reading clocks and timers.
	leaseSlack = 5 * time.Millisecond
)

// LeaseLength is D: how long after its send time an acked beat lets a node
// hold. deadtime = D*(1+r)/(1-r) + 5 ms, so that a holder whose clock runs slow
// has still muted itself when a waiter whose clock runs fast takes over.
func (t Timing) LeaseLength() time.Duration {
	d := t.Deadtime - leaseSlack
	return d * (1000 - RatePermille) / (1000 + RatePermille)
}

// Validate returns every rule t breaks, each with both values in it.
func (t Timing) Validate() []string {
	var bad []string
	if t.Keepalive <= 0 {
		bad = append(bad, fmt.Sprintf("keepalive is %v; it must be above 0", t.Keepalive))
	}
	if t.Deadtime <= 2*t.Keepalive {
		bad = append(bad, fmt.Sprintf("deadtime %v must exceed 2 x keepalive (%v)", t.Deadtime, t.Keepalive))
	}
	if t.Deadtime < 50*time.Millisecond {
		bad = append(bad, fmt.Sprintf("deadtime %v is too short; the least is 50ms", t.Deadtime))
	}
	if t.Warntime >= t.Deadtime || t.Warntime <= 0 {
		bad = append(bad, fmt.Sprintf("warntime %v must be above 0 and less than deadtime (%v)", t.Warntime, t.Deadtime))
	}
	if t.Initdead < t.Deadtime {
		bad = append(bad, fmt.Sprintf("initdead %v must be at least deadtime (%v)", t.Initdead, t.Deadtime))
	}
	return bad
}

// Profiles are the named timings of the node file. "lan" is the default.
var Profiles = map[string]Timing{
	"fast":      {25 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 5 * time.Second},
	"lan":       {100 * time.Millisecond, 400 * time.Millisecond, time.Second, 15 * time.Second},
	"vm":        {250 * time.Millisecond, time.Second, 3 * time.Second, 30 * time.Second},
	"wan":       {time.Second, 5 * time.Second, 15 * time.Second, time.Minute},
	"heartbeat": {2 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute},
}

// Node is a founder as the node file lists it.
type Node struct {
	Name    string `json:"name"`
	Address string `json:"address"` // on the first link; IP literal
	Role    Role   `json:"role"`
	// Zone is what fails with it: a rack, a room. Voters are spread over zones. "" =
	// none was said.
	Zone string `json:"zone,omitempty"`
}

// Failback says when a group goes back to a more preferred node.
type Failback struct {
	On    bool          `json:"on"`
	After time.Duration `json:"after"` // the node must have been healthy this long; 0 = at once
}

// String renders the value as the cluster file takes it.
func (f Failback) String() string {
	switch {
	case !f.On:
		return "off"
	case f.After > 0:
		return "after " + f.After.String()
	}
	return "on"
}

// Group is a set of resources that move together: started in order, stopped in
// reverse.
type Group struct {
	Name      string     `json:"name"`
	Prefer    []string   `json:"prefer"` // node names, most wanted first; then the rest, least loaded first
	Failback  Failback   `json:"failback"`
	Exclusive bool       `json:"exclusive"` // never starts on an expired lease alone (design R4)
	Resources []Resource `json:"resources"`
	// RetryAfter is for how long a node that could not run the group is not given it.
	// It doubles with each failure there, up to MaxRetry. 0 = DefaultRetry.
	RetryAfter time.Duration `json:"retry_after,omitempty"`
	// Hooks are argument lists, no shell, of what is run when the group was started
	// or let go, or something is wrong with it, on the node concerned. Nothing waits
	// for them.
	OnAcquire []string `json:"on_acquire,omitempty"`
	OnRelease []string `json:"on_release,omitempty"`
	OnProblem []string `json:"on_problem,omitempty"`
	// Rules about other groups, by name; "" = none. With: on the same node as that one,
	// which chooses. Apart: never on its node. After: given to a node only while that
	// one runs somewhere.
	With  string `json:"with,omitempty"`
	Apart string `json:"apart,omitempty"`
	After string `json:"after,omitempty"`
	// MaxPerNode is how many groups may be on its node, itself included. 0 = any.
	MaxPerNode int `json:"max_per_node,omitempty"`
	// Weight is what it counts as when nodes are compared by load. 0 = 1.
	Weight int `json:"weight,omitempty"`
	// Checks ask the services as clients do.
	Checks []Check `json:"checks,omitempty"`
}

// Warm are the resources that run on every node, Moving those that only the owner
// runs; each in order.
func (g Group) Warm() []Resource { return g.only(true) }

// Moving are the others.
func (g Group) Moving() []Resource { return g.only(false) }

func (g Group) only(concurrent bool) []Resource {
	var out []Resource
	for _, r := range g.Resources {
		if r.Concurrent == concurrent {
			out = append(out, r)
		}
	}
	return out
}

// Load is what the group counts as.
func (g Group) Load() int { return max(g.Weight, 1) }

// What a group and a resource mean where they are silent.
const (
	DefaultRetry  = 10 * time.Minute // of RetryAfter
	MaxRetry      = 2 * time.Hour    // the longest that a node is avoided for one failure
	DefaultWithin = 10 * time.Minute // of Within
)

// Avoid is for how long a node is not given the group after it failed there
// failures times in a row.
func (g Group) Avoid(failures int) time.Duration {
	if failures <= 0 {
		return 0
	}
	d := cmp.Or(g.RetryAfter, DefaultRetry)
	for ; failures > 1 && d < MaxRetry; failures-- {
		d *= 2
	}
	return min(d, MaxRetry)
}

// IsExclusive reports whether two hosts must never run the group at once (design
// R4): because it says so, or because something in it writes to storage that two
// hosts may reach.
func (g Group) IsExclusive() bool { return g.WhyExclusive() != "" }

// WhyExclusive says why the group is exclusive, for people; "" = it is not.
func (g Group) WhyExclusive() string {
	if g.Exclusive {
		return "exclusive = true"
	}
	for _, r := range g.Resources {
		if r.storage() {
			return fmt.Sprintf("%s %q is storage", r.Type, r.Name)
		}
	}
	return ""
}

// Resource is one thing a host runs for a group.
type Resource struct {
	Type string `json:"type"` // ip, exec, ...
	Name string `json:"name"` // ip: address or prefix; else a name
	// Agent is the agent of an ocf resource, "heartbeat:apache", and Params what it is
	// given as OCF_RESKEY_*.
	Agent  string            `json:"agent,omitempty"`
	Params map[string]string `json:"params,omitempty"`
	// Dev is the device of an ip resource; what follows up to Rules is of one as well.
	// OnAcquire, if not empty, is run before it is put on, and must succeed: what tells
	// a router or a cloud where it is.
	Dev       string   `json:"dev,omitempty"`
	OnAcquire []string `json:"on_acquire,omitempty"`
	// Network puts the address on with the prefix length of its network, and its
	// broadcast address; otherwise it is a /32 or /128.
	Network bool `json:"network,omitempty"`
	// Broadcast is its broadcast address where that is not the network's own; "" = it is.
	// Nodes that speak version 1 (package fsm) do not know it.
	Broadcast string `json:"broadcast,omitempty"`
	// Source lets the host choose it as the source of what it sends.
	Source bool `json:"source,omitempty"`
	// Label names it on the device for old programs; IPv4 only.
	Label string `json:"label,omitempty"`
	// Routes and Rules are there while the address is.
	Routes []Route `json:"routes,omitempty"`
	Rules  []Rule  `json:"rules,omitempty"`
	// Start, Stop and Monitor are argument lists of an exec resource; no shell.
	Start   []string `json:"start,omitempty"`
	Stop    []string `json:"stop,omitempty"`
	Monitor []string `json:"monitor,omitempty"`
	// Every is the time between two runs of Monitor. 0 = not monitored.
	Every time.Duration `json:"every,omitempty"`
	// Timeout bounds one run of any operation for which none of the three after it
	// says otherwise. 0 = what is usual for the type, mostly 20 s.
	Timeout        time.Duration `json:"timeout,omitempty"`
	StartTimeout   time.Duration `json:"start_timeout,omitempty"`
	StopTimeout    time.Duration `json:"stop_timeout,omitempty"`
	MonitorTimeout time.Duration `json:"monitor_timeout,omitempty"`
	// Restarts is how often a failed resource is started again here, within any span
	// of Within, before the group moves. Within 0 = DefaultWithin.
	Restarts int           `json:"restarts,omitempty"`
	Within   time.Duration `json:"within,omitempty"`
	// Concurrent: it runs on every node that may own the group, all the time.
	Concurrent bool `json:"concurrent,omitempty"`
}

// OwnBroadcast reports whether a group has a broadcast address of its own, which only
// version 2 of what nodes say to each other has a place for.
func OwnBroadcast(groups []Group) bool {
	return slices.ContainsFunc(groups, func(g Group) bool {
		return slices.ContainsFunc(g.Resources, func(r Resource) bool { return r.Broadcast != "" })
	})
}

// Route is a route through the device of an ip resource.
type Route struct {
	To     string `json:"to"`               // a prefix, 0.0.0.0/0 or ::/0 for the default
	Via    string `json:"via,omitempty"`    // the gateway; "" = there without one
	Table  int    `json:"table,omitempty"`  // 0 = the main one
	Metric int    `json:"metric,omitempty"` // 0 = the kernel's default
}

// Rule has what comes from an ip resource's address look for its route in a table.
type Rule struct {
	To       string `json:"to,omitempty"` // only what goes to that prefix; "" = all
	Table    int    `json:"table"`
	Priority int    `json:"priority"`
}

// RulePriority is the priority of a Rule for which none was given.
const RulePriority = 1000

// Address is the address of an ip resource without its prefix length: what must
// be unique, and what R11 compares. The name itself if it does not parse.
func (r Resource) Address() string {
	text, _, _ := strings.Cut(r.Name, "/")
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap().String()
	}
	return r.Name
}
