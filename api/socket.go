package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// operators is the system group whose members may operate the node.
const operators = "hanode"

// maxPath is the longest path a unix socket can have.
const maxPath = 107

// Socket is the agent's unix socket. Close, or the end of Serve, removes it.
type Socket struct {
	path   string
	ln     *net.UnixListener
	inode  os.FileInfo
	policy policy
}

// Listen makes the socket's folder, replaces what a dead agent left at path, and
// listens there with mode 0660 and group hanode, if there is such a group; with read, mode
// 0666, and everybody on the host may see, and change nothing. It fails if a live agent answers at path, or if path is anything but a socket.
func Listen(path string, read bool, log *slog.Logger) (*Socket, error) {
	if len(path) > maxPath-len(".new") {
		return nil, fmt.Errorf("socket %s: the path has %d bytes; the most is %d", path, len(path), maxPath-len(".new"))
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's folder: %w", err)
	}
	// Two agents that start at once must not both find the socket dead.
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := checkDead(path); err != nil {
		return nil, err
	}
	s := &Socket{path: path, policy: policy{uid: os.Getuid(), gid: lookupGroup(operators), read: read}}
	return s, s.listen(log)
}

// listen binds beside the path, sets mode and group, and renames: whoever finds
// the socket finds it finished.
func (s *Socket) listen(log *slog.Logger) error {
	tmp := s.path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the rest of an earlier start: %w", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.path, err)
	}
	ln.SetUnlinkOnClose(false) // Close does it, under the final name
	s.ln = ln
	fail := func(err error) error {
		return errors.Join(err, ln.Close(), os.Remove(tmp))
	}
	mode := fs.FileMode(0o660)
	if s.policy.read {
		mode = 0o666 // whoever connects is judged call by call
	}
	if err := os.Chmod(tmp, mode); err != nil {
		return fail(fmt.Errorf("set the mode of %s: %w", s.path, err))
	}
	if s.policy.gid >= 0 {
		if err := os.Chown(tmp, -1, s.policy.gid); err != nil {
			log.Warn("the group cannot be given the socket; only root and the agent's own user can use it",
				"socket", s.path, "group", operators, "err", err)
		}
	}
	if s.inode, err = os.Lstat(tmp); err != nil {
		return fail(fmt.Errorf("look at %s: %w", s.path, err))
	}
	if err := os.Rename(tmp, s.path); err != nil {
		return fail(fmt.Errorf("put %s in place: %w", s.path, err))
	}
	return nil
}

// checkDead returns an error unless path is free or a socket nobody listens on.
func checkDead(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket; remove it, or choose another socket", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		return nil
	}
	// Anything else, such as a full queue, may be a live agent that hangs.
	return fmt.Errorf("another agent is using %s; stop it, or give this one another socket (--socket)", path)
}

// lockDir takes the folder's lock, which nothing but Listen uses, and waits up
// to 2 s for it.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("lock the socket's folder: %w", err)
	}
	for end := time.Now().Add(2 * time.Second); ; {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			return nil, errors.Join(fmt.Errorf("lock the socket's folder %s: %w", dir, err), f.Close())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// lookupGroup returns the id of a system group, -1 if there is none.
func lookupGroup(name string) int {
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return gid
}

// Path is where the socket is.
func (s *Socket) Path() string { return s.path }

// Close stops listening and removes the socket, unless another agent's is there
// by now.
func (s *Socket) Close() error {
	err := s.ln.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if now, statErr := os.Lstat(s.path); statErr == nil && os.SameFile(now, s.inode) {
		err = errors.Join(err, os.Remove(s.path))
	}
	return err
}

// Serve answers b's calls to root, the agent's own user and the group hanode, and what
// changes nothing to others if they may read, until ctx is done; then it ends the calls under way and returns nil.
func (s *Socket) Serve(ctx context.Context, b Backend, log *slog.Logger) error {
	err := Serve(ctx, s.ln, s.policy.guard(every(b)), log)
	return errors.Join(err, s.Close())
}

// Serve runs an HTTP server with the API's limits on ln until ctx is done. Calls
// under way then see their context end and have 2 s to return. It closes ln and
// returns nil, or why it could not serve.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	return serveAs(ctx, ln, h, withPeer, log)
}

func serveAs(ctx context.Context, ln net.Listener, h http.Handler, who func(context.Context, net.Conn) context.Context, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           bounded(h, 10*time.Second),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       who,
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		_ = srv.Close()
		return fmt.Errorf("serve the API: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		_ = srv.Close() // somebody did not read his answer
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the API: %w", err)
	}
	return nil
}

// bounded gives every body d to arrive. http.Server's ReadTimeout will not do:
// it also ends the context of calls that take longer than that to answer. Who
// has read the whole body lifts the bound with bodyDone.
func bounded(h http.Handler, d time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d))
		}
		h.ServeHTTP(w, r)
	})
}

func bodyDone(w http.ResponseWriter) {
	// A writer without deadlines had no bound to lift.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
}
