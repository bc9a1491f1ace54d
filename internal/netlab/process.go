package netlab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Process is a program started on a host. Its methods are safe for concurrent
// use.
type Process struct {
	Pid  int
	Done <-chan struct{} // closed once the process has ended and was waited for

	cmd *exec.Cmd
	err error // of Wait; readable once Done is closed
}

// Start starts cmd on the host, in a process group of its own unless cmd asks
// for a session. It is killed with the host, with the lab, and when this program
// dies. Give cmd.Stdout and cmd.Stderr a file or a writer; the pipes of
// cmd.StdoutPipe may be closed before they are read to the end.
func (h *Host) Start(cmd *exec.Cmd) (*Process, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.on {
		return nil, fmt.Errorf("start %s on host %s: %w", cmd.Path, h.name, errOff)
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = !cmd.SysProcAttr.Setsid
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = time.Second // a daemon may hold our end of its output
	}
	if err := h.starter.run(cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s on host %s: %w", cmd.Path, h.name, err)
	}
	done := make(chan struct{})
	p := &Process{Pid: cmd.Process.Pid, Done: done, cmd: cmd}
	go func() {
		defer close(done)
		p.err = cmd.Wait()
	}()
	h.procs = append(h.procs, p)
	return p, nil
}

// Wait waits for the process to end and returns what exec.Cmd.Wait returned.
// Any number of callers may wait.
func (p *Process) Wait() error {
	<-p.Done
	return p.err
}

// Kill sends SIGKILL to the process alone: what it started goes on. Killing one
// that has ended is success. It does not wait.
func (p *Process) Kill() error { return p.Signal(syscall.SIGKILL) }

// Stop hangs the process (SIGSTOP) until Cont.
func (p *Process) Stop() error { return p.Signal(syscall.SIGSTOP) }

// Cont lets a stopped process go on (SIGCONT).
func (p *Process) Cont() error { return p.Signal(syscall.SIGCONT) }

// Signal sends sig to the process alone. A process that has ended is success.
func (p *Process) Signal(sig os.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("send %v to process %d: %w", sig, p.Pid, err)
	}
	return nil
}

// Stopped reports whether every thread of the process stands still under a signal.
// A process that has ended is not stopped.
func (p *Process) Stopped() bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid))
	if err != nil || len(threads) == 0 {
		return false
	}
	for _, file := range threads {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // this thread ended
		}
		// The state is the word after the name, which may hold anything but ends
		// with the last bracket.
		if i := bytes.LastIndexByte(b, ')'); i < 0 || len(b) < i+3 || b[i+2] != 'T' {
			return false
		}
	}
	return true
}

// starter is the thread that starts a host's processes. It stays in the host's
// namespace as long as the host has power, because the kernel ties a child's
// parent-death signal to the thread that made the child.
type starter struct {
	jobs chan func() error
	errs chan error
	done chan struct{}
}

func newStarter(ns *namespace) (*starter, error) {
	s := &starter{jobs: make(chan func() error), errs: make(chan error), done: make(chan struct{})}
	ready := make(chan error, 1)
	go func() {
		defer close(s.done)
		err := ns.do(func() error {
			ready <- nil
			for job := range s.jobs {
				s.errs <- job()
			}
			return nil
		})
		if err != nil {
			ready <- err
		}
	}()
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("make the thread that starts processes: %w", err)
	}
	return s, nil
}

// run has job done by the thread. One caller at a time.
func (s *starter) run(job func() error) error {
	s.jobs <- job
	return <-s.errs
}

func (s *starter) stop() {
	close(s.jobs)
	<-s.done
}
