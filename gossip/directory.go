package gossip

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"hanode/internal/clock"
)

// directory turns names into link addresses and remembers what each link last
// carried. Raft, peer calls and gossip all dial by name through it, so that a
// dead eth0 costs none of them more than one detour.
type directory struct {
	cfg   Config
	links []string
	routes

	learning sync.Mutex // one change of addresses at a time

	mu    sync.Mutex
	conns map[*trackedConn]struct{} // open streams
}

func newDirectory(cfg Config) *directory {
	d := &directory{cfg: cfg, conns: map[*trackedConn]struct{}{}}
	for _, l := range cfg.Network.Links() {
		d.links = append(d.links, l.Name)
	}
	for name, addrs := range cfg.Peers {
		d.put(name, d.fit(addrs))
	}
	for name, a := range cfg.Seeds {
		addrs := d.fit(d.get(name).to())
		if a.IsValid() {
			addrs[0] = a
		}
		d.put(name, addrs)
	}
	return d
}

func (d *directory) fit(addrs []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, len(d.links))
	copy(out, addrs)
	return out
}

func (d *directory) put(name string, addrs []netip.Addr) {
	d.add(name, len(d.links)).addrs.Store(&addrs)
}

// learnOn is learn for one link; it reports whether the address is news.
func (d *directory) learnOn(name string, link int, a netip.Addr) bool {
	addrs := d.fit(nil)
	addrs[link] = a
	return d.learn(name, addrs)
}

// learn takes the addresses that are valid, and reports whether any is news.
func (d *directory) learn(name string, addrs []netip.Addr) bool {
	d.learning.Lock()
	defer d.learning.Unlock()
	got := d.fit(addrs)
	old := d.fit(d.get(name).to())
	for i := range got {
		if !got[i].IsValid() {
			got[i] = old[i] // it has no address there now; the old one is better than none
		}
	}
	if slices.Equal(got, d.get(name).to()) {
		return false
	}
	d.put(name, got)
	d.save()
	return true
}

// save tells which addresses are known; learning is locked.
func (d *directory) save() {
	if d.cfg.Save == nil {
		return
	}
	all := map[string][]netip.Addr{}
	for name, x := range d.all() {
		if x.reachable() {
			all[name] = slices.Clone(x.to())
		}
	}
	d.cfg.Save(all)
}

// forget drops a node that left.
func (d *directory) forget(name string) {
	d.learning.Lock()
	defer d.learning.Unlock()
	if d.remove(name) {
		d.save()
	}
}

// introduce learns a first address of a node of which none is known.
func (d *directory) introduce(name string, addr netip.Addr) {
	if d.get(name).reachable() {
		return
	}
	d.learn(name, []netip.Addr{addr})
}

func (d *directory) names() []string { return slices.Sorted(maps.Keys(d.all())) }

// alive reports whether link carried something from name lately.
func (d *directory) alive(name string, link int, now clock.Instant) bool {
	return d.get(name).alive(link, now, d.cfg.LinkDead)
}

// order lists the links to try for name: live ones first, in file order.
func (d *directory) order(name string) []int {
	now := d.cfg.Clock.Now()
	var live, rest []int
	for i, a := range d.get(name).to() {
		switch {
		case !a.IsValid():
		case d.alive(name, i, now):
			live = append(live, i)
		default:
			rest = append(rest, i)
		}
	}
	return append(live, rest...)
}

// LinkState is one link of a member as this node sees it.
type LinkState struct {
	Name    string
	Address netip.Addr
	Up      bool
	Age     time.Duration // since it last carried something; -1 = never
}

// Links tells how the node is reached, link by link.
func (g *Gossip) Links(name string) []LinkState {
	own := g.cfg.Network.Links()
	d := g.dir
	now := g.cfg.Clock.Now()
	x := d.get(name)
	addrs := d.fit(x.to())
	var out []LinkState
	for i, l := range d.links {
		s := LinkState{Name: l, Age: -1}
		switch {
		case name != g.cfg.Name:
			s.Address, s.Up = addrs[i], d.alive(name, i, now)
			if x != nil && !x.heard[i].at().IsZero() {
				s.Age = now.Elapsed(x.heard[i].at())
			}
		case i < len(own):
			s.Address, s.Up, s.Age = own[i].Addr, own[i].Addr.IsValid(), 0
		}
		out = append(out, s)
	}
	return out
}

// Introduce says where a node is that is new: its address on the first link. What is
// known better already stays.
func (g *Gossip) Introduce(name string, addr netip.Addr) { g.dir.introduce(name, addr) }

// Forget drops what is known of a node that left.
func (g *Gossip) Forget(name string) {
	g.dir.forget(name)
	g.speaks.Delete(name)
}

// Knows reports whether an address is one of a member's, as far as is known.
func (g *Gossip) Knows(addr netip.Addr) bool {
	for _, x := range g.dir.all() {
		if slices.Contains(x.to(), addr) {
			return true
		}
	}
	return false
}

// Dial opens a stream to the node's port over whichever link answers first; a
// link that is silent is tried last. The stream is closed when its link goes
// silent while another one lives, so that its user dials again at once instead of
// waiting for TCP to notice.
func (g *Gossip) Dial(ctx context.Context, node string, port int) (net.Conn, error) {
	return g.dir.dial(ctx, node, port)
}

// headStart is how long one link may try alone before the next one joins in.
const headStart = 100 * time.Millisecond

func (d *directory) dial(ctx context.Context, node string, port int) (net.Conn, error) {
	order := d.order(node)
	if len(order) == 0 {
		return nil, fmt.Errorf("no address of %s is known", node)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		link int
		conn net.Conn
		err  error
	}
	got := make(chan result, len(order))
	addrs := d.fit(d.get(node).to())
	launch := func(link int) {
		go func() { // ends with ctx at the latest
			c, err := d.cfg.Network.Dial(ctx, d.links[link], netip.AddrPortFrom(addrs[link], uint16(port)))
			got <- result{link, c, err}
		}()
	}
	launch(order[0])
	next, pending := 1, 1
	timer := time.NewTimer(headStart)
	defer timer.Stop()
	var errs []error
	for pending > 0 || next < len(order) {
		select {
		case r := <-got:
			pending--
			if r.err == nil {
				go drain(got, pending, func(r result) net.Conn { return r.conn })
				return d.track(r.conn, node, r.link), nil
			}
			errs = append(errs, fmt.Errorf("%s: %w", d.links[r.link], r.err))
			if next < len(order) {
				launch(order[next])
				next, pending = next+1, pending+1
			}
		case <-timer.C:
			if next < len(order) {
				launch(order[next])
				next, pending = next+1, pending+1
				timer.Reset(headStart)
			}
		case <-ctx.Done():
			go drain(got, pending, func(r result) net.Conn { return r.conn })
			return nil, fmt.Errorf("dial %s: %w", node, errors.Join(append(errs, ctx.Err())...))
		}
	}
	return nil, fmt.Errorf("dial %s: %w", node, errors.Join(errs...))
}

// drain closes connections that came too late.
func drain[T any](got <-chan T, pending int, conn func(T) net.Conn) {
	for range pending {
		if c := conn(<-got); c != nil {
			_ = c.Close()
		}
	}
}

// trackedConn is a stream that ends with its link.
type trackedConn struct {
	net.Conn
	d    *directory
	node string
	link int
}

func (d *directory) track(c net.Conn, node string, link int) net.Conn {
	t := &trackedConn{Conn: c, d: d, node: node, link: link}
	d.mu.Lock()
	d.conns[t] = struct{}{}
	d.mu.Unlock()
	return t
}

func (t *trackedConn) Close() error {
	t.d.mu.Lock()
	delete(t.d.conns, t)
	t.d.mu.Unlock()
	return t.Conn.Close()
}

// prune closes streams on links that went silent while another link to the same
// node lives.
func (d *directory) prune() {
	d.mu.Lock()
	now := d.cfg.Clock.Now()
	var dead []*trackedConn
	for t := range d.conns {
		x := d.get(t.node)
		if x == nil || x.heard[t.link].at().IsZero() || d.alive(t.node, t.link, now) {
			continue
		}
		for i := range d.links {
			if i != t.link && d.alive(t.node, i, now) {
				dead = append(dead, t)
				break
			}
		}
	}
	d.mu.Unlock()
	for _, t := range dead {
		d.cfg.Log.Info("link is silent, moving streams to another", "node", t.node, "dev", d.links[t.link])
		_ = t.Close()
	}
}
