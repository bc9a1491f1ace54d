package watch

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hanode/internal/netlab"
)

// Config of a Watcher. Zero fields take the stated default.
type Config struct {
	Dev      string        // device of the host to stand on; required
	VIP      netip.Addr    // IPv4 address to ask for; required
	Observer netip.Addr    // IPv4 address to ask as; in the VIP's network and used by nobody; required
	Every    time.Duration // between two requests; 1 ms
	Window   time.Duration // X -> Y -> X within it is an overlap; Window
	// Port is where the VIP's hosts have an Echo; each request by ARP is then followed
	// by one by UDP, and an answer to either counts. 0 = by ARP only.
	Port uint16
	// OnChange is called for each change of the answerer in the order answers
	// come, also for the first one (From is ""). It must not block.
	OnChange func(Change)
}

// Watcher asks by ARP, and by UDP if told so, who has an address. Its methods are
// safe for concurrent use.
type Watcher struct {
	*observer
	cfg  Config
	sock *os.File
	udp  *service // nil = only ARP

	quit    chan struct{}
	sending sync.WaitGroup
	reading sync.WaitGroup
	once    sync.Once
	report  Report
}

// lateAnswers is how long Stop still listens after the last request.
const lateAnswers = 20 * time.Millisecond

// Start watches vip from device dev of h, asking as the address observer.
func Start(h *netlab.Host, dev string, vip, observer netip.Addr, every time.Duration) (*Watcher, error) {
	return StartConfig(h, Config{Dev: dev, VIP: vip, Observer: observer, Every: every})
}

// StartConfig is Start with every setting. Stop ends it.
func StartConfig(h *netlab.Host, cfg Config) (*Watcher, error) {
	if !cfg.VIP.Is4() || !cfg.Observer.Is4() || cfg.VIP == cfg.Observer {
		return nil, fmt.Errorf("watch %v as %v: it takes two different IPv4 addresses", cfg.VIP, cfg.Observer)
	}
	if cfg.Every <= 0 {
		cfg.Every = time.Millisecond
	}
	if cfg.Window <= 0 {
		cfg.Window = Window
	}
	w := &Watcher{cfg: cfg, quit: make(chan struct{})}
	var mac net.HardwareAddr
	err := h.Do(func() (err error) {
		if w.sock, mac, err = openSocket(cfg.Dev, etherARP); err == nil && cfg.Port > 0 {
			w.udp, err = openService(h, cfg)
		}
		return err
	})
	if err != nil {
		if w.sock != nil {
			_ = w.sock.Close()
		}
		return nil, fmt.Errorf("watch %v from %s: %w", cfg.VIP, h.Name(), err)
	}
	w.observer = newObserver(cfg.Every, cfg.Window, cfg.OnChange)
	w.reading.Go(func() { receive(w.sock, w.take) })
	if w.udp != nil {
		w.reading.Go(func() { receive(w.udp.sock, w.takeAnswer) })
	}
	w.sending.Go(func() { w.send(mac) })
	return w, nil
}

// Mark begins a phase. A name may be used again: Report.Phase gives the last.
func (w *Watcher) Mark(name string) {
	w.observer.Mark(name)
	if w.udp != nil {
		w.udp.Mark(name)
	}
}

// Stop ends the watch and returns what was seen. Further calls return the same.
func (w *Watcher) Stop() Report {
	w.once.Do(func() {
		close(w.quit)
		w.sending.Wait()
		ended := time.Now()
		time.Sleep(lateAnswers)
		lost := dropped(w.sock)
		_ = w.sock.Close() // ends the reader
		if w.udp != nil {
			lost += w.udp.close()
		}
		w.reading.Wait()
		w.report = w.end(ended)
		w.report.Lost = lost
		if w.udp != nil {
			r := w.udp.end(ended)
			w.report.UDP = &r
		}
	})
	return w.report
}

// send asks at fixed times; a time that was missed is not made up for.
func (w *Watcher) send(mac net.HardwareAddr) {
	conn, err := w.sock.SyscallConn()
	if err != nil {
		return // closed: only by Stop, which waits for this to end first
	}
	var frame [arpLen]byte
	var datagram [frameLen]byte
	next := time.Now()
	for {
		if next = next.Add(w.cfg.Every); time.Until(next) < -w.cfg.Every {
			next = time.Now()
		}
		select {
		case <-w.quit:
			return
		default:
			sleep(time.Until(next))
		}
		request := w.ask()
		encodeRequest(&frame, mac, identity(request), w.cfg.Observer, w.cfg.VIP)
		// A request that cannot be sent (the cable is out) is one without an
		// answer, and is seen as that.
		_ = conn.Control(func(fd uintptr) { _, _ = unix.Write(int(fd), frame[:]) })
		if w.udp != nil {
			_ = w.ask() // a request of its own: this thread may have stood still since the last
			encodeQuestion(&datagram, mac, w.udp.from, w.udp.to, w.udp.ask())
			w.udp.write(datagram[:])
		}
	}
}

// sleep is finer than time.Sleep, whose timers round up to a millisecond when
// the program is idle.
func sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	ts := unix.NsecToTimespec(min(d, 100*time.Millisecond).Nanoseconds())
	_ = unix.Nanosleep(&ts, nil) // woken early is as good
}

// receive gives every frame that comes to take, until sock is closed.
func receive(sock *os.File, take func(frame []byte, at time.Time)) {
	conn, err := sock.SyscallConn()
	if err != nil {
		return
	}
	buf, oob := make([]byte, 256), make([]byte, 128)
	for {
		var n, oobn int
		var from unix.Sockaddr
		var failed error
		err := conn.Read(func(fd uintptr) bool {
			n, oobn, _, from, failed = unix.Recvmsg(int(fd), buf, oob, unix.MSG_DONTWAIT)
			return !errors.Is(failed, unix.EAGAIN)
		})
		if err != nil {
			return // closed by Stop
		}
		if failed != nil {
			continue // such as ENETDOWN while the cable is out
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype != unix.PACKET_OUTGOING {
			take(buf[:n], received(oob[:oobn]))
		}
	}
}

// take notes an ARP frame if it speaks of the address.
func (w *Watcher) take(frame []byte, at time.Time) {
	p, ok := decode(frame)
	if !ok || p.sender != w.cfg.VIP {
		return
	}
	if p.target == w.cfg.VIP {
		w.announced(Announcement{At: at, MAC: name(p.senderMAC), Reply: p.op == opReply})
		return
	}
	if request, ok := requestOf(p.targetMAC); ok && p.op == opReply && p.target == w.cfg.Observer {
		w.heard(request, at, name(p.senderMAC))
	}
}

// takeAnswer notes an answer to a datagram.
func (w *Watcher) takeAnswer(frame []byte, at time.Time) {
	if request, mac, ok := decodeAnswer(frame, w.udp.from, w.udp.to); ok {
		w.udp.heard(request, at, name(mac))
		w.heard(2*request+1, at, name(mac)) // every second one is by UDP
	}
}

func name(mac [6]byte) string { return net.HardwareAddr(mac[:]).String() }

// Announcements lists the gratuitous ARP packets seen so far.
func (w *Watcher) Announcements() []Announcement {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.rec.announced)
}
