package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"hanode/internal/clock"
	"hanode/internal/netlab"
	"hanode/vip"
	"hanode/vip/guard"
)

const (
	costDev    = "eth1"
	costVIP    = "10.77.0.100"
	costPort   = "7001"
	bulkTime   = 500 * time.Millisecond
	floodTime  = 300 * time.Millisecond
	exchanges  = 10_000
	payloadLen = 64
)

// costs are what is measured, in the order of the table.
var costs = []string{"TCP, GB/s", "UDP of 64 bytes, 1000/s", "UDP exchange p50, us", "UDP exchange p99, us", "TCP exchange p50, us", "TCP exchange p99, us"}

// guardCost measures what the guard costs clients of an open address: the same host,
// address and traffic with no guard and with each tier, in turns.
func guardCost(o options) error {
	lab, err := netlab.New(netlab.Options{})
	if err != nil {
		return err
	}
	return errors.Join(guardCostIn(lab, o), lab.Close())
}

func guardCostIn(lab *netlab.Lab, o options) error {
	owner, err := lab.AddHost("owner", 1)
	if err != nil {
		return err
	}
	client, err := lab.AddClient("client", 200)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hanode-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	g := &costBench{owner: owner, client: client, dir: dir, got: map[vip.Tier]map[string][]float64{}}
	tiers := []vip.Tier{vip.TierNone, vip.TierEBPF, vip.TierNftables}
	fmt.Printf("guard: a client of one open address, with no guard and with each tier in turns, %d rounds\n", o.runs)
	for i := range o.runs {
		for j := range tiers { // each begins a round as often as the others
			if err := g.held(tiers[(i+j)%len(tiers)], g.measure); err != nil {
				return err
			}
		}
	}
	g.table(tiers)
	return g.held(vip.TierEBPF, g.runs)
}

type costBench struct {
	owner, client *netlab.Host
	dir           string
	got           map[vip.Tier]map[string][]float64 // what was measured, a value each round
}

func (g *costBench) note(t vip.Tier, what string, v float64) {
	if g.got[t] == nil {
		g.got[t] = map[string][]float64{}
	}
	g.got[t][what] = append(g.got[t][what], v)
}

// held runs fn while the owner holds the address behind that tier.
func (g *costBench) held(t vip.Tier, fn func(vip.Tier) error) error {
	clk, err := clock.System()
	if err != nil {
		return err
	}
	var k vip.Kernel
	err = g.owner.Do(func() (err error) {
		k, err = vip.Open(vip.Options{Dir: g.dir, Clock: clk, Force: t})
		return err
	})
	if err != nil {
		return err
	}
	a := vip.Address{Addr: netip.MustParseAddr(costVIP), Prefix: netip.MustParsePrefix(costVIP + "/24"), Dev: costDev}
	quit, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-quit:
				done <- nil
				return
			case <-time.After(25 * time.Millisecond):
				if err := k.Renew(clk.Now().Add(5 * time.Second)); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	err = errors.Join(k.Renew(clk.Now().Add(5*time.Second)), k.Prepare([]vip.Address{a}))
	if err == nil {
		err = errors.Join(k.Add(a), k.Open(a))
	}
	if err == nil {
		k.Announce(a)
		time.Sleep(50 * time.Millisecond) // until the client's neighbour entry stands
		err = fn(t)
	}
	close(quit)
	return errors.Join(err, <-done, k.Shutdown())
}

func (g *costBench) measure(t vip.Tier) error {
	return errors.Join(g.bulk(t), g.flood(t), g.exchange(t, "udp4"), g.exchange(t, "tcp4"))
}

// bulk is how fast the client takes a stream from the address.
func (g *costBench) bulk(t vip.Tier) error {
	return g.tcp(func(served net.Conn) { // until the client has enough
		for buf := make([]byte, 256<<10); ; {
			if _, err := served.Write(buf); err != nil {
				return
			}
		}
	}, func(c net.Conn) error {
		buf := make([]byte, 256<<10)
		begin, n := time.Now(), 0
		for time.Since(begin) < bulkTime {
			m, err := c.Read(buf)
			if err != nil {
				return err
			}
			n += m
		}
		g.note(t, costs[0], float64(n)/time.Since(begin).Seconds()/1e9)
		return nil
	})
}

// tcp has serve run at the address's end of a connection, and use at the client's.
func (g *costBench) tcp(serve func(net.Conn), use func(net.Conn) error) error {
	var l net.Listener
	at := net.JoinHostPort(costVIP, costPort)
	err := g.owner.Do(func() (err error) {
		l, err = net.Listen("tcp4", at)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := l.Accept()
		if err != nil {
			return
		}
		serve(c)
		_ = c.Close()
	}()
	var c net.Conn
	err = g.client.Do(func() (err error) {
		c, err = net.DialTimeout("tcp4", at, 5*time.Second)
		return err
	})
	if err != nil {
		return err
	}
	err = use(c)
	_ = c.Close()
	<-served
	return err
}

// flood is how many small datagrams from the client arrive at the address.
func (g *costBench) flood(t vip.Tier) error {
	return g.udp(func(pc net.PacketConn, c net.Conn) error {
		stop := time.Now().Add(floodTime)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for buf := make([]byte, payloadLen); time.Now().Before(stop); {
				_, _ = c.Write(buf) // a full queue loses some
			}
		}()
		buf, n := make([]byte, payloadLen), 0
		_ = pc.SetReadDeadline(stop)
		for {
			if _, _, err := pc.ReadFrom(buf); err != nil {
				break
			}
			n++
		}
		<-sent
		g.note(t, costs[1], float64(n)/floodTime.Seconds()/1000)
		return nil
	})
}

// udp gives fn a socket of the address and one of the client that is connected to it.
func (g *costBench) udp(fn func(pc net.PacketConn, c net.Conn) error) error {
	at := net.JoinHostPort(costVIP, costPort)
	var pc net.PacketConn
	err := g.owner.Do(func() (err error) {
		pc, err = net.ListenPacket("udp4", at)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = pc.Close() }()
	var c net.Conn
	err = g.client.Do(func() (err error) {
		c, err = net.Dial("udp4", at)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return fn(pc, c)
}

// exchange is how long the client waits for the answer to a small question.
func (g *costBench) exchange(t vip.Tier, network string) error {
	ask := func(c net.Conn) error {
		took := make([]float64, 0, exchanges)
		for buf := make([]byte, payloadLen); len(took) < exchanges; {
			begin := time.Now()
			if _, err := c.Write(buf); err != nil {
				return err
			}
			_ = c.SetReadDeadline(begin.Add(time.Second))
			if _, err := io.ReadFull(c, buf); err != nil {
				return fmt.Errorf("no answer over %s: %w", network, err)
			}
			took = append(took, float64(time.Since(begin).Nanoseconds())/1000)
		}
		slices.Sort(took)
		name := strings.ToUpper(network[:3]) + " exchange p"
		g.note(t, name+"50, us", took[len(took)/2])
		g.note(t, name+"99, us", took[len(took)*99/100])
		return nil
	}
	if network == "tcp4" {
		return g.tcp(func(c net.Conn) { _, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c}) }, ask)
	}
	return g.udp(func(pc net.PacketConn, c net.Conn) error {
		done := make(chan struct{})
		go func() {
			defer close(done)
			for buf := make([]byte, payloadLen); ; {
				n, from, err := pc.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = pc.WriteTo(buf[:n], from)
			}
		}()
		err := ask(c)
		_ = pc.Close()
		<-done
		return err
	})
}

// table prints the medians, and of each round the ratio to its turn without a guard.
func (g *costBench) table(tiers []vip.Tier) {
	fmt.Printf("  %-26s", "medians (ratio to none)")
	for _, t := range tiers {
		fmt.Printf("%22s", t)
	}
	fmt.Println()
	for _, what := range costs {
		fmt.Printf("  %-26s", what)
		for _, t := range tiers {
			var ratios []float64
			for i, v := range g.got[t][what] {
				ratios = append(ratios, v/g.got[vip.TierNone][what][i])
			}
			fmt.Printf("%12.2f (x%6.3f)", median(g.got[t][what]), median(ratios))
		}
		fmt.Println()
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// runs asks the kernel what the eBPF programs took. It counts for a while of their
// own, because counting costs something as well.
func (g *costBench) runs(vip.Tier) error {
	counting, err := guard.CountRuns()
	if err != nil {
		fmt.Println("  the kernel does not count runs of eBPF programs:", err)
		return nil
	}
	defer func() { _ = counting.Close() }()
	return g.owner.Do(func() error {
		dev, err := net.InterfaceByName(costDev)
		if err != nil {
			return err
		}
		for _, part := range []struct {
			name string
			do   func() error
		}{
			{"UDP exchange", func() error { return g.exchange(vip.TierAuto, "udp4") }},
			{"TCP stream", func() error { return g.bulk(vip.TierAuto) }},
		} {
			runs, took, err := guard.Runs(dev.Index)
			if err != nil {
				return err
			}
			if err := part.do(); err != nil {
				return err
			}
			runs2, took2, err := guard.Runs(dev.Index)
			if err != nil {
				return err
			}
			n := max(1, runs2-runs)
			fmt.Printf("  the kernel's own count, eBPF, %s: %d ns a packet (%d packets)\n", part.name, uint64(took2-took)/n, n)
		}
		return nil
	})
}
