package resource

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"hanode/internal/spec"
)

// initDir is where init scripts are.
const initDir = "/etc/init.d"

// Exit codes of init scripts, by the Linux Standard Base. Those of status have a
// meaning of their own.
const (
	lsbArguments     = 2
	lsbUnimplemented = 3
	lsbPrivilege     = 4
	lsbNotInstalled  = 5
	lsbNotConfigured = 6

	lsbDeadPidFile  = 1
	lsbDeadLockFile = 2
	lsbNotRunning   = 3
	lsbUnknown      = 4
)

// lsb speaks to init scripts: NAME start, stop, status. Many of them fail a start
// of what runs or a stop of what does not, so their status has the last word.
type lsb struct{ dir string }

func (l lsb) path(r spec.Resource) string { return filepath.Join(l.dir, r.Name) }

func (l lsb) call(_ context.Context, r spec.Resource, _ Env, op string, _ time.Duration) (call, error) {
	return lsbCall(l.path(r), nil, op), nil
}

// lsbCall asks an init script for op, with arguments before it if it is called as
// Heartbeat did.
func lsbCall(path string, args []string, op string) call {
	word := op
	if op == opMonitor {
		word = "status"
	}
	return call{op: op, argv: slices.Concat([]string{path}, args, []string{word})}
}

func (lsb) forgives() bool  { return true }
func (lsb) asksFirst() bool { return false }

func (lsb) refused(_ spec.Resource, op string, err error) error { return lsbRefused(op, err) }

// lsbRefused reads the exit code of a start: what is missing here another host may
// have.
func lsbRefused(op string, err error) error {
	if op != opStart {
		return err
	}
	switch exitCode(err) {
	case lsbArguments, lsbUnimplemented, lsbPrivilege, lsbNotInstalled, lsbNotConfigured:
		return &Failure{NotHere, err}
	}
	return err
}

func (lsb) state(r spec.Resource, err error, _ string) error { return lsbState(r, err) }

// lsbState reads the exit code of a status.
func lsbState(r spec.Resource, err error) error {
	switch exitCode(err) {
	case 0:
		return nil
	case lsbDeadPidFile:
		return stopped(r, "it is dead, and its pid file is left")
	case lsbDeadLockFile:
		return stopped(r, "it is dead, and its lock file is left")
	case lsbNotRunning:
		return stopped(r, "so says its status")
	case lsbUnknown:
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

func (lsb) Timeouts(spec.Resource) Timeouts { return Timeouts{} }

func (l lsb) Check(_ context.Context, r spec.Resource) []Finding {
	path := l.path(r)
	if why := executable(path); why != "" {
		return lacks("%s", why)
	}
	if !knowsStatus(path) {
		return lacks("%s has no status operation, so nobody could tell whether it runs", path)
	}
	return nil
}

func (lsb) validates(r spec.Resource) (*ocf, spec.Resource) { return nil, r }

// knowsStatus: the script mentions a status, or is run by Debian's init-d-script,
// which brings one. A program that is no script is believed.
func knowsStatus(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil || !bytes.HasPrefix(text, []byte("#!")) {
		return true
	}
	return bytes.Contains(text, []byte("status")) || bytes.Contains(text, []byte("init-d-script"))
}
