package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// port is one network device of a host and the switch port it is wired to.
type port struct {
	dev  string // name on the host
	sw   *vswitch
	name string // name on the switch
	addr netip.Prefix
	mac  net.HardwareAddr

	index int  // of the switch side, 0 = not wired; guarded by Host.mu
	cut   bool // the cable is pulled; guarded by Host.mu
}

// Host is a network namespace wired to the switches, and what runs in it. Safe
// for concurrent use.
type Host struct {
	lab   *Lab
	name  string
	n     int
	ports []port

	mu      sync.Mutex
	on      bool
	ns      *namespace      // nil before the first power on and after close
	rt      *netlink.Handle // in ns; nil when ns is
	starter *starter        // nil while off
	procs   []*Process      // started since the last power on
}

// killTime bounds how long SIGKILL may take to be obeyed.
const killTime = 10 * time.Second

// carrierTime bounds how long a link may take to notice its cable.
const carrierTime = 5 * time.Second

// errOff says that a host has no power.
var errOff = errors.New("the host is powered off")

// Name is the name given to AddHost or AddClient.
func (h *Host) Name() string { return h.name }

// On reports whether the host has power.
func (h *Host) On() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.on
}

// Addr is the host's own address on dev; the zero Addr if it has no such device.
func (h *Host) Addr(dev string) netip.Addr {
	p, err := h.port(dev)
	if err != nil {
		return netip.Addr{}
	}
	return p.addr.Addr()
}

// MAC is the hardware address of dev, the same after a power cycle; nil if the
// host has no such device.
func (h *Host) MAC(dev string) net.HardwareAddr {
	p, err := h.port(dev)
	if err != nil {
		return nil
	}
	return append(net.HardwareAddr(nil), p.mac...)
}

func (h *Host) port(dev string) (*port, error) {
	for i := range h.ports {
		if h.ports[i].dev == dev {
			return &h.ports[i], nil
		}
	}
	return nil, fmt.Errorf("host %s has no device %s", h.name, dev)
}

// Do runs fn on a thread of its own inside the host's network namespace, and
// waits for it. Sockets fn opens stay in the namespace; goroutines it starts do
// not run there. A power cut does not interrupt fn.
func (h *Host) Do(fn func() error) error {
	h.mu.Lock()
	ns, err := h.hold()
	h.mu.Unlock()
	if err != nil {
		return fmt.Errorf("work on host %s: %w", h.name, err)
	}
	return errors.Join(ns.do(fn), ns.close())
}

// hold returns a second hold on the namespace. The caller has h.mu.
func (h *Host) hold() (*namespace, error) {
	if !h.on {
		return nil, errOff
	}
	return h.ns.dup()
}

// PowerOn gives a host that was cut off a fresh namespace with the same devices,
// MACs and addresses and nothing else. On a host that is on it does nothing.
func (h *Host) PowerOn() error {
	if err := h.powerOn(); err != nil {
		return fmt.Errorf("power on host %s: %w", h.name, err)
	}
	h.lab.log.Info("power on", "node", h.name)
	return nil
}

func (h *Host) powerOn() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.on {
		return nil
	}
	if err := h.drop(); err != nil {
		return err
	}
	ns, err := newNamespace()
	if err != nil {
		return err
	}
	h.ns = ns
	if err := ns.do(quickAddresses); err != nil {
		return fmt.Errorf("set the namespace up: %w", err)
	}
	if err := h.wire(); err != nil {
		return err
	}
	if h.starter, err = newStarter(ns); err != nil {
		return err
	}
	h.procs, h.on = nil, true
	return nil
}

// drop unplugs the ports and lets the old namespace go. The caller has h.mu.
func (h *Host) drop() error {
	var errs []error
	for i := range h.ports {
		p := &h.ports[i]
		if p.index == 0 {
			continue
		}
		if err := p.sw.unplug(p.index); err != nil {
			errs = append(errs, fmt.Errorf("unplug %s: %w", p.dev, err))
			continue
		}
		p.index = 0
	}
	if h.rt != nil {
		h.rt.Close()
		h.rt = nil
	}
	if h.ns != nil {
		errs = append(errs, h.ns.close())
		h.ns = nil
	}
	return errors.Join(errs...)
}

// quickAddresses makes IPv6 addresses usable at once in the calling thread's
// namespace: there is nobody to collide with.
func quickAddresses() error {
	for _, key := range []string{"all", "default"} {
		for _, name := range []string{"accept_dad", "dad_transmits"} {
			if err := sysctl("net/ipv6/conf/"+key+"/"+name, "0"); err != nil {
				return err
			}
		}
	}
	return nil
}

// wire plugs the host's devices in, gives them their addresses and waits until
// they carry frames. The caller has h.mu.
func (h *Host) wire() error {
	rt, err := netlink.NewHandleAt(netns.NsHandle(h.ns.fd), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	h.rt = rt
	if err := setUp(rt, "lo"); err != nil {
		return err
	}
	for i := range h.ports {
		p := &h.ports[i]
		if p.index, err = p.sw.plug(p, h.ns); err != nil {
			return err
		}
		if err := setAddr(rt, p.dev, p.addr, rt.AddrReplace); err != nil {
			return err
		}
		if err := setUp(rt, p.dev); err != nil {
			return err
		}
		if err := h.cable(p, !p.cut); err != nil {
			return err
		}
	}
	return nil
}

// cable plugs the cable of p in or out and waits until both ends know: the
// kernel tells a device of its carrier later, by itself up to a second later.
// The caller has h.mu.
func (h *Host) cable(p *port, up bool) error {
	if err := p.sw.setPort(p.index, up); err != nil {
		return fmt.Errorf("set port %s of switch %s: %w", p.name, p.sw.name, err)
	}
	for deadline := time.Now().Add(carrierTime); ; time.Sleep(time.Millisecond) {
		// Since Linux 6.8 asking for a link brings its carrier up to date.
		far, err := p.sw.rt.LinkByIndex(p.index)
		if err != nil {
			return fmt.Errorf("look at port %s of switch %s: %w", p.name, p.sw.name, err)
		}
		near, err := h.rt.LinkByName(p.dev)
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return nil // renamed or taken away on the host: not ours to wait for
		}
		if err != nil {
			return fmt.Errorf("look at %s: %w", p.dev, err)
		}
		if carries(far) == up && (carries(near) == up || near.Attrs().Flags&net.FlagUp == 0) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the carrier of %s does not follow its cable", p.dev)
		}
	}
}

func carries(l netlink.Link) bool { return l.Attrs().OperState == netlink.OperUp }

func setUp(rt *netlink.Handle, dev string) error {
	link, err := rt.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("find %s: %w", dev, err)
	}
	if err := rt.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", dev, err)
	}
	return nil
}

func setAddr(rt *netlink.Handle, dev string, addr netip.Prefix, act func(netlink.Link, *netlink.Addr) error) error {
	link, err := rt.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("find %s: %w", dev, err)
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), addr.Addr().BitLen())}}
	if err := act(link, a); err != nil {
		return fmt.Errorf("change %s on %s: %w", addr, dev, err)
	}
	return nil
}

// PowerCut takes the host away as a power failure does: first both switch ports
// go down, so that nothing it does from then on is seen, then every process in
// its namespace is killed and waited for, daemons included. A process that moved
// to another network namespace is not found. On a host that is off it does
// nothing.
func (h *Host) PowerCut() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.on {
		return nil
	}
	h.on = false
	begin := time.Now()
	var errs []error
	for i := len(h.ports) - 1; i >= 0; i-- { // the clients' side first
		if p := &h.ports[i]; p.index != 0 {
			errs = append(errs, p.sw.setPort(p.index, false))
		}
	}
	silent := time.Since(begin)
	errs = append(errs, h.killAll())
	h.lab.log.Info("power cut", "node", h.name, "silent", silent, "dead", time.Since(begin))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cut the power of host %s: %w", h.name, err)
	}
	return nil
}

// killAll kills and waits for everything in the namespace, then ends the thread
// that starts processes. The caller has h.mu.
func (h *Host) killAll() error {
	var errs []error
	for _, p := range h.procs {
		errs = append(errs, p.Kill())
	}
	deadline := time.Now().Add(killTime)
	errs = append(errs, killIn(h.ns.id, deadline))
	for _, p := range h.procs {
		select {
		case <-p.Done:
		case <-time.After(time.Until(deadline)):
			errs = append(errs, fmt.Errorf("process %d does not end", p.Pid))
		}
	}
	if h.starter != nil {
		h.starter.stop()
		h.starter = nil
	}
	h.procs = nil
	return errors.Join(errs...)
}

// close is the end of the host, with its lab.
func (h *Host) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var err error
	if h.ns != nil {
		err = h.killAll()
	}
	h.on = false
	if err = errors.Join(err, h.drop()); err != nil {
		return fmt.Errorf("close host %s: %w", h.name, err)
	}
	return nil
}
