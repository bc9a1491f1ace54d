package vip

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This kernel may have no VLAN devices, so the tags are put on by hand: what a switch
// or a VLAN device would send. Whether a frame came in is seen by packet sockets that
// the kernel serves after the guard, whether it went out by the neighbour.

// tag is an 802.1Q or 802.1ad tag. VLAN 0 is a priority tag: the kernel takes it off
// and reads on.
type tag struct{ proto, vlan uint16 }

const (
	q  = unix.ETH_P_8021Q
	ad = unix.ETH_P_8021AD
)

var tagStacks = [][]tag{
	{},
	{{q, 0}},
	{{q, 5}},
	{{ad, 5}},
	{{ad, 0}, {q, 0}},
	{{ad, 7}, {q, 5}},
	{{q, 7}, {q, 5}},
}

func tagged(frame []byte, tags []tag) []byte {
	b := slices.Clone(frame[:12])
	for _, t := range tags {
		b = binary.BigEndian.AppendUint16(b, t.proto)
		b = binary.BigEndian.AppendUint16(b, t.vlan)
	}
	return append(b, frame[12:]...)
}

// udpFrame is a datagram to the discard port.
func udpFrame(to, from []byte, src, dst netip.Addr) []byte {
	b := append(slices.Clone(to), from...)
	udp := []byte{0x9c, 0x40, 0, 9, 0, 8, 0, 0}
	if src.Is4() {
		b = append(b, 0x08, 0x00, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0)
	} else {
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, unix.IPPROTO_UDP, 64)
	}
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	return append(b, udp...)
}

// wireFrame is a frame that speaks to or as an address, which may be a VIP.
type wireFrame struct {
	name string
	vip  bool
	b    []byte
}

// inward are frames from the peer to the host, outward the other way round.
func inward(l *lab) (out []wireFrame) {
	p4, p6 := peerIP4.Addr(), peerIP6.Addr()
	for _, x := range []struct {
		a4, a6 netip.Addr
		vip    bool
	}{{vip4.Addr, vip6.Addr, true}, {netip4("10.9.0.99"), netip4("fd09::99"), false}} {
		out = append(out,
			wireFrame{"ARP request", x.vip, askARP(l.peer.mac, p4, x.a4)},
			wireFrame{"IPv4", x.vip, udpFrame(l.host.mac, l.peer.mac, p4, x.a4)},
			wireFrame{"NS", x.vip, askNS(l.peer.mac, p6, x.a6)},
			wireFrame{"IPv6", x.vip, udpFrame(l.host.mac, l.peer.mac, p6, x.a6)})
	}
	// The holder's announcement teaches the host, whatever its own lease.
	return append(out, wireFrame{"holder's announcement", false, arpFrame(arpRequest, vip4.Addr, l.peer.mac)},
		wireFrame{"holder's packet", false, udpFrame(l.host.mac, l.peer.mac, vip4.Addr, hostIP4)})
}

func outward(l *lab) (out []wireFrame) {
	p4, p6 := peerIP4.Addr(), peerIP6.Addr()
	for _, x := range []struct {
		a4, a6 netip.Addr
		vip    bool
	}{{vip4.Addr, vip6.Addr, true}, {netip4("10.9.0.99"), netip4("fd09::99"), false}} {
		out = append(out,
			wireFrame{"ARP request as", x.vip, arpFrame(arpRequest, x.a4, l.host.mac)},
			wireFrame{"ARP reply as", x.vip, arpFrame(arpReply, x.a4, l.host.mac)},
			wireFrame{"IPv4 from", x.vip, udpFrame(l.peer.mac, l.host.mac, x.a4, p4)},
			wireFrame{"NA of", x.vip, naFrame(x.a6, l.host.mac, false)},
			wireFrame{"DAD of", x.vip, askNS(l.host.mac, netip.IPv6Unspecified(), x.a6)},
			wireFrame{"IPv6 from", x.vip, udpFrame(l.peer.mac, l.host.mac, x.a6, p6)})
	}
	return append(out,
		wireFrame{"ARP request for the VIP", false, askARP(l.host.mac, hostIP4, vip4.Addr)},
		wireFrame{"IPv4 to the VIP", false, udpFrame(l.peer.mac, l.host.mac, hostIP4, vip4.Addr)},
		wireFrame{"NS for the VIP", false, askNS(l.host.mac, netip4("fd09::1"), vip6.Addr)})
}

// sensor tells which frames passed, by the mark at their end.
type sensor struct {
	ch chan string
}

func sense(t *testing.T, m *machine, protos ...uint16) *sensor {
	t.Helper()
	s := &sensor{make(chan string, 1<<12)}
	for _, p := range protos {
		f := packetSocket(t, m, "eth0", p)
		done := make(chan struct{})
		t.Cleanup(func() {
			f.Close()
			<-done
		})
		go func() {
			defer close(done)
			for b := make([]byte, 2048); ; {
				n, err := f.Read(b)
				if err != nil {
					return
				}
				if i := bytes.LastIndex(b[:n], []byte("mark")); i >= 0 {
					s.ch <- string(b[i:n])
				}
			}
		}()
	}
	return s
}

// cross sends every frame under every stack of tags and checks which of them cross:
// all but, if muted, those that are to or from a VIP.
func cross(t *testing.T, when string, from *machine, s *sensor, frames []wireFrame, muted bool) {
	t.Helper()
	socket := map[uint16]*os.File{}
	want, about := map[string]bool{}, map[string]string{}
	for i, f := range frames {
		for j, tags := range tagStacks {
			mark := fmt.Sprintf("mark%02d.%02d.%08x", i, j, uint32(boot().Microseconds()))
			b := append(tagged(f.b, tags), mark...)
			proto := binary.BigEndian.Uint16(b[12:])
			if socket[proto] == nil {
				socket[proto] = packetSocket(t, from, "eth0", proto)
				defer socket[proto].Close()
			}
			about[mark] = fmt.Sprintf("%s (VIP: %t) with tags %x", f.name, f.vip, tags)
			want[mark] = !f.vip || !muted
			if _, err := socket[proto].Write(b); err != nil && want[mark] {
				t.Errorf("%s: send %s: %v", when, about[mark], err)
			}
		}
	}
	missing := 0
	for _, w := range want {
		if w {
			missing++
		}
	}
	seen := map[string]bool{}
	limit, grace := time.After(5*time.Second), (<-chan time.Time)(nil)
	for open := true; open; {
		if missing == 0 && grace == nil {
			grace = time.After(100 * time.Millisecond) // for what should not come
		}
		select {
		case mark := <-s.ch:
			if about[mark] == "" || seen[mark] {
				continue // a packet socket with every protocol sees what is sent as well
			}
			seen[mark] = true
			if want[mark] {
				missing--
			} else {
				t.Errorf("%s: passed: %s", when, about[mark])
			}
		case <-grace:
			open = false
		case <-limit:
			open = false
		}
	}
	for mark, w := range want {
		if w && !seen[mark] {
			t.Errorf("%s: did not pass: %s", when, about[mark])
		}
	}
}

func TestTaggedFrames(t *testing.T) {
	eachMode(t, func(t *testing.T, mode string) {
		l, k, as := hostWithVIPs(t, mode)
		// A protocol of its own: the socket is served after the guard, unlike one for all.
		arrived := sense(t, l.host, unix.ETH_P_ARP, unix.ETH_P_IP, unix.ETH_P_IPV6, q, ad)
		left := sense(t, l.peer, unix.ETH_P_ALL)
		all := func(when string, muted bool) {
			cross(t, when+", in", l.peer, arrived, inward(l), muted)
			cross(t, when+", out", l.host, left, outward(l), muted)
		}
		all("closed", true)
		openBoth(t, k)
		all("open, no lease", true)
		stop := leased(t, k)
		wantAnswers(t, as, "leased")
		all("open and leased", false)
		time.Sleep(stop() - boot() + slack)
		all("the lease is over", true)
	})
}
