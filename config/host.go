package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"hanode/internal/spec"
)

// Host answers what CheckHost asks about the machine it runs on.
type Host interface {
	// Hostname is what `name` defaults to.
	Hostname() (string, error)
	// Devices lists the network devices of this network namespace.
	Devices() ([]string, error)
	// Addresses lists the addresses on a device.
	Addresses(dev string) ([]netip.Addr, error)
	// ReadKey returns the content (at most 64 KiB of it) and the mode of the
	// key file. The mode is valid, and the content nil, if only reading failed.
	ReadKey(path string) ([]byte, fs.FileMode, error)
}

// CheckHost checks n against the host it is meant for: the links exist, this
// node has a node block, its address is on the first link, and the key file is
// there, private and well-formed. The error is [Diagnostics] with every problem.
func (n *Node) CheckHost(h Host) error {
	c := &hostCheck{report: report{file: n.File}, n: n, h: h}
	self, known := c.self()
	c.links(self, known)
	if c.n.HADir == "" { // else LoadHeartbeat has looked at authkeys
		c.keyFile()
	}
	return c.diags.err()
}

type hostCheck struct {
	report
	n *Node
	h Host
}

// self checks that this node is a founder, and returns its block.
func (c *hostCheck) self() (spec.Node, bool) {
	if len(c.n.Nodes) == 0 {
		return spec.Node{Name: c.n.Name, Address: c.n.Address}, c.n.Address != ""
	}
	self, ok := c.n.Self()
	if ok {
		return self, true
	}
	names := c.n.names()
	f := finding{allowed: "node blocks are " + orNone(names), remedy: didYouMean(c.n.Name, names)}
	line := c.n.lines["name"]
	if line > 0 {
		f.what = fmt.Sprintf("name %s has no node block", quote(c.n.Name))
	} else {
		f.what = fmt.Sprintf("name is not set and the hostname %s has no node block", quote(c.n.Name))
		f.remedy = `set name = "NAME" to one of them`
	}
	if f.remedy == "" {
		f.remedy = "add one, or correct name"
	}
	if host, err := c.h.Hostname(); err == nil && line > 0 && host != c.n.Name && slices.Contains(names, host) {
		f.remedy = fmt.Sprintf("this host is called %s; set name = %q or remove the line", host, host)
	}
	c.add(line, f)
	return spec.Node{}, false
}

// links checks that the devices are there and carry this node's address.
func (c *hostCheck) links(self spec.Node, known bool) {
	devices, err := c.h.Devices()
	if err != nil {
		c.add(0, finding{what: "cannot list this host's network devices: " + err.Error(), err: err})
		return
	}
	for _, dev := range c.n.Links {
		if !slices.Contains(devices, dev) {
			c.add(c.n.lines[linkKey(dev)], finding{
				what: fmt.Sprintf("interface %q does not exist", dev), allowed: "this host has " + orNone(devices),
			})
		}
	}
	addr, err := netip.ParseAddr(self.Address)
	if !known || err != nil || (len(c.n.Links) > 0 && !slices.Contains(devices, c.n.Links[0])) {
		return
	}
	on := make(map[string][]netip.Addr, len(devices))
	var holder string
	for _, dev := range devices {
		if on[dev], err = c.h.Addresses(dev); err != nil {
			c.add(0, finding{what: fmt.Sprintf("cannot list the addresses of %s: %v", dev, err), err: err})
			return
		}
		if holder == "" && slices.Contains(on[dev], addr) {
			holder = dev
		}
	}
	if len(c.n.Links) == 0 && holder != "" || len(c.n.Links) > 0 && slices.Contains(on[c.n.Links[0]], addr) {
		return
	}
	c.misplaced(self, holder, on)
}

// misplaced reports that this node's address is not on its first link; holder
// is the device that has it, "" = none.
func (c *hostCheck) misplaced(self spec.Node, holder string, on map[string][]netip.Addr) {
	line := c.n.lines[nodeKey(self.Name)]
	if len(c.n.Nodes) == 0 {
		line = c.n.lines["address"]
	}
	if len(c.n.Links) == 0 {
		c.add(line, finding{
			what:   fmt.Sprintf("no device of this host has %s, the address of node %q", self.Address, self.Name),
			remedy: "put it on a device, or correct address",
		})
		return
	}
	first := c.n.Links[0]
	var has []string
	for _, a := range on[first] {
		has = append(has, a.String())
	}
	f := finding{
		what:    fmt.Sprintf("%s, the address of node %q, is not on %s, the first link", self.Address, self.Name, first),
		allowed: fmt.Sprintf("%s has %s", first, orNone(has)),
		remedy:  fmt.Sprintf("put it on %s, or correct address", first),
	}
	if holder != "" {
		f.remedy = fmt.Sprintf("%s has it: list link %q first", holder, holder)
	}
	c.add(line, f)
}

// keyFile checks the shared secret without ever quoting it.
func (c *hostCheck) keyFile() {
	path, line := c.n.KeyFile, c.n.lines["key_file"]
	text, mode, err := c.h.ReadKey(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.add(line, finding{
			what: fmt.Sprintf("key file %s does not exist", path), allowed: "every node has the same one",
			remedy: fmt.Sprintf("on one node run: (umask 077; hanode key generate > %s); then copy it to the others", path),
			err:    err,
		})
		return
	case err == nil && !mode.IsRegular():
		c.add(line, finding{what: fmt.Sprintf("key file %s is not a regular file", path), remedy: "correct key_file"})
		return
	case err != nil:
		c.add(line, finding{
			what: fmt.Sprintf("cannot read key file %s: %s", path, cause(err)), remedy: "run as its owner, or correct key_file", err: err,
		})
	}
	if mode.Perm()&0o077 != 0 {
		c.add(line, finding{
			what:    fmt.Sprintf("key file %s has mode %04o, so others may use it", path, mode.Perm()),
			allowed: "only its owner may read and write it", remedy: "run: chmod 600 " + path,
		})
	}
	if err == nil {
		c.diags = append(c.diags, checkKey(path, text)...)
	}
}

// cause renders err without the path that an fs.PathError repeats.
func cause(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err.Error()
	}
	return err.Error()
}
