package main

import (
	"bytes"
	"context"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hanode/api"
	"hanode/api/apitest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// began is when the model's clock starts.
var began = time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)

// host is one node as its operator sees it: an agent on a socket, and commands.
type host struct {
	t      *testing.T
	model  *apitest.Cluster
	socket string
	now    time.Time
	tty    bool
	stdin  string
	file   string // where the socket is looked up last
}

// newHost runs the agent of node primary until the test ends.
func newHost(t *testing.T) *host {
	t.Helper()
	t.Setenv("HANODE_SOCKET", "")
	h := &host{t: t, now: began, socket: filepath.Join(t.TempDir(), "s"), file: "/nonexistent"}
	// Ages need a clock that stands still between the calls and moves with them.
	h.model = apitest.Three(func() time.Time { return h.now })
	h.serve(h.model.At("primary"))
	return h
}

func (h *host) serve(b api.Backend) {
	h.t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, err := api.Listen(h.socket, false, log)
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, b, log) }()
	h.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("serve: %v", err)
		}
	})
}

// run runs one command line against the host's agent.
func (h *host) run(args ...string) (code int, stdout, stderr string) {
	h.t.Helper()
	return h.plain(append([]string{"--socket", h.socket}, args...)...)
}

// plain runs one command line that says itself where the agent is.
func (h *host) plain(args ...string) (code int, stdout, stderr string) {
	h.t.Helper()
	var out, err bytes.Buffer
	a := newApp(strings.NewReader(h.stdin), &out, &err)
	a.now = func() time.Time { return h.now }
	a.zone = time.UTC
	a.terminal = func() bool { return h.tty }
	a.nodeFile = h.file
	code = a.run(h.t.Context(), args)
	return code, out.String(), err.String()
}

// must runs a command line that must succeed and say nothing on stderr.
func (h *host) must(args ...string) string {
	h.t.Helper()
	code, out, errs := h.run(args...)
	if code != 0 || errs != "" {
		h.t.Fatalf("hanode %s: exit %d, %s", strings.Join(args, " "), code, errs)
	}
	return out
}

// write makes a file in a folder of the test.
func (h *host) write(name, content string) string {
	h.t.Helper()
	path := filepath.Join(h.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

const webFile = `group "web" {
  prefer   = ["primary"]
  failback = "on"
  resource "ip" "10.0.0.100/24" { dev = "eth1" }
  resource "exec" "apache" {
    start = ["/bin/true"]
    stop  = ["/bin/true"]
  }
}
group "files" {
  failback = "off"
  prefer   = ["secondary"]
  resource "ip" "10.0.0.101/24" { dev = "eth1" }
}
`

// golden compares what a command printed with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}
