package vip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// checkEvery is how often the guard is looked after when nothing happens.
const checkEvery = time.Second

// watch keeps the guard on every device: at each change of a device, and each
// second in case a change was missed or someone took the guard away.
func (h *host) watch(ctx context.Context) {
	tick := h.opts.Grid.Ticker(checkEvery)
	defer tick.Stop()
	var sub *subscription
	defer func() { sub.close() }()
	for {
		if sub == nil {
			s, err := h.subscribe()
			if err != nil {
				h.log.Warn("cannot hear of device changes; looking each second", "err", err)
			}
			sub = s
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Next()
		case _, ok := <-sub.changes():
			if !ok { // overrun: some were lost, so look now
				sub.close()
				sub = nil
			}
			sub.drain()
		}
		h.reconcile()
	}
}

// subscription is a stream of device changes. A nil one never has any.
type subscription struct {
	ch   chan netlink.LinkUpdate
	done chan struct{}
}

func (h *host) subscribe() (*subscription, error) {
	s := &subscription{make(chan netlink.LinkUpdate, 64), make(chan struct{})}
	err := h.thread.Do(func() error {
		return netlink.LinkSubscribeWithOptions(s.ch, s.done, netlink.LinkSubscribeOptions{
			ErrorCallback: func(error) {}, // the stream ends, and is opened again
		})
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *subscription) changes() <-chan netlink.LinkUpdate {
	if s == nil {
		return nil
	}
	return s.ch
}

func (s *subscription) drain() {
	for s != nil {
		select {
		case _, ok := <-s.ch:
			if !ok {
				return
			}
		default:
			return
		}
	}
}

// close ends the stream and waits for its reader.
func (s *subscription) close() {
	if s == nil {
		return
	}
	close(s.done)
	for range s.ch { // closed by the reader when it ends
	}
}

// reconcile looks at the devices, guards them, and announces again what is on a
// device that has another MAC address.
func (h *host) reconcile() {
	h.mu.Lock()
	if err := h.attach(); err != nil {
		h.log.Debug("guarding the devices", "err", err)
	}
	h.look.RLock()
	now := h.devs
	h.look.RUnlock()
	h.rehome(now)
	h.mu.Unlock()
	h.routers()
	h.forgive()
	was := h.macs
	h.macs = make(map[int]net.HardwareAddr, len(now))
	for index, d := range now {
		h.macs[index] = d.mac
	}
	if was != nil {
		h.announceOn("the device has another MAC address", func(d device) bool { return !bytes.Equal(d.mac, was[d.index]) })
	}
}

// linkUp announces again what is on a device that carries again.
func (h *host) linkUp(dev string) {
	h.announceOn("the device carries again", func(d device) bool { return d.name == dev })
}

// announceOn announces again what is on the devices that which accepts.
func (h *host) announceOn(because string, which func(device) bool) {
	n := h.ann.again(func(a Address) bool {
		h.look.RLock()
		defer h.look.RUnlock()
		p, ok := h.placed[a.Addr]
		return ok && which(h.devs[p.index])
	})
	if n > 0 {
		h.log.Info("announcing again", "because", because, "count", n)
	}
}

// routers looks whether devices with IPv6 addresses of ours have begun, or ceased, to
// forward: their advertisements say so.
func (h *host) routers() {
	h.look.RLock()
	is := map[int]bool{}
	for a, p := range h.placed {
		if a.Is6() {
			is[p.index] = p.router
		}
	}
	names := make(map[int]string, len(is))
	for index := range is {
		names[index] = h.devs[index].name
	}
	h.look.RUnlock()
	if len(is) == 0 {
		return
	}
	_ = h.thread.Do(func() error { // it fails only while it closes
		for index, name := range names {
			is[index] = forwards6(name)
		}
		return nil
	})
	h.look.Lock()
	defer h.look.Unlock()
	for a, p := range h.placed {
		if r, ok := is[p.index]; ok && a.Is6() && r != p.router {
			p.router = r
			h.placed[a] = p
		}
	}
}

// rehome puts addresses whose device is there again, under whatever number, where
// they belong: it is guarded first. mu is held.
func (h *host) rehome(now devices) {
	lost := h.keep.homeless(now)
	if len(lost) == 0 {
		return
	}
	places, errs := h.ready(lost...)
	for i, a := range lost {
		p := places[i]
		h.look.Lock()
		back := errs[i] == nil && h.devs[p.index].admin
		if back {
			h.placed[a.Addr] = p
		}
		h.look.Unlock()
		if back { // otherwise at the next change of a device
			h.keep.move(a.Addr, p.index)
			h.keep.wake()
		}
	}
}

// attach makes the guarded devices those that must be. mu is held.
func (h *host) attach() error {
	ds, err := h.rtnl.links()
	if err != nil {
		return err
	}
	repairs, err := h.guard.Attach(ds.toGuard())
	h.look.Lock()
	h.devs = ds
	h.look.Unlock()
	h.forgetGone(ds)
	if errors.Is(err, unix.ENODEV) {
		// It vanished while it was looked at; the next change tells.
		h.log.Debug("a device vanished", "err", err)
		err = nil
	}
	if err != nil {
		h.problem(ProblemAttach, fmt.Sprintf("%v; virtual addresses are not put on that device until it is guarded", err))
	} else {
		h.problem(ProblemAttach, "")
	}
	var texts []string
	for _, r := range repairs {
		texts = append(texts, r.Device.Name+": "+r.What)
	}
	if len(texts) > 0 {
		h.problem(ProblemDetached, "the guard was put back on "+strings.Join(texts, ", ")+"; find the program that removes tc, tcx or nftables rules that are not its own")
	} else {
		h.problem(ProblemDetached, "")
	}
	return err
}

// problem reports a change of what stands under a code.
func (h *host) problem(code, text string) {
	h.told.Lock()
	defer h.told.Unlock()
	if h.raised[code] == text {
		return
	}
	h.raised[code] = text
	if text == "" {
		delete(h.raised, code)
		h.log.Info("problem over", "code", code)
	} else {
		h.log.Warn("problem", "code", code, "text", text)
	}
	if h.opts.OnProblem != nil {
		h.opts.OnProblem(code, text)
	}
}

// deviceOf is the number of the device that a is on; 0 = none.
func (h *host) deviceOf(a netip.Addr) int {
	h.look.RLock()
	defer h.look.RUnlock()
	return h.placed[a].index
}

// send puts the frames of one announcement on the wire. A lost one is made good
// by the next: it never waits.
func (h *host) send(a Address) {
	h.look.RLock()
	p, ok := h.placed[a.Addr]
	d := h.devs[p.index]
	h.look.RUnlock()
	if !ok {
		return
	}
	var failed error
	for _, f := range announcement(a.Addr, d.mac, p.router) {
		to := &unix.SockaddrLinklayer{Ifindex: d.index, Protocol: uint16(f[13])<<8 | uint16(f[12]), Halen: 6}
		copy(to.Addr[:], f[:6])
		if err := unix.Sendto(h.packet, f, unix.MSG_DONTWAIT, to); err != nil {
			failed = err
		}
	}
	muted := errors.Is(failed, unix.ENOBUFS) // what the guard's own drop looks like
	if failed != nil {
		h.log.Debug("announcement not sent", "addr", a.Addr, "dev", d.name, "muted", muted, "err", failed)
	}
	h.tally.count(a.Addr, func(t *Tally) {
		switch {
		case failed == nil:
			t.Announced++
		case muted:
			t.Muted++
		default:
			t.Unsent++
		}
	})
}
