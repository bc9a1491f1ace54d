package api

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// serve runs a backend on a socket until the test ends.
func serve(t *testing.T, path string, b Backend) *Socket {
	t.Helper()
	s, err := Listen(path, false, quiet())
	if err != nil {
		t.Fatal(err)
	}
	run(t, func(ctx context.Context) error { return s.Serve(ctx, b, quiet()) })
	return s
}

// run runs f until the test ends, and waits for it.
func run(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestSocketHasItsModeAndFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "hanode", "s")
	s, err := Listen(path, false, quiet())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("mode is %v, want srw-rw----", info.Mode())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false) // as after kill -9
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", nil, 0o600); err != nil { // died while it started
		t.Fatal(err)
	}
	serve(t, path, &countingBackend{})
	if _, err := Dial(path).Version(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLiveSocketIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	serve(t, path, &countingBackend{})
	_, err := Listen(path, false, quiet())
	if err == nil || !strings.Contains(err.Error(), "another agent is using "+path) {
		t.Errorf("got %v", err)
	}
	if _, err := Dial(path).Version(t.Context()); err != nil {
		t.Errorf("the first agent was hurt: %v", err)
	}
}

func TestOtherFilesAreLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, false, quiet()); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("got %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file is now %q, %v", b, err)
	}
	if _, err := Listen("/tmp/"+strings.Repeat("x", 200), false, quiet()); err == nil || !strings.Contains(err.Error(), "the most is") {
		t.Errorf("long path: %v", err)
	}
}

// Of agents that start at the same moment over a stale socket one wins.
func TestOneOfManyStarters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	var wg sync.WaitGroup
	var mu sync.Mutex
	var won []*Socket
	for range 8 {
		wg.Go(func() {
			s, err := Listen(path, false, quiet())
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won = append(won, s)
			case !strings.Contains(err.Error(), "another agent"):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("%d agents listen on one socket", len(won))
	}
	if err := won[0].Close(); err != nil {
		t.Error(err)
	}
}

// An agent whose socket was taken away does not remove its successor's.
func TestCloseRemovesOnlyItsOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := Listen(path, false, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	serve(t, path, &countingBackend{})
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Dial(path).Version(t.Context()); err != nil {
		t.Errorf("the second agent's socket is gone: %v", err)
	}
}

// A stopped agent accepts and never answers.
func TestHungAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	c := Dial(path)
	c.patience = 20 * time.Millisecond
	_, err = c.Members(t.Context())
	wantUnreachable(t, "members", err, "does not answer")
	err = c.Events(t.Context(), 0, true, func(Event) error { return nil })
	wantUnreachable(t, "events", err, "does not answer")
}

func TestUnreachableAgent(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	_ = ln.Close()
	for path, want := range map[string]string{
		filepath.Join(dir, "none"):          "no such socket",
		stale:                               "is gone",
		"/" + strings.Repeat("x", 200):      "cannot be the path",
		filepath.Join(stale, "below", "it"): "cannot be the path",
	} {
		c := Dial(path)
		_, err := c.Status(t.Context(), "")
		wantUnreachable(t, path, err, want)
		if !strings.Contains(err.Error(), path) {
			t.Errorf("%v does not name the socket", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Dial(stale).Members(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the caller gave up: %v", err)
	}
}

// Something that is no agent answers.
func TestStrangerOnTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte("HTTP/1.1 500 Oops\r\nContent-Length: 3\r\nConnection: close\r\n\r\nhey"))
			_ = c.Close()
		}
	}()
	_, err = Dial(path).Members(t.Context())
	wantUnreachable(t, "stranger", err, "not understood")
	_ = ln.Close()
	<-done
}

func wantUnreachable(t *testing.T, what string, err error, want string) {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Exit != ExitUnreachable || !strings.Contains(e.Message, want) || e.Fix == "" {
		t.Errorf("%s: got %#v, want exit 4 and %q", what, err, want)
	}
}
