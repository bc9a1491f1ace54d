// Package hosts boots real Debian hosts, each with its own systemd, wired to the
// switches of a netlab.Lab, and does to them what happens to hosts: power cut,
// reboot, orderly shutdown, a cable pulled, a freeze. The tests beside it install
// hanode's package there and play the whole story.
//
// A host is systemd-nspawn in the network namespace of a netlab.Host, on an overlay
// over one base system that is built once (EnsureBase). It shares the kernel, its
// clock and the disk with all others; process table, mounts, init, control groups
// and network are its own. It takes root, and netlab.Reexec around it: then nothing
// that a run leaves behind outlives it.
//
// It knows nothing of hanode: what is installed is its caller's business.
package hosts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"hanode/internal/netlab"
)

// Options say what to build; all are needed.
type Options struct {
	Base  string   // the base system's folder, of EnsureBase
	Dir   string   // an empty folder for the hosts' disks, on a file system that takes overlays
	Names []string // hosts; the first has the number 1
}

// Lab is the switches, the hosts, and a client on the outer network that runs
// programs of the base system.
type Lab struct {
	*netlab.Lab
	Hosts  []*Host
	Client *Client
}

// New wires the hosts and gives each its disk; none is booted yet. The caller
// closes the lab.
func New(opts Options) (*Lab, error) {
	net, err := netlab.New(netlab.Options{})
	if err != nil {
		return nil, err
	}
	l := &Lab{Lab: net}
	if err := l.build(opts); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(opts Options) error {
	var known string
	for i, name := range opts.Names {
		known += fmt.Sprintf("10.0.0.%d\t%s\n", i+1, name)
	}
	for i, name := range opts.Names {
		d, err := newDisk(opts.Base, filepath.Join(opts.Dir, name))
		if err != nil {
			return err
		}
		h := &Host{disk: d}
		l.Hosts = append(l.Hosts, h)
		if h.Host, err = l.AddHost(name, i+1); err != nil {
			return err
		}
		for path, text := range map[string]string{
			"/etc/hostname":   name + "\n",
			"/etc/machine-id": "", // systemd-nspawn's --uuid fills it
			"/etc/hosts":      "127.0.0.1\tlocalhost\n" + known,
		} {
			if err := h.Write(path, text, 0o644); err != nil {
				return err
			}
		}
	}
	d, err := newDisk(opts.Base, filepath.Join(opts.Dir, "client"))
	if err != nil {
		return err
	}
	l.Client = &Client{disk: d}
	l.Client.Host, err = l.AddClient("client", 200)
	return err
}

// Get returns a host by name; nil = there is none.
func (l *Lab) Get(name string) *Host {
	for _, h := range l.Hosts {
		if h.Name() == name {
			return h
		}
	}
	return nil
}

// Close cuts the power of everything and takes the disks away.
func (l *Lab) Close() error {
	var errs []error
	for _, h := range l.Hosts {
		if h.Host != nil {
			errs = append(errs, h.PowerCut())
		}
	}
	errs = append(errs, l.Lab.Close())
	for _, h := range l.Hosts {
		errs = append(errs, h.close())
	}
	if l.Client != nil {
		errs = append(errs, l.Client.close())
	}
	return errors.Join(errs...)
}

// disk is a root file system: what one host wrote over the base. It survives a
// power cut.
type disk struct{ root string }

func newDisk(base, dir string) (disk, error) {
	d := disk{root: filepath.Join(dir, "root")}
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, p := range []string{d.root, upper, work} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return disk{}, err
		}
	}
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", base, upper, work)
	if err := unix.Mount("overlay", d.root, "overlay", 0, opts); err != nil {
		return disk{}, fmt.Errorf("mount an overlay in %s (it takes a file system that is no overlay itself; name another folder with -hosts.dir): %w", dir, err)
	}
	if err := d.furnish(); err != nil {
		return disk{}, errors.Join(err, d.close())
	}
	return d, nil
}

func (d disk) close() error {
	if d.root == "" {
		return nil
	}
	return unix.Unmount(d.root, unix.MNT_DETACH)
}

// Write writes a file on the host's disk, and the folder it is in; path is the
// host's own.
func (d disk) Write(path, text string, mode os.FileMode) error {
	path = filepath.Join(d.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// Copy puts a file of this machine on the host's disk.
func (d disk) Copy(from, to string, mode os.FileMode) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return d.Write(to, string(b), mode)
}

// Exists reports whether the host's disk has path.
func (d disk) Exists(path string) bool {
	_, err := os.Lstat(filepath.Join(d.root, path))
	return err == nil
}
