package watch

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"hanode/internal/netlab"
)

// Prober asks a web service who it is, by a new connection each time. Its methods
// are safe for concurrent use.
type Prober struct {
	*observer
	timeout time.Duration
	every   time.Duration
	target  *http.Request
	addr    string

	cancel context.CancelFunc
	work   chan struct{} // a request is due; taken by an idle worker or skipped
	wg     sync.WaitGroup
	once   sync.Once
	report Report
}

// Bounds on requests at a time and on what is read of a body.
const (
	maxRequests = 64
	maxBody     = 4096
)

// StartHTTP gets rawURL (http, with an IP address as host) from h every so often
// (0 = 5 ms), each time by a new connection and with the given timeout for all of
// it (0 = 200 ms). An answer is a response with status 200 in time; its holder is
// the body without white space at its ends. Up to 64 requests wait at a time;
// those beyond are skipped and counted. Stop ends it.
func StartHTTP(h *netlab.Host, rawURL string, every, timeout time.Duration) (*Prober, error) {
	if every <= 0 {
		every = 5 * time.Millisecond
	}
	if timeout <= 0 {
		timeout = 200 * time.Millisecond
	}
	addr, err := addrOf(rawURL)
	if err != nil {
		return nil, fmt.Errorf("probe %s: %w", rawURL, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("probe %s: %w", rawURL, err)
	}
	req.Close = true
	p := &Prober{
		observer: newObserver(every, Window, nil),
		timeout:  timeout, every: every, target: req, addr: addr,
		cancel: cancel, work: make(chan struct{}),
	}
	workers := min(maxRequests, int(timeout/every)+2)
	ready := make(chan error, workers)
	for range workers {
		p.wg.Go(func() { p.serve(ctx, h, ready) })
	}
	for range workers {
		if e := <-ready; e != nil {
			err = e
		}
	}
	if err != nil {
		cancel()
		close(p.work)
		p.wg.Wait()
		return nil, fmt.Errorf("probe %s: %w", rawURL, err)
	}
	p.wg.Go(func() { p.pace(ctx) })
	return p, nil
}

// addrOf is the address and port to connect to. Names are refused: looking one up
// would leave the host's namespace.
func addrOf(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", err
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil || u.Scheme != "http" {
		return "", fmt.Errorf("it takes http:// and an IP address, not %s://%s", u.Scheme, u.Host)
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// Stop ends the probing, abandons requests that still wait, and returns what was
// seen. Further calls return the same.
func (p *Prober) Stop() Report {
	p.once.Do(func() {
		ended := time.Now()
		p.cancel()
		p.wg.Wait()
		p.report = p.end(ended)
	})
	return p.report
}

// pace hands out requests at fixed times and, at the end, sends the workers home.
func (p *Prober) pace(ctx context.Context) {
	defer close(p.work)
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case p.work <- struct{}{}:
		default:
			p.skip()
		}
	}
}

// serve is one worker: it stays on a thread inside the host's namespace, where
// its connections are made.
func (p *Prober) serve(ctx context.Context, h *netlab.Host, ready chan<- error) {
	err := h.Do(func() error {
		ready <- nil
		for range p.work {
			if ctx.Err() != nil {
				continue // stopped; the work is closed next
			}
			request := p.ask()
			if body, ok := p.get(ctx); ok {
				p.heard(request, time.Now(), body)
			}
		}
		return nil
	})
	if err != nil {
		ready <- err
	}
}

// get makes one request. No answer is an answer here: why is not asked.
func (p *Prober) get(ctx context.Context) (body string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return "", false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := p.target.Write(conn); err != nil {
		return "", false
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), p.target)
	if err != nil {
		return "", false
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil || resp.StatusCode != http.StatusOK {
		return "", false
	}
	return strings.TrimSpace(string(b)), true
}
