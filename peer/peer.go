// Package peer is node-to-node calls over mutual TLS: propose a command to the
// leader, ask it for a mark, ask another node what it is, rejoin with an empty
// disk, and the operator API forwarded.
//
// It carries; it does not decide. Nothing that a takeover waits for goes this
// way: that goes by datagram (package lease), because a lost TCP tail costs
// 200 ms.
package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
	"hanode/internal/trust"
)

// State is what a node says of its own place in a cluster (R12).
type State string

// The states.
const (
	Fresh    State = "fresh"    // no cluster's log on its disk, and it never left one
	Outside  State = "outside"  // fresh, but it knows of a cluster, and asks to be let in
	Founding State = "founding" // has the founders' configuration, and no entry after it
	Member   State = "member"   // has a cluster's log
	Left     State = "left"     // left a cluster; its disk is set aside
)

// IsEmpty: a node of that state has no cluster's log, and has forgotten what it heard.
func (s State) IsEmpty() bool { return s == Fresh || s == Outside }

// Hello is a node's answer to "who are you".
type Hello struct {
	Name    string `json:"name"`
	Cluster string `json:"cluster"`
	Digest  string `json:"digest"` // of the founders' list
	State   State  `json:"state"`
	Version string `json:"version"`
	// Speaks is the version that the cluster speaks, as far as this node has applied its
	// log; 0 = there is no cluster yet, or a node that does not say.
	Speaks int `json:"speaks,omitempty"`
	// Removed: the asker was put out of the cluster, as far as this node knows.
	Removed bool `json:"removed,omitempty"`
	// Resources is the text of Heartbeat's haresources, in one form; "" without it.
	Resources string `json:"resources,omitempty"`
	// Groups is what a node that may own groups makes of it.
	Groups []spec.Group `json:"groups,omitempty"`
	// HeardMS is how long ago this node heard the asker's name on a beat, and
	// HostID the host that registered it; -1 = never. It tells a second node of the
	// same name from the first one.
	HeardMS float64 `json:"heard_ms"`
	HostID  string  `json:"host_id"`
	// What this node heard of the asker's newest disk: which one it was, its term, and
	// how far its log reached. 0 = nothing.
	Disk      uint64 `json:"disk"`
	Term      uint64 `json:"term"`
	LastTerm  uint64 `json:"last_term"`
	LastIndex uint64 `json:"last_index"`
	// Voters are those of the newest raft configuration on this node's own disk, OwnTerm
	// and OwnIndex how far its log reaches. None: it has no log.
	Voters   []string `json:"voters"`
	OwnTerm  uint64   `json:"own_term"`
	OwnIndex uint64   `json:"own_index"`
	// Where one of two nodes last went on alone (two_node = "manual"), as this node
	// knows; zero = never. TakesPart: it is in raft or registered now, not on its way.
	ForkAt    int64  `json:"fork_at,omitempty"`
	ForkTag   string `json:"fork_tag,omitempty"`
	TakesPart bool   `json:"takes_part,omitempty"`
	// Asks: it takes no part, and asks for a new raft identity, for its disk is empty or
	// older than it was.
	Asks bool `json:"asks,omitempty"`
	// Formed: this node, or one that told it when it started, has lived since the
	// cluster was whole. Who starts now is not part of a cold start, and initdead is
	// not for it. Missing from a version that does not say.
	Formed bool `json:"formed"`
}

// Service is what an agent answers.
type Service interface {
	Hello(asker string) Hello
	// Propose commits a command of asker.
	Propose(ctx context.Context, asker string, c fsm.Command) (fsm.Result, error)
	Mark(ctx context.Context) (uint64, error)
	// Rejoin gives asker, whose disk is empty or older than it was, a new raft identity:
	// one, however often that request is made.
	Rejoin(ctx context.Context, asker, request string) (disk uint64, err error)
	// InUse asks the node's networks which of these ip resources another host has
	// already, and returns its MAC address by theirs.
	InUse(ctx context.Context, rs []spec.Resource) (map[string]string, error)
	// Join lets a host in; see Door.
	Doorkeeper
	KeyKeeper
	Followed
	// Check looks whether this host has what the groups take.
	Check(ctx context.Context, groups []spec.Group) Fitness
	// Fit takes asker's word of itself.
	Fit(asker string, f Fitness)
	// StopForeign stops what runs of the groups here although the cluster did not start
	// it, and verifies that; an operator wants it adopted elsewhere.
	StopForeign(ctx context.Context, groups []spec.Group) error
	// Report is what this node knows of a group's resources; empty if it has nothing to
	// do with the group.
	Report(group string) Report
}

// ErrNotLeader comes back over the wire as itself.
var ErrNotLeader = errors.New("the asked node is not the leader")

const maxBody = 16 << 20

// Server answers peers on a listener whose connections are authenticated.
type Server struct{ http *http.Server }

// NewServer serves svc under /peer/ and the operator API under /v1/.
func NewServer(svc Service, operator http.Handler, log *slog.Logger) *Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /peer/hello", func(w http.ResponseWriter, r *http.Request) {
		answer(w, svc.Hello(asker(r)), nil)
	})
	mux.HandleFunc("POST /peer/propose", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			answer(w, nil, err)
			return
		}
		c, err := fsm.Decode(b)
		if err != nil {
			answer(w, nil, err)
			return
		}
		res, err := svc.Propose(r.Context(), asker(r), c)
		answer(w, res, err)
	})
	mux.HandleFunc("POST /peer/mark", func(w http.ResponseWriter, r *http.Request) {
		i, err := svc.Mark(r.Context())
		answer(w, i, err)
	})
	mux.HandleFunc("POST /peer/rejoin", func(w http.ResponseWriter, r *http.Request) {
		d, err := svc.Rejoin(r.Context(), asker(r), r.URL.Query().Get("request"))
		answer(w, d, err)
	})
	mux.HandleFunc("POST /peer/in-use", func(w http.ResponseWriter, r *http.Request) {
		var rs []spec.Resource
		if err := read(w, r, &rs); err != nil {
			answer(w, nil, err)
			return
		}
		m, err := svc.InUse(r.Context(), rs)
		answer(w, m, err)
	})
	fit(mux, svc)
	follow(mux, svc)
	report(mux, svc)
	adopt(mux, svc)
	passJoin(mux, svc)
	keys(mux, svc)
	if operator != nil {
		mux.Handle("/v1/", operator)
	}
	return &Server{&http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: withName,
	}}
}

// bare hides from net/http that the connection is TLS: it would look for a handler
// of our ALPN name and hang up.
type bare struct {
	net.Conn
	name string // the peer's, from its certificate
}

type bareListener struct{ net.Listener }

func (l bareListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		t, ok := c.(*tls.Conn)
		if !ok {
			_ = c.Close() // nobody vouches for it
			continue
		}
		name, err := trust.PeerName(t.ConnectionState())
		if err != nil {
			_ = c.Close() // authenticated, but nameless: not one of us
			continue
		}
		return bare{Conn: c, name: name}, nil
	}
}

type nameKey struct{}

func withName(ctx context.Context, c net.Conn) context.Context {
	if b, ok := c.(bare); ok {
		return context.WithValue(ctx, nameKey{}, b.name)
	}
	return ctx
}

// asker is who calls, by certificate; a caller cannot claim another's name.
func asker(r *http.Request) string {
	name, _ := r.Context().Value(nameKey{}).(string)
	return name
}

// Serve runs until Close.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(bareListener{l})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close ends the server and its connections.
func (s *Server) Close() error { return s.http.Close() }

// reply is every answer's form.
type reply struct {
	NotLeader bool            `json:"not_leader"`
	Err       string          `json:"err"`
	Value     json.RawMessage `json:"value"`
}

func answer(w http.ResponseWriter, v any, err error) {
	var out reply
	if err != nil {
		out.Err = err.Error()
		out.NotLeader = errors.Is(err, ErrNotLeader)
	} else if out.Value, err = json.Marshal(v); err != nil {
		out.Err = err.Error()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // the peer went away: nothing to do
}

// Client calls other nodes by name. Safe for concurrent use.
type Client struct {
	dial func(ctx context.Context, node string) (net.Conn, error)

	mu    sync.Mutex
	nodes map[string]*http.Client
}

// NewClient returns a client; dial opens an authenticated connection to a node.
func NewClient(dial func(ctx context.Context, node string) (net.Conn, error)) *Client {
	return &Client{dial: dial, nodes: map[string]*http.Client{}}
}

// Close ends idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.nodes {
		h.CloseIdleConnections()
	}
}

func (c *Client) of(node string) *http.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.nodes[node]
	if h == nil {
		h = &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx, node) },
			// A connection is kept only while calls follow each other: a host may vanish.
			IdleConnTimeout: 10 * time.Second, MaxIdleConnsPerHost: 2, DisableCompression: true,
		}}
		c.nodes[node] = h
	}
	return h
}

func (c *Client) call(ctx context.Context, node, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+node+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.of(node).Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", node, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: %s %s: %s", node, method, path, resp.Status) // another version?
	}
	var r reply
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&r); err != nil {
		return fmt.Errorf("ask %s: %w", node, err)
	}
	switch {
	case r.NotLeader:
		return fmt.Errorf("%s: %w", node, ErrNotLeader)
	case r.Err != "":
		return Refusal{Node: node, Why: r.Err}
	}
	if err := json.Unmarshal(r.Value, into); err != nil {
		return fmt.Errorf("ask %s: %w", node, err)
	}
	return nil
}

// Hello asks node who it is.
func (c *Client) Hello(ctx context.Context, node string) (h Hello, err error) {
	err = c.call(ctx, node, http.MethodGet, "/peer/hello", nil, &h)
	return h, err
}

// Propose hands cmd to node, which should lead.
func (c *Client) Propose(ctx context.Context, node string, cmd fsm.Command) (res fsm.Result, err error) {
	b, err := fsm.Encode(cmd)
	if err != nil {
		return res, err
	}
	err = c.call(ctx, node, http.MethodPost, "/peer/propose", b, &res)
	return res, err
}

// Mark asks node, which should lead, for an index that covers all that was
// committed before the call.
func (c *Client) Mark(ctx context.Context, node string) (i uint64, err error) {
	err = c.call(ctx, node, http.MethodPost, "/peer/mark", nil, &i)
	return i, err
}

// Rejoin asks node, which should lead, for a new raft identity. request names the
// request, which may be made many times.
func (c *Client) Rejoin(ctx context.Context, node, request string) (disk uint64, err error) {
	err = c.call(ctx, node, http.MethodPost, "/peer/rejoin?request="+url.QueryEscape(request), nil, &disk)
	return disk, err
}

// InUse asks node which of these ip resources another host has already; see Service.
func (c *Client) InUse(ctx context.Context, node string, rs []spec.Resource) (m map[string]string, err error) {
	b, err := json.Marshal(rs)
	if err != nil {
		return nil, err
	}
	err = c.call(ctx, node, http.MethodPost, "/peer/in-use", b, &m)
	return m, err
}
