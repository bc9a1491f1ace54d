package robustness

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// entry is one line of a timeline.
type entry struct {
	at     time.Time
	source string // who says it: fault, wire, operator, check, or a node's agent
	text   string
}

// timeline is what happened, as faults, observers and the operator saw it. Safe for
// concurrent use.
type timeline struct {
	mu      sync.Mutex
	entries []entry // guarded by mu
}

func (l *timeline) add(at time.Time, source, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, entry{at, source, fmt.Sprintf(format, args...)})
}

func (l *timeline) now(source, format string, args ...any) {
	l.add(time.Now(), source, format, args...)
}

func (l *timeline) copy() []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// agentEntries reads an agent's log: slog's text form, "time=T ...". A line without
// a time (a panic, say) belongs to the one before.
func agentEntries(node string, log []byte) []entry {
	var list []entry
	last := time.Time{}
	for s := bufio.NewScanner(bytes.NewReader(log)); s.Scan(); {
		line := s.Text()
		if stamp, rest, ok := strings.Cut(strings.TrimPrefix(line, "time="), " "); ok && strings.HasPrefix(line, "time=") {
			if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil {
				last, line = at, rest
			}
		}
		list = append(list, entry{last, node, line})
	}
	return list
}

// merge puts timelines into one, by time; equal times stay in the order given.
func merge(lists ...[]entry) []entry {
	all := slices.Concat(lists...)
	slices.SortStableFunc(all, func(a, b entry) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
	return all
}

// write prints entries from a time on, with milliseconds since zero in front. An
// agent's log has no finer time than that.
func write(w io.Writer, entries []entry, from, zero time.Time) {
	for _, e := range entries {
		if e.at.Before(from) {
			continue
		}
		fmt.Fprintf(w, "%s %+10.1f ms  %-10s %s\n", e.at.UTC().Format("15:04:05.000"), float64(e.at.Sub(zero).Microseconds())/1000, e.source, e.text)
	}
}

// tail is what was written to a file from an offset on.
func tail(file string, from int64) []byte {
	b, err := os.ReadFile(file)
	if err != nil || int64(len(b)) < from {
		return nil
	}
	return b[from:]
}
