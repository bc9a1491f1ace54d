// Package netlab builds hosts out of network namespaces: two switches, hosts
// wired to both, clients wired to the outer one, and the faults that happen to
// such hosts (power cut, cable pulled, one-way cut, partition, loss, hang). The
// end-to-end tests and `hanode demo` run on it, as root or, without root, in a
// user namespace (ReexecUnprivileged).
//
// It knows nothing about hanode: what runs on a host is its caller's business,
// and who answers for an address is seen by package watch. Hosts share the
// kernel, its clock, the file system and the process table; only the network is
// their own.
package netlab

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
)

// Names of the two switches. Hosts have eth0 on Int and eth1 on Ext; clients
// have eth0 on Ext.
const (
	Int = "int" // 10.0.0.0/24
	Ext = "ext" // 10.77.0.0/24
)

// Options of a lab.
type Options struct {
	Log *slog.Logger // nil = silent
}

// Lab is two switches and the hosts plugged into them. Safe for concurrent use.
type Lab struct {
	log      *slog.Logger
	switches map[string]*vswitch

	mu     sync.Mutex
	hosts  []*Host // guarded by mu, in the order they were added
	closed bool    // guarded by mu
}

// New builds the two switches. It needs the right to make network namespaces:
// see Inside and ReexecUnprivileged. The caller closes the lab.
func New(opts Options) (*Lab, error) {
	l := &Lab{log: opts.Log, switches: map[string]*vswitch{}}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	for _, name := range []string{Int, Ext} {
		s, err := newSwitch(name)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("build switch %s: %w", name, err), l.Close())
		}
		l.switches[name] = s
	}
	return l, nil
}

// AddHost adds a host with eth0 10.0.0.n/24 (02:fe:00:00:00:n) on the inner and
// eth1 10.77.0.n/24 (02:fe:00:00:01:n) on the outer switch, powered on. n is 1
// to 254 and, like the name, used by no other host or client of the lab.
func (l *Lab) AddHost(name string, n int) (*Host, error) {
	return l.add(name, n, []port{
		newPort("eth0", l.switches[Int], n, 0, [3]byte{10, 0, 0}),
		newPort("eth1", l.switches[Ext], n, 1, [3]byte{10, 77, 0}),
	})
}

// AddClient adds a host that has only eth0, 10.77.0.n/24 (02:fe:00:00:02:n), on
// the outer switch.
func (l *Lab) AddClient(name string, n int) (*Host, error) {
	return l.add(name, n, []port{newPort("eth0", l.switches[Ext], n, 2, [3]byte{10, 77, 0})})
}

func newPort(dev string, s *vswitch, n int, kind byte, net3 [3]byte) port {
	return port{
		dev:  dev,
		sw:   s,
		name: fmt.Sprintf("p%d", n),
		addr: netip.PrefixFrom(netip.AddrFrom4([4]byte{net3[0], net3[1], net3[2], byte(n)}), 24),
		mac:  net.HardwareAddr{0x02, 0xfe, 0, 0, kind, byte(n)},
	}
}

func (l *Lab) add(name string, n int, ports []port) (*Host, error) {
	if name == "" || n < 1 || n > 254 {
		return nil, fmt.Errorf("add host %q with number %d: it needs a name and a number from 1 to 254", name, n)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("add host %s: the lab is closed", name)
	}
	for _, o := range l.hosts {
		if o.name == name || o.n == n {
			return nil, fmt.Errorf("add host %s with number %d: %s has number %d", name, n, o.name, o.n)
		}
	}
	h := &Host{lab: l, name: name, n: n, ports: ports}
	if err := h.powerOn(); err != nil {
		return nil, fmt.Errorf("add host %s: %w", name, errors.Join(err, h.close()))
	}
	l.hosts = append(l.hosts, h)
	l.log.Info("host added", "node", name, "addr", ports[len(ports)-1].addr)
	return h, nil
}

// Hosts lists hosts and clients in the order they were added.
func (l *Lab) Hosts() []*Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Host(nil), l.hosts...)
}

// Close kills every process on every host by its id, waits for them, and gives
// the namespaces back. Calls after the first do nothing and return nil.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var errs []error
	for _, h := range l.hosts {
		errs = append(errs, h.close())
	}
	for _, s := range l.switches {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}
