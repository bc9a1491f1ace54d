package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// stageEnv tells a re-executed program which of the two it is: the first process
// of the new process namespace, or the program proper.
const (
	stageEnv      = "HANODE_NETLAB_STAGE"
	stageInit     = "init"
	stageInitRoot = "init-root" // as stageInit, without a user namespace
	stageInside   = "inside"
)

// Isolated reports whether this process is the program proper that Reexec or
// ReexecUnprivileged started in namespaces of its own.
func Isolated() bool { return os.Getenv(stageEnv) == stageInside }

// Inside reports whether this process may build labs as it is. It finds out by
// making a bridge and a veth pair in a namespace that is gone at once.
func Inside() bool {
	stage := os.Getenv(stageEnv)
	return stage != stageInit && stage != stageInitRoot && tryBuild() == nil
}

func tryBuild() error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}); err != nil {
			return fmt.Errorf("make a bridge: %w", err)
		}
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "v0"}, PeerName: "v1"}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("make a veth pair: %w", err)
		}
		return nil
	})
}

// Main is for TestMain: it runs m where labs can be built, at once or in a user
// namespace, and returns the exit code.
//
//	func TestMain(m *testing.M) { os.Exit(netlab.Main(m)) }
func Main(m interface{ Run() int }) int {
	if Inside() {
		return m.Run()
	}
	code, err := ReexecUnprivileged(os.Args[1:], nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, "netlab:", err)
		return 1
	}
	return code
}

// Reexec is ReexecUnprivileged where that is needed. A process that may build labs
// as it is keeps its user and so its rights, and gets the other namespaces and a
// bpffs of its own: nothing it does reaches the host's network, mounts or
// processes. Guard it by Isolated.
func Reexec(args, env []string) (exitCode int, err error) {
	if os.Getenv(stageEnv) == stageInitRoot {
		return runInit(args, env, mountBPF)
	}
	if !Inside() {
		return ReexecUnprivileged(args, env)
	}
	return startInit(again(args, env, stageInitRoot))
}

// ReexecUnprivileged runs this program again, with args and env (nil = this
// process's), as uid 0 of new user, network, mount and process namespaces, with
// its own /proc and an empty /run, and returns its exit code once it ended. No
// process of it outlives the call, nor this program.
//
// The program must come by the same call again, guarded by Inside, before it does
// anything else: the first process in the namespaces only starts and reaps.
//
//	if !netlab.Inside() {
//		code, err := netlab.ReexecUnprivileged(os.Args[1:], nil)
//		...
//	}
//
// An error says what is forbidden here and what to do about it.
func ReexecUnprivileged(args, env []string) (exitCode int, err error) {
	switch os.Getenv(stageEnv) {
	case stageInit:
		return runInit(args, env, nil)
	case stageInside:
		return 1, refusal(errors.Join(errors.New("no rights inside the user namespace either"), tryBuild()))
	}
	cmd := again(args, env, stageInit)
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	return startInit(cmd)
}

// startInit starts cmd as the first process of new namespaces and waits for it.
func startInit(cmd *exec.Cmd) (exitCode int, err error) {
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID
	// The parent-death signal follows the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return 1, refusal(fmt.Errorf("start in new namespaces: %w", err))
	}
	stop := forwardSignals(cmd.Process.Pid)
	defer stop()
	var failed *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &failed) {
		return 1, fmt.Errorf("wait for the program in the new namespaces: %w", err)
	}
	return codeOf(cmd.ProcessState.Sys().(syscall.WaitStatus)), nil
}

// again is this program with the stage in its environment; it dies with us.
func again(args, env []string, stage string) *exec.Cmd {
	if env == nil {
		env = os.Environ()
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(append([]string(nil), env...), stageEnv+"="+stage)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// runInit is the first process of the namespaces: it mounts what the program
// needs, and by more (nil = nothing) what only root can; it starts the program and
// reaps whatever is orphaned until that ends. When it returns and its process
// exits, the kernel kills the rest.
func runInit(args, env []string, more func() error) (int, error) {
	if err := mountOwn(); err != nil {
		return 1, refusal(err)
	}
	if more != nil {
		if err := more(); err != nil {
			return 1, err
		}
	}
	if err := tryBuild(); err != nil {
		return 1, refusal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := again(args, env, stageInside)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("start the program in the new namespaces: %w", err)
	}
	stop := forwardSignals(cmd.Process.Pid)
	defer stop()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 1, fmt.Errorf("wait for the program in the new namespaces: %w", err)
		case pid == cmd.Process.Pid:
			return codeOf(status), nil
		}
	}
}

func mountOwn() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs on /run: %w", err)
	}
	return nil
}

// mountBPF covers the host's bpffs with an empty one, so that what is pinned goes
// with the mount namespace. A kernel without bpffs has nothing to cover.
func mountBPF() error {
	err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700")
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("mount a bpffs of our own: %w", err)
	}
	return nil
}

// codeOf is the exit code as a shell gives it: 128 and the signal if killed.
func codeOf(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// forwardSignals passes on what ends a program and survives it. SIGINT of a
// terminal reaches every process by itself, so it is survived only.
func forwardSignals(pid int) (stop func()) {
	sigs := make(chan os.Signal, 8)
	done := make(chan struct{})
	signal.Notify(sigs, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	go func() {
		defer close(done)
		for s := range sigs {
			if s != unix.SIGINT {
				// Gone already: its exit code is on its way.
				_ = unix.Kill(pid, s.(syscall.Signal))
			}
		}
	}()
	return func() {
		signal.Stop(sigs)
		close(sigs)
		<-done
	}
}

// refusal adds what to do to an error that says labs cannot be built here.
func refusal(err error) error {
	return fmt.Errorf("this needs network namespaces, which this process may not make: %w\n%s", err, strings.Join(remedies(readSetting), "\n"))
}

// remedies lists what would help, from the settings of this kernel.
func remedies(read func(path string) string) []string {
	list := []string{"run it as root, or let ordinary users have user namespaces with capabilities:"}
	if read("kernel/apparmor_restrict_unprivileged_userns") == "1" {
		list = append(list, "  sysctl -w kernel.apparmor_restrict_unprivileged_userns=0   (AppArmor takes the capabilities away; or give this program a profile with `userns,`)")
	}
	if read("kernel/unprivileged_userns_clone") == "0" {
		list = append(list, "  sysctl -w kernel.unprivileged_userns_clone=1")
	}
	for _, name := range []string{"max_user_namespaces", "max_net_namespaces"} {
		if read("user/"+name) == "0" {
			list = append(list, "  sysctl -w user."+name+"=10000")
		}
	}
	if len(list) == 1 {
		list = append(list, "  no setting of this kernel forbids it: in a container, allow unshare(2) and mounting /proc (for example --privileged)")
	}
	return list
}

// readSetting is the value of a sysctl, "" if there is none.
func readSetting(path string) string {
	b, err := os.ReadFile("/proc/sys/" + path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Privileged reports whether this process is root of the machine itself, not of a
// user namespace: control groups and disks (NewCgroup, NewDisk) take that.
func Privileged() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	f := strings.Fields(string(b))
	return err == nil && os.Geteuid() == 0 && len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295"
}
