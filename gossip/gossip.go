// Package gossip says who is there and how to reach them: memberlist over a
// Transport of our own on the configured links, and, off the same UDP socket and
// before memberlist sees them, the sealed keepalives ("the lane").
//
// The lane exists because memberlist's own user messages share a lock and one
// handler with everything else it does: a beat must not wait for a state sync.
// What a keepalive means is package lease's business; this package authenticates,
// moves and counts bytes, and knows which link last carried whom.
package gossip

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"hanode/internal/clock"
	"hanode/internal/grid"
	"hanode/internal/logbridge"
	"hanode/internal/netio"
	"hanode/internal/trust"
)

// Config is what Start needs. All fields but Peers, Discover, Look, Grid and Asked are
// required.
type Config struct {
	Name    string
	Cluster string
	Network netio.Network
	Port    int // gossip, UDP and TCP
	Keys    *trust.Ring
	Clock   clock.Clock
	// LinkDead is how long a link may be silent before it counts as down; a few
	// keepalives.
	LinkDead time.Duration
	// Look is how often links are looked at, on the Grid; 0 = LinkDead/4, nil = a grid
	// of its own.
	Look time.Duration
	Grid *grid.Grid
	// Seeds are addresses on the first link, by name: the founders. The zero Addr is one
	// that is not known.
	Seeds map[string]netip.Addr
	// Discover are the links on which nodes that are known and not heard are asked for by
	// broadcast; nil = none. Questions are answered on all.
	Discover []string
	// Peers are link addresses learned earlier, by name, one per link; Save is told
	// when they change.
	Peers map[string][]netip.Addr
	Save  func(map[string][]netip.Addr)
	// Generation is which one of the cluster this node is in, and Superseded is told when
	// a node says that it is in a later one. nil = there is but one.
	Generation func() uint64
	Superseded func(by string, generation uint64)
	// Speaks is the newest version that this node speaks; others read it with Speaks.
	Speaks int
	// Handle gets each authenticated lane message on its socket's goroutine: be
	// quick, never block.
	Handle func(Packet)
	// Asked is told, on a socket's goroutine, that a node had to make sure that this one
	// runs, and was answered: what was said to it before is lost. nil = never mind.
	Asked func()
	Log   *slog.Logger

	noRejoin bool // for tests that show what the rejoin is for
}

// Packet is one authenticated lane message.
type Packet struct {
	From    string
	Link    int     // index in the node file; -1 = from this node itself
	Payload []byte  // valid only during the call of Handle
	Answer  *Sender // of the goroutine that calls Handle, for use during the call
}

// Gossip is the running membership. Safe for concurrent use.
type Gossip struct {
	cfg   Config
	dir   *directory
	trans *transport
	ml    *memberlist.Memberlist

	speaks sync.Map // name -> int
	stop   chan struct{}
	wg     sync.WaitGroup

	mu      sync.Mutex
	refused map[string]bool // members that memberlist does not see, and whose port took no connection; guarded by mu
}

// rejoinEvery is how often members that gossip does not see are dialled anew:
// memberlist never redials after a long partition (hashicorp/memberlist #222).
const rejoinEvery = 3 * time.Second

// dialTimeout bounds one such dial, and memberlist's own.
const dialTimeout = 4 * time.Second

// meta is what every node says about itself through memberlist.
type meta struct {
	V          int          `json:"v"`
	Addrs      []netip.Addr `json:"a"` // one per link, in order
	Generation uint64       `json:"g,omitempty"`
	Speaks     int          `json:"s,omitempty"`
}

// Start opens the sockets and joins.
func Start(cfg Config) (*Gossip, error) {
	if cfg.Grid == nil {
		cfg.Grid = grid.New()
	}
	cfg.Look = max(cmp.Or(cfg.Look, cfg.LinkDead/4), 5*time.Millisecond)
	g := &Gossip{cfg: cfg, stop: make(chan struct{})}
	g.dir = newDirectory(cfg)
	t, err := newTransport(cfg, g.dir)
	if err != nil {
		return nil, err
	}
	g.trans = t
	ring := cfg.Keys.Keys().Gossip()
	keyring, err := memberlist.NewKeyring(ring, ring[0])
	if err != nil {
		t.close()
		return nil, fmt.Errorf("gossip keyring: %w", err)
	}
	mc := memberlist.DefaultLANConfig()
	mc.Name = cfg.Name
	mc.Label = labelOf(cfg.Cluster)
	mc.Transport = t
	mc.BindPort, mc.AdvertisePort = cfg.Port, cfg.Port
	mc.Keyring = keyring
	mc.EnableCompression = false
	mc.TCPTimeout = dialTimeout
	// A node that comes back with another first address is the same node: its name
	// is what counts, and the key says who may use it.
	mc.DeadNodeReclaimTime = time.Second
	mc.Delegate = delegate{g}
	mc.Events = events{g}
	mc.Logger = logbridge.Std(cfg.Log, "memberlist")
	mc.LogOutput = nil
	ml, err := memberlist.Create(mc)
	if err != nil {
		t.close()
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g.ml = ml
	cfg.Keys.Watch(func(k *trust.Keys) {
		if err := rekey(keyring, k.Gossip()); err != nil {
			cfg.Log.Error("gossip does not take the keys", "err", err)
		}
	})
	t.start()
	g.wg.Go(g.rejoin)
	return g, nil
}

// rekey makes memberlist's ring hold these keys, the first of which seals.
func rekey(r *memberlist.Keyring, keys [][]byte) error {
	for _, k := range keys {
		if err := r.AddKey(k); err != nil {
			return err
		}
	}
	if err := r.UseKey(keys[0]); err != nil {
		return err
	}
	for _, k := range r.GetKeys() {
		if slices.ContainsFunc(keys, func(o []byte) bool { return bytes.Equal(o, k) }) {
			continue
		}
		if err := r.RemoveKey(k); err != nil {
			return err
		}
	}
	return nil
}

// Stop leaves gossip: others see an orderly leave for at most timeout, then the
// sockets close. No handler runs after it returns.
func (g *Gossip) Stop(timeout time.Duration) error {
	close(g.stop)
	g.trans.hangUp() // a dial to a dead node would hold us for seconds
	g.wg.Wait()
	var err error
	if timeout > 0 {
		err = g.ml.Leave(timeout)
	}
	err = errors.Join(err, g.ml.Shutdown())
	g.trans.close()
	return err
}

// Send seals payload once and sends it to each node over every link. To this
// node itself it goes through a queue, so that Handle never runs inside Send.
func (g *Gossip) Send(payload []byte, to ...string) { g.trans.newSender().Send(payload, to...) }

// Sender is Send for one goroutine that sends often: it keeps its buffers.
func (g *Gossip) Sender() *Sender { return g.trans.newSender() }

// rejoin dials members that memberlist does not see, for ever, and tells those it
// sees when an address of ours changed.
func (g *Gossip) rejoin() {
	tick := time.NewTicker(rejoinEvery)
	defer tick.Stop()
	own := g.cfg.Network.Links()
	g.joinMissing()
	for {
		select {
		case <-g.stop:
			return
		case <-g.trans.asks.found:
			g.joinMissing()
		case <-tick.C:
			if !g.cfg.noRejoin {
				g.joinMissing()
			}
			if now := g.cfg.Network.Links(); !slices.Equal(own, now) && g.ml.UpdateNode(2*time.Second) == nil {
				own = now // a link got another address: everybody was told
			}
		}
	}
}

func (g *Gossip) joinMissing() {
	refused := map[string]bool{}
	seen := map[string]bool{}
	for _, m := range g.ml.Members() {
		seen[m.Name] = true
	}
	var dials sync.WaitGroup // one dead member must not keep us from the others
	for _, name := range g.dir.names() {
		if seen[name] || name == g.cfg.Name {
			continue
		}
		dials.Go(func() {
			if err := g.join(name); err != nil {
				g.cfg.Log.Debug("gossip cannot reach a member yet", "node", name, "err", err)
				g.mu.Lock()
				refused[name] = true
				g.mu.Unlock()
			}
		})
	}
	dials.Wait()
	g.mu.Lock()
	g.refused = refused
	g.mu.Unlock()
}

// join exchanges what is known of all members with a node, by TCP. A node of which no
// address is known: success.
func (g *Gossip) join(name string) error {
	addrs := g.dir.get(name).to()
	i := slices.IndexFunc(addrs, netip.Addr.IsValid)
	if i < 0 {
		return nil
	}
	// The name decides: the transport tries every link, whatever the address says.
	_, err := g.ml.Join([]string{name + "/" + netip.AddrPortFrom(addrs[i], uint16(g.cfg.Port)).String()})
	return err
}

// Refused reports that gossip cannot dial the node's port by TCP: one that it does not see
// when it last tried, another one now, for up to dialTimeout.
func (g *Gossip) Refused(name string) bool {
	if slices.ContainsFunc(g.ml.Members(), func(m *memberlist.Node) bool { return m.Name == name }) {
		return g.join(name) != nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused[name]
}

// Seen lists the nodes that gossip holds for alive, this one included.
func (g *Gossip) Seen() map[string]bool {
	out := map[string]bool{}
	for _, m := range g.ml.Members() {
		out[m.Name] = true
	}
	return out
}

// Speaks is the newest version that a node spoke when it was last seen; 0 = it was not.
func (g *Gossip) Speaks(name string) int {
	if v, ok := g.speaks.Load(name); ok {
		return v.(int)
	}
	return 0
}

type delegate struct{ g *Gossip }

func (d delegate) NodeMeta(limit int) []byte {
	m := meta{V: 1, Speaks: d.g.cfg.Speaks}
	if f := d.g.cfg.Generation; f != nil {
		m.Generation = f()
	}
	for _, l := range d.g.cfg.Network.Links() {
		m.Addrs = append(m.Addrs, l.Addr)
	}
	b, err := json.Marshal(m)
	if err != nil || len(b) > limit {
		return nil
	}
	return b
}
func (delegate) NotifyMsg([]byte)                {}
func (delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (delegate) LocalState(bool) []byte          { return nil }
func (delegate) MergeRemoteState([]byte, bool)   {}

type events struct{ g *Gossip }

func (e events) NotifyJoin(n *memberlist.Node)   { e.learn(n) }
func (e events) NotifyUpdate(n *memberlist.Node) { e.learn(n) }
func (events) NotifyLeave(*memberlist.Node)      {}

func (e events) learn(n *memberlist.Node) {
	if n.Name == e.g.cfg.Name {
		return
	}
	var m meta
	if len(n.Meta) == 0 || json.Unmarshal(n.Meta, &m) != nil || m.V != 1 {
		return
	}
	if f := e.g.cfg.Generation; f != nil && m.Generation > f() {
		e.g.cfg.Superseded(n.Name, m.Generation)
	}
	e.g.speaks.Store(n.Name, max(m.Speaks, 1))
	e.g.dir.learn(n.Name, m.Addrs)
}
