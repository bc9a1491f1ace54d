package watch

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// receiveBuffer holds the answers of several seconds.
const receiveBuffer = 4 << 20

// openSocket opens a promiscuous packet socket for one kind of frame on dev, in the
// calling thread's network namespace.
func openSocket(dev string, etherType uint16) (*os.File, net.HardwareAddr, error) {
	ifi, err := net.InterfaceByName(dev)
	if err != nil {
		return nil, nil, fmt.Errorf("find %s: %w", dev, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open a packet socket: %w", err)
	}
	// Owned by the file from here on.
	f := os.NewFile(uintptr(fd), "packets@"+dev)
	if err := setOptions(fd, ifi.Index, etherType); err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, ifi.HardwareAddr, nil
}

func setOptions(fd, index int, etherType uint16) error {
	// The plain size is cut to the system's limit where the forced one is not
	// allowed, as in a user namespace; answers that do not fit are counted.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
			return fmt.Errorf("enlarge the receive buffer: %w", err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
		return fmt.Errorf("have packets stamped: %w", err)
	}
	all := unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &all); err != nil {
		return fmt.Errorf("hear packets for others: %w", err)
	}
	at := unix.SockaddrLinklayer{Protocol: etherType>>8 | etherType&0xff<<8, Ifindex: index}
	if err := unix.Bind(fd, &at); err != nil {
		return fmt.Errorf("bind the packet socket: %w", err)
	}
	return nil
}

// received is when the kernel took the packet in, on this process's monotonic
// clock; now if it does not say or the wall clock was set in between.
func received(oob []byte) time.Time {
	now := time.Now()
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return now
	}
	for _, m := range list {
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_TIMESTAMPNS || len(m.Data) < 16 {
			continue
		}
		sec, nsec := binary.NativeEndian.Uint64(m.Data), binary.NativeEndian.Uint64(m.Data[8:])
		if age := now.Round(0).Sub(time.Unix(int64(sec), int64(nsec))); age > 0 && age < time.Second {
			return now.Add(-age)
		}
	}
	return now
}

// dropped is how many packets found the receive buffer full.
func dropped(f *os.File) int {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	lost := 0
	_ = conn.Control(func(fd uintptr) {
		if st, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			lost = int(st.Drops)
		}
	})
	return lost
}
