package resource

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hanode/internal/spec"
)

func TestProbeHTTP(t *testing.T) {
	h := newHost(t)
	var status atomic.Int64
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			<-r.Context().Done()
			return
		}
		if status.Load() == 302 {
			w.Header().Set("Location", "http://127.0.0.1:1/nobody")
		}
		w.WriteHeader(int(status.Load()))
		_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
	})
	plain, sealed := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	t.Cleanup(plain.Close)
	t.Cleanup(sealed.Close)
	for _, url := range []string{plain.URL, sealed.URL} {
		for code, good := range map[int64]bool{200: true, 204: true, 302: true, 399: true, 400: false, 404: false, 500: false, 503: false} {
			status.Store(code)
			out := &tail{}
			err := h.services.probe(t.Context(), spec.Check{Type: "http", Target: url}, Env{Output: out})
			if (err == nil) != good {
				t.Errorf("%s answers %d: %v", url, code, err)
			}
			if n := len(out.String()); n > maxBody+100 {
				t.Errorf("%d bytes are kept", n)
			}
		}
	}
	g := h.services.NewGroup()
	op := g.try(t.Context(), spec.Check{Type: "http", Target: plain.URL + "/hang", Timeout: 50 * time.Millisecond})
	if op.err == nil || !strings.Contains(op.Err, "deadline exceeded") {
		t.Errorf("a server that does not answer: %v", op.err)
	}
}

func TestProbeTCP(t *testing.T) {
	h := newHost(t)
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	c := spec.Check{Type: "tcp", Target: l.Addr().String()}
	if err := h.services.probe(t.Context(), c, env); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.services.probe(t.Context(), c, env); err == nil {
		t.Error("nobody listens, and it answers")
	}
	if err := h.services.probe(t.Context(), spec.Check{Type: "icmp", Target: "x"}, env); !errors.Is(err, errNoType) {
		t.Error(err)
	}
}

// TestProbeExec: by its exit code; what it leaves is killed.
func TestProbeExec(t *testing.T) {
	h := newHost(t)
	c := spec.Check{Type: "exec", Target: "q", Command: sh("setsid sleep 600 & echo seen; exit 3")}
	out := &tail{}
	env := env
	env.Output = out
	err := h.services.probe(t.Context(), c, env)
	if exitCode(err) != 3 || !strings.Contains(out.String(), "seen\n") {
		t.Error(err, out)
	}
	if left := h.services.scripts.groups.left(key("web", spec.Resource{Type: "check", Name: "q"})); len(left) > 0 {
		t.Error("left:", left)
	}
	c.Command = sh("test $HANODE_VIP = 10.0.0.100")
	if err := h.services.probe(t.Context(), c, env); err != nil {
		t.Error(err)
	}
}

// TestCheckFailsItsResource: a check that falls is a failure of the resource that it
// stands behind: that one is started again, with all after it, then the group fails.
func TestCheckFailsItsResource(t *testing.T) {
	h := newHost(t)
	a, b := h.service("a"), h.service("b")
	a.Restarts = 1
	group := spec.Group{Name: "web", Resources: []spec.Resource{a, b}, Checks: []spec.Check{{
		Type: "exec", Target: "answers", Command: sh("test ! -e " + h.path("sick")), After: 1,
		Interval: 5 * time.Millisecond, Rise: 1, Fall: 2, Timeout: time.Minute, Grace: time.Minute,
	}}}
	g := h.services.NewGroup()
	g.SetChecks(group)
	if err := g.Start(t.Context(), group.Resources, env); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- g.Watch(t.Context()) }()
	h.until(func() bool { return len(g.Status()) == 3 && g.Status()[2].State == Running })
	if err := os.WriteFile(h.path("sick"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.until(func() bool { return len(h.log()) >= 6 })
	h.wantLog("start a", "start b", "stop b", "stop a", "start a", "start b")
	if err := os.Remove(h.path("sick")); err != nil {
		t.Fatal(err)
	}
	h.until(func() bool { return g.Status()[2].State == Running })
	if err := os.WriteFile(h.path("sick"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := <-ended
	if err == nil || !strings.Contains(err.Error(), `exec "a" failed: check exec "answers" failed 2 times in a row`) {
		t.Error(err)
	}
	if s := g.Status(); s[0].State != Failed || s[2].State != Failed || s[2].Operations[0].Name != "check" {
		t.Errorf("%+v", s)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestChecksChange: checks are taken up while the services run on.
func TestChecksChange(t *testing.T) {
	h := newHost(t)
	group := spec.Group{Name: "web", Resources: []spec.Resource{h.service("a")}}
	g := h.services.NewGroup()
	g.SetChecks(group)
	if err := g.Start(t.Context(), group.Resources, env); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- g.Watch(t.Context()) }()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = l.Close() })
	group.Checks = []spec.Check{{Type: "tcp", Target: l.Addr().String(), After: 1, Interval: 5 * time.Millisecond, Fall: 1, Rise: 1, Timeout: time.Minute}}
	g.SetChecks(group)
	h.until(func() bool { s := g.Status(); return len(s) == 2 && s[1].State == Running })
	h.wantLog("start a")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "check tcp") {
		t.Error(err)
	}
	group.Checks = nil
	g.SetChecks(group)
	if len(g.Status()) != 1 {
		t.Error("the check is still listed")
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// until waits for what other goroutines bring about.
func (h *host) until(ok func() bool) {
	h.t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.t.Fatal("it never came")
}
