package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hanode/config"
)

func TestOpenLog(t *testing.T) {
	dir := t.TempDir()
	n := &config.Node{LogLevel: "info", LogFormat: "text", LogFile: filepath.Join(dir, "ha-log"), DebugFile: filepath.Join(dir, "ha-debug")}
	var stderr bytes.Buffer
	log, done, err := openLog(&stderr, n)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("became leader")
	log.Debug("a beat")
	done()
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	plain, debug := read(n.LogFile), read(n.DebugFile)
	if !strings.Contains(plain, "became leader") || strings.Contains(plain, "a beat") || !strings.Contains(debug, "a beat") || !strings.Contains(debug, "became leader") {
		t.Errorf("log_file %q, debug_file %q", plain, debug)
	}
	if s := stderr.String(); !strings.Contains(s, "became leader") || strings.Contains(s, "a beat") {
		t.Errorf("standard error %q", s)
	}
	if _, _, err := openLog(io.Discard, &config.Node{LogFile: dir}); err == nil {
		t.Error("a folder was taken for a log")
	}
}

// stuck is a disk that does not answer until it is released.
type stuck struct {
	free chan struct{}
	bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) { <-s.free; return s.Buffer.Write(p) }
func (s *stuck) Close() error                { return nil }

// Nobody waits for a slow log, and it says what it lost.
func TestLogNeverWaits(t *testing.T) {
	w := &stuck{free: make(chan struct{})}
	q := newLogQueue(w)
	for range maxQueued + 100 {
		if n, err := q.Write([]byte("line\n")); n != 5 || err != nil {
			t.Fatal(n, err)
		}
	}
	close(w.free)
	for {
		q.mu.Lock()
		lost := q.dropped
		q.mu.Unlock()
		if _, _ = q.Write([]byte("more\n")); lost == 0 {
			break
		}
	}
	q.close()
	if !strings.Contains(w.String(), "lines were dropped") {
		t.Error("nothing says that lines were dropped")
	}
	if n, err := q.Write([]byte("late\n")); n != 5 || err != nil {
		t.Error(n, err)
	}
}
