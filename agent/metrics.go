package agent

import (
	"context"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hanode/api"
	"hanode/failover"
	"hanode/fsm"
)

// serveHTTP answers the read-only API and /metrics on the node file's http
// address. It changes nothing and asks nobody who he is, so it listens on loopback
// unless told otherwise.
func (a *Agent) serveHTTP(undo *stopper) error {
	if a.cfg.HTTP == "" {
		return nil
	}
	l, err := (&net.ListenConfig{}).Listen(a.ctx, "tcp", a.cfg.HTTP)
	if err != nil {
		return err
	}
	undo.add("http", l.Close)
	a.goLoop(func(ctx context.Context) { a.serve(api.Serve(ctx, l, api.ReadOnly(a), a.log)) })
	return nil
}

// Metrics makes the agent an api.Measured.
func (a *Agent) Metrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(figures{a})
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// figures reads everything at the time of asking; nothing is counted twice.
type figures struct{ a *Agent }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("hanode_"+name, help, labels, nil)
}

var (
	descVersion  = desc("version", "Version of what nodes say to each other: what the cluster speaks, and the newest that this node could.", "of")
	descLeader   = desc("leader", "1 if this node is raft's leader.")
	descLease    = desc("lease_seconds", "Lease left on this node; 0 or less: it may hold nothing.")
	descBeat     = desc("beat_age_seconds", "Time since the newest beat of a node, as heard here.", "node")
	descGap      = desc("beat_gap_seconds", "Times between two beats of a node, as heard here.", "node")
	descLate     = desc("beat_late_seconds", "How much too late this node's own beats went out.")
	descRealtime = desc("realtime", "1 if this agent runs before ordinary programs.")
	descStalls   = desc("stalls_total", "How often this agent did not run for half of warntime or longer.")
	descStalled  = desc("stalled_seconds_total", "For how long in all.")
	descLongest  = desc("stall_longest_seconds", "The longest of these stalls.")
	descNews     = desc("news_age_seconds", "How long ago this node last had word of what is decided, from raft or from the voter that it follows.")
	descFollows  = desc("followers", "Nodes that have no log and follow this voter.")
	descWholes   = desc("follow_states_total", "How often this node was sent all of the state, and not only what was new.")
	descGroup    = desc("group_epoch", "Epoch of the group; the label says who owns it.", "group", "owner")
	descFailures = desc("group_failures", "How often in a row the group failed on the node; 0 after a clear.", "group", "node")
	descAvoided  = desc("group_avoided_seconds", "For how much longer the group is not given to the node because it failed there, as this node counts.", "group", "node")
	descRunning  = desc("group_running", "1 if the group runs on this node.", "group")
	descProblems = desc("problems", "Problems of this node by code.", "code")
	descPackets  = desc("datagrams_total", "Datagrams on the gossip port by what became of them.", "result")
	descRefused  = desc("connections_refused_total", "Connections on the TLS port that were refused, by cause; join: requests of hosts that were not let in.", "cause")
	descUpkeep   = desc("address_writes_total", "Addresses written to the kernel: refreshed in time, restored when the lease or the device came back, taken off by another program and put back.", "why")
	descAnnounce = desc("vip_announcements_total", "Announcements of an address by what became of them: sent, muted (no lease ran), refused.", "address", "result")
	descTaken    = desc("vip_taken_total", "Times another program took an address off, and it was put back.", "address")
	descAnswer   = desc("vip_answerers", "Hosts that answer for an address, as seen from here: 1 is right; the holder counts itself.", "address")
	descDrops    = desc("guard_drops_total", "Packets that the guard denied closed addresses.", "kind", "direction")
)

// Describe implements prometheus.Collector.
func (f figures) Describe(c chan<- *prometheus.Desc) { prometheus.DescribeByCollect(f, c) }

// Collect implements prometheus.Collector.
func (f figures) Collect(c chan<- prometheus.Metric) {
	a := f.a
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descVersion, float64(a.speaks()), "cluster")
	gauge(descVersion, float64(a.machine.Newest()), "node")
	leads := 0.0
	if n := a.node.Load(); n != nil && n.IsLeader() {
		leads = 1
	}
	gauge(descLeader, leads)
	now := a.host.Clock.Now()
	if l := a.lease.Load(); l != nil {
		gauge(descLease, now.Remaining(l.End()).Seconds())
	}
	for name, h := range a.ears.all() {
		gauge(descBeat, now.Elapsed(h.at).Seconds(), name)
		c <- histogram(descGap, h.gaps, name)
	}
	a.pulse.mu.Lock()
	late, stall := a.pulse.late, a.pulse.stall
	a.pulse.mu.Unlock()
	c <- histogram(descLate, late)
	ahead := 0.0
	if s := a.realtime.Load(); s != nil && s.On {
		ahead = 1
	}
	gauge(descRealtime, ahead)
	count(descStalls, stall.count)
	c <- prometheus.MustNewConstMetric(descStalled, prometheus.CounterValue, stall.total.Seconds())
	gauge(descLongest, stall.longest.Seconds())
	a.machine.View(func(s *fsm.State) {
		for _, name := range s.GroupNames() {
			gauge(descGroup, float64(s.Groups[name].Epoch), name, s.Groups[name].Owner.Name)
		}
	})
	f.failures(gauge)
	f.news(gauge, count)
	for _, name := range a.groups.names() {
		v := 0.0
		if w := a.groups.get(name); w != nil && w.isStarted() {
			v = 1
		}
		gauge(descRunning, v, name)
	}
	byCode := map[string]float64{}
	for _, p := range a.local() {
		byCode[p.Code]++
	}
	for code, n := range byCode {
		gauge(descProblems, n, code)
	}
	k := a.gossip.Counters()
	count(descPackets, k.Sent.Load(), "sent")
	count(descPackets, k.Received.Load(), "received")
	count(descPackets, k.SendErrors.Load(), "send-error")
	count(descPackets, k.OtherKey.Load(), "other-key")
	count(descPackets, k.OtherCluster.Load(), "other-cluster")
	count(descPackets, k.Malformed.Load(), "malformed")
	count(descPackets, k.Dropped.Load(), "dropped")
	count(descPackets, k.Replayed.Load(), "replayed")
	count(descPackets, k.Unproven.Load(), "unproven")
	count(descPackets, k.Lying.Load()+a.lies.Load(), "lying")
	count(descPackets, k.Limited.Load(), "limited")
	count(descPackets, a.posts.dropped.Load(), "too-many")
	for cause, r := range a.mux.Refused() {
		count(descRefused, r.Count, cause)
	}
	if d := a.door.Load(); d != nil {
		count(descRefused, d.Refused(), "join")
	}
	u := a.kernel.Upkeep()
	count(descUpkeep, u.Refreshed, "refreshed")
	count(descUpkeep, u.Restored, "restored")
	count(descUpkeep, u.Removed, "taken")
	for addr, t := range a.kernel.Tallies() {
		count(descAnnounce, t.Announced, addr.String(), "sent")
		count(descAnnounce, t.Muted, addr.String(), "muted")
		count(descAnnounce, t.Unsent, addr.String(), "refused")
		count(descTaken, t.Taken, addr.String())
	}
	sights, _ := a.kernel.Sightings()
	for _, s := range sights {
		n := len(s.MACs)
		if s.Held {
			n++
		}
		gauge(descAnswer, float64(n), s.Addr.String())
	}
	if d, err := a.kernel.Drops(); err == nil {
		count(descDrops, d.ARPIn, "arp", "in")
		count(descDrops, d.ARPOut, "arp", "out")
		count(descDrops, d.NDIn, "nd", "in")
		count(descDrops, d.NDOut, "nd", "out")
		count(descDrops, d.IPIn, "ip", "in")
		count(descDrops, d.IPOut, "ip", "out")
	}
}

func (f figures) news(gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64, ...string)) {
	gauge(descNews, f.a.behind().Seconds())
	gauge(descFollows, float64(f.a.followed.count()))
	count(descWholes, f.a.following.wholes.Load())
}

func (f figures) failures(gauge func(*prometheus.Desc, float64, ...string)) {
	in := f.a.inputs()
	for _, name := range in.State.GroupNames() {
		for node, x := range in.State.Groups[name].Failed {
			gauge(descFailures, float64(x.Count), name, node)
			gauge(descAvoided, in.Avoid[failover.Place{Group: name, Node: node}].Seconds(), name, node)
		}
	}
}

func histogram(d *prometheus.Desc, g gaps, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstHistogram(d, g.count(), g.sum.Seconds(), g.cumulative(), labels...)
}
