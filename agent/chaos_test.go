package agent

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"hanode/internal/spec"
)

// tally counts faults: how often one was made, and how often it took hold.
type tally struct {
	mu   sync.Mutex
	rows map[string]*row
}

type row struct{ fired, took int }

func newTally() *tally { return &tally{rows: map[string]*row{}} }

func (t *tally) add(kind string, fired, took int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rows[kind]
	if r == nil {
		r = &row{}
		t.rows[kind] = r
	}
	r.fired += fired
	r.took += took
}

func (t *tally) merge(o *tally) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for k, r := range o.rows {
		t.add(k, r.fired, r.took)
	}
}

// fault is one line of a schedule.
type fault struct {
	at, length time.Duration
	kind       string
	who, other pick
	x, y       float64 // what the kind makes of them
}

func (f fault) String() string {
	return fmt.Sprintf("%8v for %8v  %-22s %v %v %.2f %.2f", f.at, f.length, f.kind, f.who, f.other, f.x, f.y)
}

// pick chooses a host when the fault strikes: by number, or by what it is then.
type pick struct {
	what  string // "", leader, owner
	index int
}

func (p pick) String() string {
	if p.what != "" {
		return p.what
	}
	return fmt.Sprintf("host %d", p.index)
}

func (l *lab) pick(p pick) *host {
	name := l.nodes[p.index%len(l.nodes)].Name
	switch p.what {
	case "leader":
		if n := l.leader(); n != "" {
			name = n
		}
	case "owner":
		a := l.vips[p.index%2]
		if by := l.answering(a); len(by) > 0 {
			name = by[0]
		}
	}
	return l.hosts[name]
}

// kinds are the faults and how often each is drawn.
var kinds = []struct {
	name   string
	weight int
	least  time.Duration
	most   time.Duration
}{
	{"power cut", 8, 20 * time.Millisecond, 5 * time.Second},
	{"kill -9", 8, 20 * time.Millisecond, 3 * time.Second},
	{"stop and start", 5, 100 * time.Millisecond, 3 * time.Second},
	{"pause, short", 5, 10 * time.Millisecond, 240 * time.Millisecond},
	{"pause, long", 7, 200 * time.Millisecond, 1300 * time.Millisecond},
	{"kernel write hangs", 8, 20 * time.Millisecond, 1200 * time.Millisecond},
	{"cut, one way", 10, 100 * time.Millisecond, 4 * time.Second},
	{"cut, both ways", 8, 100 * time.Millisecond, 4 * time.Second},
	{"host cut off", 8, 100 * time.Millisecond, 4 * time.Second},
	{"partition", 5, 200 * time.Millisecond, 5 * time.Second},
	{"loss", 7, 500 * time.Millisecond, 5 * time.Second},
	{"duplicates", 3, 500 * time.Millisecond, 5 * time.Second},
	{"delay", 6, 300 * time.Millisecond, 4 * time.Second},
	{"reordering", 5, 300 * time.Millisecond, 4 * time.Second},
	{"disk lost", 4, 50 * time.Millisecond, 3 * time.Second},
	{"disk stalls", 6, 200 * time.Millisecond, 3 * time.Second},
	{"clock rates", 6, 0, 0},
	{"RAW stands still", 3, 50 * time.Millisecond, 2 * time.Second},
	{"BOOT jumps ahead", 3, 0, 0},
	{"wall clock step", 4, 0, 0},
	{"all killed", 1, 20 * time.Millisecond, time.Second},
	{"voters change", 7, 500 * time.Millisecond, 5 * time.Second},
	{"a node leaves", 2, 500 * time.Millisecond, 5 * time.Second},
	{"a node is removed", 3, time.Second, 6 * time.Second},
	{"a node joins", 9, 200 * time.Millisecond, 4 * time.Second},
}

// notOfTwo are faults that two nodes and no third vote do not have.
var notOfTwo = map[string]bool{"voters change": true, "a node leaves": true, "a node is removed": true, "a node joins": true}

// schedule draws the faults of one run; equal seeds draw equal ones.
func schedule(rng *rand.Rand, length time.Duration) []fault {
	sum := 0
	for _, k := range kinds {
		sum += k.weight
	}
	pace := time.Duration(150+rng.IntN(900)) * time.Millisecond
	var out []fault
	for at := 2*time.Second + span(rng, 0, time.Second); at < length; at += span(rng, 20*time.Millisecond, 2*pace) {
		n := rng.IntN(sum)
		i := 0
		for n >= kinds[i].weight {
			n -= kinds[i].weight
			i++
		}
		k := kinds[i]
		f := fault{at: at, kind: k.name, who: someone(rng), other: someone(rng), x: rng.Float64(), y: rng.Float64()}
		f.length = min(span(rng, k.least, k.most+1), length-at)
		out = append(out, f)
	}
	return out
}

func someone(rng *rand.Rand) pick {
	return pick{what: []string{"", "", "", "leader", "owner"}[rng.IntN(5)], index: rng.IntN(60)}
}

func span(rng *rand.Rand, least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return (least + time.Duration(rng.Int64N(int64(most-least)))).Truncate(time.Millisecond)
}

// chaos carries one schedule out.
type chaos struct {
	*lab
	tally *tally
	wg    sync.WaitGroup
	ended chan struct{}

	mu   sync.Mutex
	lost map[string]bool // whose disk was lost and who is not back yet
	left bool            // a node left; one is enough
	in   map[string]bool // who has had the log at some time
	// change: the voters change, and raft's configuration with them.
	change bool
}

// run makes every fault at its time and returns when the last has ended.
func (c *chaos) run(faults []fault) {
	for _, f := range faults {
		c.wg.Go(func() {
			if !c.sleep(f.at - time.Since(c.begin)) {
				return
			}
			c.strike(f)
		})
	}
	c.wg.Wait()
}

// sleep reports false if a violation ended the run.
func (c *chaos) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.broken:
		return false
	}
}

func (c *chaos) strike(f fault) {
	h := c.pick(f.who)
	took := 0
	if len(c.nodes) == 2 && notOfTwo[f.kind] {
		return
	}
	c.note("%s: %s %v", f.kind, h.name, f.length)
	switch f.kind {
	case "power cut":
		took = c.down(h, f, h.powerCut)
	case "kill -9":
		took = c.down(h, f, h.kill)
	case "stop and start":
		took = c.down(h, f, h.halt)
	case "disk lost":
		took = c.loseDisk(h, f)
	case "all killed":
		took = c.allKilled(f)
	case "pause, short", "pause, long":
		took = c.hang(h, f)
	case "kernel write hangs":
		if _, sys := h.running(); sys != nil {
			sys.hang([]string{"add", "renew", "renew", "announce", "del", "prepare", "silence"}[int(f.x*7)], f.length)
			c.sleep(f.length)
			sys.mu.Lock()
			took = min(sys.hangs, 1)
			sys.hangs = 0
			sys.mu.Unlock()
		}
	case "disk stalls":
		h.mu.Lock()
		d := h.disk
		h.mu.Unlock()
		before := d.stalls.Load()
		d.stall.Store(int64(20*time.Millisecond) + int64(f.x*float64(600*time.Millisecond)))
		c.sleep(f.length)
		d.stall.Store(0)
		took = min(int(d.stalls.Load()-before), 1)
	case "clock rates":
		h.clk.setRates(0.95+0.1*f.x, 0.95+0.1*f.y)
		took = 1
	case "RAW stands still":
		took = 1
		h.clk.stop(true)
		c.sleep(f.length)
		h.clk.stop(false)
	case "BOOT jumps ahead":
		took = 1
		h.clk.jump(time.Duration(f.x * float64(time.Second)))
	case "voters change":
		took = c.changeVoters(f)
	case "a node leaves":
		took = c.leave(h, f)
	case "a node is removed":
		took = c.remove(h, f)
	case "a node joins":
		took = c.newcomer(f)
	case "wall clock step":
		h.clk.stepWall(time.Duration((f.x - 0.5) * float64(2*time.Hour)))
		took = 1
	default:
		took = c.wires(h, f)
	}
	c.tally.add(f.kind, 1, took)
}

// wires are the faults of the network.
func (c *chaos) wires(h *host, f fault) int {
	before := c.net.Stats()
	link := []string{"", "eth0", "eth1"}[int(f.y*3)]
	other := c.pick(f.other)
	if other == h {
		other = c.hosts[c.nodes[(slices.IndexFunc(c.nodes, func(n spec.Node) bool { return n.Name == h.name })+1)%len(c.nodes)].Name]
	}
	cut := func(on bool) {}
	switch f.kind {
	case "cut, one way":
		cut = func(on bool) { c.net.Cut(h.name, other.name, link, on) }
	case "cut, both ways":
		cut = func(on bool) {
			c.net.Cut(h.name, other.name, link, on)
			c.net.Cut(other.name, h.name, link, on)
		}
	case "host cut off":
		cut = func(on bool) {
			if f.x < 0.7 {
				c.net.Cut(h.name, "", link, on)
			}
			if f.x > 0.3 {
				c.net.Cut("", h.name, link, on)
			}
		}
	case "partition":
		cut = func(on bool) {
			for i, a := range c.nodes {
				for j, b := range c.nodes {
					if side := int(f.x*30) + 1; side>>i&1 != side>>j&1 {
						c.net.Cut(a.Name, b.Name, "", on)
					}
				}
			}
		}
	case "loss":
		cut = func(on bool) { c.net.SetLoss(when(on, 0.01+0.29*f.x)) }
	case "duplicates":
		cut = func(on bool) { c.net.SetDup(when(on, 0.5*f.x)) }
	case "reordering":
		cut = func(on bool) {
			c.net.SetReorder(when(on, 0.5*f.x), time.Duration(f.y*f.y*float64(200*time.Millisecond)))
		}
	case "delay":
		most := int64(f.x*f.x*float64(300*time.Millisecond)) + 1
		cut = func(on bool) {
			if !on {
				c.net.SetDelay(nil)
				return
			}
			c.net.SetDelay(func(r *rand.Rand) time.Duration { return 50*time.Microsecond + time.Duration(r.Int64N(most)) })
		}
	}
	cut(true)
	c.sleep(f.length)
	cut(false)
	after := c.net.Stats()
	switch f.kind {
	case "loss":
		return min(1, after.Lost-before.Lost)
	case "duplicates":
		return min(1, after.Duplicated-before.Duplicated)
	case "reordering":
		return min(1, after.Overtook-before.Overtook)
	case "delay":
		return 1
	}
	return min(1, after.Cut-before.Cut)
}

func when(on bool, v float64) float64 {
	if on {
		return v
	}
	return 0
}

// down takes a host's agent away for a while. Whoever comes second finds it busy.
func (c *chaos) down(h *host, f fault, how func()) int {
	if !h.take() {
		return 0
	}
	defer h.give()
	if !h.up() {
		return 0
	}
	how()
	c.sleep(f.length)
	h.start()
	return 1
}

// take makes the caller the only one who starts and stops the host.
func (h *host) take() bool {
	select {
	case h.steer <- struct{}{}:
		return true
	default:
		return false
	}
}

func (h *host) give() { <-h.steer }

// hang is SIGSTOP and SIGCONT: see simKernel and gatedClock. A laptop's lid is the
// same with one clock standing still.
func (c *chaos) hang(h *host, f fault) int {
	if _, sys := h.running(); f.x > 0.8 && sys != nil {
		h.stall(f.length)
		c.tally.add("  in which no time passed for it", 1, 1)
		return 1
	}
	resume := h.pauseAs(f.x < 0.5)
	if resume == nil {
		return 0
	}
	if f.y < 0.15 {
		h.clk.stop(true)
		defer h.clk.stop(false)
		c.tally.add("  with RAW standing still", 1, 1)
	}
	c.sleep(f.length)
	held, late := resume()
	c.tally.add("  with kernel writes held", 1, min(held, 1))
	if f.x < 0.5 {
		c.tally.add("  that found its own timers late", 1, min(late, 1))
	}
	return 1
}

func (c *chaos) allKilled(f fault) int {
	var mine []*host
	for _, n := range c.nodes {
		if h := c.hosts[n.Name]; h.take() {
			mine = append(mine, h)
		}
	}
	var wg sync.WaitGroup
	for _, h := range mine {
		wg.Go(func() {
			defer h.give()
			if h.outside() {
				return
			}
			if h.up() {
				h.kill()
			}
			c.sleep(time.Duration(f.x * float64(f.length)))
			h.start()
		})
	}
	wg.Wait()
	if len(mine) == len(c.nodes) {
		return 1
	}
	return 0
}

// faults counts the faults that took hold.
func (t *tally) faults() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range kinds {
		if r := t.rows[k.name]; r != nil {
			n += r.took
		}
	}
	return n
}
