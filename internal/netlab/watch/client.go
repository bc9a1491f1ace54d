package watch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hanode/internal/netlab"
)

// Answers is a service of a host for Clients: it answers every datagram from the
// address that it was sent to, IPv4 and IPv6. It does so on a thread of its own that goes
// before the agents, where that is allowed: a host has processors for its service, and the
// hosts of a lab, whose agents are realtime, share those of one machine.
type Answers struct {
	file *os.File // the socket
	quit atomic.Bool
	done chan struct{}
}

// AnswersPort is where it listens.
const AnswersPort = 7796

// answersLook is how often the service looks whether it is to end.
const answersLook = 50 * time.Millisecond

// StartAnswers starts the service on h.
func StartAnswers(h *netlab.Host) (*Answers, error) {
	s := &Answers{done: make(chan struct{})}
	err := h.Do(func() error {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: AnswersPort})
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		s.file, err = conn.File()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start the service of %s: %w", h.Name(), err)
	}
	fd := int(s.file.Fd())
	look := unix.NsecToTimeval(answersLook.Nanoseconds())
	err = errors.Join(roomy(fd), unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1),
		unix.SetNonblock(fd, false), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &look))
	if err != nil {
		_ = s.file.Close()
		return nil, fmt.Errorf("start the service of %s: %w", h.Name(), err)
	}
	go s.serve()
	return s, nil
}

// control runs fn on the socket of c.
func control(c syscall.Conn, fn func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	return errors.Join(raw.Control(func(fd uintptr) { failed = fn(int(fd)) }), failed)
}

// roomy has a socket keep what comes for a second or more, on a machine so busy that
// nobody reads it meanwhile: late is not lost.
func roomy(fd int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
}

// serve blocks in the kernel: the runtime's poller would have another thread, an ordinary
// one, learn first of what came.
func (s *Answers) serve() {
	punctual()
	defer close(s.done)
	fd := int(s.file.Fd())
	buf, oob := make([]byte, 256), make([]byte, 128)
	for !s.quit.Load() {
		n, oobn, _, from, err := unix.Recvmsg(fd, buf, oob, 0)
		if err != nil {
			if !errors.Is(err, unix.EAGAIN) { // nothing came
				time.Sleep(time.Millisecond) // this thread must not spin
			}
			continue
		}
		// What says where it came to says where the answer comes from.
		_, _ = unix.SendmsgN(fd, buf[:n], oob[:oobn], from, 0)
	}
}

// Close ends the service and waits for it.
func (s *Answers) Close() {
	s.quit.Store(true)
	<-s.done
	_ = s.file.Close()
}

// Client is an ordinary client: it asks by UDP through its own kernel, with the
// neighbour table and the routes that a client has.
type Client struct {
	conn  net.Conn
	every time.Duration
	quit  chan struct{}
	done  sync.WaitGroup

	mu    sync.Mutex
	asked []asking // guarded by mu
}

type asking struct {
	at       time.Time
	answered bool
}

// StartClient asks the Answers at to from h each interval. Stop ends it.
func StartClient(h *netlab.Host, to netip.Addr, every time.Duration) (*Client, error) {
	c := &Client{every: every, quit: make(chan struct{})}
	err := h.Do(func() error {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, AnswersPort)))
		if err != nil {
			return err
		}
		c.conn = conn
		return control(conn, roomy)
	})
	if err != nil {
		return nil, fmt.Errorf("ask %v from %s: %w", to, h.Name(), err)
	}
	c.done.Go(c.read)
	c.done.Go(c.send)
	return c, nil
}

func (c *Client) send() {
	punctual()
	var b [8]byte
	next := time.Now()
	for {
		if next = next.Add(c.every); time.Until(next) < -c.every {
			next = time.Now()
		}
		select {
		case <-c.quit:
			return
		default:
			sleep(time.Until(next))
		}
		c.mu.Lock()
		binary.BigEndian.PutUint64(b[:], uint64(len(c.asked)))
		c.asked = append(c.asked, asking{at: time.Now()})
		c.mu.Unlock()
		_, _ = c.conn.Write(b[:]) // what cannot be sent is lost, as for any client
	}
}

// punctual keeps the calling goroutine on a thread that runs before all others of this
// machine, the agents' realtime threads among them, where that is allowed: who asks
// stands outside and has a processor of his own. The thread ends with the goroutine.
func punctual() {
	runtime.LockOSThread()
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 10}, 0)
}

func (c *Client) read() {
	b := make([]byte, 64)
	for {
		n, err := c.conn.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n != 8 {
			continue // an ICMP error: nobody there just now
		}
		i := binary.BigEndian.Uint64(b)
		c.mu.Lock()
		if i < uint64(len(c.asked)) {
			c.asked[i].answered = true
		}
		c.mu.Unlock()
	}
}

// Served is what a Client saw.
type Served struct {
	Sent, Lost int
	// Silence is the longest time from a question that was answered to the next that
	// was, with some between them that were not. 0 = none was lost. While this machine
	// stands still nothing is asked, and that is no silence.
	Silence time.Duration
	// Until is when the question was asked that ended Silence; zero = there was none.
	Until time.Time
}

// Stop ends the asking, and tells what was seen, without the last 100 ms.
func (c *Client) Stop() Served {
	time.Sleep(100 * time.Millisecond)
	c.mu.Lock()
	n := len(c.asked) - int(100*time.Millisecond/c.every)
	c.mu.Unlock()
	close(c.quit)
	time.Sleep(100 * time.Millisecond)
	_ = c.conn.Close()
	c.done.Wait()
	s := Served{Sent: max(0, n)}
	last := -1
	for i, q := range c.asked[:s.Sent] {
		if !q.answered {
			s.Lost++
			continue
		}
		if last >= 0 && i > last+1 && q.at.Sub(c.asked[last].at) > s.Silence {
			s.Silence, s.Until = q.at.Sub(c.asked[last].at), q.at
		}
		last = i
	}
	return s
}
