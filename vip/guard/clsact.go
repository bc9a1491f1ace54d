package guard

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	filterName = "hanode_guard"
	filterPrio = 1
	// Two handles: a filter that must go to the head again is added under the
	// other one before the old one is removed.
	handleA = 0x6861
	handleB = 0x6862
)

// clsact attaches by filters on the clsact qdisc, for kernels before 6.6. They
// belong to the device and outlive every process.
type clsact struct {
	h    *netlink.Handle
	objs *progObjects
	ids  [2]int // program ids, in and out
}

var parents = [2]uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS}

func newHandle(cfg Config) (h *netlink.Handle, err error) {
	err = cfg.Thread.Do(func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return h, nil
}

func newClsact(cfg Config, objs *progObjects) (*clsact, error) {
	h, err := newHandle(cfg)
	if err != nil {
		return nil, err
	}
	c := &clsact{h: h, objs: objs}
	for i, p := range []*ebpf.Program{objs.GuardIn, objs.GuardOut} {
		info, err := p.Info()
		if err != nil {
			return nil, fmt.Errorf("program info: %w", err)
		}
		id, _ := info.ID()
		c.ids[i] = int(id)
	}
	return c, nil
}

func (c *clsact) ensure(dev Device, again bool) (repaired string, err error) {
	for i := range parents {
		what, err := c.ensureSide(dev, i)
		if err != nil {
			return repaired, err
		}
		if again && what != "" {
			repaired = what
		}
	}
	return repaired, nil
}

func (c *clsact) ensureSide(dev Device, i int) (string, error) {
	there, err := c.filters(dev.Index, i)
	if err != nil {
		return "", err
	}
	if len(there) > 0 && there[0].ours && there[0].id == c.ids[i] {
		return "", nil
	}
	qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: dev.Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := c.h.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return "", fmt.Errorf("add clsact: %w", err)
	}
	what := "the program was gone"
	for n, f := range there {
		if f.ours && n > 0 {
			what = "another filter had gone ahead of the guard"
		}
	}
	// A filter of ours that is first is replaced in place; otherwise a new one
	// goes to the head of its priority, and the older ones of ours go after.
	handle := uint32(handleA)
	if len(there) > 0 && there[0].ours {
		handle = there[0].handle
	} else {
		for _, f := range there {
			if f.ours && f.handle == handleA {
				handle = handleB
			}
		}
	}
	program := c.objs.GuardIn
	if i == 1 {
		program = c.objs.GuardOut
	}
	f := c.filter(dev.Index, i, handle)
	f.Fd = program.FD()
	if err := c.h.FilterReplace(f); err != nil {
		return "", fmt.Errorf("set the clsact filter: %w", err)
	}
	for _, old := range there {
		if old.ours && old.handle != handle {
			if err := c.h.FilterDel(c.filter(dev.Index, i, old.handle)); err != nil && !gone(err) {
				return "", fmt.Errorf("remove the older clsact filter: %w", err)
			}
		}
	}
	now, err := c.filters(dev.Index, i)
	if err != nil {
		return "", err
	}
	if len(now) == 0 || !now[0].ours {
		return "", errors.New("another clsact filter stays ahead of the guard")
	}
	return what, nil
}

func (c *clsact) filter(index, i int, handle uint32) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: index, Parent: parents[i], Handle: handle, Protocol: unix.ETH_P_ALL, Priority: filterPrio,
		},
		Name: filterName, DirectAction: true,
	}
}

type found struct {
	ours   bool
	handle uint32
	id     int
}

// filters lists what runs at a hook, in order.
func (c *clsact) filters(index, i int) ([]found, error) {
	dev := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}
	list, err := c.h.FilterList(dev, parents[i])
	if err != nil {
		if errors.Is(err, unix.EINVAL) { // no clsact there
			return nil, nil
		}
		return nil, fmt.Errorf("list the clsact filters: %w", err)
	}
	var out []found
	for _, f := range list {
		bpf, ok := f.(*netlink.BpfFilter)
		if ok && bpf.Handle == 0 {
			continue // the chain itself, not a filter
		}
		e := found{handle: f.Attrs().Handle}
		if ok && bpf.Name == filterName {
			e.ours, e.id = true, bpf.Id
		}
		out = append(out, e)
	}
	return out, nil
}

func (c *clsact) drop(index int) error {
	var errs []error
	for i := range parents {
		there, err := c.filters(index, i)
		if err != nil {
			if !gone(err) {
				errs = append(errs, err)
			}
			continue
		}
		for _, f := range there {
			if !f.ours {
				continue
			}
			if err := c.h.FilterDel(c.filter(index, i, f.handle)); err != nil && !gone(err) {
				errs = append(errs, fmt.Errorf("remove the clsact filter: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)
}

// leftover lists every device that carries a filter of ours.
func (c *clsact) leftover() []int {
	links, err := c.h.LinkList()
	if err != nil {
		return nil
	}
	var out []int
	for _, l := range links {
		for i := range parents {
			there, err := c.filters(l.Attrs().Index, i)
			if err == nil && containsOurs(there) {
				out = append(out, l.Attrs().Index)
				break
			}
		}
	}
	return out
}

func containsOurs(fs []found) bool {
	for _, f := range fs {
		if f.ours {
			return true
		}
	}
	return false
}

func (c *clsact) kind() string { return "clsact" }

func (c *clsact) close() { c.h.Close() }

// removeClsact detaches what an older incarnation attached by filters. The
// qdiscs stay: others may use them.
func removeClsact(cfg Config) error {
	h, err := newHandle(cfg)
	if err != nil {
		return err
	}
	c := &clsact{h: h}
	defer c.close()
	var errs []error
	for _, index := range c.leftover() {
		errs = append(errs, c.drop(index))
	}
	return errors.Join(errs...)
}
