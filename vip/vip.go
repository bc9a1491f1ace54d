// Package vip makes this host answer for virtual addresses, and makes it stop:
// addresses on devices, the guard that silences them when the lease runs out
// whatever became of the agent, and their announcement to the network.
//
// It does not decide which address belongs here or for how long: package
// failover decides what, package lease until when, and the agent carries both
// to a Kernel. DESIGN.md holds the reasons. Package vipfake is the same on
// hosts made of memory.
package vip

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"time"

	"hanode/internal/clock"
	"hanode/internal/grid"
	"hanode/internal/linkstate"
	"hanode/vip/guard"
)

// Kernel is what the agent needs of its host. Everything acts in the network
// namespace in which it was opened. All methods are safe for concurrent use;
// Renew waits for no other.
//
// Each Kernel is one incarnation of the agent. Opening one closes every address
// of ours on the host, and what an older Kernel still writes opens nothing.
type Kernel interface {
	// Prepare tells the addresses this host may come to hold: the whole wanted
	// universe, at first and at each change. When it returns, each is guarded and
	// closed, unless it is open already, on every Ethernet device but lo and the
	// ports of bridges and bonds. Addresses that are no longer listed stop being
	// guarded once they are off the host.
	Prepare(addrs []Address) error
	// Expect does early what Add of these would have to do first, for a node that will
	// soon hold them, or not: which devices they go to, and the settings of those.
	// Nothing is put on. It counts for two seconds; the settings stay until the addresses
	// are dismissed, or were added and taken off again. What fails is left to Add to say.
	Expect(as ...Address)
	// Dismiss says that addresses do not come after all. One that was added, or is not
	// expected: nothing happens.
	Dismiss(as ...Address)
	// Add puts prepared addresses on their devices, as /32 or /128, and keeps them
	// there while the lease runs: each is put back if somebody takes it off, or when
	// its device returns. Without a lease it goes by its lifetime, LifeBound after the
	// last, and is back when the next begins. It is there already: success.
	// ErrNotPrepared if one never went through Prepare: then none is added. An address
	// answers only once it is open. The error names the first that failed; the others
	// are on.
	Add(as ...Address) error
	// Del takes addresses off and destroys the connections that are left on them.
	// Close them first. One that is not there: success.
	Del(as ...Address) error
	// Open lets prepared addresses answer while the lease runs, all or none.
	Open(as ...Address) error
	// Close silences addresses at once. When it returns nil, no packet that
	// comes later is answered.
	Close(as ...Address) error
	// Renew moves the lease end of all addresses forward, never back; it uses
	// end.Boot. It never blocks. On the eBPF tier the kernel has it on return; on
	// the nftables tier a writer of its own brings it there, the newest first, and
	// the error is that of its last write. An end more than 60 s ahead is refused.
	Renew(end clock.Instant) error
	// Announce tells the network that addresses are here: before it returns, unless
	// many are being announced on that device, which takes 0.1 ms for each; then 20,
	// 100, 300 ms, 1.1, 2.2 and 5 s after the first, and each one to two minutes, until
	// Silence or Del. Called again it begins again; it does so by itself when the lease
	// or the device returns and when the device has another MAC address.
	Announce(as ...Address)
	// AnnounceAgain begins again with all that are being announced, and says how many
	// those are: for a network that was parted, or a host that stood still.
	AnnounceAgain() int
	// Silence ends announcements. When it returns none of them is sent any more.
	Silence(as ...Address)
	// Ours lists the addresses on the host that carry our mark or that an
	// incarnation with this data directory may have put there.
	Ours() ([]Address, error)
	// RemoveOurs closes and takes off all of them and verifies that they are
	// gone. It touches nothing else.
	RemoveOurs() (removed []Address, err error)
	// Links says how the devices of the prepared addresses are, by name. The channel is
	// closed when that changes: within 100 ms, also while another method hangs.
	Links() (links []linkstate.Link, changed <-chan struct{})
	// Tier says how the addresses are guarded. It does not change.
	Tier() Tier
	// Why says why no better tier could be had; "" on the best.
	Why() string
	// Upkeep counts what keeping the addresses on took.
	Upkeep() Upkeep
	// Sightings says what the network claims of the prepared addresses, by address: the
	// holder hears who else does, at once; from elsewhere each is asked for each five
	// seconds. The channel is closed when a conflict begins or ends, or an address
	// falls silent.
	Sightings() (list []Sighting, changed <-chan struct{})
	// InUse asks the network, for a second, which of these addresses another host has,
	// and returns its MAC address. What cannot be asked for here is not in use.
	InUse(ctx context.Context, addrs []Address) map[netip.Addr]net.HardwareAddr
	// Tallies counts what happened to each known address.
	Tallies() map[netip.Addr]Tally
	// Drops counts the packets that closed addresses were denied.
	Drops() (guard.Drops, error)
	// Shutdown closes all, removes our addresses and gives back what the process
	// holds. The guard stays attached, closed. No other method may be called
	// after it.
	Shutdown() error
}

// Tier is a way to silence an address without the agent's help.
type Tier uint8

const (
	TierAuto     Tier = iota // as an option: the best that loads
	TierEBPF                 // exact, by the boot clock
	TierNftables             // by the wall clock
	TierNone                 // not at all
)

func (t Tier) String() string {
	switch t {
	case TierAuto:
		return "auto"
	case TierEBPF:
		return "ebpf"
	case TierNftables:
		return "nftables"
	case TierNone:
		return "none"
	}
	return "unknown"
}

// Forever is what Extra returns where waiting is never evidence.
const Forever = time.Duration(math.MaxInt64)

// nftExtra covers what separates the two clocks and the writer's delay.
const nftExtra = 5 * time.Millisecond

// Extra is what the tier adds to the time others must wait after a lease was
// last acked: 0 on eBPF. On TierNone it is Forever: a silent node may answer
// until it is powered off, so its groups move only on power fencing or an
// operator's word.
func (t Tier) Extra() time.Duration {
	switch t {
	case TierEBPF:
		return 0
	case TierNftables:
		return nftExtra
	}
	return Forever
}

// Errors that callers branch on.
var (
	// ErrNotPrepared: the address was not listed in Prepare, so it is unguarded.
	ErrNotPrepared = errors.New("the address is not prepared")
	// ErrNoDevice: no device, or more than one, fits the address.
	ErrNoDevice = errors.New("no device for the address")
	// ErrTooFar: the lease end is more than 60 s ahead; nothing was changed.
	ErrTooFar = guard.ErrTooFar
)

// Problem codes given to Options.OnProblem.
const (
	// ProblemDetached: the guard was found missing, or not first, and repaired.
	ProblemDetached = "guard-detached"
	// ProblemAttach: a device cannot be guarded.
	ProblemAttach = "guard-attach-failed"
	// ProblemTaken: another program takes addresses off again and again.
	ProblemTaken = "vip-taken"
	// ProblemSysctl: a device keeps settings that let it answer ARP for
	// addresses of other devices.
	ProblemSysctl = "vip-device-settings"
)

// Options of Open. The zero value of each field but Dir has a meaning.
type Options struct {
	// Dir is the data directory; vips.json is kept in it. Required.
	Dir string
	// Log is where to log; nil = nowhere.
	Log *slog.Logger
	// Clock is the host's; nil = the system's. The eBPF guard itself reads the
	// kernel's.
	Clock clock.Clock
	// Force takes this tier or fails; TierAuto = the best that loads. For tests.
	Force Tier
	// OnProblem is told what is wrong, in words for an operator, with the remedy;
	// an empty text says that it is over. It may be called from any goroutine
	// and must not call the Kernel. nil = only logged.
	OnProblem func(code, text string)
	// Grid is when devices and addresses are looked at; nil = one of its own.
	Grid *grid.Grid

	clsact bool          // filters even where tcx is there
	bare   bool          // leave the guard that is there as it is; to clean up
	ask    time.Duration // between two questions about one address; 0 = askEvery
}
