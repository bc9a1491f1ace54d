package main

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"hanode/internal/netlab/watch"
	"hanode/test/livelab"
)

const hangTime = 20 * time.Second

// sigstop20 hangs the owner's agent for 20 s: when does the old host stop
// answering, when does the new one answer, and did both.
func sigstop20(o options) error {
	fmt.Printf("sigstop20: SIGSTOP of the owner's agent for %v, profile %s; asked by ARP and by UDP each ms\n", hangTime, o.profile)
	var f figures
	var overlaps, lost, none atomic.Int64
	err := sideBySide(o, func(c *livelab.Cluster, k int) error {
		if err := c.Settled(60 * time.Second); err != nil {
			return err
		}
		r, at, err := hang(c)
		if err != nil {
			return err
		}
		lost.Add(int64(r.Lost))
		both := len(r.Phase("hang").Overlaps) + len(r.Phase("back").Overlaps)
		overlaps.Add(int64(both))
		moved := r.Phase("hang").Changes
		if len(moved) != 1 {
			none.Add(1)
			fmt.Printf("  run %2d: %d changes of the answerer during the hang, want 1; instants with two: %d\n", k, len(moved), both)
			return nil
		}
		begins := moved[0].At.Sub(at)
		ends := begins - moved[0].Silent
		f.add("old host stops answering, ms", ms(ends))
		f.add("new host answers, ms", ms(begins))
		f.add("silence, ms", ms(moved[0].Silent))
		fmt.Printf("  run %2d: the old host stops after %.1f ms, the new one answers after %.1f ms, silence %.1f ms, instants with two: %d\n",
			k, ms(ends), ms(begins), ms(moved[0].Silent), both)
		return nil
	})
	for _, name := range []string{"old host stops answering, ms", "new host answers, ms", "silence, ms"} {
		fmt.Println(" ", f.line(name))
	}
	fmt.Printf("  runs without exactly one takeover: %d; instants with two holders: %d; replies the observer lost: %d\n",
		none.Load(), overlaps.Load(), lost.Load())
	return err
}

// hang stops the owner's agent and lets it go on; the report has the phases hang and
// back. at is when it was stopped.
func hang(c *livelab.Cluster) (r watch.Report, at time.Time, err error) {
	stop, err := serveAll(c)
	defer stop()
	if err != nil {
		return r, at, err
	}
	w, err := watch.StartConfig(c.Client, watch.Config{
		Dev: "eth0", VIP: netip.MustParseAddr(livelab.VIP), Observer: netip.MustParseAddr("10.77.0.250"), Port: watch.Port,
	})
	if err != nil {
		return r, at, err
	}
	defer func() { r = w.Stop() }()
	if err := waitOther(c, w, "primary", 5*time.Second); err != nil {
		return r, at, err
	}
	time.Sleep(200 * time.Millisecond)
	agent := c.Get("primary").Agent()
	w.Mark("hang")
	at = time.Now()
	if err := agent.Stop(); err != nil {
		return r, at, err
	}
	time.Sleep(hangTime)
	still := agent.Stopped()
	w.Mark("back")
	if err := agent.Cont(); err != nil {
		return r, at, err
	}
	if !still {
		return r, at, errors.New("the agent was not stopped for the whole time")
	}
	time.Sleep(2 * time.Second) // it must not answer now; failback follows
	return r, at, nil
}

// serveAll starts the echo service on every node.
func serveAll(c *livelab.Cluster) (stop func(), err error) {
	var all []*watch.Echo
	stop = func() {
		for _, e := range all {
			e.Close()
		}
	}
	for _, n := range c.Nodes {
		e, err := watch.StartEcho(n.Host)
		if err != nil {
			return stop, err
		}
		all = append(all, e)
	}
	return stop, nil
}
