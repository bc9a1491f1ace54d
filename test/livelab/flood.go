package livelab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Flood is what strangers send: who is on the wire, and has recorded what members say,
// but not their key.
type Flood struct {
	PerSecond int
	For       time.Duration
}

// Flooded is what came of it.
type Flooded struct {
	Sent     int
	Took     time.Duration
	Recorded int                // datagrams of members that were sent again, beside forged ones
	Moves    int                // changes of owner
	Lines    int                // that all agents logged
	Silent   time.Duration      // the longest that any voter had not heard any other, as seen each 50 ms
	Refused  map[string]float64 // datagrams by what became of them, of all nodes
}

// gossipPort is the one of the node files.
const gossipPort = 7694

// Flood records what the arbiter's first link carries, and then sends datagrams to every
// agent: forged ones, noise, and the recorded ones; half of them through the arbiter's
// first link and from its address, half from the client's, who is a stranger.
func (c *Cluster) Flood(f Flood) (out Flooded, err error) {
	inside := c.Get("arbiter").Host
	var recorded [][]byte
	if err := inside.Do(func() (err error) { recorded, err = record(time.Second); return err }); err != nil {
		return out, fmt.Errorf("record: %w", err)
	}
	if out.Recorded = len(recorded); out.Recorded == 0 {
		return out, errors.New("the members say nothing")
	}
	var socks [2]net.PacketConn
	for i, h := range []interface{ Do(func() error) error }{inside, c.Client} {
		err := h.Do(func() (err error) {
			socks[i], err = (&net.ListenConfig{}).ListenPacket(context.Background(), "udp4", ":0")
			return err
		})
		if err != nil {
			return out, err
		}
		defer func() { _ = socks[i].Close() }()
	}
	epochs, lines, before := c.epochs(), c.lines(), c.datagrams()
	stop := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { out.Silent = c.longestSilence(stop) })
	begin := time.Now()
	out.Sent = c.send(f, socks, recorded)
	out.Took = time.Since(begin)
	close(stop)
	watching.Wait()
	for g, e := range c.epochs() {
		out.Moves += int(e - epochs[g])
	}
	out.Lines = c.lines() - lines
	out.Refused = c.datagrams()
	for k, v := range before {
		out.Refused[k] -= v
	}
	return out, nil
}

// send sends in bursts of a millisecond's worth.
func (c *Cluster) send(f Flood, socks [2]net.PacketConn, recorded [][]byte) (sent int) {
	rng := rand.New(rand.NewPCG(1, 2))
	var targets [2][]net.Addr
	for _, n := range c.Nodes {
		for i, dev := range []string{"eth0", "eth1"} {
			if n.Node != "arbiter" {
				targets[i] = append(targets[i], net.UDPAddrFromAddrPort(netip.AddrPortFrom(n.Addr(dev), gossipPort)))
			}
		}
	}
	begin := time.Now()
	for sent < int(f.For.Seconds()*float64(f.PerSecond)) {
		due := int(time.Since(begin).Seconds() * float64(f.PerSecond))
		for ; sent < due; sent++ {
			side := sent % 2
			to := targets[side][rng.IntN(len(targets[side]))]
			_, _ = socks[side].WriteTo(badDatagram(rng, recorded), to) // a full queue is part of it
		}
		time.Sleep(time.Millisecond)
	}
	return sent
}

// badDatagram is one that no member sends now.
func badDatagram(rng *rand.Rand, recorded [][]byte) []byte {
	old := recorded[rng.IntN(len(recorded))]
	noise := make([]byte, 20+rng.IntN(200))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	const head, salt = 9, 26 // of a sealed datagram: kind and cluster; version, salt, and nonce behind
	switch rng.IntN(6) {
	case 0:
		return old
	case 1: // another session
		b := bytes.Clone(old)
		copy(b[head+1:min(len(b), head+17)], noise)
		return b
	case 2: // of a session that is known, altered
		b := bytes.Clone(old)
		b[len(b)-1] ^= 1 + byte(rng.IntN(255))
		copy(b[min(len(b), head+17):min(len(b), salt+head)], noise)
		return b
	case 3: // for memberlist
		noise[0] = []byte{0, 1, 244}[rng.IntN(3)]
	case 4: // another cluster
		noise[0] = old[0]
	}
	return noise
}

// record takes the gossip datagrams that this host sends and gets.
func record(d time.Duration) (out [][]byte, err error) {
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}); err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<10)
	for end := time.Now().Add(d); time.Now().Before(end); {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil || n < 28+20 || buf[0]>>4 != 4 || buf[9] != unix.IPPROTO_UDP {
			continue
		}
		ip := int(buf[0]&15) * 4
		if n < ip+8+36 || int(buf[ip+2])<<8|int(buf[ip+3]) != gossipPort || buf[ip+8] < 250 {
			continue
		}
		out = append(out, bytes.Clone(buf[ip+8:n]))
	}
	return out, nil
}

func (c *Cluster) epochs() map[string]uint64 {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	out := map[string]uint64{}
	for _, n := range c.Nodes {
		if st, err := n.Status(ctx); err == nil {
			for _, g := range st.Groups {
				out[g.Name] = max(out[g.Name], g.Epoch)
			}
		}
	}
	return out
}

func (c *Cluster) lines() (n int) {
	for _, x := range c.Nodes {
		b, _ := os.ReadFile(x.LogFile())
		n += bytes.Count(b, []byte("\n"))
	}
	return n
}

// longestSilence asks every node again and again for how long it has not heard the others.
func (c *Cluster) longestSilence(stop <-chan struct{}) (longest time.Duration) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return longest
		case <-tick.C:
		}
		for _, n := range c.Nodes {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			ms, err := n.Members(ctx)
			cancel()
			if err != nil {
				continue
			}
			for _, m := range ms {
				if m.Name != n.Node && m.LastBeatMS != nil {
					longest = max(longest, time.Duration(*m.LastBeatMS*float64(time.Millisecond)))
				}
			}
		}
	}
}

// datagrams sums up what the agents count.
func (c *Cluster) datagrams() map[string]float64 {
	out := map[string]float64{}
	for _, n := range c.Nodes {
		h := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", n.Socket)
			},
		}}
		resp, err := h.Get("http://agent/metrics")
		if err != nil {
			continue
		}
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			what, found := strings.CutPrefix(s.Text(), `hanode_datagrams_total{result="`)
			name, value, ok := strings.Cut(what, `"} `)
			if v, err := strconv.ParseFloat(value, 64); found && ok && err == nil {
				out[name] += v
			}
		}
		_ = resp.Body.Close()
	}
	return out
}
