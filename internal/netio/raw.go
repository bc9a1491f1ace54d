package netio

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sockets are read and written with raw system calls. They never block, for a socket of
// Go's is non-blocking; and an ordinary call that comes after a sleep of the process has
// the Go runtime wake its monitor thread, which then looks around each 20 microseconds
// for a while: with some hundred datagrams a second that was more than a third of what
// an idle agent cost.

// udpConn adapts net.UDPConn.
type udpConn struct {
	u    *net.UDPConn
	raw  syscall.RawConn
	read *receive // the one reader's
}

func newUDPConn(u *net.UDPConn) (udpConn, error) {
	raw, err := u.SyscallConn()
	r := &receive{}
	r.fn = r.once
	return udpConn{u, raw, r}, err
}

// ReadFrom waits for a datagram; what buf has no room for is cut off.
func (c udpConn) ReadFrom(buf []byte) (int, netip.AddrPort, error) {
	if len(buf) == 0 {
		return 0, netip.AddrPort{}, errors.New("receive into an empty buffer")
	}
	r := c.read
	r.b = buf
	err := c.raw.Read(r.fn)
	r.b = nil
	switch {
	case err != nil:
		return 0, netip.AddrPort{}, err
	case r.err != 0:
		return 0, netip.AddrPort{}, os.NewSyscallError("recvfrom", r.err)
	}
	return r.n, netip.AddrPortFrom(netip.AddrFrom4(r.from.Addr), r.from.Port<<8|r.from.Port>>8), nil
}

// receive is one recvfrom; kept for the next one, so that a beat allocates nothing.
type receive struct {
	b    []byte
	n    int
	from unix.RawSockaddrInet4
	size uint32 // of from
	err  syscall.Errno
	fn   func(fd uintptr) bool
}

// once says "done" unless there is nothing to read yet.
func (r *receive) once(fd uintptr) bool {
	for {
		r.size = unix.SizeofSockaddrInet4
		n, _, err := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&r.b[0])), uintptr(len(r.b)),
			unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&r.from)), uintptr(unsafe.Pointer(&r.size)))
		if err == unix.EINTR {
			continue
		}
		r.n, r.err = int(n), err
		return err != unix.EAGAIN
	}
}

// WriteTo never waits. Datagrams to a neighbour that does not resolve stay in the
// socket's buffer until ARP gives up; a writer that waited for room there would
// stop the beats of every other link with it (a cut eth0 froze the agent 1.4 s).
func (c udpConn) WriteTo(b []byte, to netip.AddrPort) error {
	if len(b) == 0 || !to.Addr().Unmap().Is4() {
		return fmt.Errorf("send %d bytes to %s: only IPv4 links are supported", len(b), to)
	}
	s := sends.Get().(*send)
	defer sends.Put(s)
	s.b, s.err = b, 0
	s.to = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: to.Port()<<8 | to.Port()>>8, Addr: to.Addr().Unmap().As4()}
	err := c.raw.Write(s.fn)
	s.b = nil
	if err != nil {
		return err
	}
	if s.err != 0 {
		return os.NewSyscallError("sendto", s.err)
	}
	return nil
}

// send is one sendto, kept for the next one as well; there may be several writers.
type send struct {
	b   []byte
	to  unix.RawSockaddrInet4
	err syscall.Errno
	fn  func(fd uintptr) bool
}

var sends = sync.Pool{New: func() any {
	s := &send{}
	s.fn = s.once
	return s
}}

// once always says "done", also where the kernel had no room: a beat is worth
// nothing later.
func (s *send) once(fd uintptr) bool {
	_, _, s.err = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&s.b[0])), uintptr(len(s.b)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(unsafe.Pointer(&s.to)), unix.SizeofSockaddrInet4)
	return true
}

func (c udpConn) Close() error { return c.u.Close() }

// stream is a TCP connection. Deadlines, Close and all else are the connection's own.
type stream struct {
	*net.TCPConn
	raw syscall.RawConn
}

// quiet has a TCP connection read and written raw; any other stays as it is.
func quiet(c net.Conn) net.Conn {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return c
	}
	return &stream{t, raw}
}

// Read implements net.Conn.
func (s *stream) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	var errno syscall.Errno
	err = s.raw.Read(func(fd uintptr) bool {
		n, errno = again(unix.SYS_RECVFROM, fd, b, unix.MSG_DONTWAIT)
		return errno != unix.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, s.fault("read", os.NewSyscallError("recvfrom", errno))
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn: it returns when all is written, or with an error.
func (s *stream) Write(b []byte) (n int, err error) {
	var errno syscall.Errno
	err = s.raw.Write(func(fd uintptr) bool {
		for n < len(b) {
			var k int
			if k, errno = again(unix.SYS_SENDTO, fd, b[n:], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); errno != 0 {
				return errno != unix.EAGAIN
			}
			n += k
		}
		return true
	})
	if err == nil && errno != 0 {
		err = s.fault("write", os.NewSyscallError("sendto", errno))
	}
	return n, err
}

func (s *stream) fault(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

// ReadFrom and WriteTo would go past Read and Write.
func (s *stream) ReadFrom(r io.Reader) (int64, error) { return io.Copy(writer{s}, r) }

// WriteTo implements io.WriterTo.
func (s *stream) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, reader{s}) }

type (
	writer struct{ io.Writer }
	reader struct{ io.Reader }
)

// again makes a call on a part of b that no signal interrupted. b is not empty.
func again(call, fd uintptr, b []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, err := unix.RawSyscall6(call, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), flags, 0, 0)
		if err == unix.EINTR {
			continue
		}
		if err != 0 {
			return 0, err
		}
		return int(n), 0
	}
}
