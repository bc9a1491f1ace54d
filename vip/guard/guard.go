// Package guard makes the kernel silence addresses whose lease has run out,
// whatever became of the process that renewed it.
//
// It knows addresses, one lease end, and devices. Which address may be open, and
// until when, is decided elsewhere; putting addresses on devices is package
// vip's business. There are two implementations, eBPF and nftables, and None for
// hosts that can do neither. See vip/DESIGN.md.
package guard

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"hanode/internal/clock"
	"hanode/vip/internal/nsthread"
)

// TooFar is how far ahead a lease may end; one further ahead is taken for a
// mistake of unit or clock and counts as closed.
const TooFar = 60 * time.Second

// MaxAddrs is how many addresses one guard can know.
const MaxAddrs = 4096

var (
	// ErrUnknown says that an address was never given to Know.
	ErrUnknown = errors.New("the guard does not know this address")
	// ErrTooFar says that a lease end is more than TooFar ahead.
	ErrTooFar = errors.New("the lease end is more than 60 s ahead")
	// ErrSuperseded says that a newer incarnation has replaced this guard.
	ErrSuperseded = errors.New("a newer guard has taken over")
)

// Device is one network device to guard.
type Device struct {
	Index int
	Name  string
}

// Drops counts packets that closed addresses were denied, since Open.
type Drops struct {
	ARPIn, ARPOut, NDIn, NDOut, IPIn, IPOut uint64
}

// Repair is what Attach found wrong on a device it had attached to before.
type Repair struct {
	Device Device
	What   string // such as "the program was gone"
}

// Guard is one incarnation's guard: what an older incarnation still writes does
// not reach it. All methods are safe for concurrent use. What Attach did
// outlives Release and the process.
type Guard interface {
	// Know makes the guard silence the addresses unless they are opened. Those
	// it knows already stay as they are. At most MaxAddrs.
	Know(addrs []netip.Addr) error
	// Forget stops guarding the addresses: they answer if the host has them.
	Forget(addrs []netip.Addr) error
	// Set opens or closes addresses, all in one step. ErrUnknown if one is not known:
	// then none is opened, and those that are known are closed.
	Set(open bool, addrs ...netip.Addr) error
	// Renew moves the lease end forward, never back. It takes no lock that a
	// system call is made under. ErrTooFar changes nothing.
	Renew(end clock.Instant) error
	// Attach makes the attached devices exactly those listed and verifies each:
	// our program there, and first. Devices that fail do not stop the others.
	Attach(devs []Device) ([]Repair, error)
	// Attached reports whether Attach last succeeded for the device.
	Attached(index int) bool
	// Kind says by what means it guards: tcx, clsact, nftables or none.
	Kind() string
	// Drops reads the counters.
	Drops() (Drops, error)
	// Release gives back what the process holds; the guard stays attached.
	Release()
}

// Config is what a guard needs of its host.
type Config struct {
	Thread *nsthread.Thread // the namespace it acts in; not closed by the guard
	Clock  clock.Clock
	Log    *slog.Logger
	Closed []netip.Addr // known, and closed, before anything is attached
	Devs   []Device     // attached before Open returns
	// Clsact uses filters on the clsact qdisc even where the kernel has tcx.
	Clsact bool
}

// settable are those of the addresses that Set may set, and its error.
func settable[T any](known map[netip.Addr]T, open bool, addrs []netip.Addr) (may []netip.Addr, err error) {
	for _, a := range addrs {
		if _, ok := known[a]; ok {
			may = append(may, a)
		} else if err == nil {
			err = fmt.Errorf("%s: %w", a, ErrUnknown)
		}
	}
	if err != nil && open {
		return nil, err
	}
	return may, err
}

// smallStep is how far a renewal may move the end without the clock being read,
// which costs twenty times the renewal itself. The end it starts from was
// checked, and the guard closes on one too far ahead in any case.
const smallStep = time.Second

// checkEnd applies ErrTooFar to an end that follows last, in boot time.
func checkEnd(clk clock.Clock, last time.Duration, end clock.Instant) error {
	if end.Boot-last > smallStep && end.Boot-clk.Now().Boot > TooFar {
		return ErrTooFar
	}
	return nil
}
