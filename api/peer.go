package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/user"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peer is who is at the other end of a unix socket, as the kernel says.
type peer struct {
	uid    int
	gid    int
	groups []int // supplementary
}

// policy says who may operate the node.
type policy struct {
	uid  int  // the agent's own
	gid  int  // of group hanode; -1 = there is none
	read bool // everybody may see
}

// role is what a local user may do.
func (p policy) role(who peer) Role {
	switch {
	case who.uid == 0 || who.uid == p.uid:
		return Admin
	case p.gid >= 0 && (who.gid == p.gid || slices.Contains(who.groups, p.gid)):
		return Admin
	case p.read:
		return Read
	}
	return Nobody
}

// guard lets h answer only those whom p gives the role for it. A connection without peer
// credentials is nobody.
func (p policy) guard(h *calls) http.Handler {
	return h.allow(func(r *http.Request) Role {
		if who, ok := r.Context().Value(peerKey{}).(peer); ok {
			return p.role(who)
		}
		return Nobody
	}, func(r *http.Request, have, need Role) *Error {
		who, ok := r.Context().Value(peerKey{}).(peer)
		e := p.refusal(who, ok)
		if have > Nobody {
			e = lacks("user "+nameOf(who.uid), have, need, e.Fix)
		}
		return e
	})
}

// nameOf is a user's name, or his number.
func nameOf(uid int) string {
	name := strconv.Itoa(uid)
	if u, err := user.LookupId(name); err == nil {
		return u.Username
	}
	return name
}

func (p policy) refusal(who peer, known bool) *Error {
	e := &Error{
		Code: CodeNotAllowed, Exit: ExitFailed,
		Message: "the kernel does not say who is asking, so nothing is answered",
		Fix:     "ask through the agent's own unix socket",
	}
	if !known {
		return e
	}
	name := nameOf(who.uid)
	e.Message = fmt.Sprintf("user %s (uid %d) may not operate this node", name, who.uid)
	e.Fix = fmt.Sprintf("become root (sudo), or have root add the user to the group %s: usermod -aG %s %s, and log in again",
		operators, operators, name)
	if p.gid < 0 {
		e.Fix = fmt.Sprintf("become root (sudo); this host has no group %s whose members could be let in", operators)
	}
	return e
}

type peerKey struct{}

// withPeer is an http.Server's ConnContext: it notes who connected.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	who, err := readPeer(uc)
	if err != nil {
		return ctx // guard refuses
	}
	return context.WithValue(ctx, peerKey{}, who)
}

func readPeer(c *net.UnixConn) (who peer, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return who, fmt.Errorf("peer credentials: %w", err)
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			inner = err
			return
		}
		who.uid, who.gid = int(cred.Uid), int(cred.Gid)
		who.groups, inner = peerGroups(fd)
	})
	if err == nil {
		err = inner
	}
	if err != nil {
		return who, fmt.Errorf("peer credentials: %w", err)
	}
	return who, nil
}

// peerGroups reads SO_PEERGROUPS (Linux 4.13): the supplementary groups the peer
// had when it connected. A kernel without it counts as no groups.
func peerGroups(fd uintptr) ([]int, error) {
	buf := make([]uint32, 64)
	for {
		size := uint32(len(buf) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			groups := make([]int, 0, size/4)
			for _, g := range buf[:size/4] {
				groups = append(groups, int(g))
			}
			return groups, nil
		case unix.ERANGE: // size now holds what is needed; the kernel allows 65536
			if int(size/4) <= len(buf) || size > 4*65536 {
				return nil, errno
			}
			buf = make([]uint32, size/4)
		case unix.ENOPROTOOPT, unix.ENODATA:
			return nil, nil
		default:
			return nil, errno
		}
	}
}
