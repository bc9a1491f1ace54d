package hosts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hanode/internal/netlab"
)

// Host is one Debian host. Cables are netlab's: CutLink, HealLink. Not safe for
// concurrent use, but for Run.
type Host struct {
	*netlab.Host
	disk

	nspawn *netlab.Process // nil before the first boot and after the power went
	cgroup *netlab.Cgroup  // nil as nspawn is
	bpffs  string          // where this boot's is mounted; "" as nspawn is
	init   int             // process id of the host's systemd, as this machine counts
}

// How long things may take that always take less.
const (
	bootTime = 15 * time.Second
	haltTime = 3 * time.Minute // stopping services included
)

// Boot starts the host's systemd and returns while it boots: see Up.
func (h *Host) Boot() error {
	if h.nspawn != nil {
		return fmt.Errorf("boot %s: it runs", h.Name())
	}
	if err := h.boot(); err != nil {
		return fmt.Errorf("boot %s: %w", h.Name(), errors.Join(err, h.PowerCut()))
	}
	return nil
}

func (h *Host) boot() error {
	g, err := netlab.NewCgroup()
	if err != nil {
		return err
	}
	h.cgroup = g
	if err := g.Named(); err != nil {
		return err
	}
	if err := h.mountBPF(); err != nil {
		return err
	}
	console, err := os.OpenFile(h.console(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer console.Close() // the child has its own
	id, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return err
	}
	cmd := exec.Command("sh", append([]string{"-c", enter, "sh"}, append(g.Dirs(),
		"systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe",
		"--capability="+strings.Join(capabilities, ","), "--system-call-filter=bpf",
		"--bind="+h.bpffs+":/sys/fs/bpf", "--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--uuid="+strings.TrimSpace(string(id)), "--machine="+h.Name(), "--directory="+h.root)...)...)
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network")
	cmd.Stdout, cmd.Stderr = console, console
	if h.nspawn, err = h.Start(cmd); err != nil {
		return err
	}
	h.init = 0
	return nil
}

// mountBPF gives this boot a bpffs of its own, as a kernel's boot does; a container's
// systemd does not mount one. What is pinned there goes with the power.
func (h *Host) mountBPF() error {
	dir := filepath.Join(filepath.Dir(h.root), "bpf")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700"); err != nil {
		return fmt.Errorf("mount a bpffs: %w", err)
	}
	h.bpffs = dir
	return nil
}

// enter moves the shell into the control groups up to the first other word and
// becomes the rest: without groups of its own systemd-nspawn makes its own in the
// root, where all hosts would share them.
const enter = `while [ "${1#/}" != "$1" ]; do echo $$ >"$1/cgroup.procs" || exit 1; shift; done; exec "$@"`

// capabilities are what a host has beyond systemd-nspawn's own: a network, the
// guard's bpf(), realtime, locked memory.
var capabilities = []string{
	"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON", "CAP_SYS_RESOURCE", "CAP_SYS_NICE", "CAP_IPC_LOCK",
}

// console is where the host's console goes, beside its disk.
func (h *Host) console() string { return filepath.Join(filepath.Dir(h.root), "console") }

// Up waits until the host has booted and returns how its systemd is: "running", or
// "degraded" if a unit failed.
func (h *Host) Up() (state string, err error) {
	var last error
	for end := time.Now().Add(bootTime); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		out, err := h.Run("systemctl", "is-system-running") // its exit code says no more than its word
		switch state = strings.TrimSpace(out); state {
		case "running", "degraded":
			return state, nil
		}
		last = err
		if h.Halted() {
			return state, fmt.Errorf("%s ended while it booted; see %s", h.Name(), h.console())
		}
	}
	return state, fmt.Errorf("%s is %q, and not up, %v after it was started (%w); see %s", h.Name(), state, bootTime, last, h.console())
}

// Halted reports whether nothing of the host runs.
func (h *Host) Halted() bool {
	if h.nspawn == nil {
		return true
	}
	select {
	case <-h.nspawn.Done:
		return true
	default:
		return false
	}
}

// Command is a program on the host, run as its root outside of its units: frozen
// and shut down hosts do not hold it back.
func (h *Host) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	if h.Halted() {
		return nil, fmt.Errorf("run %s on %s: it is off", name, h.Name())
	}
	if h.init == 0 {
		pid, err := initOf(h.nspawn.Pid)
		if err != nil {
			return nil, fmt.Errorf("run %s on %s: %w", name, h.Name(), err)
		}
		h.init = pid
	}
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{
		"--target", strconv.Itoa(h.init), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--", name,
	}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root", "TERM=dumb", "DEBIAN_FRONTEND=noninteractive"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	return cmd, nil
}

// runTime bounds Run.
const runTime = 3 * time.Minute

// Run runs a program to its end and returns its standard output. The error of one
// that failed has its exit code and what it said.
func (h *Host) Run(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), runTime)
	defer cancel()
	cmd, err := h.Command(ctx, name, args...)
	if err != nil {
		return "", err
	}
	return output(cmd, h.Name())
}

// output runs cmd; where is for the error.
func output(cmd *exec.Cmd, where string) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("on %s: %s: %w: %s", where, strings.Join(cmd.Args[1:], " "), err, strings.TrimSpace(errs.String()+out.String()))
	}
	return out.String(), nil
}

// initOf finds the host's init: the child of systemd-nspawn that is the first process
// of its namespace. (While it sets up it has another child.)
func initOf(nspawn int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", nspawn, nspawn))
	if err != nil {
		return 0, err
	}
	for _, word := range strings.Fields(string(b)) {
		status, err := os.ReadFile("/proc/" + word + "/status")
		if err != nil {
			continue // it ended
		}
		for line := range strings.Lines(string(status)) {
			if ids, ok := strings.CutPrefix(line, "NSpid:"); ok && strings.HasSuffix(strings.TrimSpace(ids), "\t1") {
				return strconv.Atoi(word)
			}
		}
	}
	return 0, errors.New("it has not begun to boot")
}

// PowerCut is netlab's: the switch ports first, then everything dies at once. The
// disk stays as it is.
func (h *Host) PowerCut() error {
	err := h.Host.PowerCut()
	h.nspawn = nil
	if h.cgroup != nil {
		err = errors.Join(err, h.cgroup.Close())
		h.cgroup = nil
	}
	if h.bpffs != "" {
		err = errors.Join(err, unix.Unmount(h.bpffs, unix.MNT_DETACH))
		h.bpffs = ""
	}
	return err
}

// PowerOn boots a host that is off, with the network devices of a fresh boot.
func (h *Host) PowerOn() error {
	if !h.Halted() {
		return fmt.Errorf("power on %s: it runs", h.Name())
	}
	if err := h.PowerCut(); err != nil { // what is left of the last life: its addresses
		return err
	}
	if err := h.Host.PowerOn(); err != nil {
		return err
	}
	return h.Boot()
}

// PowerOff is `systemctl poweroff`; it returns once the host has stopped its
// services and itself.
func (h *Host) PowerOff() error { return h.halt("poweroff") }

// Reboot is `systemctl reboot`; it returns while the host boots.
func (h *Host) Reboot() error {
	if err := h.halt("reboot"); err != nil {
		return err
	}
	return h.PowerOn()
}

func (h *Host) halt(how string) error {
	if _, err := h.Run("systemctl", "--no-block", how); err != nil {
		return err
	}
	select {
	case <-h.nspawn.Done: // 0 after poweroff, 133 after reboot: all that matters is that it ended
	case <-time.After(haltTime):
		return fmt.Errorf("%s does not %s within %v; see %s", h.Name(), how, haltTime, h.console())
	}
	return h.PowerCut()
}

// Freeze stops every process of the host at once; none of them is told.
func (h *Host) Freeze() error { return h.cgroup.Freeze() }

// Thaw lets them go on.
func (h *Host) Thaw() error { return h.cgroup.Thaw() }

// Signal sends a signal to a process of the host, by the number that the host
// counts.
func (h *Host) Signal(pid string, sig syscall.Signal) error {
	_, err := h.Run("kill", "-"+strconv.Itoa(int(sig)), pid)
	return err
}

// Property is one property of a unit, as `systemctl show` prints it.
func (h *Host) Property(unit, name string) (string, error) {
	out, err := h.Run("systemctl", "show", "--property", name, "--value", unit)
	return strings.TrimSpace(out), err
}
