package watch

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"hanode/internal/netlab"
)

// Pings is what became of the echo requests of a Pinger.
type Pings struct {
	Sent, Lost int
	// LongestRow is the most that were lost one after the other.
	LongestRow int
	// Silence is the longest time from a request that was answered to the next that was,
	// with some between them that were not. 0 = none was lost. A machine that is late
	// leaves requests out, so that their number says less than this.
	Silence time.Duration
}

// Pinger is an ordinary client: it asks by ICMP through its own kernel, with the
// ARP cache and the routes that a client has. It counts, and tells nobody apart:
// who answered is a Watcher's business.
type Pinger struct {
	conn  net.PacketConn
	to    netip.Addr
	every time.Duration
	id    uint16

	quit chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	asked []asking // guarded by mu
}

// lastPing is how long Stop waits for answers.
const lastPing = time.Second

// StartPings pings to from h each interval. Stop ends it.
func StartPings(h *netlab.Host, to netip.Addr, every time.Duration) (*Pinger, error) {
	p := &Pinger{to: to, every: every, id: uint16(rand.Uint32()), quit: make(chan struct{})}
	err := h.Do(func() (err error) {
		p.conn, err = net.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ping %v from %s: %w", to, h.Name(), err)
	}
	p.done.Go(p.read)
	p.done.Go(p.send)
	return p, nil
}

// Look is what became of the requests so far, but for those of the last second,
// which may still be answered.
func (p *Pinger) Look() Pings {
	p.mu.Lock()
	defer p.mu.Unlock()
	return count(p.asked[:max(0, len(p.asked)-int(lastPing/p.every))])
}

// Stop ends the pings and returns what became of all.
func (p *Pinger) Stop() Pings {
	close(p.quit)
	time.Sleep(lastPing)
	_ = p.conn.Close()
	p.done.Wait()
	return count(p.asked)
}

func count(asked []asking) Pings {
	r, last := Pings{Sent: len(asked)}, -1
	for i, q := range asked {
		if !q.answered {
			r.Lost++
			r.LongestRow = max(r.LongestRow, i-last)
			continue
		}
		if last >= 0 && i > last+1 {
			r.Silence = max(r.Silence, q.at.Sub(asked[last].at))
		}
		last = i
	}
	return r
}

func (p *Pinger) send() {
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	var b [16]byte
	for {
		select {
		case <-p.quit:
			return
		case <-tick.C:
		}
		p.mu.Lock()
		request := uint32(len(p.asked))
		p.asked = append(p.asked, asking{at: time.Now()})
		p.mu.Unlock()
		b = [16]byte{8} // echo request
		binary.BigEndian.PutUint16(b[4:], p.id)
		binary.BigEndian.PutUint16(b[6:], uint16(request))
		binary.BigEndian.PutUint32(b[8:], request)
		binary.BigEndian.PutUint16(b[2:], checksum(b[:]))
		// One that cannot be sent is lost, as for any client.
		_, _ = p.conn.WriteTo(b[:], &net.IPAddr{IP: p.to.AsSlice()})
	}
}

func (p *Pinger) read() {
	b := make([]byte, 256)
	for {
		n, _, err := p.conn.ReadFrom(b)
		if err != nil {
			return // closed
		}
		if n < 12 || b[0] != 0 || binary.BigEndian.Uint16(b[4:]) != p.id {
			continue // no echo reply, or another's
		}
		p.mu.Lock()
		if request := binary.BigEndian.Uint32(b[8:]); int(request) < len(p.asked) {
			p.asked[request].answered = true
		}
		p.mu.Unlock()
	}
}
