package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"hanode/config"
	"hanode/internal/atomicfile"
)

// enrolment is what init and join have in common: a node file, which is written if
// there is none.
type enrolment struct {
	file, name, address, zone string
	links                     []string
}

func (e *enrolment) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&e.file, "config", config.DefaultFile, "the node file; it is written if there is none")
	cmd.Flags().StringVar(&e.name, "name", "", "this node's name, where there is no node file (default: the hostname)")
	cmd.Flags().StringVar(&e.address, "address", "", "this node's address on its first link (default: the one from which the member is reached, or the only one)")
	cmd.Flags().StringVar(&e.zone, "zone", "", "what fails with this node, such as a rack, where there is no node file")
	cmd.Flags().StringArrayVar(&e.links, "link", nil, "a heartbeat device, where there is no node file; may be given again (default: the one that has the address)")
}

// node reads the node file, or makes up what will be written. to is a member that is
// asked; "" = nobody.
func (e *enrolment) node(cluster, to string) (n *config.Node, text []byte, err error) {
	n, err = config.LoadNode(e.file)
	if err == nil {
		if e.name != "" && e.name != n.Name || e.zone != "" && e.zone != n.Zone || len(e.links) > 0 || e.address != "" && n.Address != "" && e.address != n.Address {
			return nil, nil, usageError{fmt.Errorf("%s exists, so --name, --zone, --link and --address must stand in it", e.file)}
		}
		if n.Address == "" && len(n.Nodes) == 0 {
			n.Address, err = e.find(n.Links, to, n.Port)
		}
		return n, nil, err
	}
	if _, missing := os.Stat(e.file); !errors.Is(missing, fs.ErrNotExist) {
		return nil, nil, usageError{err}
	}
	s := config.Sketch{Cluster: cluster, Name: e.name, Zone: e.zone, Links: e.links}
	if s.Address, err = e.find(e.links, to, config.DefaultPort); err != nil {
		return nil, nil, err
	}
	addr, err := netip.ParseAddr(s.Address)
	if err != nil {
		return nil, nil, usageError{fmt.Errorf("--address: %w", err)}
	}
	if len(s.Links) == 0 {
		dev, err := config.DeviceOf(config.RealHost(), addr)
		if err != nil {
			return nil, nil, err
		}
		s.Links = []string{dev}
	}
	if s.Name == "" {
		if s.Name, err = os.Hostname(); err != nil {
			return nil, nil, err
		}
	}
	if n, err = s.Node(e.file); err != nil {
		return nil, nil, usageError{err}
	}
	return n, s.Text(), nil
}

// find is this node's address: what was said, else the one from which the member is
// reached, else the only one.
func (e *enrolment) find(links []string, to string, port int) (string, error) {
	if e.address != "" {
		return e.address, nil
	}
	if to != "" {
		host, _, err := net.SplitHostPort(to)
		if err != nil {
			host = to
		}
		c, err := net.Dial("udp", net.JoinHostPort(host, strconv.Itoa(port))) // sends nothing
		if err != nil {
			return "", fmt.Errorf("there is no way to %s: %w", to, err)
		}
		defer func() { _ = c.Close() }()
		local, err := netip.ParseAddrPort(c.LocalAddr().String())
		if err != nil {
			return "", err
		}
		return local.Addr().Unmap().String(), nil
	}
	addr, err := config.OnlyAddress(config.RealHost(), links)
	if err != nil {
		return "", fmt.Errorf("%w; say which: --address IP", err)
	}
	return addr.String(), nil
}

// write makes the node file, if there was none.
func (e *enrolment) write(text []byte) error {
	if text == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(e.file), 0o755); err != nil {
		return err
	}
	if err := atomicfile.Write(e.file, text); err != nil {
		return fmt.Errorf("write the node file: %w", err)
	}
	return nil
}

// startLine tells how the agent is started.
func (e *enrolment) startLine() string {
	if e.file == config.DefaultFile {
		return "systemctl enable --now hanode"
	}
	return "hanode agent --config " + e.file
}
