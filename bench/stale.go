package main

import (
	"fmt"
	"net/netip"
	"time"

	"hanode/internal/netlab/watch"
	"hanode/test/livelab"
)

// stale measures how a client fares whose neighbour table holds the dead owner and to
// which no ARP gets through, neither the announcements of the new owner nor answers to
// its own questions, until arpLost after the power cut: so all early announcements are
// lost, and a later one must make it good.
func stale(o options) error {
	return onCluster(o, "stale", func(c *livelab.Cluster) error {
		f := &figures{}
		for range o.runs {
			if err := c.Settled(40 * time.Second); err != nil {
				return err
			}
			if err := staleOnce(c, f); err != nil {
				return err
			}
		}
		fmt.Println("stale: power cut of the owner; the client gets no ARP for", arpLost, "after it")
		fmt.Println("  " + f.line("without an answer, ms"))
		fmt.Println("  " + f.line("of that after ARP gets through again, ms"))
		return nil
	})
}

const (
	arpLost   = 2250 * time.Millisecond // 2 s after the new owner's first announcement under fast
	pingEvery = 2 * time.Millisecond
)

func staleOnce(c *livelab.Cluster, f *figures) error {
	p, err := watch.StartPings(c.Client, netip.MustParseAddr(livelab.VIP), pingEvery)
	if err != nil {
		return err
	}
	time.Sleep(1500 * time.Millisecond) // the client knows the owner, and not since just now
	if err := c.Client.LoseARP("eth0", true); err != nil {
		return err
	}
	begin := time.Now()
	if err := c.Get("primary").PowerCut(); err != nil {
		return err
	}
	time.Sleep(time.Until(begin.Add(arpLost)))
	if err := c.Client.LoseARP("eth0", false); err != nil {
		return err
	}
	time.Sleep(6 * time.Second)
	silent := time.Duration(p.Stop().LongestRow) * pingEvery
	f.add("without an answer, ms", ms(silent))
	f.add("of that after ARP gets through again, ms", ms(silent-arpLost))
	return powerOn(c)
}
