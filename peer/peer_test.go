package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/spec"
	"hanode/internal/trust"
)

const (
	alpn    = "hanode-peer/1"
	cluster = "web"
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// agent answers, and keeps what it was asked.
type agent struct {
	mu       sync.Mutex
	askers   []string
	requests []string
	commands []fsm.Command
	err      error
	told     []string
	entered  chan struct{} // told when a Mark begins, if not nil; it then waits for its ctx
}

func (a *agent) asked(who string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.askers = append(a.askers, who)
}

func (a *agent) Hello(asker string) Hello {
	a.asked(asker)
	return Hello{Name: "b", Cluster: cluster, Digest: "d", State: Member, Version: "1", HeardMS: 1.5, HostID: "host-b", Formed: true}
}

func (a *agent) Propose(_ context.Context, _ string, c fsm.Command) (fsm.Result, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.commands = append(a.commands, c)
	return fsm.Result{Rejected: "not now", Inc: 3, Touched: []string{"web"}}, a.err
}

func (a *agent) Mark(ctx context.Context) (uint64, error) {
	if a.entered != nil {
		close(a.entered)
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return 1 << 60, a.err
}

func (a *agent) InUse(_ context.Context, rs []spec.Resource) (map[string]string, error) {
	return map[string]string{rs[0].Address(): "02:00:00:00:00:01"}, nil
}

func (a *agent) Check(_ context.Context, groups []spec.Group) Fitness {
	f := Fitness{}
	for _, g := range groups {
		f.Groups = append(f.Groups, Judgement{Group: g.Name, Digest: "d", Findings: []Finding{{Kind: Lacks, Text: "all"}}})
	}
	return f
}

func (a *agent) Fit(asker string, f Fitness) { a.told = append(a.told, asker+" "+f.Groups[0].Group) }

func (a *agent) StopForeign(_ context.Context, groups []spec.Group) error {
	return fmt.Errorf("%s does not stop", groups[0].Name)
}

func (a *agent) Report(group string) Report {
	return Report{Resources: []Resource{{Type: "exec", Name: group, Operations: []Operation{{Name: "start", Output: "hello\n"}}}}}
}

func (a *agent) Rejoin(_ context.Context, asker, request string) (uint64, error) {
	a.asked(asker)
	a.requests = append(a.requests, request)
	return 2, a.err
}

func (a *agent) Keys() KeyReport { return KeyReport{Have: []string{"k1", "k2"}, Err: "read-only"} }

func (a *agent) Key(asker, fingerprint string) ([]byte, error) {
	a.asked(asker)
	return []byte("text of " + fingerprint), a.err
}

func (a *agent) Join(ctx context.Context, q JoinRequest) (Admission, error) {
	a.asked(q.Node.Name)
	a.requests = append(a.requests, q.Request)
	by := "b"
	if Passed(ctx) {
		by = "b, for another"
	}
	return Admission{By: by, Disk: 3, Nodes: []spec.Node{q.Node}, Key: []byte("key")}, a.err
}

// lab is node b with its TLS port, and the key of all.
type lab struct {
	t    *testing.T
	keys *trust.Keys
	svc  *agent
	addr string
	mux  *trust.Mux
}

func newLab(t *testing.T, operator http.Handler) *lab {
	l := &lab{t: t, svc: &agent{}, keys: must[*trust.Keys](t)(trust.Parse("key", []byte(trust.Generate())))}
	log := slog.New(slog.DiscardHandler)
	ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	l.addr = ln.Addr().String()
	cfg := must[*tls.Config](t)(l.keys.ServerConfig(cluster, "b", alpn))
	l.mux = trust.NewMux(ln, cfg, log)
	srv := NewServer(l.svc, operator, log)
	var running sync.WaitGroup
	running.Go(func() {
		if err := l.mux.Serve(); err != nil {
			t.Error(err)
		}
	})
	running.Go(func() {
		// Ends with the server or with its listener.
		if err := srv.Serve(l.mux.Protocol(alpn)); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		l.mux.Close()
		running.Wait()
	})
	return l
}

// dialAs connects with the certificate of a node.
func (l *lab) dialAs(ctx context.Context, name string, keys *trust.Keys) (net.Conn, error) {
	cfg, err := keys.ClientConfig(cluster, name, "b", alpn)
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", l.addr)
}

func (l *lab) client(name string) *Client {
	c := NewClient(func(ctx context.Context, node string) (net.Conn, error) {
		if node != "b" {
			return nil, fmt.Errorf("no node %s", node)
		}
		return l.dialAs(ctx, name, l.keys)
	})
	l.t.Cleanup(c.Close)
	return c
}

func TestCalls(t *testing.T) {
	l := newLab(t, nil)
	c, ctx := l.client("a"), t.Context()
	h := must[Hello](t)(c.Hello(ctx, "b"))
	if d := cmp.Diff((&agent{}).Hello(""), h); d != "" {
		t.Error(d)
	}
	cmd := fsm.Command{At: time.Date(2024, 5, 1, 3, 0, 0, 1, time.UTC), Takeover: &fsm.Takeover{
		Fence: id.NodeRef{Name: "c", Inc: 1 << 60}, Cause: "failover",
		Assigns: []fsm.Assign{{Group: "web", Epoch: 7, To: id.NodeRef{Name: "b", Inc: 2}, Why: "<&>\u2028"}},
	}}
	r := must[fsm.Result](t)(c.Propose(ctx, "b", cmd))
	if d := cmp.Diff(fsm.Result{Rejected: "not now", Inc: 3, Touched: []string{"web"}}, r); d != "" {
		t.Error(d) // a rejection is a verdict, not an error
	}
	if d := cmp.Diff([]fsm.Command{cmd}, l.svc.commands); d != "" {
		t.Error(d)
	}
	groups := []spec.Group{{Name: "web", Resources: []spec.Resource{{Type: "ip", Name: "10.0.0.9"}}}}
	f := must[Fitness](t)(c.Check(ctx, "b", groups))
	if d := cmp.Diff((&agent{}).Check(ctx, groups), f); d != "" {
		t.Error(d)
	}
	if err := c.StopForeign(ctx, "b", groups); err == nil || !strings.Contains(err.Error(), groups[0].Name+" does not stop") {
		t.Error(err)
	}
	rep := must[Report](t)(c.Report(ctx, "b", "a group/&"))
	if d := cmp.Diff((&agent{}).Report("a group/&"), rep); d != "" {
		t.Error(d)
	}
	if err := c.Fit(ctx, "b", f); err != nil || !slices.Equal(l.svc.told, []string{"a web"}) {
		t.Error(err, l.svc.told) // by its certificate, not by what it says
	}
	if i := must[uint64](t)(c.Mark(ctx, "b")); i != 1<<60 {
		t.Error("mark", i) // no rounding on the way
	}
	if d := must[uint64](t)(c.Rejoin(ctx, "b", "A&b")); d != 2 {
		t.Error("disk", d)
	}
	if d := cmp.Diff([]string{"A&b"}, l.svc.requests); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"a", "a"}, l.svc.askers); d != "" {
		t.Error(d)
	}
	if _, err := c.Mark(ctx, "x"); err == nil || !strings.Contains(err.Error(), "no node x") {
		t.Error(err)
	}
}

func TestErrorsOverTheWire(t *testing.T) {
	l := newLab(t, nil)
	c, ctx := l.client("a"), t.Context()
	for _, e := range []struct {
		err       error
		notLeader bool
	}{
		{ErrNotLeader, true},
		{fmt.Errorf("propose: %w", ErrNotLeader), true},
		{errors.New("the disk is full"), false},
	} {
		l.svc.err = e.err
		_, err1 := c.Propose(ctx, "b", fsm.Command{})
		_, err2 := c.Mark(ctx, "b")
		_, err3 := c.Rejoin(ctx, "b", "")
		for _, err := range []error{err1, err2, err3} {
			if err == nil || errors.Is(err, ErrNotLeader) != e.notLeader || !strings.HasPrefix(err.Error(), "b: ") {
				t.Errorf("%v came back as %v", e.err, err)
			}
			if !e.notLeader && !strings.Contains(fmt.Sprint(err), e.err.Error()) {
				t.Errorf("%v came back as %v", e.err, err)
			}
		}
	}
}

// TestNobodyClaimsAnothersName: who asks is what its certificate says, whatever the
// request says.
func TestNobodyClaimsAnothersName(t *testing.T) {
	l := newLab(t, nil)
	conn := must[net.Conn](t)(l.dialAs(t.Context(), "mallory", l.keys))
	defer func() { _ = conn.Close() }()
	req := must[*http.Request](t)(http.NewRequest(http.MethodPost, "http://a/peer/rejoin?asker=a&name=a", strings.NewReader(`{"name":"a"}`)))
	for _, k := range []string{"X-Node", "X-Forwarded-For", "From", "Asker", "Name"} {
		req.Header.Set(k, "a")
	}
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1)
	if _, err := conn.Read(buf); err != nil { // answered
		t.Fatal(err)
	}
	l.svc.mu.Lock()
	defer l.svc.mu.Unlock()
	if d := cmp.Diff([]string{"mallory"}, l.svc.askers); d != "" {
		t.Error(d)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	l := newLab(t, nil)
	other := must[*trust.Keys](t)(trust.Parse("key", []byte(trust.Generate())))
	c := NewClient(func(ctx context.Context, _ string) (net.Conn, error) { return l.dialAs(ctx, "a", other) })
	defer c.Close()
	if _, err := c.Hello(t.Context(), "b"); !errors.Is(err, trust.ErrOtherKey) {
		t.Error(err)
	}
	cfg := must[*tls.Config](t)(l.keys.ClientConfig("another", "a", "b", alpn))
	cfg.VerifyConnection = nil // one that does not care who answers
	conn, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", l.addr)
	if err == nil {
		defer func() { _ = conn.Close() }()
		if _, err = conn.Write([]byte("GET /peer/hello HTTP/1.1\r\nHost: b\r\n\r\n")); err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
	}
	if err == nil {
		t.Error("a member of another cluster was answered")
	}
	if len(l.svc.askers) > 0 {
		t.Error("asked by", l.svc.askers)
	}
}

// TestPlainConnections: a listener without TLS vouches for nobody.
func TestPlainConnections(t *testing.T) {
	svc := &agent{}
	srv := NewServer(svc, nil, slog.New(slog.DiscardHandler))
	ln := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	_, err := http.Get("http://" + ln.Addr().String() + "/peer/hello")
	if err == nil || len(svc.askers) > 0 {
		t.Error("answered without TLS to", svc.askers)
	}
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error("Serve after Close:", err)
	}
}

func TestBadBody(t *testing.T) {
	l := newLab(t, nil)
	c, ctx := l.client("a"), t.Context()
	good := must[[]byte](t)(fsm.Encode(fsm.Command{Report: &fsm.Report{}}))
	for name, body := range map[string][]byte{
		"empty": nil, "no version": []byte("{}"), "newer": append([]byte{99}, good[1:]...), "cut": good[:len(good)-2],
		"more": append(bytes.Clone(good), "{}"...), "unknown command": append([]byte{good[0]}, `{"explode":{}}`...),
		"too long": append(bytes.Clone(good), bytes.Repeat([]byte(" "), maxBody)...),
	} {
		var r fsm.Result
		if err := c.call(ctx, "b", http.MethodPost, "/peer/propose", body, &r); err == nil {
			t.Errorf("%s: accepted: %+v", name, r)
		}
	}
	if len(l.svc.commands) > 0 {
		t.Error("proposed", l.svc.commands)
	}
	var x any
	if err := c.call(ctx, "b", http.MethodGet, "/peer/propose", nil, &x); err == nil || !strings.Contains(err.Error(), "405") {
		t.Error(err)
	}
	if err := c.call(ctx, "b", http.MethodPost, "/peer/of-a-newer-version", nil, &x); err == nil || !strings.Contains(err.Error(), "404") {
		t.Error(err)
	}
	must[fsm.Result](t)(c.Propose(ctx, "b", fsm.Command{Report: &fsm.Report{}}))
}

// TestJunkConnections: whatever strangers do to the port, members are served.
func TestJunkConnections(t *testing.T) {
	l := newLab(t, nil)
	c := l.client("a")
	var open []net.Conn
	for i := range 40 {
		conn := must[net.Conn](t)(net.Dial("tcp", l.addr))
		switch i % 4 {
		case 0:
			_ = conn.Close()
		case 1:
			_, _ = conn.Write([]byte("GET / HTTP/1.1\r\nHost: b\r\n\r\n"))
		case 2:
			_, _ = conn.Write(bytes.Repeat([]byte{0xFF}, 3000))
		case 3:
			open = append(open, conn) // says nothing, and stays
		}
	}
	// Authenticated junk.
	for _, text := range []string{"\x00\x01\x02\r\n\r\n", "GET /peer/hello HTTP/9.9\r\n\r\n", "POST /peer/propose HTTP/1.1\r\nHost: b\r\nContent-Length: 999999\r\n\r\nshort"} {
		conn := must[net.Conn](t)(l.dialAs(t.Context(), "m", l.keys))
		_, _ = conn.Write([]byte(text))
		_ = conn.Close()
	}
	must[Hello](t)(c.Hello(t.Context(), "b"))
	for _, conn := range open {
		_ = conn.Close()
	}
	must[uint64](t)(c.Mark(t.Context(), "b"))
}

// TestCallEndsWithItsContext: a node that hangs holds nobody.
func TestCallEndsWithItsContext(t *testing.T) {
	l := newLab(t, nil)
	l.svc.entered = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	c := l.client("a")
	go func() {
		_, err := c.Mark(ctx, "b")
		done <- err
	}()
	<-l.svc.entered
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestConnectionsAreKept(t *testing.T) {
	l := newLab(t, nil)
	var dials atomic.Int32
	c := NewClient(func(ctx context.Context, _ string) (net.Conn, error) {
		dials.Add(1)
		return l.dialAs(ctx, "a", l.keys)
	})
	defer c.Close()
	for range 20 {
		must[uint64](t)(c.Mark(t.Context(), "b"))
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections for 20 calls in a row", n)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 5 {
				if _, err := c.Hello(t.Context(), "b"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

func TestOperatorHandler(t *testing.T) {
	l := newLab(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s", r.Method, r.URL.Path)
	}))
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return l.dialAs(ctx, "a", l.keys) }}
	defer tr.CloseIdleConnections()
	for path, want := range map[string]string{"/v1/status": "GET /v1/status", "/v1/": "GET /v1/", "/other": "404"} {
		resp := must[*http.Response](t)((&http.Client{Transport: tr}).Get("http://b" + path))
		b := must[[]byte](t)(io.ReadAll(resp.Body))
		_ = resp.Body.Close()
		if got := resp.Status + " " + string(b); !strings.Contains(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
	must[Hello](t)(l.client("a").Hello(t.Context(), "b"))
}
