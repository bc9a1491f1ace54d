package watch

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hanode/internal/netlab"
)

// Many asks by ARP who has each of many addresses, in turn. It says less of each than
// a Watcher does of one.
type Many struct {
	sock     *os.File
	vips     []netip.Addr
	observer netip.Addr

	quit            chan struct{}
	sending, reader sync.WaitGroup

	mu   sync.Mutex
	seen map[netip.Addr]map[string]time.Time // first answer by MAC since Mark; guarded by mu
	said map[netip.Addr]map[string]time.Time // first announcement by MAC since Mark; guarded by mu
}

// StartMany asks for all of vips once each cycle from device dev of h, evenly spaced,
// as the address observer. Stop ends it.
func StartMany(h *netlab.Host, dev string, vips []netip.Addr, observer netip.Addr, cycle time.Duration) (*Many, error) {
	m := &Many{vips: vips, observer: observer, quit: make(chan struct{})}
	m.Mark()
	var mac net.HardwareAddr
	err := h.Do(func() (err error) {
		m.sock, mac, err = openSocket(dev, etherARP)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("watch %d addresses from %s: %w", len(vips), h.Name(), err)
	}
	m.reader.Go(func() { receive(m.sock, m.take) })
	m.sending.Go(func() { m.send(mac, cycle/time.Duration(len(vips))) })
	return m, nil
}

// Mark forgets which answers were the first.
func (m *Many) Mark() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen, m.said = map[netip.Addr]map[string]time.Time{}, map[netip.Addr]map[string]time.Time{}
}

// First lists when each address was first answered for by a MAC since Mark, and
// when it was first announced.
func (m *Many) First(mac string) (answered, announced map[netip.Addr]time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pick := func(from map[netip.Addr]map[string]time.Time) map[netip.Addr]time.Time {
		out := map[netip.Addr]time.Time{}
		for a, by := range from {
			if at, ok := by[mac]; ok {
				out[a] = at
			}
		}
		return out
	}
	return pick(m.seen), pick(m.said)
}

// Stop ends the asking and the listening.
func (m *Many) Stop() {
	close(m.quit)
	m.sending.Wait()
	_ = m.sock.Close() // ends the reader
	m.reader.Wait()
}

func (m *Many) send(mac net.HardwareAddr, every time.Duration) {
	conn, err := m.sock.SyscallConn()
	if err != nil {
		return // closed: only by Stop, which waits for this to end first
	}
	var frame [arpLen]byte
	next := time.Now()
	for i := 0; ; i = (i + 1) % len(m.vips) {
		if next = next.Add(every); time.Until(next) < -time.Second {
			next = time.Now() // this machine stood still: no burst
		}
		select {
		case <-m.quit:
			return
		default:
			sleep(time.Until(next))
		}
		encodeRequest(&frame, mac, identity(uint32(i)), m.observer, m.vips[i])
		_ = conn.Control(func(fd uintptr) { _, _ = unix.Write(int(fd), frame[:]) })
	}
}

func (m *Many) take(frame []byte, at time.Time) {
	p, ok := decode(frame)
	if !ok {
		return
	}
	_, reply := requestOf(p.targetMAC)
	answer := reply && p.op == opReply && p.target == m.observer
	if !answer && p.sender != p.target {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	first := m.said
	if answer {
		first = m.seen
	}
	if first[p.sender] == nil {
		first[p.sender] = map[string]time.Time{}
	}
	if who := name(p.senderMAC); first[p.sender][who].IsZero() {
		first[p.sender][who] = at
	}
}

// Addresses are n addresses from start on, one after the other.
func Addresses(start netip.Addr, n int) (out []netip.Addr) {
	b := start.As4()
	first := binary.BigEndian.Uint32(b[:])
	for i := range n {
		binary.BigEndian.PutUint32(b[:], first+uint32(i))
		out = append(out, netip.AddrFrom4(b))
	}
	return out
}
