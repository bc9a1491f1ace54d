package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"hanode/api"
	"hanode/internal/netlab"
	"hanode/internal/netlab/watch"
	"hanode/test/livelab"
)

// stranger measures what a third host does that adds the VIP by hand: how soon status
// names it, and for how long at most an ordinary client hears nothing from the holder.
// The quiet one only answers; the loud one also sends from the address, so that every
// neighbour learns its MAC address until the holder has said otherwise.
func stranger(o options) error {
	return onCluster(o, "stranger", func(c *livelab.Cluster) error {
		h, err := c.Lab.AddClient("stranger", 201)
		if err != nil {
			return err
		}
		err = h.Do(func() error { // a ping that it gets is lost: the client wants the true holder
			return os.WriteFile("/proc/sys/net/ipv4/icmp_echo_ignore_all", []byte("1"), 0o600)
		})
		if err != nil {
			return err
		}
		f := &figures{}
		for _, loud := range []bool{false, true} {
			for range o.runs {
				if err := strangerOnce(c, h, loud, f); err != nil {
					return err
				}
			}
		}
		fmt.Println("stranger: a third host adds the VIP by hand")
		for _, name := range []string{"quiet, until status says so, ms", "quiet, client without an answer, ms", "loud, until status says so, ms", "loud, client without an answer, ms"} {
			fmt.Println("  " + f.line(name))
		}
		return nil
	})
}

const (
	strangerStays = 12 * time.Second
	strangerPing  = 2 * time.Millisecond
)

func strangerOnce(c *livelab.Cluster, h *netlab.Host, loud bool, f *figures) error {
	if err := c.Settled(40 * time.Second); err != nil {
		return err
	}
	vip := netip.MustParseAddr(livelab.VIP)
	p, err := watch.StartPings(c.Client, vip, strangerPing)
	if err != nil {
		return err
	}
	time.Sleep(time.Second)
	begin := time.Now()
	if err := h.AddAddr("eth0", netip.PrefixFrom(vip, 32)); err != nil {
		return err
	}
	if loud {
		if err := h.Do(func() error { return speakAs(vip, netip.MustParseAddr("10.77.0.199")) }); err != nil {
			return err
		}
	}
	named, err := untilConflict(c, begin)
	time.Sleep(time.Until(begin.Add(strangerStays)))
	name := map[bool]string{false: "quiet", true: "loud"}[loud]
	f.add(name+", until status says so, ms", ms(named))
	f.add(name+", client without an answer, ms", ms(p.Stop().Silence))
	if err != nil {
		return err
	}
	if err := h.DelAddr("eth0", netip.PrefixFrom(vip, 32)); err != nil {
		return err
	}
	time.Sleep(25 * time.Second) // the conflict is forgotten
	return nil
}

// speakAs sends a datagram from an address to one that nobody has: the kernel asks for
// it three times, a second apart, and tells everybody its own MAC address by that.
func speakAs(from, to netip.Addr) error {
	c, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, 9)))
	if err != nil {
		return err
	}
	_, err = c.Write([]byte("x"))
	return errors.Join(err, c.Close())
}

// untilConflict waits until an agent that does not hold the VIP says that there is a
// conflict.
func untilConflict(c *livelab.Cluster, begin time.Time) (time.Duration, error) {
	for time.Since(begin) < strangerStays {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		s, err := c.Get("secondary").Status(ctx)
		cancel()
		if err == nil && slices.ContainsFunc(s.Problems, func(p api.StatusProblem) bool { return p.Code == "vip-conflict" }) {
			return time.Since(begin), nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(begin), fmt.Errorf("status names no conflict within %v", strangerStays)
}
