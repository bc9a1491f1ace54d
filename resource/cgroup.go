package resource

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cgroups gives each resource whose programs we run a control group of its own,
// below that of the agent, so that what its scripts leave behind can be found,
// named and ended, whatever it forked or where its parent went. No controller is
// enabled in it: it only groups.
//
// Where there is no cgroup2 or it may not be written (a container, no root) the
// processes are found by a variable in their environment instead, which a service
// can drop; that is all there is then.
type cgroups struct {
	base string // "" = none
	mark string // what the environment variable begins with; unique to this agent
}

// markVariable names, in the environment of all that a resource's scripts start,
// whose they are.
const markVariable = "HANODE_SERVICE"

// openCgroups finds the place below this process's own group. id tells this agent
// from others on the machine: the path of its journal.
func openCgroups(id string) cgroups {
	sum := sha256.Sum256([]byte(id))
	name := hex.EncodeToString(sum[:6])
	c := cgroups{mark: name}
	own, err := ownCgroup("/proc/self/mountinfo", "/proc/self/cgroup")
	if err != nil {
		return c
	}
	c.base = filepath.Join(own, "hanode-"+name)
	return c
}

// ownCgroup is the folder of this process's cgroup2 group.
func ownCgroup(mountinfo, cgroup string) (string, error) {
	b, err := os.ReadFile(mountinfo)
	if err != nil {
		return "", err
	}
	mount, root := "", ""
	for l := range strings.Lines(string(b)) {
		before, after, ok := strings.Cut(l, " - cgroup2 ")
		f := strings.Fields(before)
		if ok && after != "" && len(f) > 4 {
			root, mount = f[3], f[4]
			break
		}
	}
	if mount == "" {
		return "", errors.New("no cgroup2 is mounted")
	}
	if b, err = os.ReadFile(cgroup); err != nil {
		return "", err
	}
	for l := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(l), "0::"); ok {
			path = strings.TrimPrefix(path, strings.TrimSuffix(root, "/"))
			return filepath.Join(mount, path), nil
		}
	}
	return "", errors.New("this process is in no cgroup2 group")
}

// close removes what is empty.
func (c cgroups) close() { sweep(c.base) }

// sweep removes the empty groups below base, and base if it is empty then: those that
// this agent made, or that an earlier one left which was killed. One in use stays. Any
// other folder than such a base is left alone.
func sweep(base string) {
	if !strings.HasPrefix(filepath.Base(base), "hanode-") {
		return
	}
	dirs, err := filepath.Glob(filepath.Join(base, "*"))
	if err != nil {
		return
	}
	for _, d := range append(dirs, base) {
		_ = os.Remove(d)
	}
}

// dir is the group of a resource, by its key; "" = there are none.
func (c cgroups) dir(key string) string {
	if c.base == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(key))
	plain := strings.Map(func(r rune) rune {
		if r == '/' || r == 0 || r < ' ' {
			return '_'
		}
		return r
	}, key)
	return filepath.Join(c.base, plain[:min(len(plain), 100)]+"-"+hex.EncodeToString(sum[:4]))
}

// open makes the group of a resource and returns it opened, for clone; nil = none.
func (c cgroups) open(key string) *os.File {
	dir := c.dir(key)
	if dir == "" {
		return nil
	}
	for _, d := range []string{c.base, dir} { // only now: most agents run no programs
		if err := os.Mkdir(d, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return nil
		}
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	return f
}

func (c cgroups) variable(key string) string { return markVariable + "=" + c.mark + ":" + key }

// blankLimit is how long a process whose environment cannot be read now is waited
// for: it is in exec or about to be gone, or it threw its environment away.
const blankLimit = time.Second

// left lists the processes of a resource.
func (c cgroups) left(key string) []int {
	pids, _ := c.look(key)
	return pids
}

// look lists the processes of a resource; also those in dirs, the groups that an
// earlier agent made for it. A zombie is none. blank: there are others of which it
// cannot be told.
func (c cgroups) look(key string, dirs ...string) (pids []int, blank bool) {
	pids = c.in(key, dirs...)
	if _, err := os.Stat(c.dir(key)); err != nil {
		var marked []int
		marked, blank = c.marked(key)
		pids = append(pids, marked...)
	}
	slices.Sort(pids)
	return slices.Compact(pids), blank
}

// in lists the processes in the control groups of a resource.
func (c cgroups) in(key string, dirs ...string) (pids []int) {
	for _, dir := range append(dirs, c.dir(key)) {
		if dir == "" {
			continue
		}
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Name() == "cgroup.procs" {
				b, _ := os.ReadFile(path)
				for _, w := range strings.Fields(string(b)) {
					if pid, err := strconv.Atoi(w); err == nil && pid > 0 && alive(pid) {
						pids = append(pids, pid)
					}
				}
			}
			return nil
		})
	}
	return pids
}

// marked finds processes by their environment.
func (c cgroups) marked(key string) (pids []int, blank bool) {
	want := []byte(c.variable(key))
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, false
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", d.Name(), "environ"))
		switch {
		case err != nil:
		case len(b) == 0:
			blank = blank || alive(pid) && !kernelThread(pid)
		case slices.ContainsFunc(bytes.Split(b, []byte{0}), func(v []byte) bool { return bytes.Equal(v, want) }) && alive(pid):
			pids = append(pids, pid)
		}
	}
	return pids, blank
}

// kernelThread: it has no environment, ever.
func kernelThread(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	_, exe := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && len(b) == 0 && errors.Is(exe, os.ErrNotExist) && (pid == 2 || parent(pid) == 2)
}

func parent(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(f[1])
	return ppid
}

// alive: the process is there and no zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	i := bytes.LastIndexByte(b, ')')
	return i < 0 || len(b) < i+3 || b[i+2] != 'Z' && b[i+2] != 'X'
}

// kill ends all processes of a resource and waits until they are gone; killed
// says which there were. It kills until ctx ends: what forks meanwhile is found too.
func (c cgroups) kill(ctx context.Context, key string, dirs ...string) (killed []string, err error) {
	seen := map[int]bool{}
	for begin := time.Now(); ; {
		pids, blank := c.look(key, dirs...)
		if len(pids) == 0 && blank && time.Since(begin) < blankLimit && ctx.Err() == nil {
			sleep(ctx, 10*time.Millisecond)
			continue
		}
		if len(pids) == 0 {
			if dir := c.dir(key); dir != "" {
				_ = os.Remove(dir)
			}
			return killed, nil
		}
		for _, pid := range pids {
			if !seen[pid] {
				seen[pid] = true
				killed = append(killed, describe(pid))
			}
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone meanwhile: the next look says so
		}
		if ctx.Err() != nil {
			return killed, fmt.Errorf("%s cannot be killed", describe(pids[0]))
		}
		sleep(ctx, 5*time.Millisecond)
	}
}

// describe names a process for people: "sleep (pid 123, state D)".
func describe(pid int) string {
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf("pid %d", pid)
	}
	return fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(comm)), pid)
}
