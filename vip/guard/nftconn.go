package guard

import (
	"fmt"
	"time"

	"github.com/google/nftables"
	mdlnetlink "github.com/mdlayher/netlink"

	"hanode/vip/internal/nsthread"
)

// nftTimeout bounds one exchange with the kernel; it answers in well under a
// millisecond unless another program holds the rules.
const nftTimeout = 2 * time.Second

// nftConn is one connection to nftables, made anew after an error: what was half
// read must not answer the next question. One user at a time.
type nftConn struct {
	thread *nsthread.Thread
	conn   *nftables.Conn
	socket *mdlnetlink.Conn
}

func (c *nftConn) do(fn func(*nftables.Conn) error) error {
	if c.conn == nil {
		if err := c.thread.Do(c.dial); err != nil {
			return fmt.Errorf("open nftables: %w", err)
		}
	}
	err := c.socket.SetDeadline(time.Now().Add(nftTimeout))
	if err == nil {
		err = fn(c.conn)
	}
	if err != nil {
		c.close()
	}
	return err
}

func (c *nftConn) dial() (err error) {
	c.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(s *mdlnetlink.Conn) error {
		c.socket = s
		return nil
	}))
	return err
}

func (c *nftConn) close() {
	if c.conn != nil {
		// Nothing is lost with the connection: what was not flushed is dropped.
		_ = c.conn.CloseLasting()
		c.conn, c.socket = nil, nil
	}
}
