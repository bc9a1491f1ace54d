package resource

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"hanode/internal/spec"
)

// SetChecks gives the group its checks: they are made from now on, or from the next
// Watch on. Callable at any time.
func (g *Group) SetChecks(of spec.Group) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.checks = nil
	for _, c := range of.Checks {
		g.checks = append(g.checks, checkOf{c, of.Checked(c), Status{Type: "check", Name: c.Type + " " + c.Target, State: Stopped}})
	}
	if g.rechecked != nil {
		close(g.rechecked)
	}
	g.rechecked = make(chan struct{})
}

// checkOf is a check, the index of the resource that it fails, and how it is.
type checkOf struct {
	spec.Check
	of     int
	status Status
}

// begin lists the checks, and what is closed when there are others.
func (g *Group) begin() ([]checkOf, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.rechecked == nil {
		g.rechecked = make(chan struct{})
	}
	return slices.Clone(g.checks), g.rechecked
}

// watchCheck tries check k every so often until it says that its service failed (the
// error), or ctx ends (nil).
func (g *Group) watchCheck(ctx context.Context, k int, c spec.Check) error {
	h := newHealth(c, time.Now())
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		op := g.try(ctx, h.c)
		if ctx.Err() != nil {
			return nil
		}
		failed := h.next(time.Now(), op.err)
		g.checked(k, c, h, op, failed)
		if failed != nil {
			return failed
		}
		t.Reset(h.c.Interval)
	}
}

// tried is one run of a check.
type tried struct {
	Operation
	err error
}

// try makes one try, in its time.
func (g *Group) try(ctx context.Context, c spec.Check) tried {
	out := &tail{}
	op := tried{Operation: Operation{Name: "check", At: time.Now()}}
	env := g.env
	env.Output = out
	op.err = bounded(ctx, c.Timeout, func(ctx context.Context) error { return g.s.probe(ctx, c, env) })
	op.Took, op.Output = time.Since(op.At), out.String()
	if op.err != nil {
		op.Err = op.err.Error()
	}
	return op
}

// checked remembers how a check went, unless there are others by now.
func (g *Group) checked(k int, c spec.Check, h *health, op tried, failed error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if k >= len(g.checks) || g.checks[k].String() != c.String() {
		return
	}
	st := &g.checks[k].status
	state, err := h.state()
	if failed != nil {
		state, err = Failed, failed
	}
	st.State, st.Err, st.Operations = state, "", []Operation{op.Operation}
	if err != nil {
		st.Err = err.Error()
	}
}

// stopChecks: nobody asks any more.
func (g *Group) stopChecks() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.checks {
		if g.checks[i].status.State != Failed {
			g.checks[i].status.State = Stopped
		}
	}
}

// probe asks once. It returns soon after ctx ends.
func (s *Services) probe(ctx context.Context, c spec.Check, env Env) error {
	switch c.Type {
	case "http":
		return probeHTTP(ctx, c.Target, env.sink())
	case "tcp":
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.Target)
		if err != nil {
			return err
		}
		return conn.Close()
	case "exec":
		select {
		case s.monitors <- struct{}{}:
			defer func() { <-s.monitors }()
		case <-ctx.Done():
			return ctx.Err()
		}
		r := spec.Resource{Type: "check", Name: c.Target}
		err := s.scripts.run(ctx, r, call{op: "check", argv: c.Command}, env)
		// What it left, if it was killed or forked, is nobody's.
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), killLimit)
		defer cancel()
		if left := s.scripts.endLeftovers(end, r, env); left != nil && err == nil {
			err = left
		}
		return err
	}
	return errNoType
}

// maxBody is how much of an answer is read: what shows an operator what it was.
const maxBody = 4 << 10

// asking is the client of http checks. Each try is a connection of its own, as of a
// new client, straight to the address. A redirect is an answer. Certificates are
// not looked at: what is asked is whether the service answers, and on 127.0.0.1 it
// would not have the right name.
var asking = sync.OnceValue(func() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true, Proxy: nil, MaxResponseHeaderBytes: 64 << 10,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
})

// probeHTTP wants an answer of 200 to 399.
func probeHTTP(ctx context.Context, url string, out io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "hanode")
	resp, err := asking().Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = fmt.Fprintf(out, "%s\n", resp.Status)
	_, _ = io.Copy(out, io.LimitReader(resp.Body, maxBody))
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}
