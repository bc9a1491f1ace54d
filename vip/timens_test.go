package vip

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// In a time namespace an agent's boot clock is not the one that the kernel checks
// leases with. Not corrected, a clock that is behind opens nothing, one that is far
// ahead opens nothing either, and one that is a little ahead answers for that much
// too long.
func TestHolderInATimeNamespace(t *testing.T) {
	if len(modes()) == 1 {
		t.Skip("a time namespace takes root of the first user namespace; run as root for this one")
	}
	uptime := int(boot().Seconds())
	if uptime < 20 {
		t.Skip("the boot clock cannot be set back by more than this host's uptime")
	}
	for _, offset := range []int{30, 100_000, -uptime / 2} {
		for _, mode := range modes() {
			t.Run(fmt.Sprintf("%s %+d s", mode, offset), func(t *testing.T) {
				inTimeNamespace(t, mode, offset)
			})
		}
	}
}

func inTimeNamespace(t *testing.T, mode string, offset int) {
	t.Helper()
	l := newLab(t)
	l.host.echo(t)
	as := newAskers(t, l)
	h := l.host.startHolderBy(t, mode, t.TempDir(), "unshare", "--time", "--boottime", fmt.Sprint(offset), "--fork", "--kill-child")
	h.waitHolding(t)
	if left := time.Duration(h.end.Load()) - boot(); left < -5*time.Second || left > 5*time.Second {
		t.Errorf("the lease ends in %v by the kernel's clock", left)
	}
	wantAnswers(t, as, "held from another time namespace")
	stop := askAll(as)
	time.Sleep(200 * time.Millisecond)
	h.kill()
	end := time.Duration(h.end.Load())
	time.Sleep(800 * time.Millisecond)
	stop()
	wantLastBefore(t, as, end+25*time.Millisecond)
	wantSilence(t, as, "after kill -9")
}

// unshared makes the holder enter a new time namespace for its children only.
const unshared = "unshared"

func init() {
	if os.Getenv(envHold) == unshared {
		runtime.LockOSThread() // main then runs on the thread that /proc/self is about
	}
}

func holdUnshared() {
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		fmt.Println("cannot unshare:", err)
		return
	}
	_, err := Open(Options{Dir: os.Getenv(envDir)})
	fmt.Println("open:", err)
}

// Such a process is shown the offsets of a time namespace that is not its own:
// nothing can be made good then.
func TestClockThatCannotBeCorrectedIsRefused(t *testing.T) {
	if len(modes()) == 1 {
		t.Skip("a time namespace takes root of the first user namespace; run as root for this one")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envHold+"="+unshared, envDir+"="+t.TempDir())
	out, err := cmd.CombinedOutput()
	must(t, err)
	if !strings.Contains(string(out), "open: ") || !strings.Contains(string(out), "start the agent as such a child, or outside of time namespaces") {
		t.Errorf("it said %q", out)
	}
}
