package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// errHangs is why a call ends that got no answer in its time.
var errHangs = errors.New("no answer in time")

// unreachable turns what the network said into a sentence and a remedy. The end
// of the caller's own context is returned as it is.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errHangs) {
		return context.Cause(ctx)
	}
	e := &Error{
		Code: CodeUnreachable, Exit: ExitUnreachable,
		Message: fmt.Sprintf("%s cannot be reached: %v", c.where, cause(err)),
		Fix:     "see whether it runs: systemctl status hanode",
	}
	switch {
	case ctx.Err() != nil:
		e.Message = c.where + " took the call but does not answer; it hangs or waits for its disk"
		e.Fix = "see what it does: journalctl -u hanode; its leases end by themselves, so it is safe to stop"
	case c.socket == "":
	case errors.Is(err, fs.ErrNotExist):
		e.Message = fmt.Sprintf("no agent runs at %s: there is no such socket", c.socket)
		e.Fix = "start it (systemctl start hanode), or name its socket with --socket or HANODE_SOCKET"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Message = fmt.Sprintf("no agent runs at %s: the one that made this socket is gone", c.socket)
		e.Fix = "start it: systemctl start hanode"
	case errors.Is(err, fs.ErrPermission):
		e.Message = fmt.Sprintf("you may not use %s (permission denied)", c.socket)
		e.Fix = fmt.Sprintf("become root (sudo), or have root add you to the group %s", operators)
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOTDIR):
		e.Message = fmt.Sprintf("%s cannot be the path of a socket: %v", c.socket, cause(err))
		e.Fix = fmt.Sprintf("name the socket the agent listens on; a path has at most %d bytes", maxPath)
	}
	return e
}

// cause is the innermost error: people need no list of who passed it on.
func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// nonsense is an answer that no agent gives.
func (c *Client) nonsense(err error) error {
	return &Error{
		Code: CodeUnreachable, Exit: ExitUnreachable,
		Message: fmt.Sprintf("%s gives an answer that is not understood: %v", c.where, err),
		Fix:     "hanode version shows whether command and agent are of different versions",
	}
}
