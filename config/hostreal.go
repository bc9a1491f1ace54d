package config

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
)

// RealHost is the machine, and the network namespace, of the calling process.
func RealHost() Host { return realHost{} }

type realHost struct{}

func (realHost) Hostname() (string, error) { return os.Hostname() }

func (realHost) Devices() ([]string, error) {
	devs, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	names := make([]string, len(devs))
	for i, d := range devs {
		names[i] = d.Name
	}
	return names, nil
}

func (h realHost) Addresses(dev string) ([]netip.Addr, error) {
	nets, err := h.Networks(dev)
	var out []netip.Addr
	for _, p := range nets {
		out = append(out, p.Addr())
	}
	return out, err
}

func (realHost) ReadKey(path string) ([]byte, fs.FileMode, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() { // opening a FIFO would wait
		return nil, info.Mode(), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, info.Mode(), err
	}
	defer func() { _ = f.Close() }()
	if info, err = f.Stat(); err != nil {
		return nil, 0, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeyBytes+1))
	return text, info.Mode(), err
}
