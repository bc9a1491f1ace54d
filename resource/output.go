package resource

import (
	"io"
	"strings"
	"sync"
)

// keepOutput is how much of an operation's output is kept: its end.
const keepOutput = 64 << 10

// tail keeps the last bytes written to it, as a ring: a script may print a
// gigabyte, and must not cost more than reading it. Safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	b    []byte // grows up to keepOutput, then the oldest is at next
	next int
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if len(p) > keepOutput {
		p = p[len(p)-keepOutput:]
	}
	if room := keepOutput - len(t.b); room > 0 {
		take := min(room, len(p))
		t.b = append(t.b, p[:take]...)
		p = p[take:]
	}
	for len(p) > 0 {
		c := copy(t.b[t.next:], p)
		p, t.next = p[c:], (t.next+c)%keepOutput
	}
	return n, nil
}

// String is what was kept, as valid UTF-8.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.b[t.next:])+string(t.b[:t.next]), "\uFFFD")
}

// lastLines is the end of s, at most limit bytes: whole lines, if it has any that fit.
func lastLines(s string, limit int) string {
	s = strings.TrimRight(s, " \t\r\n")
	if len(s) <= limit {
		return s
	}
	s = s[len(s)-limit:]
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		s = s[i+1:]
	}
	return strings.ToValidUTF8(s, "")
}

// lastLine is the last line of s that is not blank.
func lastLine(s string) string {
	s = strings.TrimRight(s, " \t\r\n")
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		s = s[i+1:]
	}
	s = strings.TrimPrefix(s, exitReason)
	if len(s) > maxLine {
		s = strings.ToValidUTF8(s[:maxLine], "") + "..."
	}
	return strings.TrimSpace(s)
}

// maxLine bounds the one line of output that goes into an error, which is
// replicated.
const maxLine = 400

// sink is where an operation's output goes.
func (e Env) sink() io.Writer {
	if e.Output == nil {
		return io.Discard
	}
	return e.Output
}
