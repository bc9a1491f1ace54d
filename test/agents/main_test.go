// Package agents tries the resource types against the real thing: the OCF agents,
// Heartbeat's scripts, the init scripts and the Apache of Debian's packages, taken
// from its mirror and run unmodified.
//
// Nothing is installed on this machine: the packages are unpacked into the user's
// cache folder, and the tests run in a mount namespace where they lie over /usr,
// /etc and /var, and in a network namespace. Root or user namespaces are needed, and
// Debian or Ubuntu.
package agents

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wanted are the packages, apart from what they depend on.
var wanted = []string{"resource-agents", "heartbeat", "drbd-utils", "apache2", "curl", "kmod", "psmisc", "procps", "e2fsprogs"}

// insideVariable tells the second process of the test that it is in its namespaces,
// and where the packages were unpacked.
const (
	insideVariable = "HANODE_TEST_PACKAGES"
	initVariable   = "HANODE_TEST_INIT" // set in the first process of the namespaces
	userVariable   = "HANODE_TEST_USER" // set if one of them is a user namespace
)

func TestMain(m *testing.M) {
	flag.Parse()
	root := os.Getenv(insideVariable)
	switch {
	case root != "" && os.Getenv(initVariable) != "":
		if err := lay(root); err != nil {
			fmt.Fprintln(os.Stderr, "lay the packages over this machine's files:", err)
			os.Exit(1)
		}
		os.Exit(initProcess())
	case root != "":
		os.Exit(m.Run())
	case testing.Short():
		fmt.Println("test/agents: -short leaves these tests out; they take packages from Debian's mirror")
		os.Exit(0)
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		fmt.Println("test/agents: there is no apt-get here; these tests need Debian or Ubuntu")
		os.Exit(0)
	}
	root, err := unpack()
	if err != nil {
		fmt.Fprintln(os.Stderr, "take", strings.Join(wanted, ", "), "from the Debian mirror (go test -short leaves this out):", err)
		os.Exit(1)
	}
	os.Exit(again(root))
}

// unpack downloads the packages, with what they depend on and this machine has not,
// and unpacks them; once, and again when they are older than a week.
func unpack() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "hanode-test-packages")
	root, stamp := filepath.Join(dir, "root"), filepath.Join(dir, "complete")
	for _, d := range []string{dir, filepath.Join(dir, "lists/partial"), filepath.Join(dir, "archives/partial")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	list := strings.Join(wanted, " ") + "; all in /usr"
	if st, err := os.Stat(stamp); err == nil && time.Since(st.ModTime()) < 7*24*time.Hour {
		if b, err := os.ReadFile(stamp); err == nil && string(b) == list {
			return root, nil
		}
	}
	// Folders of its own, so that neither root nor a lock is needed.
	own := []string{
		"-qq", "-o", "Dir::State::lists=" + dir + "/lists", "-o", "Dir::Cache=" + dir, "-o", "Dir::Cache::archives=" + dir + "/archives",
		"-o", "Dir::Etc::Apt=/etc/apt", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=3",
	}
	if err := run("apt-get", append(own, "update")...); err != nil {
		return "", err
	}
	get := append(own, "--yes", "--no-install-recommends", "--download-only", "--reinstall", "install")
	if err := run("apt-get", append(get, wanted...)...); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "archives", "*.deb"))
	if err != nil || len(debs) < len(wanted) {
		return "", fmt.Errorf("apt-get brought %d packages: %w", len(debs), err)
	}
	if err := os.RemoveAll(root); err != nil {
		return "", err
	}
	for _, deb := range debs {
		if err := run("dpkg", "-x", deb, root); err != nil {
			return "", err
		}
	}
	// Debian's packages of this age still have some of their files in /sbin and /lib,
	// which are /usr/sbin and /usr/lib. They are put there now: an ordinary user may not
	// write into this machine's folders, not even where an overlay lies over them, but what
	// he unpacked is his.
	for _, name := range []string{"sbin", "bin", "lib"} {
		from, to := filepath.Join(root, name), filepath.Join(root, "usr", name)
		if !exists(from) {
			continue
		}
		if err := errors.Join(os.MkdirAll(to, 0o755), run("cp", "-a", from+"/.", to), os.RemoveAll(from)); err != nil {
			return "", err
		}
	}
	return root, os.WriteFile(stamp, []byte(list), 0o600)
}

func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, args[len(args)-1], err, out)
	}
	return nil
}

// again runs this test binary in namespaces of its own and returns its exit code.
func again(root string) int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVariable+"="+root, initVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.Env = append(cmd.Env, userVariable+"=1")
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "make namespaces (root, or a kernel that lets users have them):", err)
		return 1
	}
	return 0
}

// initProcess runs the tests as a child and buries whoever was left to it, as an
// init does: a daemon that stays a zombie looks alive to its scripts.
func initProcess() int {
	if err := os.Unsetenv(initVariable); err != nil {
		return 1
	}
	p, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "start the tests:", err)
		return 1
	}
	for {
		var st unix.WaitStatus
		pid, err := unix.Wait4(-1, &st, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 1
		case pid == p.Pid && st.Exited():
			return st.ExitStatus()
		case pid == p.Pid:
			fmt.Fprintln(os.Stderr, "the tests were ended by", st.Signal())
			return 1
		}
	}
}

// lay puts the packages over the machine's folders, writable in memory, and makes
// /run, /proc and lo this test's own.
func lay(root string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	mem, err := os.MkdirTemp("", "hanode-agents-")
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", mem, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	for _, dir := range []string{"etc", "usr", "var"} {
		upper, work := filepath.Join(mem, dir), filepath.Join(mem, dir+".work")
		if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
			return err
		}
		lower := "/" + dir
		if ours := filepath.Join(root, dir); exists(ours) {
			lower = ours + ":" + lower
		}
		opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work)
		if os.Getenv(userVariable) != "" {
			opts += ",userxattr" // or no folder of a package could be removed
		}
		if err := unix.Mount("overlay", "/"+dir, "overlay", 0, opts); err != nil {
			return fmt.Errorf("mount an overlay on /%s: %w", dir, err)
		}
	}
	for _, m := range [][2]string{{"tmpfs", "/run"}, {"proc", "/proc"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	if err := os.MkdirAll("/run/lock", 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll("/run/resource-agents", 0o1755); err != nil {
		return err
	}
	return loUp()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// loUp switches the loopback device of a new network namespace on.
func loUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}
