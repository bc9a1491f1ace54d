package resource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hanode/internal/spec"
)

// defaultTimeout bounds one operation where the resource does not say.
const defaultTimeout = 20 * time.Second

// execDriver runs an argument list per operation, without a shell. Exit 0 is
// success; for monitor, 7 is "cleanly stopped" as in OCF, anything else a failure.
// A start command must return: a daemon puts itself into the background.
type execDriver struct{ journal *Journal }

// ocfNotRunning is OCF_NOT_RUNNING of the OCF resource agent API.
const ocfNotRunning = 7

func (d execDriver) Start(ctx context.Context, r spec.Resource, env Env) error {
	if err := d.journal.note(env.Group, r); err != nil {
		return err
	}
	return d.run(ctx, "start", r, r.Start, env)
}

func (d execDriver) Stop(ctx context.Context, r spec.Resource, env Env) error {
	if err := d.run(ctx, "stop", r, r.Stop, env); err != nil {
		return err
	}
	if len(r.Monitor) > 0 {
		if err := d.Monitor(ctx, r, env); err == nil {
			return fmt.Errorf("exec %q: stop returned 0 but monitor says that it still runs", r.Name)
		}
	}
	return d.journal.drop(env.Group, r)
}

func (d execDriver) Monitor(ctx context.Context, r spec.Resource, env Env) error {
	if len(r.Monitor) == 0 {
		return nil
	}
	err := d.run(ctx, "monitor", r, r.Monitor, env)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == ocfNotRunning {
		return ErrStopped
	}
	return err
}

func (d execDriver) run(ctx context.Context, op string, r spec.Resource, argv []string, env Env) error {
	if len(argv) == 0 {
		return fmt.Errorf("exec %q has no %s command", r.Name, op)
	}
	limit := r.Timeout
	if limit == 0 {
		limit = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out := &tail{limit: 64 << 10}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(),
		"HANODE_GROUP="+env.Group, "HANODE_NODE="+env.Node, "HANODE_EPOCH="+strconv.FormatUint(uint64(env.Epoch), 10),
		"HANODE_REASON="+env.Reason, "HANODE_VIP="+env.VIP, "HANODE_OPERATION="+op)
	cmd.Stdout, cmd.Stderr = out, out
	// An operation must not outlive the agent: one that a killed agent began would
	// start its service after the next agent's clean-up. The kernel ties this to the
	// thread that forks, so the thread stays until the operation has ended.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// Its own process group, so that what a hung script forked dies with it; a
	// daemon that called setsid is not in it any more.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 200 * time.Millisecond // a daemon may keep our pipe open
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it exited 0; a child holds its output
	}
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("did not end within %v and was killed", limit)
	}
	if text := strings.TrimSpace(out.String()); text != "" {
		return fmt.Errorf("exec %q: %s: %w: %s", r.Name, op, err, lastLine(text))
	}
	return fmt.Errorf("exec %q: %s: %w", r.Name, op, err)
}

func lastLine(s string) string {
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		return s[i+1:]
	}
	return s
}

// tail keeps the last bytes written to it. Used by one process at a time.
type tail struct {
	limit int
	b     []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - t.limit; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.b) }
