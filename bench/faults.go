package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"hanode/api"
	"hanode/internal/netlab/watch"
	"hanode/test/livelab"
)

// fault breaks something and says which phase of the watch to read.
type fault struct {
	about string
	run   func(c *livelab.Cluster, w *watch.Watcher) error
	back  func(c *livelab.Cluster) error
}

var faults = map[string]fault{
	"power":   {"power cut of the owner, leader elsewhere", powerCut, powerOn},
	"leader":  {"power cut of the owner, which is raft leader too", powerCut, powerOn},
	"move":    {"switchover by move", move, func(*livelab.Cluster) error { return nil }},
	"kill":    {"kill -9 of the owner's agent", killAgent, startAgent},
	"stop":    {"SIGSTOP of the owner's agent for 10 s", stopAgent, contAgent},
	"link":    {"eth0 of the owner cut for 5 s, eth1 lives", cutLink, healLink},
	"carrier": {"eth1 (the VIP's device) of the owner cut, eth0 lives", cutCarrier, healCarrier},
}

func measure(c *livelab.Cluster, name string, runs int) error {
	_, err := silences(c, name, runs)
	return err
}

// silences measures a fault and returns how long nobody answered, in ms, sorted.
func silences(c *livelab.Cluster, name string, runs int) ([]float64, error) {
	f := faults[name]
	var got []float64
	overlaps, lost := 0, 0
	fmt.Printf("%s: %s\n  ms:", name, f.about)
	for range runs {
		if err := c.Settled(40 * time.Second); err != nil {
			return nil, err
		}
		if err := leaderTo(c, name == "leader"); err != nil {
			return nil, err
		}
		w, err := watch.Start(c.Client, "eth0", netip.MustParseAddr(livelab.VIP), netip.MustParseAddr("10.77.0.250"), time.Millisecond)
		if err != nil {
			return nil, err
		}
		time.Sleep(200 * time.Millisecond)
		w.Mark("fault")
		err = f.run(c, w)
		time.Sleep(200 * time.Millisecond)
		w.Mark("after")
		r := w.Stop()
		if err != nil {
			return nil, err
		}
		p := r.Phase("fault")
		got = append(got, ms(p.LongestSilence))
		overlaps += len(r.Overlaps)
		lost += r.Lost
		fmt.Printf(" %.1f", ms(p.LongestSilence))
		if err := f.back(c); err != nil {
			return nil, err
		}
	}
	slices.Sort(got)
	fmt.Printf("\n  runs %d, median %.1f, max %.1f ms; instants with two holders: %d; replies the observer lost: %d\n",
		len(got), got[len(got)/2], got[len(got)-1], overlaps, lost)
	return got, nil
}

// leaderTo makes the owner raft's leader, or not. The cluster prefers a leader that
// owns nothing, so the group is moved away, the leader is hung for a moment until
// primary leads, and the group is moved back; primary then hands leadership on only
// after two seconds.
func leaderTo(c *livelab.Cluster, owner bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if !owner {
		for c.Leader(ctx) == "primary" && ctx.Err() == nil {
			time.Sleep(100 * time.Millisecond)
		}
		return ctx.Err()
	}
	cl := c.Get("primary").API()
	defer cl.Close()
	if _, err := cl.Move(ctx, api.MoveRequest{Group: "web", To: "secondary", Wait: 5 * time.Second}); err != nil {
		return err
	}
	for ctx.Err() == nil {
		l := c.Leader(ctx)
		if l == "primary" {
			_, err := cl.Move(ctx, api.MoveRequest{Group: "web", To: "primary", Wait: 5 * time.Second})
			if err != nil {
				return err
			}
			time.Sleep(200 * time.Millisecond)
			if c.Leader(ctx) != "primary" {
				return fmt.Errorf("primary did not stay leader")
			}
			return nil
		}
		if n := c.Get(l); n != nil {
			if err := n.Agent().Stop(); err != nil {
				return err
			}
			time.Sleep(180 * time.Millisecond)
			if err := n.Agent().Cont(); err != nil {
				return err
			}
		}
		time.Sleep(250 * time.Millisecond)
	}
	return fmt.Errorf("could not arrange for the leader: %w", ctx.Err())
}

func waitOther(c *livelab.Cluster, w *watch.Watcher, who string, limit time.Duration) error {
	return w.WaitHolder(c.Get(who).MAC("eth1").String(), limit)
}

func powerCut(c *livelab.Cluster, w *watch.Watcher) error {
	if err := c.Get("primary").PowerCut(); err != nil {
		return err
	}
	return waitOther(c, w, "secondary", 5*time.Second)
}

func powerOn(c *livelab.Cluster) error {
	if err := c.Get("primary").PowerOn(); err != nil {
		return err
	}
	return c.Get("primary").StartAgent()
}

func move(c *livelab.Cluster, w *watch.Watcher) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cl := c.Get("arbiter").API()
	defer cl.Close()
	if _, err := cl.Move(ctx, api.MoveRequest{Group: "web", To: "secondary", Wait: 5 * time.Second}); err != nil {
		return err
	}
	if err := waitOther(c, w, "secondary", 2*time.Second); err != nil {
		return err
	}
	time.Sleep(200 * time.Millisecond)
	w.Mark("back")
	_, err := cl.Move(ctx, api.MoveRequest{Group: "web", To: "primary", Wait: 5 * time.Second})
	return err
}

func killAgent(c *livelab.Cluster, w *watch.Watcher) error {
	if err := c.Get("primary").Agent().Kill(); err != nil {
		return err
	}
	if err := waitOther(c, w, "secondary", 5*time.Second); err != nil {
		return err
	}
	time.Sleep(2 * time.Second)
	return nil
}

func startAgent(c *livelab.Cluster) error { return c.Get("primary").StartAgent() }

func stopAgent(c *livelab.Cluster, w *watch.Watcher) error {
	if err := c.Get("primary").Agent().Stop(); err != nil {
		return err
	}
	if err := waitOther(c, w, "secondary", 5*time.Second); err != nil {
		return err
	}
	time.Sleep(10 * time.Second)
	return nil
}

func contAgent(c *livelab.Cluster) error { return c.Get("primary").Agent().Cont() }

func cutLink(c *livelab.Cluster, w *watch.Watcher) error {
	if err := c.Get("primary").CutLink("eth0"); err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	if got := c.Holder(w.Now()); got != "primary" {
		return fmt.Errorf("the VIP moved to %q", got)
	}
	return nil
}

func healLink(c *livelab.Cluster) error { return c.Get("primary").HealLink("eth0") }

func cutCarrier(c *livelab.Cluster, w *watch.Watcher) error {
	if err := c.Get("primary").CutLink("eth1"); err != nil {
		return err
	}
	return waitOther(c, w, "secondary", 10*time.Second)
}

// healCarrier waits until the plug is trusted again; each loss doubles that, so the
// agent begins anew with a clean sheet.
func healCarrier(c *livelab.Cluster) error {
	if err := c.Get("primary").HealLink("eth1"); err != nil {
		return err
	}
	return c.Get("primary").Restart(syscall.SIGTERM, 10*time.Second)
}
