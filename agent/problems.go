package agent

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"hanode/api"
	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/trust"
	"hanode/peer"
	"hanode/vip"
)

// problems are what could not be returned as an error and must be shown: `hanode
// status` lists them with their remedy.
type problems struct {
	mu sync.Mutex
	m  map[string]problem
}

type problem struct {
	text  string
	since time.Time
}

// catalogue says for each code how bad it is and what to do. docs/problems.md is
// made of it; a test fails if a code is used that is not here.
var catalogue = map[string]struct{ severity, fix string }{
	"guard-renewal":        {"error", "the kernel refused the lease; restart the agent and look at its log"},
	"guard":                {"error", "look at the text: an address could not be prepared on this host"},
	"guard-weak":           {"warning", "run the agent with CAP_BPF and CAP_NET_ADMIN on Linux 5.8 or later for the eBPF guard"},
	"guard-none":           {"error", "give the agent CAP_NET_ADMIN and a kernel with eBPF or nftables netdev; until then this node's groups move only after `hanode confirm-off`"},
	vip.ProblemDetached:    {"warning", "something removed or preceded the guard and it was put back; find out what manages tc or tcx on this host"},
	vip.ProblemAttach:      {"error", "a device cannot be guarded; do not put addresses on it"},
	vip.ProblemTaken:       {"warning", "tell the program that manages the device to leave addresses alone that it did not put on; the text names it where it is known"},
	vip.ProblemSysctl:      {"warning", "set arp_ignore=1 and arp_announce=2 on the device by hand"},
	"bad-address":          {"error", "correct the address in the cluster file and apply it again"},
	"founders-differ":      {"error", "make cluster, node blocks, timing and port equal in the node files of all founders"},
	"haresources-differ":   {"error", "choose one of them: copy that haresources over the others (scp HOST:/etc/ha.d/haresources /etc/ha.d/); the agents see it by themselves, and nothing starts until they agree"},
	"haresources-file":     {"error", "correct the file as the text says; until then this host goes by what it read before"},
	"haresources-changed":  {"warning", "to have the cluster run what the file says: `hanode apply --ha-dir DIR`; or make the file as it was"},
	"not-joined":           {"error", "where the text says that this node is no member: stop the agent, make a token on a member (`hanode token create`) and run `hanode join ADDRESS --token T`; for the third vote of two nodes found the cluster anew with it (docs/two-nodes.md, \"A third vote\"); else it joins by itself once the text's reason is gone"},
	"not-registered":       {"warning", "the node holds nothing until a leader registers it; see `hanode members` for the voters that are missing"},
	"follows-nobody":       {"warning", "repair the network to the voters (TCP of the port after the cluster's), or start them; meanwhile the node keeps its lease and what it runs, and does not hear of new groups"},
	"old-generation":       {"error", "the cluster was recovered without this node: make a token on a member (`hanode token create`), stop this agent, and run `hanode join ADDRESS --token T --fresh`; if it was this side that should go on, stop the other one and read docs/joining.md"},
	"removed":              {"error", "make a token on a member (`hanode token create`), stop this agent, and run `hanode join ADDRESS --token T --fresh`; or leave the host out"},
	"key-old":              {"error", "copy the key file of a member over this node's (mode 600); the agent takes it by itself. If it was this node that should go on with its key, see docs/keys.md"},
	"key-file":             {"error", "correct the key file; until then the agent goes on with the keys it has"},
	"key-stays":            {"warning", "make the key file writable, or take the old line out of it by hand"},
	"key-rotation":         {"info", "wait; it ends by itself, or is undone. `hanode key status` shows what it waits for, `hanode key rotate --undo` ends it"},
	"port-blocked":         {"error", "let the port through in the firewalls of both hosts (`nft list ruleset`, or firewall-cmd, ufw); a cluster takes UDP and TCP of its port, and TCP of the next one"},
	"groups-file":          {"error", "correct the file and run `hanode apply FILE`"},
	"stop-failed":          {"error", "stop the service by hand and find out why its stop command fails"},
	"realtime-refused":     {"warning", "do what the text says, or remove realtime = true from the node file"},
	"stalled":              {"warning", "this host did not run the agent in time; look for CPU, memory or disk pressure, or use a slower timing profile"},
	"timing-tight":         {"warning", "see `hanode tune` on that node for a timing that fits; look for the load or the link that delays beats; virtual machines need the profile vm"},
	"disk-hung":            {"error", "find out why the disk does not answer (dmesg, the storage behind it); the node keeps what it holds, does not lead and is given nothing new"},
	"disk-full":            {"error", "make room on the file system of data_dir, or make it writable again; the agent goes on by itself"},
	"disk-low":             {"warning", "make room on the file system of data_dir before it is full"},
	"disk-old":             {"error", "nothing to do if a majority of the other voters is up: the node joins anew by itself; else start them"},
	"disk-failed":          {"error", "the disk of data_dir returns errors; replace it, or move data_dir aside and start the agent again with a new one"},
	"no-quorum":            {"error", "start the missing voters, or repair the network to them"},
	"node-dead":            {"error", "start the node, or repair its network"},
	"node-late":            {"warning", "look at the node's load and links"},
	"link-down":            {"warning", "look at the cable, the switch and the device; the cluster goes on over the other link"},
	"vip-link-down":        {"warning", "look at the cable, the switch port and the device; the node's groups were moved if another node can take them, and fail back when the device has carried for a while"},
	"vip-conflict":         {"error", "find the host with that MAC address (the switch's table, `ip neigh`), and take the address off it"},
	"vip-unanswered":       {"warning", "look at the switch, VLAN and firewall between the two; where the network delivers by its own tables (clouds, port security) it must be told: see docs/networks.md"},
	"group-unreachable":    {"error", "repair the device of the owner, or what keeps the other nodes from taking the group: `hanode why GROUP`"},
	"group-failed":         {"error", "repair what the text says, then `hanode clear GROUP NODE`"},
	"group-calm":           {"warning", "it goes on by itself; to have it tried somewhere at once, `hanode move` it, or `hanode clear` it after a repair"},
	"hook-failed":          {"warning", "correct the command of the group, or what it needs; nothing waits for it"},
	"warm-failed":          {"error", "repair what the text says on that node; it is tried again every ten seconds"},
	"foreign-service":      {"warning", "stop it there and keep it from starting at boot or by hand, or have it taken over: `hanode apply --adopt FILE`; until then the group does not start on that node"},
	"group-blocked":        {"error", "an earlier owner may still run it; make sure that its host is off, or was since, then `hanode confirm-off NODE`"},
	"group-unowned":        {"error", "no node may own it now; `hanode why GROUP` says why for each"},
	"group-muted":          {"error", "its owner has no lease, so its addresses answer nobody; see members for the missing voters"},
	"node-unfit":           {"warning", "install what the text names on that node, or correct the cluster file; until then the group cannot go there"},
	"starts-at-boot":       {"warning", "disable the unit on that host, as the text says: the cluster starts it"},
	"node-old":             {"info", "install on that node the hanode that the others have; until then nothing is used that it does not understand"},
	"maintenance":          {"info", "`hanode maintenance off` when the work is done"},
	"two-node-manual":      {"info", "for full automation add a third vote: a witness on any small machine, a node block with its address and role = \"witness\", or in ha.cf `witness NAME ADDRESS` (docs/two-nodes.md says how)"},
	"two-node-alone":       {"error", "start the other node; if its host is off, `hanode confirm-off NODE`"},
	"two-node-waits":       {"error", "start the other node, or repair the network to it; if its host is off, `hanode confirm-off NODE`"},
	"ping-lost":            {"warning", "look at that host, and at the network between; with ipfail a node that reaches more gets the groups"},
	"watchdog":             {"warning", "correct `watchdog`, or load its driver (softdog is one of software); without it a host whose agent hangs is silent, and its services are not ended"},
	"respawn":              {"warning", "look at the program's own log; it may exit with 100 to be left alone"},
	"two-voters":           {"warning", "with two voters the loss of either stops failover; add a witness"},
	"even-voters":          {"info", "an even number of voters tolerates no more losses than one less; add a witness"},
	"stranger-key":         {"warning", "a host sends with another key; give it this cluster's key file, or another port"},
	"stranger-cluster":     {"info", "another cluster uses the same port on this network; give one of them another port"},
	"stranger-certificate": {"warning", "a host connects with a certificate of another key, cluster or name; compare its key file and node file with this one's"},
	"overlap":              {"info", "a service of the group may run twice for a moment where its old owner hangs, out of clients' reach; set exclusive = true if it must not"},
}

func (p *problems) set(code, text string) {
	if text == "" {
		p.clear(code)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m == nil {
		p.m = map[string]problem{}
	}
	since := time.Now()
	if old, ok := p.m[code]; ok {
		since = old.since
	}
	p.m[code] = problem{text, since}
}

func (p *problems) clear(code string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.m, code)
}

func show(code, text string, since *time.Time) api.StatusProblem {
	c := catalogue[code]
	return api.StatusProblem{Code: code, Severity: c.severity, Text: text, Fix: c.fix, Since: since}
}

// local lists this node's own problems.
func (a *Agent) local() []api.StatusProblem {
	var out []api.StatusProblem
	a.problems.mu.Lock()
	for _, code := range slices.Sorted(maps.Keys(a.problems.m)) {
		p := a.problems.m[code]
		since := p.since
		out = append(out, show(code, a.cfg.Name+": "+p.text, &since))
	}
	a.problems.mu.Unlock()
	out = append(out, a.changedResources()...)
	out = append(out, a.stallProblem()...)
	out = append(out, a.tightProblem()...)
	switch a.kernel.Tier() {
	case vip.TierNftables:
		out = append(out, show("guard-weak", fmt.Sprintf("%s: the guard is the nftables tier, which reads the wall clock (%s)", a.cfg.Name, a.kernel.Why()), nil))
	case vip.TierNone:
		out = append(out, show("guard-none", fmt.Sprintf("%s: no guard could be loaded (%s)", a.cfg.Name, a.kernel.Why()), nil))
	case vip.TierAuto, vip.TierEBPF:
	}
	for _, s := range a.gossip.Strangers() {
		code := map[string]string{"other-key": "stranger-key", "other-cluster": "stranger-cluster"}[s.Cause]
		if code != "" && time.Since(s.Last) < stallShown {
			last := s.Last
			out = append(out, show(code, fmt.Sprintf("%s: %d datagrams from %s refused: %s", a.cfg.Name, s.Count, s.Addr, s.Cause), &last))
		}
	}
	refused := a.mux.Refused()
	for _, cause := range slices.Sorted(maps.Keys(refused)) {
		if r := refused[cause]; time.Since(r.Last) < stallShown && cause != trust.CauseHandshake && cause != trust.CauseLimited {
			last := r.Last
			out = append(out, show("stranger-certificate", fmt.Sprintf("%s: %d connections refused, the last from %v: %s", a.cfg.Name, r.Count, r.Addr, cause), &last))
		}
	}
	return out
}

// clusterProblems lists what replicated state and the beats show.
func (a *Agent) clusterProblems(in failover.Inputs, members []api.Member) []api.StatusProblem {
	s := in.State
	out := a.unevenResources(s)
	if s.Maintenance {
		out = append(out, show("maintenance", "maintenance is on: nothing starts, stops or moves by itself", nil))
	}
	switch n := len(s.Voters.Names); {
	case n == 2 && !s.Manual:
		out = append(out, show("two-voters", "only two voters are left", nil))
	case n > 0 && n%2 == 0 && !s.Manual: // of those two-node-manual speaks
		out = append(out, show("even-voters", fmt.Sprintf("the cluster has %d voters", n), nil))
	}
	for _, m := range members {
		switch m.State {
		case api.MemberDead:
			out = append(out, show("node-dead", m.Name+" is dead: no beat for deadtime", nil))
		case api.MemberLate:
			out = append(out, show("node-late", m.Name+" is late: no beat for warntime", nil))
		case api.MemberAlive:
			for _, l := range m.Links {
				if l.State == api.MemberDead && len(m.Links) > 1 {
					out = append(out, show("link-down", fmt.Sprintf("%s is not heard on %s", m.Name, l.Name), nil))
				}
			}
		case api.MemberJoining, api.MemberLeft:
		}
	}
	out = append(out, rotationProblem(s)...)
	out = append(out, a.versionProblems(s)...)
	out = append(out, a.twoNodeProblems(s)...)
	out = append(out, a.pingProblems(s)...)
	out = append(out, a.linkProblems(s)...)
	out = append(out, a.claimProblems(s)...)
	for _, name := range s.GroupNames() {
		g := s.Groups[name]
		since := g.Since
		out = append(out, failures(in, g)...)
		if g.Owner.Zero() {
			out = append(out, show("group-unowned", name+" has no owner", &since))
		}
		out = append(out, blocked(g)...)
		if e, ok := stuckOn(s, g); ok {
			at := e.Time
			p := show("group-blocked", e.Text+"; it could not be killed either, so it starts nowhere else", &at)
			p.Fix = fmt.Sprintf("stop it by hand on %s, which then lets go by itself; or switch that host off (an exclusive group then wants `hanode confirm-off %s`)", e.Node, e.Node)
			out = append(out, p)
		}
	}
	return append(out, a.unfit(s)...)
}

// unfit lists what nodes lack, and what they say of what they have.
func (a *Agent) unfit(s *fsm.State) []api.StatusProblem {
	var out []api.StatusProblem
	a.fit.each(s, func(node, group string, f peer.Finding) {
		switch f.Kind {
		case peer.Lacks, peer.Nowhere:
			out = append(out, show("node-unfit", fmt.Sprintf("%s cannot run %s: %s", node, group, f.Text), nil))
		case peer.Foreign:
			out = append(out, show(f.Code, fmt.Sprintf("%s: the cluster did not start %s of %s, and it is there", node, f.Text, group), nil))
		case peer.Note:
			out = append(out, show(f.Code, fmt.Sprintf("%s: %s", node, f.Text), nil))
		case peer.Unsure:
		}
	})
	return out
}

// failures says on which nodes the group failed and is not tried for now, or where it
// failed last if it runs nowhere.
func failures(in failover.Inputs, g *fsm.Group) []api.StatusProblem {
	var out []api.StatusProblem
	name := g.Spec.Name
	for _, node := range g.FailedOn() {
		left := in.Avoid[failover.Place{Group: name, Node: node}]
		if left == 0 && g.Started || g.Owner.Name == node && g.Started {
			continue // it runs, there or elsewhere, and may go there again: history
		}
		f := g.Failed[node]
		text := fmt.Sprintf("%s failed on %s: %s", name, node, f.Why)
		if f.Count > 1 {
			text = fmt.Sprintf("%s failed on %s, %d times in a row: %s", name, node, f.Count, f.Why)
		}
		if left > 0 {
			text += fmt.Sprintf("; it is tried there again in %v", failover.Seconds(left))
		}
		p := show("group-failed", text, nil)
		p.Fix = fmt.Sprintf("repair what the text says, then `hanode clear %s %s`", name, node)
		out = append(out, p)
	}
	if left := failover.Calming(in, g); left > 0 {
		out = append(out, show("group-calm", fmt.Sprintf("%s failed on %s, where it had moved a moment ago; it moves on in %v",
			name, g.Owner.Name, failover.Seconds(left)), nil))
	}
	return out
}

// blocked says, for each host that may still run the group and that no passing of
// time will end, what its operator can do.
func blocked(g *fsm.Group) []api.StatusProblem {
	var out []api.StatusProblem
	said := map[string]bool{}
	for _, w := range g.Stuck() {
		if said[w.Node.Name] {
			continue
		}
		said[w.Node.Name] = true
		why := g.Spec.WhyExclusive()
		if why == "" {
			why = "no guard was loaded there"
		}
		since := g.Since
		p := show("group-blocked", fmt.Sprintf("%s waits for %s, which may still run it: %s, so an expired lease is not enough", g.Spec.Name, w.Node, why), &since)
		p.Fix = fmt.Sprintf("make sure that the host %s is off, or was since; then `hanode confirm-off %s`", w.Node.Name, w.Node.Name)
		out = append(out, p)
	}
	return out
}

// age renders the time between two readings for people and JSON.
func age(now, then clock.Instant) *float64 {
	v := float64(now.Elapsed(then).Microseconds()) / 1000
	return &v
}
