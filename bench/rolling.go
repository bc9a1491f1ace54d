package main

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"hanode/internal/netlab/watch"
	"hanode/test/livelab"
)

// rolling restarts all three voters in order, the owner last.
func rolling(o options) error { return roll(o, syscall.SIGTERM) }

// rolling9 is the same by kill -9.
func rolling9(o options) error { return roll(o, syscall.SIGKILL) }

// roll restarts the voters one after the other, each when the one before is back.
// A client pings the VIP all the while; what it loses while the owner is not the
// one that restarts must be nothing.
func roll(o options, how os.Signal) error {
	const pingEvery = 10 * time.Millisecond
	fmt.Printf("rolling: all three voters restarted one after the other (%v), the owner last; pings each %v, profile %s\n", how, pingEvery, o.profile)
	var mu sync.Mutex
	var others, owner watch.Pings
	overlaps, changes := 0, 0
	err := sideBySide(o, func(c *livelab.Cluster, k int) error {
		if err := c.Settled(60 * time.Second); err != nil {
			return err
		}
		vip := netip.MustParseAddr(livelab.VIP)
		w, err := watch.Start(c.Client, "eth0", vip, netip.MustParseAddr("10.77.0.250"), time.Millisecond)
		if err != nil {
			return err
		}
		defer w.Stop()
		if err := waitOther(c, w, "primary", 5*time.Second); err != nil {
			return err
		}
		w.Mark("others")
		a, err := pinged(c, vip, pingEvery, func() error { return restart(c, how, "secondary", "arbiter") })
		if err != nil {
			return err
		}
		w.Mark("owner")
		b, err := pinged(c, vip, pingEvery, func() error { return restart(c, how, "primary") })
		if err != nil {
			return err
		}
		r := w.Stop()
		mu.Lock()
		defer mu.Unlock()
		others, owner = sum(others, a), sum(owner, b)
		overlaps += len(r.Overlaps)
		changes += len(r.Phase("others").Changes)
		fmt.Printf("  run %2d: secondary and arbiter restarted: %d of %d pings lost, longest silence by ARP %.1f ms; then the owner: %d of %d lost, %d in a row\n",
			k, a.Lost, a.Sent, ms(r.Phase("others").LongestSilence), b.Lost, b.Sent, b.LongestRow)
		return nil
	})
	fmt.Printf("  while the owner was not the one: %d of %d pings lost, the VIP moved %d times; while it was: %d of %d, at most %d in a row; instants with two holders: %d\n",
		others.Lost, others.Sent, changes, owner.Lost, owner.Sent, owner.LongestRow, overlaps)
	return err
}

// pinged runs fn and says what became of the pings from a little before to a little
// after.
func pinged(c *livelab.Cluster, to netip.Addr, every time.Duration, fn func() error) (watch.Pings, error) {
	p, err := watch.StartPings(c.Client, to, every)
	if err != nil {
		return watch.Pings{}, err
	}
	time.Sleep(200 * time.Millisecond)
	err = fn()
	time.Sleep(500 * time.Millisecond)
	return p.Stop(), err
}

func restart(c *livelab.Cluster, how os.Signal, names ...string) error {
	for _, name := range names {
		n := c.Get(name)
		if err := n.Restart(how, 30*time.Second); err != nil {
			return err
		}
		if err := c.Back(n, 30*time.Second); err != nil {
			return err
		}
	}
	return nil
}

func sum(a, b watch.Pings) watch.Pings {
	return watch.Pings{Sent: a.Sent + b.Sent, Lost: a.Lost + b.Lost, LongestRow: max(a.LongestRow, b.LongestRow)}
}
