package failover

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
)

// Who votes. Few enough that a commit is quick, many enough that losing one costs
// nothing, spread over zones; and never changed so that a majority of those who are well
// could be lost by it: a vote is taken only from a list that is larger than it need be,
// from the dead, or while everybody is well.

// VoterInputs is all that the choice depends on. State is read only.
type VoterInputs struct {
	State  *fsm.State
	Health map[string]Health
	// Silent is for how long the leader has not heard a node, at most as long as it leads.
	Silent map[string]time.Duration
	// Current nodes have all of the log on their disks, but for what was added just now.
	Current map[string]bool
	Leader  string
	// Servers is how many nodes have the log, if there are more; 0 = MostServers. No more
	// than that vote.
	Servers int
}

const (
	fewVoters  = 3
	manyVoters = 5
	// settle is how long a node must have been healthy before it is given a vote, or
	// somebody else's is taken; at least two deadtimes.
	settle = 2 * time.Second
	// replaceAfter is how long a voter is dead before another gets its vote; at least ten
	// deadtimes. A host that is booted is back by then, mostly.
	replaceAfter = 30 * time.Second
)

func (in VoterInputs) settle() time.Duration { return max(settle, 2*in.State.Timing.Deadtime) }
func (in VoterInputs) replaceAfter() time.Duration {
	return max(replaceAfter, 10*in.State.Timing.Deadtime)
}

// wantedVoters is how many of n nodes should vote: 3, 5 from five nodes up, and one
// while there are too few for a majority that survives anything.
func wantedVoters(n int) int {
	switch {
	case n >= manyVoters:
		return manyVoters
	case n >= fewVoters:
		return fewVoters
	}
	return 1
}

// wanted is how many should vote: an odd number.
func (in VoterInputs) wanted() int {
	most := in.most()
	return min(wantedVoters(len(in.eligible())), most-1+most%2)
}

func (in VoterInputs) most() int { return cmp.Or(in.Servers, MostServers) }

// eligible nodes may have a vote: members that came up once and are to stay.
func (in VoterInputs) eligible() (out []string) {
	for _, name := range in.State.NodeNames() {
		if n := in.State.Nodes[name]; n.Inc > 0 && !n.Leaving {
			out = append(out, name)
		}
	}
	return out
}

// whyNot says why a node cannot be given a vote now, or "".
func (in VoterInputs) whyNot(name string) string {
	n, h := in.State.Nodes[name], in.Health[name]
	switch {
	case n == nil || n.Leaving:
		return "it is leaving"
	case n.Inc == 0:
		return "it has not come up yet"
	case !h.Alive || h.Dead:
		return "it is not heard"
	case n.Stopped:
		return "it is being stopped"
	case !h.Leased:
		return "it has no lease"
	case h.Hung:
		return "its disk does not answer"
	case !in.Current[name] || h.Behind:
		return "its log has not caught up"
	case h.Healthy < in.settle():
		return fmt.Sprintf("it is well for %v only; a vote takes %v", Seconds(h.Healthy), Seconds(in.settle()))
	}
	return ""
}

// gone voters are dead for so long that somebody else should have their vote.
func (in VoterInputs) gone(name string) bool {
	h := in.Health[name]
	return (h.Dead || !h.Alive) && in.Silent[name] >= in.replaceAfter()
}

// zones counts the votes of each zone that was named.
func (in VoterInputs) zones(voters []string) map[string]int {
	out := map[string]int{}
	for _, v := range voters {
		if n := in.State.Nodes[v]; n != nil && n.Zone != "" {
			out[n.Zone]++
		}
	}
	return out
}

// best is who should have the next vote beside voters; "" = nobody can.
func (in VoterInputs) best(voters []string) string {
	zones := in.zones(voters)
	var fit []string
	for _, name := range in.eligible() {
		if !slices.Contains(voters, name) && in.whyNot(name) == "" {
			fit = append(fit, name)
		}
	}
	if len(fit) == 0 {
		return ""
	}
	return slices.MinFunc(fit, func(a, b string) int {
		x, y := in.State.Nodes[a], in.State.Nodes[b]
		return cmp.Or(
			cmp.Compare(zones[x.Zone], zones[y.Zone]),
			cmp.Compare(rank(x), rank(y)),
			cmp.Compare(a, b),
		)
	})
}

// rank: a witness is there to vote.
func rank(n *fsm.Node) int {
	if n.Role == spec.RoleWitness {
		return 0
	}
	return 1
}

// spare is whose vote can best be done without: of a zone that has most, a node rather
// than a witness, and never the leader's.
func (in VoterInputs) spare(voters []string) string {
	zones := in.zones(voters)
	var can []string
	for _, v := range voters {
		if v != in.Leader {
			can = append(can, v)
		}
	}
	if len(can) == 0 {
		return ""
	}
	return slices.MaxFunc(can, func(a, b string) int {
		x, y := in.State.Nodes[a], in.State.Nodes[b]
		return cmp.Or(
			cmp.Compare(zones[x.Zone], zones[y.Zone]),
			cmp.Compare(rank(x), rank(y)),
			cmp.Compare(a, b),
		)
	})
}

// MostServers is how many nodes have the log: those that vote and two more, so that the
// place of a voter that is lost is taken at once by one that has it. The rest follow a
// voter's stream.
const MostServers = 7

// follows is the version of the cluster from which on a node knows how to follow a voter.
// Until all know that, all have the log.
const follows = 2

// NextServers says which node is to be given the log next, and which of servers is not to
// have it any more; "" = none.
func NextServers(in VoterInputs, servers []string) (add, drop string) {
	most := in.most()
	has := func(name string) bool { return slices.Contains(servers, name) }
	members := in.State.NodeNames()
	staying := slices.DeleteFunc(slices.Clone(members), func(name string) bool { return in.State.Nodes[name].Leaving })
	for _, v := range in.State.Voters.Names {
		if !has(v) && slices.Contains(staying, v) {
			return v, ""
		}
	}
	if len(members) <= most || in.State.Speaks() < follows {
		for _, name := range staying {
			if !has(name) {
				return name, ""
			}
		}
		return "", ""
	}
	all := in
	all.Current = map[string]bool{}
	for _, name := range members {
		all.Current[name] = true
	}
	fit := all.best(servers)
	if len(servers) < most {
		return fit, ""
	}
	var spare []string
	for _, name := range servers {
		if !in.State.Voters.Has(name) {
			spare = append(spare, name)
		}
	}
	slices.Sort(spare)
	for _, name := range spare {
		if in.gone(name) && fit != "" {
			return "", name
		}
	}
	if len(servers) > most && len(spare) > 0 {
		return "", spare[len(spare)-1]
	}
	return "", ""
}

// NextVoters is the next list of lease voters, which differs from the one of the state
// by one name; nil = it is as it should be, or nothing can be done now. why is for
// people.
func NextVoters(in VoterInputs) (next []string, why string) {
	have := in.State.Voters.Names
	if in.State.Manual {
		return nil, "" // its two nodes vote, or the one that is left does
	}
	for _, v := range have {
		if n := in.State.Nodes[v]; n == nil || n.Leaving || n.Removed {
			return nil, "" // the end of a membership comes first
		}
	}
	want := in.wanted()
	add := func(because string) ([]string, string) {
		name := in.best(have)
		if name == "" {
			return nil, ""
		}
		return append(slices.Clone(have), name), name + " gets a vote: " + because
	}
	drop := func(name, because string) ([]string, string) {
		return without(have, name), name + " loses its vote: " + because
	}
	well := true
	for _, v := range have {
		well = well && in.whyNot(v) == ""
	}
	for _, v := range have {
		if !in.gone(v) {
			continue
		}
		if len(have) > want && len(have) > 1 {
			return drop(v, fmt.Sprintf("it is dead for %v, and another has one", Seconds(in.Silent[v])))
		}
		if next, why := add(fmt.Sprintf("%s is dead for %v", v, Seconds(in.Silent[v]))); next != nil {
			return next, why
		}
	}
	switch {
	case len(have) < want:
		// Two voters are worse than one, so the second gets its vote when the third can.
		if len(have) == 1 && in.best(append(slices.Clone(have), in.best(have))) == "" {
			return nil, ""
		}
		return add(fmt.Sprintf("%d of %d nodes vote", len(have), want))
	case len(have) > want && len(have) > fewVoters && well:
		if v := in.spare(have); v != "" {
			return drop(v, fmt.Sprintf("%d votes are enough", want))
		}
	case len(have) == want && well:
		name := in.best(have)
		if n := in.State.Nodes[name]; n != nil && n.Zone != "" && in.zones(have)[n.Zone] == 0 && in.crowded(have) {
			return add("no voter is in zone " + n.Zone)
		}
	}
	return nil, ""
}

// crowded: a zone has more votes than one.
func (in VoterInputs) crowded(voters []string) bool {
	for _, n := range in.zones(voters) {
		if n > 1 {
			return true
		}
	}
	return false
}

func without(names []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
}

// WhyVoter says for each member why it is a voter, or is none.
func WhyVoter(in VoterInputs) map[string]string {
	out := map[string]string{}
	have := in.State.Voters.Names
	want := in.wanted()
	for _, name := range in.State.NodeNames() {
		n := in.State.Nodes[name]
		not := in.whyNot(name)
		switch {
		case slices.Contains(have, name):
			out[name] = in.whyVotes(name, want)
		case not != "":
			out[name] = "no vote: " + not
		case len(have) >= want:
			out[name] = fmt.Sprintf("no vote: %d of %d nodes vote, which is enough; it gets the vote of one that stays dead for %v", len(have), len(in.State.NodeNames()), Seconds(in.replaceAfter()))
		case want == 1 || len(have) == 1:
			out[name] = "no vote: with two votes the loss of either would stop the cluster; the second comes with the third"
		default:
			out[name] = "it gets a vote next"
		}
		if n.Zone != "" {
			out[name] += "; zone " + n.Zone
		}
	}
	return out
}

func (in VoterInputs) whyVotes(name string, want int) string {
	have := in.State.Voters.Names
	switch {
	case in.State.Nodes[name].Leaving:
		return "it votes until it has left"
	case !in.Health[name].Alive && len(have) > want:
		return fmt.Sprintf("it votes, and is dead: its vote is taken after %v", Seconds(in.replaceAfter()))
	case !in.Health[name].Alive && in.best(have) != "":
		return fmt.Sprintf("it votes, and is dead: after %v %s gets a vote in its place", Seconds(in.replaceAfter()), in.best(have))
	case !in.Health[name].Alive:
		return "it votes, and is dead: no other node can take its vote"
	case len(have) == 1:
		return "the only vote: a second and a third come when there are three nodes"
	}
	return fmt.Sprintf("one of %d votes", len(have))
}
