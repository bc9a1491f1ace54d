package ration

import (
	"errors"
	"net"
	"sync"
)

// Conns bounds connections of which nobody knows yet who opened them. Safe for
// concurrent use; the fields are set before.
type Conns struct {
	Most   int   // at once
	MostOf int   // of them from one host
	Bytes  int64 // that are read from one; what follows is an error. 0 = any number

	mu   sync.Mutex
	open map[string]int // by host
	all  int
}

var errTooLong = errors.New("more was sent than anybody needs to")

// Admit returns the connection, bounded, or closes it and returns false: there are too
// many. It counts until it is closed.
func (l *Conns) Admit(c net.Conn) (net.Conn, bool) {
	host := Host(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.Most || l.open[host] >= l.MostOf {
		_ = c.Close()
		return nil, false
	}
	if l.open == nil {
		l.open = map[string]int{}
	}
	l.open[host]++
	l.all++
	left := l.Bytes
	if left == 0 {
		left = 1 << 62
	}
	return &bounded{Conn: c, left: left, closed: func() { l.end(host) }}, true
}

func (l *Conns) end(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.open[host]--; l.open[host] <= 0 {
		delete(l.open, host)
	}
}

// Host is the other end's address without its port.
func Host(c net.Conn) string {
	at := c.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(at); err == nil {
		return host
	}
	return at
}

// bounded is read by one goroutine at a time.
type bounded struct {
	net.Conn
	left   int64
	once   sync.Once
	closed func()
}

func (c *bounded) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooLong
	}
	n, err := c.Conn.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	return n, err
}

func (c *bounded) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}
