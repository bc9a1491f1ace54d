package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"hanode/vip/internal/nsthread"
)

// news hears which addresses leave a device.
type news struct {
	f *os.File
}

// onlyDeletions passes RTM_DELADDR: a thousand addresses are refreshed every second,
// and each refresh is news to everybody. The loaded half-word is taken for network
// order, so the type is compared with its bytes swapped where the host's differ.
func onlyDeletions() []unix.SockFilter {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], unix.RTM_DELADDR)
	want := binary.BigEndian.Uint16(b[:])
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 4}, // nlmsg_type
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(want), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
}

func newNews(t *nsthread.Thread) (*news, error) {
	fd := -1
	err := t.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		prog := onlyDeletions()
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}); err != nil {
			return err
		}
		// A device that goes takes its addresses all at once. The default holds a few hundred.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
		return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR})
	})
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return nil, fmt.Errorf("listen for address changes: %w", err)
	}
	return &news{os.NewFile(uintptr(fd), "netlink")}, nil
}

// run calls gone for each address that leaves a device, and lost when some were
// missed, until close.
func (n *news) run(gone func(index int, a netip.Prefix), lost func()) {
	buf := make([]byte, 64<<10)
	for {
		c, err := n.f.Read(buf)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil: // ENOBUFS: overrun
			lost()
			continue
		}
		msgs, err := syscall.ParseNetlinkMessage(buf[:c])
		if err != nil {
			lost()
			continue
		}
		for _, m := range msgs {
			if m.Header.Type != unix.RTM_DELADDR {
				continue
			}
			if a, ok := parseAddress(m.Data); ok {
				gone(a.index, a.prefix)
			}
		}
	}
}

func (n *news) close() {
	if n != nil {
		_ = n.f.Close()
	}
}
