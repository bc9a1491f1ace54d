package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"hanode/internal/netlab"
	"hanode/test/livelab"
)

const (
	// envUnprivileged has this binary run in a user namespace, as an ordinary user's
	// processes do: bpf() is refused there.
	envUnprivileged = "HANODE_E2E_UNPRIVILEGED"
	// envUnguarded has this binary become its arguments, with bpf() and nftables
	// refused by the kernel: what a seccomp filter of a container and a kernel without
	// nf_tables do.
	envUnguarded = "HANODE_E2E_UNGUARDED"
)

// another is what this binary was started as if not to run all tests; false = it was
// not.
func another() (code int, yes bool) {
	switch {
	case os.Getenv(envServe) != "":
		return serve(os.Getenv(envServe)), true
	case os.Getenv(envUnguarded) != "":
		err := becomeUnguarded(os.Args[1:])
		fmt.Fprintln(os.Stderr, "without a guard:", err)
		return 1, true
	case os.Getenv(envUnprivileged) != "" && !netlab.Isolated():
		code, err := netlab.ReexecUnprivileged(os.Args[1:], nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, "netlab:", err)
			return 1, true
		}
		return code, true
	}
	return 0, false
}

// becomeUnguarded replaces this process; it returns only on an error.
func becomeUnguarded(args []string) error {
	const low = 16 // offset of the low half of argument 0 in seccomp_data, little-endian
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	unless := func(k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: skip}
	}
	end := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	const refuse, allow = 0x00050000, 0x7fff0000 // SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW
	prog := []unix.SockFilter{
		load(0), // the number of the call
		unless(unix.SYS_BPF, 1),
		end(refuse | uint32(unix.EPERM)),
		unless(unix.SYS_SOCKET, 5),
		load(low),
		unless(unix.AF_NETLINK, 3),
		load(low + 2*8),
		unless(unix.NETLINK_NETFILTER, 1),
		end(refuse | uint32(unix.EPROTONOSUPPORT)),
		end(allow),
	}
	runtime.LockOSThread() // the filter is the thread's, and goes with it through exec
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&p)), 0, 0); err != nil {
		return err
	}
	return syscall.Exec(args[0], args, os.Environ())
}

// An ordinary user has no eBPF. The nftables tier guards, status says so with what to
// do about it, and a hung owner falls silent before the next one answers.
func TestWeakGuardIsNamed(t *testing.T) {
	if netlab.Privileged() {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.v", "-test.timeout=3m", "-test.run=^TestWeakGuardIsNamed$")
		cmd.Env = append(os.Environ(), envUnprivileged+"=1", "HANODE_BINARY="+binary)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestWeakGuardIsNamed") {
			t.Errorf("as an ordinary user: %v\n%s", err, out)
		}
		return
	}
	x := form(t, livelab.Options{})
	x.holds("primary")
	x.says("primary", "primary: the guard is the nftables tier", 0)
	x.says("primary", "guard-weak", 0)
	x.says("primary", "run the agent with CAP_BPF and CAP_NET_ADMIN", 0)
	x.do(x.Get("primary").Agent().Stop())
	x.holds("secondary")
	time.Sleep(2500 * time.Millisecond) // ten deadtimes
	x.do(x.Get("primary").Agent().Cont())
	x.holds("primary")
}

// Where neither tier loads, status says so, and a node that went silent keeps its
// groups, whatever time passes: nothing bounds how long it answers. An operator's
// word, given when it is off, moves them.
func TestNoGuardIsNamedAndTimeMovesNothing(t *testing.T) {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("the seccomp filter is written for little-endian machines with these calls")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	x := form(t, livelab.Options{Through: map[string][]string{"primary": {"/usr/bin/env", envUnguarded + "=1", self}}})
	x.holds("primary")
	x.says("primary", "primary: no guard could be loaded", 0)
	x.says("primary", "guard-none", 0)
	x.says("primary", "give the agent CAP_NET_ADMIN", 0)
	x.w.Mark("hung")
	x.do(x.Get("primary").Agent().Stop())
	time.Sleep(4 * time.Second) // sixteen deadtimes
	r := x.w.Stop()
	x.w = nil
	if len(r.Changes) > 0 || len(r.Overlaps) > 0 {
		t.Errorf("another host answered: %+v %+v", r.Changes, r.Overlaps)
	}
	x.says("secondary", "hanode confirm-off primary", 0)
	x.do(x.Get("primary").PowerCut())
	x.observe()
	x.hanode("secondary", 0, "confirm-off", "primary", "--confirm", "primary is off")
	x.holds("secondary")
}
