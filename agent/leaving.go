package agent

import (
	"net/netip"
	"slices"
	"sync"

	"hanode/vip"
)

// leaving are addresses that are closed here and still on their devices. Their group is
// released first, because the next owner waits for that alone: a closed guard answers
// for nothing, and taking an address off takes the kernel's time.
//
// An address that another group of this node is given meanwhile stays. The zero leaving
// has none. Safe for concurrent use.
type leaving struct {
	mu sync.Mutex
	m  map[netip.Addr]*leave
}

// leave is one of them.
type leave struct {
	vip.Address
	group string
	done  chan struct{} // closed when it is off; nil = nobody takes it off yet
}

// add notes what a group has closed.
func (l *leaving) add(group string, ads []vip.Address) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.m == nil {
		l.m = map[netip.Addr]*leave{}
	}
	for _, a := range ads {
		if x := l.m[a.Addr]; x == nil || x.done == nil {
			l.m[a.Addr] = &leave{a, group, nil}
		}
	}
}

// stay says that addresses are wanted here after all. When it returns, nobody takes
// them off any more.
func (l *leaving) stay(ads []vip.Address) {
	for _, a := range ads {
		l.mu.Lock()
		x := l.m[a.Addr]
		if x != nil && x.done == nil {
			delete(l.m, a.Addr)
			x = nil
		}
		l.mu.Unlock()
		if x != nil {
			<-x.done
		}
	}
}

// off takes off what a group has closed.
func (l *leaving) off(group string, del func(...vip.Address) error) error {
	l.mu.Lock()
	done := make(chan struct{})
	var ads []vip.Address
	for _, x := range l.m {
		if x.group == group && x.done == nil {
			x.done = done
			ads = append(ads, x.Address)
		}
	}
	l.mu.Unlock()
	if len(ads) == 0 {
		return nil
	}
	slices.SortFunc(ads, func(a, b vip.Address) int { return a.Addr.Compare(b.Addr) })
	err := del(ads...)
	l.mu.Lock()
	for _, a := range ads {
		delete(l.m, a.Addr)
	}
	l.mu.Unlock()
	close(done)
	return err
}
