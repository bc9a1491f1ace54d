package demo

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Web is the demo's web service, `hanode demo-web ACTION`: a daemon that answers
// every request with its host's name. Its actions are those of an exec resource:
// start, stop and monitor, with --dir for its lock file, --name (default: the node
// that the agent names) and --port. It returns the exit code, 7 from monitor
// meaning "not running".
//
// The daemon is known by a lock it holds, not by a process id in a file: the lock
// goes when it dies, however it dies.
func Web(args []string) int {
	if len(args) == 0 {
		return complain(errors.New("demo-web takes start, stop or monitor"))
	}
	w := web{}
	flags := flag.NewFlagSet("demo-web", flag.ContinueOnError)
	flags.StringVar(&w.dir, "dir", "", "folder of the lock file")
	flags.StringVar(&w.name, "name", os.Getenv("HANODE_NODE"), "what to answer")
	flags.IntVar(&w.port, "port", 80, "TCP port, on every address")
	if err := flags.Parse(args[1:]); err != nil {
		return exitUsage
	}
	if w.dir == "" || w.name == "" {
		return complain(errors.New("demo-web needs --dir and --name"))
	}
	switch args[0] {
	case "start":
		return complain(w.start())
	case "stop":
		return complain(w.stop())
	case "monitor":
		return w.monitor()
	case "serve":
		return complain(w.serve())
	}
	return complain(fmt.Errorf("demo-web does not know %q", args[0]))
}

// Exit codes of Web.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitStopped = 7 // monitor: cleanly stopped, as in OCF
)

func complain(err error) int {
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(os.Stderr, "demo-web:", err)
	return exitFailed
}

type web struct {
	dir, name string
	port      int
}

// stopTime is how long the daemon may take to obey SIGTERM, and then SIGKILL.
const stopTime = time.Second

// Descriptors that start hands to the daemon.
const (
	listenerFD = 3
	lockFD     = 4
)

func (w web) lockFile() string { return filepath.Join(w.dir, w.name+".web") }

// start listens, then leaves the answering to a daemon. Once it returns, a client
// that connects is answered. Where the daemon runs already it is done.
func (w web) start() error {
	lock, err := os.OpenFile(w.lockFile(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the lock: %w", err)
	}
	defer lock.Close()
	err = unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return nil // it runs
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: w.port})
	if err != nil {
		return err
	}
	defer ln.Close()
	f, err := ln.File()
	if err != nil {
		return fmt.Errorf("hand the listener on: %w", err)
	}
	defer f.Close()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's file: %w", err)
	}
	cmd := exec.Command(self, "demo-web", "serve", "--dir", w.dir, "--name", w.name)
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{f, lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	if err := writePid(lock, cmd.Process.Pid); err != nil {
		return errors.Join(err, cmd.Process.Kill(), ignoreExit(cmd.Wait()))
	}
	return cmd.Process.Release()
}

func writePid(lock *os.File, pid int) error {
	if err := lock.Truncate(0); err != nil {
		return fmt.Errorf("write the daemon's process id: %w", err)
	}
	if _, err := lock.WriteAt([]byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("write the daemon's process id: %w", err)
	}
	return nil
}

// ignoreExit is err unless it only says how a process ended.
func ignoreExit(err error) error {
	if errors.As(err, new(*exec.ExitError)) {
		return nil
	}
	return err
}

// running reports whether the daemon's lock is held, and its process id; 0 while
// that is not written yet.
func (w web) running() (bool, int, error) {
	b, err := os.Open(w.lockFile())
	if errors.Is(err, os.ErrNotExist) {
		return false, 0, nil
	}
	if err != nil {
		return false, 0, fmt.Errorf("open the lock: %w", err)
	}
	defer b.Close()
	held := unix.Flock_t{Type: unix.F_RDLCK}
	if err := unix.FcntlFlock(b.Fd(), unix.F_OFD_GETLK, &held); err != nil {
		return false, 0, fmt.Errorf("look at the lock %s: %w", b.Name(), err)
	}
	if held.Type == unix.F_UNLCK {
		return false, 0, nil
	}
	text, err := io.ReadAll(io.LimitReader(b, 20))
	if err != nil {
		return true, 0, fmt.Errorf("read the daemon's process id: %w", err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil || pid <= 1 {
		pid = 0
	}
	return true, pid, nil
}

// stop ends the daemon and waits until its lock is free.
func (w web) stop() error {
	sig, until := unix.SIGTERM, time.Now().Add(stopTime)
	for sent := 0; ; time.Sleep(time.Millisecond) {
		on, pid, err := w.running()
		if err != nil || !on {
			return err
		}
		if time.Now().After(until) {
			if sig == unix.SIGKILL {
				return fmt.Errorf("process %d survives SIGKILL", pid)
			}
			sig, until, sent = unix.SIGKILL, time.Now().Add(stopTime), 0
		}
		if pid == 0 || pid == sent {
			continue
		}
		sent = pid
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end process %d: %w", pid, err)
		}
	}
}

// monitor asks the daemon for its page.
func (w web) monitor() int {
	on, _, err := w.running()
	if err != nil {
		return complain(err)
	}
	if !on {
		return exitStopped
	}
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", w.port))
	if err != nil {
		return complain(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if got := strings.TrimSpace(string(body)); err == nil && got != w.name {
		err = fmt.Errorf("the page says %q, not %q", got, w.name)
	}
	return complain(err)
}

// serve is the daemon: it answers on the listener that start made, until SIGTERM.
func (w web) serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	lock, f := os.NewFile(lockFD, "lock"), os.NewFile(listenerFD, "listener")
	ln, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("take the listener over: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("take the listener over: %w", err)
	}
	srv := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = fmt.Fprintln(rw, w.name) // a client that went is no fault
		}),
	}
	srv.SetKeepAlivesEnabled(false)
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err = srv.Serve(ln); errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	runtime.KeepAlive(lock) // held until here: closing it frees the lock
	return err
}
