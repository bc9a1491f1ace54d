package netlab

import (
	"errors"
	"fmt"
	"sync"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// vswitch is a bridge in a namespace of its own. Its handles are opened when it
// is built, so that a cut is one system call away.
type vswitch struct {
	name   string
	ns     *namespace
	rt     *netlink.Handle
	nft    *nftables.Conn
	bridge int // interface index

	mu     sync.Mutex
	faults faults // guarded by mu; mu also orders writes of the rules
}

func newSwitch(name string) (*vswitch, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	s := &vswitch{name: name, ns: ns, faults: newFaults()}
	if err := s.build(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *vswitch) build() error {
	err := s.ns.do(func() error { return sysctl("net/ipv6/conf/default/disable_ipv6", "1") })
	if err != nil {
		return fmt.Errorf("keep the switch itself silent: %w", err)
	}
	if s.rt, err = netlink.NewHandleAt(netns.NsHandle(s.ns.fd), unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open rtnetlink: %w", err)
	}
	if s.nft, err = nftables.New(nftables.WithNetNSFd(s.ns.fd), nftables.AsLasting()); err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	snooping := false
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}, MulticastSnooping: &snooping}
	if err := s.rt.LinkAdd(br); err != nil {
		return fmt.Errorf("add bridge br0: %w", err)
	}
	link, err := s.rt.LinkByName("br0")
	if err != nil {
		return fmt.Errorf("find bridge br0: %w", err)
	}
	s.bridge = link.Attrs().Index
	if err := s.ns.do(func() error { return setForwarding(s.bridge) }); err != nil {
		return fmt.Errorf("let bridge br0 forward at once: %w", err)
	}
	if err := s.rt.LinkSetUp(link); err != nil {
		return fmt.Errorf("set bridge br0 up: %w", err)
	}
	return nil
}

// setForwarding turns spanning tree and the forward delay off, in the calling
// thread's namespace: a port that comes up carries frames at once.
func setForwarding(bridge int) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(bridge)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(0))
	data.AddRtAttr(nl.IFLA_BR_FORWARD_DELAY, nl.Uint32Attr(0))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// plug makes the veth pair of p: p.name on the bridge, p.dev with its MAC in
// host. The port stays down. It returns the port's interface index.
func (s *vswitch) plug(p *port, host *namespace) (int, error) {
	v := &netlink.Veth{
		LinkAttrs:        netlink.LinkAttrs{Name: p.name, MasterIndex: s.bridge},
		PeerName:         p.dev,
		PeerHardwareAddr: p.mac,
		PeerNamespace:    netlink.NsFd(host.fd),
	}
	if err := s.rt.LinkAdd(v); err != nil {
		return 0, fmt.Errorf("add veth %s-%s: %w", p.name, p.dev, err)
	}
	link, err := s.rt.LinkByName(p.name)
	if err != nil {
		return 0, fmt.Errorf("find veth %s: %w", p.name, err)
	}
	return link.Attrs().Index, nil
}

// unplug deletes the veth pair; when it returns both ends are gone.
func (s *vswitch) unplug(index int) error {
	err := s.rt.LinkDel(linkOf(index))
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// setPort raises or lowers the switch side of a port.
func (s *vswitch) setPort(index int, up bool) error {
	if up {
		return s.rt.LinkSetUp(linkOf(index))
	}
	return s.rt.LinkSetDown(linkOf(index))
}

func linkOf(index int) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

func (s *vswitch) close() error {
	var err error
	if s.nft != nil {
		err = s.nft.CloseLasting()
	}
	if s.rt != nil {
		s.rt.Close()
	}
	return errors.Join(err, s.ns.close())
}
