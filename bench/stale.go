package main

import (
	"errors"
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
	arpLost  = 2250 * time.Millisecond // 2 s after the new owner's first announcement under fast
	staleAsk = 2 * time.Millisecond
)

// staleOnce goes by when questions were asked: their number says less on a machine that
// leaves some out.
func staleOnce(c *livelab.Cluster, f *figures) error {
	for _, n := range c.Nodes {
		s, err := watch.StartAnswers(n.Host)
		if err != nil {
			return err
		}
		defer s.Close()
	}
	p, err := watch.StartClient(c.Client, netip.MustParseAddr(livelab.VIP), staleAsk)
	if err != nil {
		return err
	}
	time.Sleep(1500 * time.Millisecond) // the client knows the owner, and not since just now
	err = c.Client.LoseARP("eth0", true)
	begin := time.Now()
	if err == nil {
		err = c.Get("primary").PowerCut()
	}
	time.Sleep(time.Until(begin.Add(arpLost)))
	if err == nil {
		err = c.Client.LoseARP("eth0", false)
	}
	through := time.Now()
	time.Sleep(6 * time.Second)
	seen := p.Stop()
	switch {
	case err != nil:
		return err
	case seen.Until.IsZero():
		return errors.New("the client was never without an answer, or never had one again")
	case seen.Until.Before(begin.Add(arpLost)):
		return fmt.Errorf("the client had an answer %v before ARP got through: what lost it did not lose all", begin.Add(arpLost).Sub(seen.Until))
	}
	fmt.Printf("  %.1f ms without an answer, %.1f ms of it after ARP got through again\n", ms(seen.Silence), ms(seen.Until.Sub(through)))
	f.add("without an answer, ms", ms(seen.Silence))
	f.add("of that after ARP gets through again, ms", ms(seen.Until.Sub(through)))
	return powerOn(c)
}
