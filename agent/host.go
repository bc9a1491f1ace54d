package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"hanode/cluster"
	"hanode/config"
	"hanode/internal/clock"
	"hanode/internal/grid"
	"hanode/internal/netio"
	"hanode/internal/realtime"
	"hanode/vip"
)

// Host is what an agent needs of the machine below it. The tests have one made of
// memory, in virtual time.
type Host struct {
	Network netio.Network
	Clock   clock.Clock
	// ID tells this host from a clone of it and from its own past: boot and network
	// namespace (R8).
	ID string
	// Boot and Machine tell a reboot of this host from a clone of it; an empty Machine
	// cannot be told.
	Boot, Machine string
	// Claim makes this the only agent of the cluster on the host until the process
	// dies; kill -9 included.
	Claim func(cluster string) (release func() error, err error)
	// Kernel opens the guard with every VIP closed.
	Kernel func(dataDir string, g *grid.Grid, problem func(code, text string)) (vip.Kernel, error)
	// Probe asks whether another host on the link uses addr and returns its MAC; ""
	// = none does. nil = there is nothing to ask.
	Probe func(ctx context.Context, link string, addr netip.Addr) (mac string, err error)
	// Fits says why the host has no device for an address, or nil. nil itself = there
	// is nothing to ask.
	Fits func(vip.Address) error
	// Present lists the host's addresses with the devices that have each, whoever put them
	// there, and RemoveStray takes one off. nil = there is nothing to ask.
	Present     func() (map[netip.Addr][]string, error)
	RemoveStray func(netip.Addr) error
	// Realtime has this process run before ordinary ones until ctx ends and says what
	// came of it. nil = there is no process to speak of.
	Realtime func(ctx context.Context, told func(realtime.State))
	// Stores opens raft's disk.
	Stores func(dir string) (cluster.Stores, error)
	// Watchdog opens a watchdog device. nil = as the path says.
	Watchdog func(path string) (io.WriteCloser, error)
	// Ping asks a host whether it is there. nil = by ICMP.
	Ping func(ctx context.Context, host string) error
	// SetAside takes raft's files out of the way; Stores then makes new ones.
	SetAside func(dir string) error
	// Exit ends the process at once; the kernel takes back what it held.
	Exit func(because error)
}

// RealHost is this machine, in the network namespace of this process.
func RealHost(cfg *config.Node, log *slog.Logger) (*Host, error) {
	network, err := netio.Host(cfg.Links)
	if err != nil {
		return nil, err
	}
	hostID, err := hostID()
	if err != nil {
		return nil, err
	}
	clk, err := clock.System()
	if err != nil {
		return nil, err
	}
	boot, machine, err := machineID(network.Links())
	if err != nil {
		return nil, err
	}
	return &Host{
		Network: network, Clock: clk, ID: hostID, Boot: boot, Machine: machine, Claim: claim, SetAside: setRaftAside,
		Kernel: func(dir string, g *grid.Grid, problem func(code, text string)) (vip.Kernel, error) {
			return vip.Open(vip.Options{Dir: dir, Log: log, Clock: clk, Grid: g, OnProblem: problem})
		},
		Probe: func(ctx context.Context, link string, addr netip.Addr) (string, error) {
			mac, err := vip.Probe(ctx, link, addr)
			return mac.String(), err
		},
		Fits:    vip.Fits,
		Present: vip.Present, RemoveStray: vip.RemoveStray,
		Realtime: realtime.Keep,
		Stores:   func(dir string) (cluster.Stores, error) { return cluster.OpenStores(dir, log) },
		Exit: func(because error) {
			log.Error("ending the process", "err", because)
			os.Exit(1)
		},
	}, nil
}

func hostID() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the boot id: %w", err)
	}
	ns, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return "", fmt.Errorf("read the network namespace: %w", err)
	}
	st, ok := ns.Sys().(*syscall.Stat_t)
	if !ok {
		return "", errors.New("the network namespace has no inode")
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", strings.TrimSpace(string(boot)), st.Ino))
	return hex.EncodeToString(sum[:8]), nil
}

// claim takes an abstract unix socket: the kernel gives it to one process per
// network namespace and takes it back only when that process is dead.
func claim(cluster string) (func() error, error) {
	name := "@hanode/" + cluster
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("another hanode agent of cluster %q already runs on this host; stop it first", cluster)
	}
	if err != nil {
		return nil, fmt.Errorf("claim %s: %w", name, err)
	}
	return l.Close, nil
}
