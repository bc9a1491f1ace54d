package robustness

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"hanode/api"
	"hanode/internal/spec"
	"hanode/test/livelab"
)

// wanted is what the operator of one cluster asked for, and was told. Safe for
// concurrent use.
type wanted struct {
	shape shape

	mu      sync.Mutex
	stamp   int                  // of the last apply; guarded by mu
	applied map[int]string       // what each apply asked for; guarded by mu
	regs    map[string]*register // "groups", "maintenance" and "standby NODE"; guarded by mu
	moves   []api.MoveResult     // acknowledged in this run; guarded by mu
}

func newWanted(s shape) *wanted {
	w := &wanted{shape: s, applied: map[int]string{}, regs: map[string]*register{}}
	w.regs["groups"] = &register{initial: stampName(0)}
	w.regs["maintenance"] = &register{initial: "off"}
	for _, n := range s.owners() {
		w.regs["standby "+n] = &register{initial: "online"}
	}
	return w
}

func (w *wanted) did(reg, value string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	end := acked
	if err != nil {
		end = unknown
	}
	w.regs[reg].did(value, end)
}

// groups is the whole wanted set with a stamp in it that changes nothing: a
// failback that is not due for days. With an odd stamp there is one group more.
func (w *wanted) groups(stamp int) []spec.Group {
	var list []spec.Group
	group := func(name, home string, back spec.Failback) {
		g := spec.Group{Name: name, Failback: back, Resources: []spec.Resource{{
			Type: "ip", Name: netip.PrefixFrom(vips[name], 24).String(), Dev: "eth1",
		}}}
		if home != "" {
			g.Prefer = []string{home}
		}
		list = append(list, g)
	}
	for name, home := range w.shape.groups() {
		group(name, home, spec.Failback{On: true})
	}
	group("tag", "", spec.Failback{On: true, After: stampAfter(stamp)})
	if stamp%2 == 1 {
		group("extra", "", spec.Failback{On: true})
	}
	slices.SortFunc(list, func(a, b spec.Group) int { return strings.Compare(a.Name, b.Name) })
	return list
}

func stampAfter(stamp int) time.Duration { return time.Hour + time.Duration(stamp)*time.Second }
func stampName(stamp int) string         { return fmt.Sprintf("apply %d", stamp) }

// stampOf names the apply that a wanted set came from.
func (w *wanted) stampOf(groups []spec.Group) string {
	for _, g := range groups {
		if g.Name != "tag" {
			continue
		}
		stamp := int((g.Failback.After - time.Hour) / time.Second)
		if stamp == 0 {
			return stampName(0) // as founded
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if text := asText(groups); text != w.applied[stamp] {
			return fmt.Sprintf("apply %d, but not as it was asked for: %s", stamp, text)
		}
		return stampName(stamp)
	}
	return "no group tag"
}

func asText(groups []spec.Group) string {
	sorted := slices.Clone(groups)
	slices.SortFunc(sorted, func(a, b spec.Group) int { return strings.Compare(a.Name, b.Name) })
	b, err := json.Marshal(api.FromSpecs(sorted))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// operator gives commands while faults happen. It uses any node whose agent we did
// not take away, as a person would.
type operator struct {
	x    *world
	rng  *rand.Rand
	kind traffic
	// busy is the node that the fault is about: never put on standby. "" = no such
	// commands at all.
	busy string

	stop chan struct{}
	done chan struct{}
}

// traffic is which commands are given during a fault.
type traffic string

const (
	quiet   traffic = "no commands"
	applies traffic = "apply"
	moves   traffic = "apply and move"
	all     traffic = "apply, move, standby"
)

var traffics = []traffic{quiet, applies, moves, all}

func (x *world) operate(rng *rand.Rand, kind traffic, busy string) *operator {
	o := &operator{x: x, rng: rng, kind: kind, busy: busy, stop: make(chan struct{}), done: make(chan struct{})}
	go o.work()
	return o
}

func (o *operator) end() {
	close(o.stop)
	<-o.done
}

func (o *operator) work() {
	defer close(o.done)
	if o.kind == quiet {
		return
	}
	for {
		select {
		case <-o.stop:
			return
		case <-time.After(between(o.rng, 20*time.Millisecond, 150*time.Millisecond)):
		}
		o.command()
	}
}

func (o *operator) command() {
	// All is drawn first: the schedule does not depend on answers.
	what, via, to := o.rng.IntN(10), o.rng.IntN(60), o.rng.IntN(60)
	list := o.x.answering()
	if len(list) == 0 {
		return
	}
	n := list[via%len(list)]
	owners := o.x.shape.owners()
	node := owners[to%len(owners)]
	switch {
	case o.kind == applies || what < 5:
		_ = o.x.apply(n)
	case o.kind == moves || what < 8 || o.busy == "" || node == o.busy || o.x.shape != threeNodes:
		_ = o.x.move(n, "tag", node)
	default:
		_ = o.x.standby(n, node, true)
		_ = o.x.standby(n, node, false)
	}
}

// commandTime is how long the operator waits for an answer.
const commandTime = 3 * time.Second

// command runs one call on a node and writes down what came of it.
func (x *world) command(n *livelab.Node, what string, call func(context.Context, *api.Client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	c := n.API()
	defer c.Close()
	begin := time.Now()
	err := call(ctx, c)
	word := "acknowledged"
	if err != nil {
		word = err.Error()
	}
	x.line.now("operator", "%s on %s, begun %.1f ms ago: %s", what, n.Node, ms(time.Since(begin)), word)
	return err
}

func (x *world) apply(n *livelab.Node) error {
	x.wanted.mu.Lock()
	x.wanted.stamp++
	stamp := x.wanted.stamp
	groups := x.wanted.groups(stamp)
	x.wanted.applied[stamp] = asText(groups)
	x.wanted.mu.Unlock()
	err := x.command(n, stampName(stamp), func(ctx context.Context, c *api.Client) error {
		_, err := c.Apply(ctx, api.ApplyRequest{Groups: groups})
		return err
	})
	x.wanted.did("groups", stampName(stamp), err)
	return err
}

func (x *world) move(n *livelab.Node, group, to string) error {
	return x.command(n, "move "+group+" "+to, func(ctx context.Context, c *api.Client) error {
		r, err := c.Move(ctx, api.MoveRequest{Group: group, To: to, Wait: time.Second})
		if err == nil {
			x.wanted.mu.Lock()
			x.wanted.moves = append(x.wanted.moves, *r)
			x.wanted.mu.Unlock()
		}
		return err
	})
}

func (x *world) standby(n *livelab.Node, node string, on bool) error {
	value := map[bool]string{true: "standby", false: "online"}[on]
	err := x.command(n, value+" "+node, func(ctx context.Context, c *api.Client) error {
		_, err := c.Standby(ctx, node, on, 0)
		return err
	})
	x.wanted.did("standby "+node, value, err)
	return err
}

func (x *world) maintenance(n *livelab.Node, on bool) error {
	value := map[bool]string{true: "on", false: "off"}[on]
	err := x.command(n, "maintenance "+value, func(ctx context.Context, c *api.Client) error { return c.Maintenance(ctx, on) })
	x.wanted.did("maintenance", value, err)
	return err
}

// values reads from one node what the operator's commands set.
func (x *world) values(n *livelab.Node) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*askTime)
	defer cancel()
	c := n.API()
	defer c.Close()
	groups, err := c.Export(ctx)
	if err != nil {
		return nil, err
	}
	got := map[string]string{"groups": x.wanted.stampOf(groups), "maintenance": "off"}
	why, err := c.Why(ctx, "tag")
	if err != nil {
		return nil, err
	}
	for _, r := range why.Reasons {
		if slices.Contains(x.shape.owners(), r.Node) {
			got["standby "+r.Node] = "online"
			if r.Because == "standby" {
				got["standby "+r.Node] = "standby"
			}
		}
	}
	s, err := c.Status(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, p := range s.Problems {
		if p.Code == "maintenance" {
			got["maintenance"] = "on"
		}
	}
	return got, nil
}

// kept compares what the nodes say with what was acknowledged, once they agree; it
// returns how many commands were acknowledged and which of them are lost.
func (x *world) kept(nodes []*livelab.Node) (acks int, lost []string) {
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var got map[string]string
		acks, lost, got = x.compare(nodes)
		if len(lost) == 0 {
			x.wanted.mu.Lock()
			defer x.wanted.mu.Unlock()
			for reg, value := range got {
				x.wanted.regs[reg].settle(value)
			}
			return acks, nil
		}
		if time.Now().After(end) {
			return acks, lost
		}
	}
}

func (x *world) compare(nodes []*livelab.Node) (acks int, lost []string, got map[string]string) {
	for _, n := range nodes {
		values, err := x.values(n)
		if err != nil {
			lost = append(lost, fmt.Sprintf("%s does not say: %v", n.Node, err))
			continue
		}
		if got != nil && !maps.Equal(got, values) {
			lost = append(lost, fmt.Sprintf("nodes differ: %v and %v on %s", got, values, n.Node))
		}
		got = values
		x.wanted.mu.Lock()
		for name, reg := range x.wanted.regs {
			if l := reg.lost(values[name]); l != "" {
				lost = append(lost, fmt.Sprintf("%s on %s: %s", name, n.Node, l))
			}
		}
		x.wanted.mu.Unlock()
	}
	x.wanted.mu.Lock()
	defer x.wanted.mu.Unlock()
	for _, reg := range x.wanted.regs {
		acks += reg.acks()
	}
	return acks, lost, got
}

// tidy undoes what the operator left: standby, maintenance, pins.
func (x *world) tidy(limit time.Duration) error {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := x.undo()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("undo what the operator did: %w", err)
		}
	}
}

func (x *world) undo() error {
	n := x.Nodes[len(x.Nodes)-1]
	got, err := x.values(n)
	if err != nil {
		return err
	}
	for _, node := range x.shape.owners() {
		if got["standby "+node] == "standby" {
			if err := x.standby(n, node, false); err != nil {
				return err
			}
		}
	}
	if got["maintenance"] == "on" {
		if err := x.maintenance(n, false); err != nil {
			return err
		}
	}
	for group := range x.shape.groups() {
		err := x.command(n, "unpin "+group, func(ctx context.Context, c *api.Client) error {
			_, err := c.Move(ctx, api.MoveRequest{Group: group, Unpin: true})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// between draws a time.
func between(rng *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(rng.Int64N(int64(to-from)+1))
}
