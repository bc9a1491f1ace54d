package api

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"

	"hanode/internal/trust"
)

// Roles are the names of those that a certificate may have.
func Roles() []string { return []string{Read.String(), Operate.String(), Admin.String()} }

// roleNamed is the role of that name; Nobody if there is none.
func roleNamed(name string) Role { return Role(slices.Index(Roles(), name) + 1) }

// remoteConn hides from net/http that the connection is TLS, which would look for a
// handler of our protocol's name and hang up; and says who is at the other end.
type remoteConn struct {
	net.Conn
	who trust.Client
}

type remoteListener struct{ net.Listener }

func (l remoteListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if t, ok := c.(*tls.Conn); ok {
			if who, err := trust.PeerClient(t.ConnectionState()); err == nil {
				return remoteConn{c, who}, nil
			}
		}
		_ = c.Close() // nobody vouches for it
	}
}

type clientKey struct{}

// withClient is an http.Server's ConnContext: it notes whose certificate was shown.
func withClient(ctx context.Context, c net.Conn) context.Context {
	if r, ok := c.(remoteConn); ok {
		return context.WithValue(ctx, clientKey{}, r.who)
	}
	return ctx
}

// ServeRemote answers b's calls on a listener of trust.APIALPN, to each client what the
// role in its certificate allows, until ctx is done. What changes something is logged.
func ServeRemote(ctx context.Context, l net.Listener, b Backend, log *slog.Logger) error {
	return serveAs(ctx, remoteListener{l}, remote(every(b), log), withClient, log)
}

func remote(h *calls, log *slog.Logger) http.Handler {
	client := func(r *http.Request) trust.Client {
		c, _ := r.Context().Value(clientKey{}).(trust.Client)
		return c
	}
	guarded := h.allow(func(r *http.Request) Role { return roleNamed(client(r).Role) }, func(r *http.Request, have, need Role) *Error {
		return lacks("the certificate of "+client(r).Name, have, need, fmt.Sprintf("make one with the role on a member: hanode cert %s --role %s", client(r).Name, need))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.takes(r) > Read {
			log.Info("called over the network", "who", client(r).Name, "role", client(r).Role, "call", r.Method+" "+r.URL.Path, "from", r.RemoteAddr)
		}
		guarded.ServeHTTP(w, r)
	})
}

// DialRemote returns a client of the agent at address, HOST:PORT, with the text of a
// certificate that `hanode cert` made.
func DialRemote(address string, cert []byte) (*Client, error) {
	cfg, _, err := trust.RemoteConfig(cert)
	if err != nil {
		return nil, err
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: answerTime}, Config: cfg}
	return New("the agent at "+address, func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }), nil
}
