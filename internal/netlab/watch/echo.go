package watch

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hanode/internal/netlab"
)

// Port is where an Echo listens.
const Port = 7007

// Echo is the service that the observer asks by UDP: it answers datagrams to every
// address of its host, from the address they were sent to. It knows nothing of
// who holds what. It goes with the host's power: start it anew after PowerOn.
type Echo struct {
	host *netlab.Host
	conn *net.UDPConn
	done chan struct{}

	mu   sync.Mutex
	seen map[uint64]int // probes that came, by token; guarded by mu
}

// probe is the first half of a payload of Reach.
const probe = "see "

// StartEcho starts the service on h.
func StartEcho(h *netlab.Host) (*Echo, error) {
	e := &Echo{host: h, done: make(chan struct{}), seen: map[uint64]int{}}
	err := h.Do(func() (err error) {
		e.conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: Port})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start the echo service of %s: %w", h.Name(), err)
	}
	raw, err := e.conn.SyscallConn()
	if err == nil {
		failed := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1) })
		if err == nil {
			err = failed
		}
	}
	if err != nil {
		_ = e.conn.Close()
		return nil, fmt.Errorf("start the echo service of %s: %w", h.Name(), err)
	}
	go e.serve()
	return e, nil
}

// Close ends the service and waits for it.
func (e *Echo) Close() {
	_ = e.conn.Close()
	<-e.done
}

func (e *Echo) serve() {
	defer close(e.done)
	buf, oob := make([]byte, 256), make([]byte, 128)
	for {
		n, oobn, _, from, err := e.conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			return // closed: nothing else ends an unconnected socket
		}
		if n >= len(probe)+8 && string(buf[:len(probe)]) == probe {
			e.mu.Lock()
			e.seen[binary.BigEndian.Uint64(buf[len(probe):])]++
			e.mu.Unlock()
		}
		if to, ok := sentTo(oob[:oobn]); ok {
			// What cannot be sent (the address has just gone) is lost, as it would be
			// to any client.
			_, _, _ = e.conn.WriteMsgUDPAddrPort(buf[:n], unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: to}), from)
		}
	}
}

// sentTo is the address that a datagram was sent to.
func sentTo(oob []byte) (to [4]byte, ok bool) {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return to, false
	}
	for _, m := range list {
		if m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo {
			return [4]byte(m.Data[8:12]), true // ipi_addr of ip(7)
		}
	}
	return to, false
}

// reachWait is how long Reach waits for the last answers.
const reachWait = 60 * time.Millisecond

// Reach sends n datagrams from a host's device to the echo service of another, and
// counts how many came there, and how many answers came back: a test of a cut that
// sees each direction by itself. Cut hosts and unplugged devices are no error: the
// counts say it.
func Reach(from *netlab.Host, dev string, to *Echo, toDev string, n int) (there, back int, err error) {
	var c *net.UDPConn
	err = from.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.Addr(dev), 0)))
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("probe from %s: %w", from.Name(), err)
	}
	defer c.Close()
	token := rand.Uint64()
	payload := append([]byte(probe), binary.BigEndian.AppendUint64(nil, token)...)
	target := netip.AddrPortFrom(to.host.Addr(toDev), Port)
	answers := make(chan int)
	go func() {
		got, buf := 0, make([]byte, 64)
		for {
			if _, err := c.Read(buf); err != nil {
				answers <- got
				return
			}
			got++
		}
	}()
	for range n {
		_, _ = c.WriteToUDPAddrPort(payload, target)
		time.Sleep(200 * time.Microsecond)
	}
	_ = c.SetReadDeadline(time.Now().Add(reachWait))
	back = <-answers
	to.mu.Lock()
	there = to.seen[token]
	delete(to.seen, token)
	to.mu.Unlock()
	return there, back, nil
}
