package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"hanode/api"
	"hanode/internal/netlab/watch"
	"hanode/test/livelab"
)

const (
	client4 = livelab.VIP
	client6 = "fd77::100"
	// askOften is how often the client asks that measures the silence, askLost the one
	// whose lost questions are counted.
	askOften = 200 * time.Microsecond
	askLost  = time.Millisecond
)

const bareGroup = "group %q {\n  prefer = [\"primary\"]\n  failback = \"on\"\n  resource \"ip\" %q { dev = \"eth1\" }\n}\n"

// clients measures what ordinary clients of a bare address see of a switchover and of a
// power cut, over IPv4 and IPv6, a group each: two clients ask by UDP through their kernel.
func clients(o options) error {
	groups := fmt.Sprintf(bareGroup, "web", client4+"/24") + fmt.Sprintf(bareGroup, "web6", client6+"/64")
	return onClusterWith(o, livelab.Options{Groups: groups, Level: "info"}, "clients", func(c *livelab.Cluster) error {
		if err := c.Client.AddAddr("eth0", netip.MustParsePrefix("fd77::250/64")); err != nil {
			return err
		}
		for _, what := range []struct {
			name        string
			loses       bool // questions must be lost
			fault, back func(c *livelab.Cluster, group string) error
		}{
			{"switchover", false, moveTo("secondary"), moveTo("primary")},
			{"power cut", true, func(c *livelab.Cluster, _ string) error { return c.Get("primary").PowerCut() }, func(c *livelab.Cluster, _ string) error { return powerOn(c) }},
		} {
			for vip, group := range map[string]string{client4: "web", client6: "web6"} {
				fmt.Printf("clients: %s, asked for %s each %v; lost of one question each %v\n", what.name, vip, askOften, askLost)
				var f figures
				for range o.runs {
					if err := clientsOnce(c, netip.MustParseAddr(vip), func() error { return what.fault(c, group) }, what.loses, &f); err != nil {
						return err
					}
					if err := what.back(c, group); err != nil {
						return err
					}
				}
				fmt.Println(" ", f.line("silence, ms"))
				fmt.Println(" ", f.line("lost"))
			}
		}
		return nil
	})
}

func clientsOnce(c *livelab.Cluster, vip netip.Addr, fault func() error, loses bool, f *figures) (err error) {
	if err := c.Settled(60 * time.Second); err != nil {
		return err
	}
	for i, n := range c.Nodes { // anew: power cuts take them
		p := netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf("fd77::%d", i+1)), 64)
		have, err := n.Addrs("eth1")
		if err == nil && !slices.Contains(have, p) {
			err = n.AddAddr("eth1", p)
		}
		if err != nil {
			return err
		}
		s, err := watch.StartAnswers(n.Host)
		if err != nil {
			return err
		}
		defer s.Close()
	}
	often, err := watch.StartClient(c.Client, vip, askOften)
	if err != nil {
		return err
	}
	counted, err := watch.StartClient(c.Client, vip, askLost)
	if err != nil {
		often.Stop()
		return err
	}
	time.Sleep(300 * time.Millisecond)
	err = fault()
	time.Sleep(time.Second)
	silence, lost := often.Stop(), counted.Stop()
	if silence.Lost == silence.Sent || lost.Lost == lost.Sent {
		err = errors.Join(err, errors.New("nobody answered the clients at all"))
	}
	if loses && silence.Lost == 0 {
		fmt.Println("  (not counted: the owner had lost the address before)")
		return err
	}
	fmt.Printf("  %.2f ms, %d of %d lost\n", ms(silence.Silence), lost.Lost, lost.Sent)
	f.add("silence, ms", ms(silence.Silence))
	f.add("lost", float64(lost.Lost))
	return err
}

func moveTo(node string) func(c *livelab.Cluster, group string) error {
	return func(c *livelab.Cluster, group string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		cl := c.Get("arbiter").API()
		defer cl.Close()
		_, err := cl.Move(ctx, api.MoveRequest{Group: group, To: node, Wait: 5 * time.Second})
		return err
	}
}
