package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hanode/api"
	"hanode/test/livelab"
)

// manyNodes compares a cluster of o.nodes agents with one of three, on one machine in one
// run: until it is formed, what the leader and a node without a vote cost while nothing
// happens, and the silence when the owner loses its power.
func manyNodes(o options) error {
	var median []float64
	for _, n := range []int{3, o.nodes} {
		m, err := nodesOf(o, n)
		if err != nil {
			return fmt.Errorf("%d nodes: %w", n, err)
		}
		median = append(median, m)
	}
	fmt.Printf("many-nodes: the outage of %d nodes is %.2f times that of 3\n", o.nodes, median[1]/median[0])
	return nil
}

// nodesOf measures one cluster and returns the median outage, in ms.
func nodesOf(o options, n int) (float64, error) {
	names := []string{"primary", "secondary", "arbiter"}
	for i := len(names); i < n; i++ {
		names = append(names, fmt.Sprintf("node%02d", i+1))
	}
	lab := livelab.Options{
		Dir: filepath.Join(o.dir, fmt.Sprintf("nodes%d", n)), Binary: o.binary, Profile: o.profile, Names: names, Level: "info",
		Joins: names[min(n, founders):], Groups: strings.Replace(livelab.Groups, `["primary"]`, `["primary", "secondary"]`, 1),
	}
	if err := os.MkdirAll(lab.Dir, 0o755); err != nil {
		return 0, err
	}
	fmt.Printf("many-nodes: %d agents, profile %s\n", n, o.profile)
	c, err := livelab.New(lab)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err := c.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "close:", err)
		}
	}()
	begin := time.Now()
	if err := c.StartAll(); err != nil {
		return 0, err
	}
	for _, name := range lab.Joins {
		if err := join(c, c.Get(name)); err != nil {
			c.Logs(os.Stderr, 5)
			return 0, err
		}
	}
	started := time.Since(begin)
	if err := c.Settled(3 * time.Minute); err != nil {
		c.Logs(os.Stderr, 5)
		return 0, err
	}
	fmt.Printf("  founders started, the others joined one after the other, in %.0f ms; all formed in after %.0f ms\n", ms(started), ms(time.Since(begin)))
	if err := leaderAndPlain(c, o.longOr(20*time.Second)); err != nil {
		return 0, err
	}
	got, err := silences(c, "power", o.runs)
	if err != nil {
		return 0, err
	}
	return got[len(got)/2], nil
}

// founders is how many nodes a cluster can be founded with.
const founders = 7

// join lets a node in through the first one and starts its agent.
func join(c *livelab.Cluster, n *livelab.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cl := c.Nodes[0].API()
	defer cl.Close()
	var token *api.Token
	var err error
	for ctx.Err() == nil { // nobody leads at first
		if token, err = cl.CreateToken(ctx, time.Hour); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	var out, errs strings.Builder
	p, err := n.Here(&out, &errs, "join", "10.0.0.1", "--token", *token.Token)
	if err != nil {
		return err
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("join of %s: %w\n%s%s", n.Node, err, out.String(), errs.String())
	}
	return n.StartAgent()
}

// leaderAndPlain prints what the leader, the owner and the last of the nodes cost.
func leaderAndPlain(c *livelab.Cluster, d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := leaderTo(c, false); err != nil {
		return err
	}
	leader := c.Leader(ctx)
	voters := 0
	ms, err := c.Get(leader).Members(ctx)
	if err != nil {
		return err
	}
	plain := ""
	for _, m := range ms {
		if m.Voter {
			voters++
		} else {
			plain = m.Name
		}
	}
	fmt.Printf("  %d of %d nodes vote; over %v:\n", voters, len(ms), d)
	role := map[string]string{plain: "plain node", "primary": "owner", leader: "leader"}
	var nodes []*livelab.Node
	for name := range role {
		if n := c.Get(name); n != nil {
			nodes = append(nodes, n)
		}
	}
	return expenses(nodes, func(n *livelab.Node) string { return role[n.Node] }, d)
}
