package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"hanode/config"
)

// How long after its end a program is started again: the first time, at most, and how
// long it must have run to count as a first time again. stopRespawn is how long it may
// take to end on SIGTERM.
const (
	respawnFirst = time.Second
	respawnMost  = time.Minute
	stopRespawn  = 5 * time.Second
)

// leaveIt is the exit code of a program that does not want to be started again.
const leaveIt = 100

// clients are the programs that run now.
type clients struct {
	mu  sync.Mutex
	run map[string]int // base name of the program -> how many
}

func (c *clients) add(program string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == nil {
		c.run = map[string]int{}
	}
	c.run[filepath.Base(program)] += n
}

// list is sorted.
func (c *clients) list() (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, n := range c.run {
		if n > 0 {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// respawn runs the node file's programs while the agent does.
func (a *Agent) respawn() {
	for _, r := range a.cfg.Respawn {
		a.goLoop(func(ctx context.Context) { a.respawnLoop(ctx, r) })
	}
}

// respawnLoop starts one program again and again, until it says that it wants to be
// left alone. One that ends and must not is a reason for this node to give up.
func (a *Agent) respawnLoop(ctx context.Context, r config.Respawn) {
	pause := respawnFirst
	for ctx.Err() == nil {
		begin := time.Now()
		a.clients.add(r.Command[0], 1)
		err := runAs(ctx, r)
		a.clients.add(r.Command[0], -1)
		if ctx.Err() != nil {
			return
		}
		exit, exited := errors.AsType[*exec.ExitError](err)
		switch {
		case exited && exit.ExitCode() == leaveIt:
			a.log.Info("a program ended and wants to be left", "program", r.Command[0], "code", leaveIt)
			return
		case r.FailFast:
			a.die(fmt.Errorf("%s ended (%v), and this node is to give up then (failfast)", r.Command[0], ended(err)))
			return
		}
		if time.Since(begin) >= respawnMost {
			pause = respawnFirst
		}
		a.log.Warn("a program ended and is started again", "program", r.Command[0], "err", ended(err), "in", pause)
		a.problems.set("respawn", fmt.Sprintf("%s ended (%v) and is started again", r.Command[0], ended(err)))
		sleepCtx(ctx, pause)
		pause = min(2*pause, respawnMost)
	}
}

func ended(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// runAs runs a program as its user until it ends; when ctx ends, or the agent dies, it
// is told to.
func runAs(ctx context.Context, r config.Respawn) error {
	runtime.LockOSThread() // Pdeathsig is about the thread that started it
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, r.Command[0], r.Command[1:]...)
	cmd.Env = append(append(os.Environ(), "LOGNAME="+r.User, "USER="+r.User), r.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cred, err := credential(r.User)
	if err != nil {
		return err
	}
	cmd.SysProcAttr.Credential = cred
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopRespawn
	return cmd.Run()
}

// credential is a user's; nil = the agent's own.
func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("run a program as %s: %w", name, err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("run a program as %s: %w", name, err)
	}
	if int(uid) == os.Getuid() && int(gid) == os.Getgid() {
		return nil, nil
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
