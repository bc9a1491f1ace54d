package config

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"
)

// RealHAHost is the machine, and the network namespace, of the calling process.
func RealHAHost() HAHost { return realHost{} }

// resolveTime bounds one look-up of a name.
const resolveTime = 5 * time.Second

func (realHost) Networks(dev string) ([]netip.Prefix, error) {
	d, err := net.InterfaceByName(dev)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", dev, err)
	}
	nets, err := d.Addrs()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", dev, err)
	}
	var out []netip.Prefix
	for _, n := range nets {
		if p, err := netip.ParsePrefix(n.String()); err == nil {
			out = append(out, p)
		}
	}
	return out, nil
}

func (realHost) Resolve(name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), resolveTime)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

// unitFolders is where systemd looks for units, and what stands for them at boot.
var unitFolders = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system", "/run/systemd/generator.late"}

func (realHost) HasUnit(name string) bool {
	if _, err := os.Stat("/run/systemd/system"); err != nil || strings.ContainsAny(name, "/\x00") {
		return false // systemd does not run here
	}
	if template, _, ok := strings.Cut(name, "@"); ok {
		name = template + "@"
	}
	for _, dir := range unitFolders {
		if info, err := os.Stat(filepath.Join(dir, name+".service")); err == nil && info.Mode().IsRegular() {
			return true
		}
	}
	return false
}

func (realHost) HasScript(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func (realHost) HasUser(name string) bool {
	_, err := user.Lookup(name)
	return err == nil
}
