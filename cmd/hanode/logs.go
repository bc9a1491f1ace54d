package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"slices"
	"sync"

	"hanode/config"
)

// openLog makes the agent's log: standard error, and what the node file names beside
// it. What goes to files and syslog goes through a queue, so that nothing ever waits for
// them; close writes what is left. A file that cannot be opened is an error of the
// configuration.
func openLog(stderr io.Writer, n *config.Node) (log *slog.Logger, closeLog func(), err error) {
	handlers := []slog.Handler{newLog(stderr, n.LogLevel, n.LogFormat).Handler()}
	var queues []*logQueue
	closeLog = func() {
		for _, q := range queues {
			q.close()
		}
	}
	add := func(w io.WriteCloser, level string) {
		q := newLogQueue(w)
		queues = append(queues, q)
		handlers = append(handlers, newLog(q, level, n.LogFormat).Handler())
	}
	quiet := n.LogLevel
	if quiet == "debug" && n.DebugFile != "" {
		quiet = "info" // there is another file for that
	}
	for _, f := range []struct{ path, level string }{{n.LogFile, quiet}, {n.DebugFile, "debug"}} {
		if f.path == "" {
			continue
		}
		w, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
		if err != nil {
			closeLog()
			return nil, nil, fmt.Errorf("open the log: %w", err)
		}
		add(w, f.level)
	}
	if n.Syslog != "" {
		w, err := syslog.New(syslog.Priority(slices.Index(config.SyslogFacilities, n.Syslog)<<3)|syslog.LOG_INFO, "hanode")
		if err == nil {
			add(w, quiet)
		} else { // a host without syslog still has its journal
			slog.New(handlers[0]).Warn("no syslog answers; the log goes to standard error only", "facility", n.Syslog, "err", err)
		}
	}
	if len(handlers) == 1 {
		return slog.New(handlers[0]), closeLog, nil
	}
	return slog.New(slog.NewMultiHandler(handlers...)), closeLog, nil
}

// maxQueued is how many lines may wait for a slow log; more are dropped and counted.
const maxQueued = 1000

// logQueue writes lines one after the other without anybody waiting for it.
type logQueue struct {
	w     io.WriteCloser
	lines chan []byte
	done  chan struct{}

	mu      sync.Mutex
	closed  bool
	dropped int
}

func newLogQueue(w io.WriteCloser) *logQueue {
	q := &logQueue{w: w, lines: make(chan []byte, maxQueued), done: make(chan struct{})}
	go q.run()
	return q
}

// Write takes a line; it never fails.
func (q *logQueue) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return len(p), nil
	}
	if q.dropped > 0 {
		select {
		case q.lines <- fmt.Appendf(nil, "%d lines were dropped: this log was too slow\n", q.dropped):
			q.dropped = 0
		default:
		}
	}
	select {
	case q.lines <- slices.Clone(p):
	default:
		q.dropped++
	}
	return len(p), nil
}

func (q *logQueue) run() {
	defer close(q.done)
	for line := range q.lines {
		// What cannot be written here is on standard error.
		_, _ = q.w.Write(line)
	}
}

// close writes what is left and ends.
func (q *logQueue) close() {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.lines)
	}
	q.mu.Unlock()
	<-q.done
	if err := q.w.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		say(os.Stderr, "close the log: %v\n", err)
	}
}
