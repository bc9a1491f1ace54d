package watch

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"hanode/internal/netlab"
)

// service is the UDP side of a Watcher: its socket, and the record of what
// datagrams alone have shown.
type service struct {
	*observer
	from, to netip.AddrPort
	sock     *os.File
	// sink has the port that answers come to. Nobody reads it: it keeps the
	// client's kernel from refusing them.
	sink *net.UDPConn
}

// openService opens it in the calling thread's network namespace, which is h's.
func openService(h *netlab.Host, cfg Config) (*service, error) {
	sock, _, err := openSocket(cfg.Dev, etherIPv4)
	if err != nil {
		return nil, err
	}
	self := h.Addr(cfg.Dev)
	sink, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(self, 0)))
	if err != nil {
		_ = sock.Close()
		return nil, fmt.Errorf("reserve a port of %s: %w", h.Name(), err)
	}
	_ = sink.SetReadBuffer(1) // as small as can be
	return &service{
		observer: newObserver(cfg.Every, cfg.Window, nil),
		from:     sink.LocalAddr().(*net.UDPAddr).AddrPort(),
		to:       netip.AddrPortFrom(cfg.VIP, cfg.Port),
		sock:     sock, sink: sink,
	}, nil
}

// write sends a frame. One that cannot be sent is a request without an answer.
func (s *service) write(frame []byte) {
	if conn, err := s.sock.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _, _ = unix.Write(int(fd), frame) })
	}
}

// close ends the reader and says how many answers the kernel dropped.
func (s *service) close() int {
	lost := dropped(s.sock)
	_ = s.sock.Close()
	_ = s.sink.Close()
	return lost
}
