package resource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"hanode/internal/spec"
)

// scripts runs the programs of resources: each in the resource's control group,
// its end bounded by the context, its output kept. Safe for concurrent use.
type scripts struct {
	groups cgroups

	mu    sync.Mutex
	pipes map[*os.File]bool // held open by daemons; see drain
	ended bool
	wg    sync.WaitGroup
}

func newScripts(id string) *scripts {
	return &scripts{groups: openCgroups(id), pipes: map[*os.File]bool{}}
}

// close lets go of the output of daemons, and of the control groups that are empty.
func (s *scripts) close() {
	s.mu.Lock()
	s.ended = true
	for p := range s.pipes {
		_ = p.SetReadDeadline(time.Now())
	}
	s.mu.Unlock()
	s.wg.Wait()
	s.groups.close()
}

// call is one operation of a resource.
type call struct {
	op   string // start, stop, monitor: in HANODE_OPERATION and in errors
	argv []string
	env  []string // beside the agent's own and HANODE_*
	// daemon: the program may leave one that holds its output open. It is then read
	// for as long as this process lives, or a daemon that writes would be killed by
	// SIGPIPE.
	daemon bool
}

// ended is how a program ended: by exit code. Its error is a sentence with the
// last line of its output.
type ended struct {
	code int // -1 = by a signal
	err  error
}

func (e *ended) Error() string { return e.err.Error() }
func (e *ended) Unwrap() error { return e.err }

// exitCode is the code that err is about; -1 = it is about something else.
func exitCode(err error) int {
	if e, ok := errors.AsType[*ended](err); ok {
		return e.code
	}
	if err == nil {
		return 0
	}
	return -1
}

// run runs a program to its end. Exit 0 is nil; another code an *ended.
func (s *scripts) run(ctx context.Context, r spec.Resource, c call, env Env) error {
	say := func(err error, text string) error {
		if l := lastLine(text); l != "" {
			return fmt.Errorf("%s %q: %s: %w: %s", r.Type, r.Name, c.op, err, l)
		}
		return fmt.Errorf("%s %q: %s: %w", r.Type, r.Name, c.op, err)
	}
	if len(c.argv) == 0 || c.argv[0] == "" {
		return &Failure{Nowhere, fmt.Errorf("%s %q has no %s command", r.Type, r.Name, c.op)}
	}
	limit := time.Duration(0)
	if end, ok := ctx.Deadline(); ok {
		limit = time.Until(end).Round(10 * time.Millisecond)
	}
	out := &tail{}
	cmd, err := s.start(r, c, env, io.MultiWriter(out, env.sink()))
	if err != nil {
		return &Failure{NotHere, say(err, "")}
	}
	var exit *exec.ExitError
	switch err = cmd.wait(ctx); {
	case err == nil:
		return nil
	case errors.Is(err, errHangs):
		return say(err, out.String())
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return say(fmt.Errorf("did not end within %v and was killed", limit), out.String())
	case ctx.Err() != nil:
		return say(errors.New("was given up and killed"), out.String())
	case errors.As(err, &exit):
		return &ended{exit.ExitCode(), say(err, out.String())}
	}
	return say(err, out.String())
}

// program is a running program.
type program struct {
	cmd  *exec.Cmd
	done chan error
	tidy func()
}

// errHangs means that a program outlived SIGKILL: it is stuck in the kernel.
var errHangs = errors.New("does not die, not even by SIGKILL: it hangs in the kernel, mostly on a disk or a file server")

// start begins the program. Its process lives in the resource's control group
// from its first instruction.
func (s *scripts) start(r spec.Resource, c call, env Env, out io.Writer) (*program, error) {
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	k := key(env.Group, r)
	group := s.groups.open(k)
	begun, done := make(chan error, 1), make(chan error, 1)
	var cmd *exec.Cmd
	go func() {
		// An operation must not outlive the agent: one that a killed agent began would
		// start its service after the next agent's clean-up. The kernel ties this to the
		// thread that forks, so the thread stays until the operation has ended.
		runtime.LockOSThread()
		if !plainThread() { // a thread that was changed ends with this goroutine
			defer runtime.UnlockOSThread()
		}
		cmd, err = spawn(c, s.environment(k, c, env), pw, group)
		_ = pw.Close()
		if group != nil {
			_ = group.Close()
		}
		if err == nil {
			plainMemory(cmd.Process.Pid, func() []int { return s.groups.in(k) })
		}
		begun <- err
		if err == nil {
			done <- cmd.Wait()
		}
	}()
	if err := <-begun; err != nil {
		_ = pr.Close()
		return nil, err
	}
	return &program{cmd, done, s.read(pr, out, c.daemon)}, nil
}

// spawn forks. Where the kernel cannot put a process into a control group at its
// birth, it goes without one.
func spawn(c call, env []string, out *os.File, group *os.File) (*exec.Cmd, error) {
	make := func() *exec.Cmd {
		cmd := exec.Command(c.argv[0], c.argv[1:]...)
		cmd.Env, cmd.Stdout, cmd.Stderr, cmd.Dir = env, out, out, "/"
		// Its own process group, so that what a hung script forked dies with it; a
		// daemon that called setsid is not in it any more.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	cmd := make()
	if group != nil {
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
		err := cmd.Start()
		switch {
		case errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.EINVAL):
			cmd = make()
		default:
			return cmd, err
		}
	}
	return cmd, cmd.Start()
}

// environment is what every program is told.
func (s *scripts) environment(key string, c call, env Env) []string {
	if env.Problem != "" {
		c.env = append(slices.Clone(c.env), "HANODE_PROBLEM="+env.Problem)
	}
	return append(append(os.Environ(),
		"HANODE_GROUP="+env.Group, "HANODE_NODE="+env.Node, "HANODE_EPOCH="+strconv.FormatUint(uint64(env.Epoch), 10),
		"HANODE_REASON="+env.Reason, "HANODE_VIP="+env.VIP, "HANODE_OPERATION="+c.op, s.groups.variable(key)), c.env...)
}

// hangLimit is how long a killed program may take to be gone.
const hangLimit = 2 * time.Second

// wait returns when the program has ended, or soon after ctx did.
func (p *program) wait(ctx context.Context) error {
	defer p.tidy()
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	t := time.NewTimer(hangLimit)
	defer t.Stop()
	select {
	case err := <-p.done:
		if err == nil {
			return nil // it had ended by itself
		}
		return err
	case <-t.C:
		return errHangs
	}
}

// read copies a program's output until nobody holds the other end. tidy, called
// when the program has ended, takes what is there; then it lets a daemon keep the
// pipe, or closes it.
func (s *scripts) read(pr *os.File, out io.Writer, daemon bool) (tidy func()) {
	eof := make(chan struct{})
	s.mu.Lock()
	if s.ended {
		_ = pr.SetReadDeadline(time.Now())
	}
	s.pipes[pr] = true
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		defer close(eof)
		_, _ = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{pr}, make([]byte, 64<<10))
		drain(pr, out)
		_ = pr.Close()
		s.mu.Lock()
		delete(s.pipes, pr)
		s.mu.Unlock()
	}()
	return func() {
		t := time.NewTimer(20 * time.Millisecond)
		defer t.Stop()
		select {
		case <-eof:
			return
		case <-t.C:
		}
		if !daemon {
			_ = pr.SetReadDeadline(time.Now())
			<-eof
		}
	}
}

// drain takes what already is in a pipe whose reading was ended by a deadline.
func drain(pr *os.File, out io.Writer) {
	raw, err := pr.SyscallConn()
	if err != nil || pr.SetReadDeadline(time.Time{}) != nil {
		return
	}
	buf := make([]byte, 64<<10)
	for range 64 { // what is written faster than this is lost
		n := 0
		if raw.Read(func(fd uintptr) bool { n, err = syscall.Read(int(fd), buf); return true }) != nil || err != nil || n <= 0 {
			return
		}
		_, _ = out.Write(buf[:n])
	}
}

// endLeftovers ends what a stopped resource's scripts left running, as systemd
// does after ExecStop, and says so in the output.
func (s *scripts) endLeftovers(ctx context.Context, r spec.Resource, env Env) error {
	killed, err := s.groups.kill(ctx, key(env.Group, r))
	if len(killed) > 0 {
		_, _ = fmt.Fprintf(env.sink(), "hanode: killed what was left of it: %s\n", strings.Join(killed, ", "))
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", r.Type, r.Name, err)
	}
	return nil
}

// executable says why path cannot be run, or "".
func executable(path string) string {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return path + " does not exist"
	case err != nil:
		return err.Error()
	case st.IsDir():
		return path + " is a folder"
	case st.Mode()&0o111 == 0:
		return path + " is not executable"
	}
	return ""
}

// command says why argv[0] cannot be run, or "".
func command(name string) string {
	if strings.ContainsRune(name, '/') {
		return executable(name)
	}
	if _, err := exec.LookPath(name); err != nil {
		return fmt.Sprintf("%s is not in the agent's PATH", name)
	}
	return ""
}
