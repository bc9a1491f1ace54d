package vip

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"hanode/vip/internal/nsthread"
)

// flagReader asks the kernel for the flags of one device at a time, many times a
// second: with buffers of its own, and without the statistics and all else that a
// device has. Not safe for concurrent use.
type flagReader struct {
	fd  int
	seq uint32
	req [nlHeader + unix.SizeofIfInfomsg + 8]byte
	buf [16 << 10]byte
}

const (
	nlHeader = unix.SizeofNlMsghdr
	// skipStats is RTEXT_FILTER_SKIP_STATS.
	skipStats = 1 << 3
	// flagsAt is where ifi_flags is in a message.
	flagsAt = nlHeader + 8
)

func newFlagReader(t *nsthread.Thread) (*flagReader, error) {
	r := &flagReader{fd: -1}
	err := t.Do(func() (err error) {
		r.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		if err := unix.Bind(r.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return err
		}
		return unix.SetsockoptTimeval(r.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: netlinkTimeout})
	})
	if err != nil {
		r.close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	ne, b := binary.NativeEndian, r.req[:]
	ne.PutUint32(b, uint32(len(b)))
	ne.PutUint16(b[4:], unix.RTM_GETLINK)
	ne.PutUint16(b[6:], unix.NLM_F_REQUEST)
	at := nlHeader + unix.SizeofIfInfomsg
	ne.PutUint16(b[at:], 8)
	ne.PutUint16(b[at+2:], unix.IFLA_EXT_MASK)
	ne.PutUint32(b[at+4:], skipStats)
	return r, nil
}

func (r *flagReader) close() {
	if r != nil && r.fd >= 0 {
		_ = unix.Close(r.fd)
	}
}

// flags are the device's, IFF_LOWER_UP among them; unix.ENODEV if it is gone.
func (r *flagReader) flags(index int) (uint32, error) {
	r.seq++
	ne := binary.NativeEndian
	ne.PutUint32(r.req[8:], r.seq)
	ne.PutUint32(r.req[nlHeader+4:], uint32(index))
	if err := unix.Sendto(r.fd, r.req[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, err
	}
	for {
		n, _, err := unix.Recvfrom(r.fd, r.buf[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		kind, seq, flags, err := parseFlags(r.buf[:n])
		if err == nil && seq != r.seq {
			continue // the answer to a question that was given up
		}
		if err == nil && kind != unix.RTM_NEWLINK {
			err = fmt.Errorf("an answer of type %d", kind)
		}
		return flags, err
	}
}

// parseFlags reads one answer.
func parseFlags(b []byte) (kind uint16, seq, flags uint32, err error) {
	ne := binary.NativeEndian
	if len(b) < nlHeader+4 {
		return 0, 0, 0, errors.New("a short answer")
	}
	kind, seq = ne.Uint16(b[4:]), ne.Uint32(b[8:])
	if kind == unix.NLMSG_ERROR {
		return kind, seq, 0, unix.Errno(-int32(ne.Uint32(b[nlHeader:])))
	}
	if len(b) < flagsAt+4 {
		return 0, 0, 0, errors.New("a short answer")
	}
	return kind, seq, ne.Uint32(b[flagsAt:]), nil
}
