package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hanode/api"
	"hanode/test/livelab"
)

// here runs a command on the node's host while no agent needs to run, and demands its
// exit code; < 0 = any.
func (x *world) here(node string, want int, args ...string) (string, string) {
	x.t.Helper()
	var out, errs strings.Builder
	p, err := x.Get(node).Here(&out, &errs, args...)
	x.do(err)
	err = p.Wait()
	if ok := err == nil; want >= 0 && ok != (want == 0) {
		x.t.Fatalf("hanode %s on %s: %v\n%s%s", strings.Join(args, " "), node, err, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// token makes one on a member.
func (x *world) token(on string) string {
	x.t.Helper()
	out, _ := x.hanode(on, 0, "token", "create", "--json")
	var t api.Token
	x.do(json.Unmarshal([]byte(out), &t))
	return *t.Token
}

// await waits for cond and logs how long it took since begin.
func (x *world) await(what string, begin time.Time, limit time.Duration, cond func() bool) {
	x.t.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			x.t.Fatalf("%s: not within %v", what, limit)
		}
	}
	if what != "" {
		x.t.Logf("%-40s %v", what, time.Since(begin).Round(time.Millisecond))
	}
}

// members asks a node; nil if it does not answer.
func (x *world) members(on string) map[string]api.Member {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	ms, err := x.Get(on).Members(ctx)
	if err != nil {
		return nil
	}
	out := map[string]api.Member{}
	for _, m := range ms {
		out[m.Name] = m
	}
	return out
}

// alive reports that the node asked sees exactly these alive, and all of them voting or
// not as said.
func (x *world) alive(on string, votes int, names ...string) func() bool {
	return func() bool {
		ms := x.members(on)
		if len(ms) != len(names) {
			return false
		}
		n := 0
		for _, name := range names {
			m, ok := ms[name]
			if !ok || m.State != api.MemberAlive {
				return false
			}
			if m.Voter {
				n++
			}
		}
		return n == votes
	}
}

// shows: the node's status has that problem, with that in its remedy.
func (x *world) shows(node, code, fix string) func() bool {
	return func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		st, _ := x.Get(node).Status(ctx)
		return st != nil && slices.ContainsFunc(st.Problems, func(p api.StatusProblem) bool {
			return p.Code == code && strings.Contains(p.Fix, fix)
		})
	}
}

// The life of a cluster that began with one host, each step timed: init, join, join as
// a witness, the loss of the first node, leave, remove, and the way back.
func TestInitJoinLeaveRemoveRejoin(t *testing.T) {
	x := build(t, livelab.Options{Joins: []string{"primary", "secondary", "arbiter"}})
	x.observe()
	begin := time.Now()
	out, _ := x.here("primary", 0, "init", "--json")
	var first struct{ Tokens []string }
	x.do(json.Unmarshal([]byte(out), &first))
	x.await("init", begin, time.Second, func() bool { return true })
	begin = time.Now()
	x.do(x.Get("primary").StartAgent())
	x.holds("primary")
	x.await("the first node holds its address", begin, time.Second, func() bool { return true })

	begin = time.Now()
	x.here("secondary", 0, "join", "10.0.0.1", "--token", first.Tokens[0])
	x.await("join", begin, time.Second, func() bool { return true })
	x.do(x.Get("secondary").StartAgent())
	x.await("join until alive", begin, 20*time.Second, x.alive("primary", 1, "primary", "secondary"))
	out, _ = x.here("arbiter", -1, "join", "10.0.0.1", "--token", first.Tokens[0])
	if _, errs := x.here("arbiter", 1, "join", "10.0.0.1", "--token", first.Tokens[0]); !strings.Contains(errs, "used by secondary") {
		t.Errorf("a token let two in: %s%s", out, errs)
	}
	begin = time.Now()
	x.here("arbiter", 0, "join", "10.0.0.2", "--role", "witness", "--token", first.Tokens[1])
	x.do(x.Get("arbiter").StartAgent())
	x.await("join --role witness until three vote", begin, 30*time.Second, x.alive("primary", 3, "primary", "secondary", "arbiter"))
	if st, err := os.Stat(filepath.Join(x.Get("arbiter").Dir, "key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key that was sent: %v, %v", st, err)
	}
	x.settle()

	begin = time.Now()
	x.do(x.Get("primary").PowerCut())
	x.holds("secondary")
	x.await("power cut of the owner until takeover", begin, time.Second, func() bool { return true })
	x.await("", begin, 10*time.Second, x.shows("secondary", "node-dead", "")) // the cable may go first: moved by `link`
	_, errs := x.hanode("secondary", 1, "remove", "primary")
	if !strings.Contains(errs, `--confirm "remove primary"`) {
		t.Errorf("two of three votes were accepted without a word: %s", errs)
	}
	begin = time.Now()
	x.hanode("secondary", 0, "remove", "primary", "--confirm", "remove primary")
	x.await("remove", begin, 10*time.Second, x.alive("secondary", 2, "secondary", "arbiter"))
	x.do(x.Get("primary").PowerOn())
	x.do(x.Get("primary").StartAgent())
	x.await("", begin, 20*time.Second, x.shows("primary", "removed", "--fresh"))
	x.do(x.Get("primary").Agent().Signal(os.Interrupt))
	<-x.Get("primary").Agent().Done
	begin = time.Now()
	x.here("primary", 0, "join", "10.0.0.2", "--fresh", "--token", x.token("secondary"))
	x.do(x.Get("primary").StartAgent())
	x.holds("primary")
	x.await("join --fresh until failback", begin, 30*time.Second, x.alive("secondary", 3, "primary", "secondary", "arbiter"))
	x.settle()
	begin = time.Now()
	x.hanode("primary", 0, "leave")
	x.await("leave", begin, time.Second, func() bool { return true })
	x.holds("secondary")
	x.await("two vote", begin, 10*time.Second, x.alive("secondary", 2, "secondary", "arbiter"))
}

// Two of three are lost for good; the third goes on alone on an operator's word, and one
// of the lost that comes back holds nothing.
func TestRecoverAlone(t *testing.T) {
	x := form(t, livelab.Options{})
	x.holds("primary")
	left, old := x.Get("secondary"), x.Get("primary")
	x.do(old.PowerCut())
	x.do(x.Get("arbiter").PowerCut())
	x.do(left.Agent().Signal(os.Interrupt))
	<-left.Agent().Done
	_, errs := x.here("secondary", 1, "recover", "--confirm", "yes")
	if !strings.Contains(errs, "secondary goes on without arbiter, primary") {
		t.Errorf("recover says: %s", errs)
	}
	begin := time.Now()
	x.here("secondary", 0, "recover", "--confirm", "secondary goes on without arbiter, primary")
	x.await("recover", begin, time.Second, func() bool { return true })
	x.do(left.StartAgent())
	x.holds("secondary")
	x.await("recover until it holds alone", begin, time.Second, func() bool { return true })
	x.do(old.PowerOn())
	x.do(old.StartAgent())
	x.await("", begin, 20*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		st, _ := old.Status(ctx)
		return st != nil && (problem(st, "removed") || problem(st, "old-generation"))
	})
	time.Sleep(2 * time.Second)
	x.holds("secondary")
}

func problem(st *api.Status, code string) bool {
	return slices.ContainsFunc(st.Problems, func(p api.StatusProblem) bool { return p.Code == code && strings.Contains(p.Fix, "--fresh") })
}

// kill -9 of whoever is at work, at random instants of joining, leaving and changes of
// voters: the cluster has a leader again within five seconds, and nothing needs hands.
// HANODE_INSTANTS sets how many (4 if it is not set), HANODE_SEED which.
func TestKilledAtRandomInstants(t *testing.T) {
	instants, seed := 4, uint64(1)
	if v, err := strconv.Atoi(os.Getenv("HANODE_INSTANTS")); err == nil {
		instants = v
	}
	if v, err := strconv.ParseUint(os.Getenv("HANODE_SEED"), 10, 64); err == nil {
		seed = v
	}
	x := build(t, livelab.Options{Names: []string{"primary", "secondary", "arbiter", "third"}, Joins: []string{"third"}})
	x.do(x.StartAll())
	x.await("formed", time.Now(), 30*time.Second, x.alive("primary", 3, "primary", "secondary", "arbiter"))
	x.observe()
	k := &killer{world: x, rng: rand.New(rand.NewPCG(seed, 7))}
	for i := range instants {
		k.note = fmt.Sprintf("seed %d, instant %d", seed, i)
		switch i % 4 {
		case 0:
			k.killJoin()
		case 1:
			k.killVoter("a vote more", func() { x.do(x.Get("third").StartAgent()) })
		case 2:
			k.killLeave()
		case 3:
			k.killVoter("a vote less", func() {})
		}
	}
	t.Logf("%d instants; longest without a leader %v", k.kills, k.longest.Round(time.Millisecond))
}

type killer struct {
	*world
	rng     *rand.Rand
	note    string
	kills   int
	longest time.Duration
}

func (k *killer) pause(most time.Duration) { time.Sleep(time.Duration(k.rng.Int64N(int64(most)))) }

// led waits until the founders agree on one leader.
func (k *killer) led() {
	k.t.Helper()
	begin := time.Now()
	for {
		leaders := map[string]int{}
		for _, n := range k.Nodes {
			if n.Joins() {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			if st, err := n.Status(ctx); err == nil && st.Leader != nil && st.Quorum {
				leaders[*st.Leader]++
			}
			cancel()
		}
		if len(leaders) == 1 {
			for _, n := range leaders {
				if n >= 2 {
					k.longest = max(k.longest, time.Since(begin))
					return
				}
			}
		}
		if time.Since(begin) > 5*time.Second {
			k.t.Fatalf("%s: no leader for five seconds: %v", k.note, leaders)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// killJoin kills the command that joins, then lets it join: the same token, again.
func (k *killer) killJoin() {
	k.t.Helper()
	third := k.Get("third")
	tok := k.token("secondary")
	var out, errs strings.Builder
	args := []string{"join", "10.0.0.1", "10.0.0.2", "--token", tok}
	if _, err := os.Stat(third.DataDir()); err == nil {
		args = append(args, "--fresh") // what it left behind
	}
	p, err := third.Here(&out, &errs, args...)
	k.do(err)
	k.pause(150 * time.Millisecond)
	k.do(p.Kill())
	_ = p.Wait()
	k.kills++
	k.led()
	k.here("third", 0, args...)
	if out, _ := k.here("third", 0, args[:5]...); !strings.Contains(out, "already") {
		k.t.Fatalf("%s: a member joined again: %s", k.note, out)
	}
}

// killVoter kills a founder's agent while the votes change, and starts it again.
func (k *killer) killVoter(_ string, begin func()) {
	k.t.Helper()
	begin()
	k.pause(1500 * time.Millisecond)
	n := k.Nodes[k.rng.IntN(3)]
	k.do(n.Agent().Kill())
	<-n.Agent().Done
	k.kills++
	k.led()
	k.do(n.StartAgent())
	k.await("", time.Now(), 60*time.Second, func() bool {
		if k.members(n.Node) == nil {
			return false // its agent does not answer yet
		}
		ms := k.members("arbiter")
		for _, name := range []string{"primary", "secondary", "arbiter"} {
			if ms[name].State != api.MemberAlive {
				return false
			}
		}
		return true
	})
}

// killLeave kills the agent that leaves, and starts it again: it has left all the same,
// or never began to.
func (k *killer) killLeave() {
	k.t.Helper()
	third := k.Get("third")
	k.await("", time.Now(), 60*time.Second, func() bool { return k.members("arbiter")["third"].State == api.MemberAlive })
	left := make(chan struct{})
	go func() { defer close(left); _, _, _, _ = third.Run("leave") }()
	k.pause(600 * time.Millisecond)
	k.do(third.Agent().Kill())
	<-third.Agent().Done
	<-left
	k.kills++
	k.led()
	_, leaving := k.members("arbiter")["third"]
	if _, err := os.Stat(third.DataDir()); err == nil {
		k.do(third.StartAgent())
	}
	if leaving {
		// It is alive and stays, or goes: never something in between for long.
		time.Sleep(3 * time.Second)
		if m, still := k.members("arbiter")["third"]; still && m.State == api.MemberAlive {
			k.hanode("third", 0, "leave")
		}
	}
	k.await("", time.Now(), 90*time.Second, func() bool { ms := k.members("arbiter"); _, in := ms["third"]; return ms != nil && !in })
	select {
	case <-third.Agent().Done:
	default:
		k.do(third.Agent().Kill()) // it was told that it is no member, and holds nothing
		<-third.Agent().Done
	}
}
