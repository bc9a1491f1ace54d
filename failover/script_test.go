package failover

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hanode/fsm"
	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/internal/linkstate"
	"hanode/internal/spec"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

var wall = time.Date(2024, 5, 1, 3, 0, 0, 0, time.UTC)

// world is a state with what a leader knows beside it.
type world struct {
	m      *fsm.Machine
	index  uint64
	health map[string]Health
	tokens map[id.Claim]bool
	formed bool
	wall   time.Time
	sight  Sight
	clock  clock.Instant // of the leader
}

func newWorld() *world {
	return &world{m: fsm.NewMachine(), health: map[string]Health{}, tokens: map[id.Claim]bool{}, formed: true, wall: wall}
}

func (w *world) inputs() Inputs {
	in := Inputs{Wall: w.wall, State: w.m.Copy(), Health: w.health, Tokens: w.tokens, Formed: w.formed}
	in.Avoid, in.Held = w.sight.Look(in.State, w.clock)
	return in
}

func (w *world) apply(c fsm.Command) fsm.Result {
	data, err := fsm.Encode(c)
	if err != nil {
		return fsm.Result{Rejected: err.Error()}
	}
	w.index++
	return w.m.Apply(w.index, data)
}

// found makes a cluster; a name w... is a witness, and all vote.
func (w *world) found(names ...string) {
	f := &fsm.Found{Cluster: "web", Digest: "d", Timing: spec.Profiles["lan"], Voters: names}
	for i, n := range names {
		role := spec.RoleNode
		if strings.HasPrefix(n, "w") {
			role = spec.RoleWitness
		}
		f.Nodes = append(f.Nodes, spec.Node{Name: n, Address: fmt.Sprintf("10.0.0.%d", i+1), Role: role})
	}
	w.apply(fsm.Command{At: w.wall, Found: f})
}

// register makes the next incarnation of a node, heard and leased.
func (w *world) register(name, host string) fsm.Result {
	var inc uint64
	w.m.View(func(s *fsm.State) {
		if n := s.Nodes[name]; n != nil {
			inc = n.Inc
		}
	})
	res := w.apply(fsm.Command{At: w.wall, Register: &fsm.Register{
		Node: name, From: inc, Nonce: fmt.Sprint(name, inc+1), HostID: host, Bound: time.Second, Version: "1",
	}})
	w.health[name] = Health{Inc: res.Inc, Alive: true, Leased: true, Healthy: time.Hour}
	return res
}

// claims: "web@3 a/1".
func parseClaim(at, by string) id.Claim {
	group, e, _ := strings.Cut(at, "@")
	name, k, _ := strings.Cut(by, "/")
	epoch, _ := strconv.ParseUint(e, 10, 64)
	inc, _ := strconv.ParseUint(k, 10, 64)
	return id.Claim{Group: group, Epoch: id.Epoch(epoch), Node: id.NodeRef{Name: name, Inc: inc}}
}

// parseGroup: "web 10.0.0.100 prefer=a,b failback=on exclusive".
func parseGroup(line string) (spec.Group, error) {
	var g spec.Group
	for i, f := range strings.Fields(line) {
		key, val, _ := strings.Cut(f, "=")
		switch {
		case i == 0:
			g.Name = f
		case key == "prefer":
			g.Prefer = strings.Split(val, ",")
		case key == "with":
			g.With = val
		case key == "apart":
			g.Apart = val
		case key == "after":
			g.After = val
		case key == "max":
			g.MaxPerNode, _ = strconv.Atoi(val)
		case key == "weight":
			g.Weight, _ = strconv.Atoi(val)
		case key == "retry_after":
			d, err := time.ParseDuration(val)
			if err != nil {
				return g, err
			}
			g.RetryAfter = d
		case key == "failback" && val == "on":
			g.Failback.On = true
		case key == "failback" && val != "off":
			d, err := time.ParseDuration(val)
			if err != nil {
				return g, err
			}
			g.Failback = spec.Failback{On: true, After: d}
		case strings.HasPrefix(f, "heartbeat:"):
			g.Resources = append(g.Resources, spec.Resource{Type: "heartbeat", Name: strings.TrimPrefix(f, "heartbeat:")})
		case f == "exclusive":
			g.Exclusive = true
		case f == "service":
			g.Resources = append(g.Resources, spec.Resource{Type: "exec", Name: g.Name})
		case key != "failback":
			g.Resources = append(g.Resources, spec.Resource{Type: "ip", Name: f, Dev: "eth0"})
		}
	}
	return g, nil
}

// run carries out one block of a script and returns what it prints.
func (w *world) run(lines []string) string {
	var out strings.Builder
	words := strings.Fields(lines[0])
	args := words[1:]
	verdict := func(r fsm.Result) {
		if r.Rejected != "" {
			fmt.Fprintf(&out, "rejected: %s\n", r.Rejected)
		}
	}
	on := func() bool { return len(args) > 1 && args[1] == "on" }
	switch words[0] {
	case "found":
		w.found(args...)
	case "up":
		for _, n := range args {
			verdict(w.register(n, "host-"+n))
		}
	case "register":
		verdict(w.register(args[0], args[1]))
	case "health":
		h := Health{Inc: w.health[args[0]].Inc}
		for _, a := range args[1:] {
			key, val, _ := strings.Cut(a, "=")
			switch key {
			case "alive":
				h.Alive = true
			case "leased":
				h.Leased = true
			case "hung":
				h.Hung = true
			case "behind":
				h.Behind = true
			case "dead":
				h.Dead, h.Why = true, val
			case "inc":
				h.Inc, _ = strconv.ParseUint(val, 10, 64)
			case "healthy":
				h.Healthy, _ = time.ParseDuration(val)
			}
		}
		w.health[args[0]] = h
	case "link": // link a eth0 down no carrier | settling | up 5m
		h := w.health[args[0]]
		l := linkstate.Link{Dev: args[1], State: linkstate.State(args[2])}
		switch l.State {
		case linkstate.Down:
			l.Why = strings.Join(args[3:], " ")
		case linkstate.Up:
			l.For, _ = time.ParseDuration(args[3])
		case linkstate.Settling:
		}
		h.Links = []linkstate.Link{l}
		w.health[args[0]] = h
	case "unreachable":
		in := w.inputs()
		fmt.Fprintf(&out, "%q\n", Unreachable(in, in.State.Groups[args[0]]))
	case "later":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			return err.Error() + "\n"
		}
		w.clock = w.clock.Add(d)
	case "new-leader":
		w.sight = Sight{}
	case "clear":
		c := &fsm.Clear{}
		for i, to := range []*string{&c.Group, &c.Node} {
			if i < len(args) {
				*to = args[i]
			}
		}
		verdict(w.apply(fsm.Command{At: w.wall, Clear: c}))
	case "formed":
		w.formed = args[0] == "on"
	case "token":
		w.tokens[parseClaim(args[0], args[1])] = true
	case "standby":
		verdict(w.apply(fsm.Command{At: w.wall, Standby: &fsm.Standby{Node: args[0], On: on()}}))
	case "maintenance":
		verdict(w.apply(fsm.Command{At: w.wall, Maintenance: &fsm.Maintenance{On: args[0] == "on"}}))
	case "pin":
		verdict(w.apply(fsm.Command{At: w.wall, Pin: &fsm.Pin{Group: args[0], On: on()}}))
	case "stop":
		verdict(w.apply(fsm.Command{At: w.wall, Stopping: &fsm.Stopping{Node: parseClaim("", args[0]).Node}}))
	case "leave":
		verdict(w.apply(fsm.Command{At: w.wall, Leave: &fsm.Leave{Node: args[0]}}))
	case "off":
		verdict(w.apply(fsm.Command{At: w.wall, PowerOff: &fsm.PowerOff{Node: parseClaim("", args[0]).Node, By: "an operator"}}))
	case "failed":
		c := parseClaim(args[0], args[1])
		why := strings.Join(args[2:], " ")
		ran, err := time.ParseDuration(args[2]) // how long it had run, if that is said
		if err == nil {
			why = strings.Join(args[3:], " ")
		}
		verdict(w.apply(fsm.Command{At: w.wall, Failed: &fsm.Failed{Group: c.Group, Node: c.Node, Epoch: c.Epoch, Why: why, Ran: ran}}))
	case "move":
		c := parseClaim(args[0], args[1])
		verdict(w.apply(fsm.Command{At: w.wall, Takeover: &fsm.Takeover{
			Cause: "switchover", Assigns: []fsm.Assign{{Group: c.Group, Epoch: c.Epoch, To: c.Node, Pin: true}},
		}}))
	case "runs":
		c := parseClaim(args[0], args[1])
		verdict(w.apply(fsm.Command{At: w.wall, Holding: &fsm.Holding{Group: c.Group, Node: c.Node, Epoch: c.Epoch, Started: true}}))
	case "groups", "compare":
		set := &fsm.SetGroups{}
		for _, l := range lines[1:] {
			g, err := parseGroup(l)
			if err != nil {
				return err.Error() + "\n"
			}
			set.Groups = append(set.Groups, g)
		}
		if words[0] == "compare" {
			w.compare(&out, set)
			break
		}
		verdict(w.apply(fsm.Command{At: w.wall, SetGroups: set}))
	case "plan":
		out.WriteString(showPlan(Plan(w.inputs())))
	case "commit":
		w.commit(&out)
	case "why":
		e, err := Explain(w.inputs(), args[0])
		if err != nil {
			return err.Error() + "\n"
		}
		for _, c := range e.Candidates {
			fmt.Fprintf(&out, "%s eligible=%v score=%d: %s\n", c.Node, c.Eligible, c.Score, c.Because)
		}
		fmt.Fprintf(&out, "if its owner dies: %s\n", e.IfOwnerDies)
	case "state":
		out.WriteString(showState(w.m.Copy()))
	default:
		return fmt.Sprintf("unknown command %q\n", words[0])
	}
	return out.String()
}

// commit applies the plan, and shows what becomes of it.
func (w *world) commit(out *strings.Builder) {
	plan := Plan(w.inputs())
	out.WriteString(showPlan(plan))
	for _, c := range plan {
		if r := w.apply(c); r.Rejected != "" {
			fmt.Fprintf(out, "rejected: %s\n", r.Rejected)
		}
	}
	out.WriteString(showState(w.m.Copy()))
	if again := Plan(w.inputs()); len(again) > 0 {
		fmt.Fprintf(out, "AND AGAIN:\n%s", showPlan(again))
	}
}

func (w *world) compare(out *strings.Builder, set *fsm.SetGroups) {
	in := w.inputs()
	before := in.State
	in.State = fsm.Preview(before, fsm.Command{SetGroups: set})
	moves := map[string]string{}
	for _, c := range Plan(in) {
		if c.Takeover == nil {
			continue
		}
		for _, a := range c.Takeover.Assigns {
			moves[a.Group] = a.To.Name
		}
	}
	for _, c := range Compare(before, in.State, moves) {
		fmt.Fprintf(out, "%s stops=%v moves=%v: %s\n", c.Action, c.Stops, c.Moves, c.Text)
	}
}

func showPlan(cs []fsm.Command) string {
	if len(cs) == 0 {
		return "nothing to do\n"
	}
	var b strings.Builder
	for _, c := range cs {
		switch {
		case c.Released != nil:
			fmt.Fprintf(&b, "released %v\n", c.Released.Claims)
		case c.Takeover != nil:
			fmt.Fprintf(&b, "takeover for %s", c.Takeover.Cause)
			if !c.Takeover.Fence.Zero() {
				fmt.Fprintf(&b, ", fence %v: %s", c.Takeover.Fence, c.Takeover.WhyFence)
			}
			b.WriteByte('\n')
			for _, a := range c.Takeover.Assigns {
				fmt.Fprintf(&b, "  %s@%d to %v (%s)", a.Group, a.Epoch, a.To, a.Why)
				if len(a.Released) > 0 {
					fmt.Fprintf(&b, " released %v", a.Released)
				}
				b.WriteByte('\n')
			}
		default:
			fmt.Fprintf(&b, "unexpected %+v\n", c)
		}
	}
	return b.String()
}

func showState(s *fsm.State) string {
	var b strings.Builder
	flags := func(m map[string]bool) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if m[k] {
				b.WriteString(" " + k)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Groups)) {
		g := s.Groups[name]
		fmt.Fprintf(&b, "%s@%d %v", name, g.Epoch, g.Owner)
		flags(map[string]bool{"deleted": g.Deleted, "pinned": g.Pinned, "released": g.OwnerReleased, "started": g.Started})
		fmt.Fprintf(&b, " cause=%s", g.Cause)
		for _, w := range g.Waits {
			fmt.Fprintf(&b, " waits=(%v live=%v", w.Claim, w.Live)
			if w.Off {
				b.WriteString(" off")
			}
			b.WriteByte(')')
		}
		for _, n := range slices.Sorted(maps.Keys(g.Failed)) {
			if f := g.Failed[n]; f.Count > 0 {
				fmt.Fprintf(&b, " failed=(%s %d: %s)", n, f.Count, f.Why)
			}
		}
		b.WriteByte('\n')
	}
	for _, name := range slices.Sorted(maps.Keys(s.Nodes)) {
		n := s.Nodes[name]
		fmt.Fprintf(&b, "%v %s", n.Ref(), n.Role)
		flags(map[string]bool{"fenced": n.Fenced, "standby": n.Standby, "stopped": n.Stopped, "leaving": n.Leaving, "removed": n.Removed})
		b.WriteByte('\n')
	}
	return b.String()
}

// TestScenarios runs testdata/*.txt: blocks of a command, ----, what it prints.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			w := newWorld()
			for _, block := range strings.Split(strings.TrimRight(string(b), "\n"), "\n\n") {
				in, _, _ := strings.Cut(block, "\n----")
				var lines []string
				for _, l := range strings.Split(in, "\n") {
					if l == "" {
						continue
					}
					if got.WriteString(l + "\n"); !strings.HasPrefix(l, "#") {
						lines = append(lines, l)
					}
				}
				if len(lines) > 0 {
					got.WriteString("----\n" + w.run(lines))
				}
				got.WriteByte('\n')
			}
			text := strings.TrimRight(got.String(), "\n") + "\n"
			if strings.Contains(text, "unknown command") || strings.Contains(text, "AND AGAIN") {
				t.Errorf("a plan is not a fixed point, or the script has an unknown command:\n%s", text)
			}
			if *update {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if text != string(b) {
				t.Errorf("%s differs; got:\n%s", path, text)
			}
		})
	}
}
