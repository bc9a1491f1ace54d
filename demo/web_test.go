package demo

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test program be the daemon, which Web starts as itself.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "demo-web" {
		os.Exit(Web(os.Args[2:]))
	}
	os.Exit(m.Run())
}

func TestWeb(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Setenv("HANODE_NODE", "here")
	do := func(action string, want int) {
		t.Helper()
		if got := Web([]string{action, "--dir", dir, "--port", fmt.Sprint(port)}); got != want {
			t.Fatalf("%s exits %d, want %d", action, got, want)
		}
	}
	pid := func() int {
		t.Helper()
		_, pid, err := web{dir: dir, name: "here"}.running()
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	do("monitor", exitStopped)
	do("stop", 0)
	do("start", 0)
	defer do("stop", 0)
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/any", port))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.Body.Close() != nil || strings.TrimSpace(string(body)) != "here" || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v %s %q", err, resp.Status, body)
	}
	do("monitor", 0)
	first := pid()
	if sid, err := unix.Getsid(first); err != nil || sid != first {
		t.Errorf("the daemon %d is in session %d, %v", first, sid, err)
	}
	do("start", 0)
	if pid() != first {
		t.Errorf("a second start made another daemon")
	}
	do("stop", 0)
	do("monitor", exitStopped)

	// A daemon that was killed counts as stopped, and can be started again.
	do("start", 0)
	if err := unix.Kill(pid(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); pid() != 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	do("monitor", exitStopped)
	do("stop", 0)
	do("start", 0)
	do("monitor", 0)

	// One that hangs is a failure, and is stopped all the same.
	hung := pid()
	if err := unix.Kill(hung, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !allStopped(t, hung) && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	do("monitor", exitFailed)
	do("stop", 0)
	do("monitor", exitStopped)
}

// allStopped reports whether every thread of the process has stopped; one that runs
// on another processor may answer for a moment after the signal was sent.
func allStopped(t *testing.T, pid int) bool {
	t.Helper()
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		t.Fatalf("threads of %d: %v", pid, err)
	}
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			return false
		}
		if i := strings.LastIndexByte(string(b), ')'); i < 0 || !strings.HasPrefix(string(b[i+1:]), " T") {
			return false
		}
	}
	return true
}

func TestWebRefuses(t *testing.T) {
	t.Setenv("HANODE_NODE", "")
	dir := t.TempDir()
	for _, args := range [][]string{
		nil,
		{"start"},
		{"start", "--dir", dir},
		{"stop", "--name", "x"},
		{"frob", "--dir", dir, "--name", "x"},
		{"start", "--dir", dir + "/none", "--name", "x"},
	} {
		if got := Web(args); got != exitFailed {
			t.Errorf("%q exits %d", args, got)
		}
	}
	if got := Web([]string{"start", "--frob"}); got != exitUsage {
		t.Errorf("an unknown flag exits %d", got)
	}
}
