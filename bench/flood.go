package main

import (
	"fmt"
	"time"

	"hanode/test/livelab"
)

// floodRate is how many bad datagrams come each second.
const floodRate = 50_000

// flood measures what a flood of datagrams that strangers can send costs a cluster.
func flood(o options) error {
	if o.profile == "fast" {
		o.profile = "lan"
	}
	return onClusterWith(o, livelab.Options{Level: "info"}, "flood", func(c *livelab.Cluster) error {
		if err := c.Settled(40 * time.Second); err != nil {
			return err
		}
		f, err := c.Flood(livelab.Flood{PerSecond: floodRate, For: o.longOr(30 * time.Second)})
		if err != nil {
			return err
		}
		fmt.Printf("flood, profile %s: %d datagrams in %v (%.0f a second), %d different ones recorded\n", o.profile, f.Sent, f.Took.Round(time.Millisecond), float64(f.Sent)/f.Took.Seconds(), f.Recorded)
		fmt.Printf("  changes of owner %d; a voter had not heard another for at most %v; lines logged by all %d\n", f.Moves, f.Silent.Round(time.Millisecond), f.Lines)
		fmt.Printf("  datagrams by what became of them: %v\n", f.Refused)
		if f.Moves > 0 {
			return fmt.Errorf("%d changes of owner", f.Moves)
		}
		return nil
	})
}
