package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"hanode/internal/ration"
	"hanode/internal/spec"
)

// The door is where a host without the key asks to be let in. It answers one call,
// over TLS in which the host has checked who we are and has shown no certificate; the
// token in the call says who it is.

// JoinRequest is what a host says at the door.
type JoinRequest struct {
	// Protocol is the newest version that it speaks, Oldest the oldest.
	Protocol int       `json:"protocol"`
	Oldest   int       `json:"oldest"`
	Version  string    `json:"version"` // of its binary, for people
	Cluster  string    `json:"cluster"`
	Node     spec.Node `json:"node"`
	Port     int       `json:"port"` // as in its node file
	Token    string    `json:"token"`
	Secret   string    `json:"secret"`
	// Request names the request, which may be made many times.
	Request string `json:"request"`
}

// Admission is what it is told once it is a member.
type Admission struct {
	By         string      `json:"by"`   // who answered
	Disk       uint64      `json:"disk"` // the number of its data directory
	Nodes      []spec.Node `json:"nodes"`
	Generation uint64      `json:"generation"`
	// Timing is the cluster's.
	Timing spec.Timing `json:"timing"`
	Wall   time.Time   `json:"wall"` // the answerer's clock
	// Key is the text of the key file. A secret.
	Key []byte `json:"key"`
}

// Doorkeeper answers at the door.
type Doorkeeper interface {
	Join(ctx context.Context, q JoinRequest) (Admission, error)
}

const (
	maxJoin   = 16 << 10
	maxAtDoor = 8 // requests at once
	doorTime  = 15 * time.Second
	doorLogs  = time.Second // between two lines about who was refused
	// Connections, of which nobody knows yet whose they are, and how much is read from one.
	maxConns   = 32
	maxConnsOf = 8
	maxHeard   = 64 << 10
)

// attempts is how often one host may be refused.
var attempts = ration.Rate{PerSecond: 0.5, Burst: 20}

// Door is the server of it.
type Door struct {
	http  *http.Server
	log   *slog.Logger
	tries *ration.Ration
	born  time.Time
	conns ration.Conns
	all   atomic.Uint64 // that were refused

	mu      sync.Mutex
	logged  time.Time
	refused uint64 // since then
}

// Refused is how many requests were refused since the start.
func (d *Door) Refused() uint64 { return d.all.Load() }

// NewDoor returns a door; every connection of its listener has been checked by nobody.
func NewDoor(k Doorkeeper, log *slog.Logger) *Door {
	d := &Door{
		log: log, tries: ration.New(attempts, ration.Rate{PerSecond: 50, Burst: 200}), born: time.Now(),
		conns: ration.Conns{Most: maxConns, MostOf: maxConnsOf, Bytes: maxHeard},
	}
	room := make(chan struct{}, maxAtDoor)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /join", func(w http.ResponseWriter, r *http.Request) {
		select {
		case room <- struct{}{}:
			defer func() { <-room }()
		default:
			http.Error(w, "too many ask at once", http.StatusServiceUnavailable)
			return
		}
		if !d.tries.Has(source(r), time.Since(d.born)) {
			err := errors.New("too many requests from this address were refused; ask again in a minute")
			d.refuse(r, "", err)
			answer(w, nil, err)
			return
		}
		var q JoinRequest
		dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJoin))
		dec.DisallowUnknownFields()
		if err := readWhole(dec, &q); err != nil {
			err = fmt.Errorf("the request is not understood: %w; the two hosts may have other versions of hanode", err)
			d.refuse(r, "", err)
			answer(w, nil, err)
			return
		}
		adm, err := k.Join(r.Context(), q)
		if err != nil {
			d.refuse(r, q.Node.Name, err)
		}
		answer(w, adm, err)
	})
	d.http = &http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: doorTime, IdleTimeout: time.Second, MaxHeaderBytes: 4 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return d
}

// refuse notes who was not let in. Anybody can knock, so it writes a line now and then.
func (d *Door) refuse(r *http.Request, name string, why error) {
	d.all.Add(1)
	d.tries.Take(source(r), time.Since(d.born))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused++
	if time.Since(d.logged) < doorLogs {
		return
	}
	d.log.Warn("a host was not let in", "from", r.RemoteAddr, "name", fmt.Sprintf("%.64q", name), "err", why, "refused", d.refused)
	d.logged, d.refused = time.Now(), 0
}

// source is the address that asks.
func source(r *http.Request) netip.Addr {
	at, _ := netip.ParseAddrPort(r.RemoteAddr)
	return at.Addr()
}

// plainListener hides from net/http that the connections are TLS; see bare.
type plainListener struct {
	net.Listener
	conns *ration.Conns
}

func (l plainListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c, ok := l.conns.Admit(c); ok {
			return bare{Conn: c}, nil
		}
	}
}

// Serve runs until Close.
func (d *Door) Serve(l net.Listener) error {
	err := d.http.Serve(plainListener{l, &d.conns})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Close ends it and its connections.
func (d *Door) Close() error { return d.http.Close() }

// Knock asks over a connection, on which the caller has checked who is at its other
// end, to be let in. An error of type Refusal is the cluster's word; any other says that
// it could not be asked.
func Knock(ctx context.Context, c net.Conn, q JoinRequest) (adm Admission, err error) {
	ctx, cancel := context.WithTimeout(ctx, doorTime)
	defer cancel()
	used := false
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		if used {
			return nil, errors.New("the connection broke off")
		}
		used = true
		return c, nil
	}}
	defer t.CloseIdleConnections()
	node := c.RemoteAddr().String()
	client := &Client{nodes: map[string]*http.Client{node: {Transport: t}}}
	b, err := json.Marshal(q)
	if err != nil {
		return adm, err
	}
	err = client.call(ctx, node, http.MethodPost, "/join", b, &adm)
	return adm, err
}

// Refusal is an answer of the asked node that says no.
type Refusal struct{ Node, Why string }

func (r Refusal) Error() string { return r.Node + ": " + r.Why }

// Join passes a host's request on to node, which should lead.
func (c *Client) Join(ctx context.Context, node string, q JoinRequest) (adm Admission, err error) {
	b, err := json.Marshal(q)
	if err != nil {
		return adm, err
	}
	err = c.call(ctx, node, http.MethodPost, "/peer/join", b, &adm)
	return adm, err
}

// passJoin adds the call by which a node passes a request on to the leader.
func passJoin(mux *http.ServeMux, k Doorkeeper) {
	mux.HandleFunc("POST /peer/join", func(w http.ResponseWriter, r *http.Request) {
		var q JoinRequest
		if err := readWhole(json.NewDecoder(http.MaxBytesReader(w, r.Body, maxJoin)), &q); err != nil {
			answer(w, nil, err)
			return
		}
		adm, err := k.Join(context.WithValue(r.Context(), passedKey{}, true), q)
		answer(w, adm, err)
	})
}

type passedKey struct{}

// Passed reports whether the request that ctx is of was passed on by another node; it
// is not passed on again.
func Passed(ctx context.Context) bool { return ctx.Value(passedKey{}) != nil }
