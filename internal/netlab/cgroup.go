package netlab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Cgroup is a control group of its own (the unified hierarchy) whose processes can
// be frozen: unlike SIGSTOP they are not told, and no signal but SIGKILL reaches
// them until they are thawed.
type Cgroup struct {
	dir  string
	more []string // groups of the same name in other hierarchies
}

// freezeTime bounds how long the kernel may take to freeze or thaw.
const freezeTime = 5 * time.Second

// NewCgroup makes an empty control group. It takes root, or a delegated hierarchy;
// the error says what is missing. The caller closes it.
func NewCgroup() (*Cgroup, error) {
	root, err := unifiedHierarchy()
	if err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	dir, err := os.MkdirTemp(root, "hanode-lab-")
	if err != nil {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	c := &Cgroup{dir: dir}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.freeze")); err != nil {
		return nil, errors.Join(fmt.Errorf("make a control group that can be frozen: %w", err), c.Close())
	}
	return c, nil
}

// unifiedHierarchy is where cgroup2 is mounted.
func unifiedHierarchy() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		mount, kind, ok := strings.Cut(s.Text(), " - ")
		if fields := strings.Fields(mount); ok && len(fields) > 4 && strings.HasPrefix(kind, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", errors.New("no cgroup2 is mounted here")
}

// Dirs are the group's folders: in the unified hierarchy and, after Named, in others.
func (c *Cgroup) Dirs() []string { return append([]string{c.dir}, c.more...) }

// Named makes a group of the same name in the hierarchy that systemd keeps without
// controllers (name=systemd) on machines that have both. Where there is none it does
// nothing.
func (c *Cgroup) Named() error {
	root, err := namedHierarchy("/proc/self/mountinfo")
	if err != nil || root == "" {
		return err
	}
	dir := filepath.Join(root, filepath.Base(c.dir))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make a control group: %w", err)
	}
	c.more = append(c.more, dir)
	return nil
}

// namedHierarchy is where it is mounted; "" = nowhere.
func namedHierarchy(mountinfo string) (string, error) {
	b, err := os.ReadFile(mountinfo)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		mount, kind, ok := strings.Cut(strings.TrimSpace(line), " - cgroup ")
		options := kind[strings.LastIndexByte(kind, ' ')+1:]
		if f := strings.Fields(mount); ok && len(f) > 4 && slices.Contains(strings.Split(options, ","), "name=systemd") {
			return f[4], nil
		}
	}
	return "", nil
}

// Add moves a process into the group. What it starts from then on is in it too.
func (c *Cgroup) Add(pid int) error {
	err := os.WriteFile(filepath.Join(c.dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600)
	if err != nil {
		return fmt.Errorf("move process %d into a control group: %w", pid, err)
	}
	return nil
}

// Freeze returns once every process in the group stands still.
func (c *Cgroup) Freeze() error { return c.set(true) }

// Thaw lets them go on. A group that is not frozen stays as it is.
func (c *Cgroup) Thaw() error { return c.set(false) }

func (c *Cgroup) set(frozen bool) error {
	word := map[bool]string{true: "1", false: "0"}[frozen]
	if err := os.WriteFile(filepath.Join(c.dir, "cgroup.freeze"), []byte(word), 0o600); err != nil {
		return fmt.Errorf("freeze a control group: %w", err)
	}
	for end := time.Now().Add(freezeTime); ; time.Sleep(time.Millisecond) {
		now, err := c.Frozen()
		if err != nil || now == frozen {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("a control group does not become frozen = %v", frozen)
		}
	}
}

// Frozen is what the kernel says of the group's processes, not what was asked.
func (c *Cgroup) Frozen() (bool, error) {
	b, err := os.ReadFile(filepath.Join(c.dir, "cgroup.events"))
	if err != nil {
		return false, fmt.Errorf("look at a control group: %w", err)
	}
	return strings.Contains(string(b), "frozen 1"), nil
}

// Close thaws and removes the group, with the groups that its processes made in it.
// They must have ended.
func (c *Cgroup) Close() error {
	_ = c.Thaw()
	for end := time.Now().Add(freezeTime); ; time.Sleep(time.Millisecond) {
		var errs []error // busy until the dead are reaped
		for _, dir := range c.Dirs() {
			errs = append(errs, removeTree(dir))
		}
		err := errors.Join(errs...)
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("remove a control group: %w", err)
		}
	}
}

// removeTree removes a control group from its leaves up: its files go with it.
func removeTree(dir string) error {
	inner, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range inner {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
