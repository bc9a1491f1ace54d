package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// unknown is how tables show what nobody can say.
const unknown = "-"

// output passes writes on and keeps the first error, so that a command whose
// answer was lost (a full disk) does not say that it is done.
type output struct {
	w   io.Writer
	err error
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.w.Write(b)
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// say prints to where a failure is noticed elsewhere (output, memory) or could
// not be told anybody (stderr).
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// table writes aligned columns; end it with flush.
type table struct {
	to    io.Writer
	lines *strings.Builder
	w     *tabwriter.Writer
}

func newTable(to io.Writer, head ...string) table {
	var lines strings.Builder
	t := table{to: to, lines: &lines, w: tabwriter.NewWriter(&lines, 0, 8, 2, ' ', 0)}
	t.row(head...)
	return t
}

// row adds a line; it must have as many cells as the head.
func (t table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = clean(c)
	}
	say(t.w, "%s\n", strings.Join(cells, "\t"))
}

// flush writes the table, without blanks at the ends of lines.
func (t table) flush() {
	_ = t.w.Flush() // into memory
	for line := range strings.Lines(t.lines.String()) {
		say(t.to, "%s\n", strings.TrimRight(line, " \n"))
	}
}

// printf prints a line of which no argument can do harm to the terminal.
func (a *app) printf(format string, args ...any) {
	say(a.out, "%s\n", clean(fmt.Sprintf(format, args...)))
}

// clean makes one harmless line of s: what a monitor or another host said may
// hold line breaks and escape sequences.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return -1
		}
		return r
	}, s)
	return strings.TrimRight(s, " ")
}

// text is *s, or "-".
func text[T ~string](s *T) string {
	if s == nil || *s == "" {
		return unknown
	}
	return string(*s)
}

// nobody is *s, or "nobody".
func nobody(s *string) string {
	if s == nil || *s == "" {
		return "nobody"
	}
	return *s
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return unknown
}

// millis renders a number of milliseconds: 1.8 ms, 861 ms, 12.3 s, 1h5m.
func millis(ms *float64) string {
	if ms == nil {
		return unknown
	}
	switch v := *ms; {
	case v < 0:
		return "over"
	case v < 9.95:
		return fmt.Sprintf("%.1f ms", v)
	case v < 999.5:
		return fmt.Sprintf("%.0f ms", v)
	case v < 59_950:
		return fmt.Sprintf("%.1f s", v/1000)
	case v < 1e15:
		return span(time.Duration(v * 1e6))
	}
	return unknown
}

// stamp renders a time for people.
func (a *app) stamp(t time.Time) string { return t.In(a.zone).Format("2006-01-02 15:04:05") }

// age renders how long ago t was.
func (a *app) age(t *time.Time) string {
	if t == nil || t.IsZero() {
		return unknown
	}
	return span(a.now().Sub(*t))
}

// span renders a duration by its two largest units: 4s, 3m12s, 2h13m, 5d4h.
func span(d time.Duration) string {
	s := int64(d / time.Second)
	switch {
	case s < 0:
		return "0s" // the clocks of two hosts differ
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%ds", s/60, s%60)
	case s < 24*3600:
		return fmt.Sprintf("%dh%dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%dh", s/86400, s/3600%24)
}

// count renders "1 group", "2 groups".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
