package demo

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// cell is the time that one character of the timeline stands for.
const cell = 50 * time.Millisecond

// widest is how many cells of the timeline go on one line.
const widest = 72

const indent = "    "

// screen shows what happens: lines that stay, and the timeline of who answers,
// which on a terminal grows in place. Safe for concurrent use.
type screen struct {
	columns int // of the terminal; 0 = none

	mu    sync.Mutex
	out   io.Writer
	strip func() []string // who held it until now, by cell; nil = no timeline is shown
	drawn bool            // the cursor is at the end of an unfinished line
}

func newScreen(out io.Writer, columns int) *screen { return &screen{out: out, columns: columns} }

// line prints a line that stays.
func (s *screen) line(format string, args ...any) { s.block(fmt.Sprintf(format, args...) + "\n") }

// block prints whole lines that stay.
func (s *screen) block(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	_, _ = io.WriteString(s.out, text) // a show without an audience goes on
}

// clear takes the unfinished line away. The caller has mu.
func (s *screen) clear() {
	if s.drawn {
		_, _ = io.WriteString(s.out, "\r\x1b[K")
		s.drawn = false
	}
}

// run draws the timeline again and again, on a terminal, until stop is called.
func (s *screen) run() (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(cell)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				s.draw()
			}
		}
	})
	return func() { close(quit); wg.Wait() }
}

// begin begins a timeline; strip is who held it since, by cell.
func (s *screen) begin(strip func() []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strip = strip
}

// draw shows the end of the timeline on an unfinished line, if there is one.
func (s *screen) draw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	room := min(widest, s.columns-len(indent)-len("  secondary "))
	if s.strip == nil || room < 1 {
		return
	}
	cells := s.strip()
	if len(cells) == 0 {
		return
	}
	s.clear()
	_, _ = fmt.Fprintf(s.out, "%s%s  %s", indent, letters(cells[max(0, len(cells)-room):]), nobody(cells[len(cells)-1]))
	s.drawn = true
}

// end prints the timeline so that it stays.
func (s *screen) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	for part := range slices.Chunk(s.strip(), widest) {
		_, _ = fmt.Fprintf(s.out, "%s%s\n", indent, letters(part))
	}
	s.strip = nil
}

// letters is the timeline, a letter for each cell.
func letters(cells []string) string {
	var b strings.Builder
	for _, who := range cells {
		switch who {
		case "":
			b.WriteByte('.')
		case primary:
			b.WriteByte('P')
		case secondary:
			b.WriteByte('S')
		default:
			b.WriteByte('?')
		}
	}
	return b.String()
}

// legend explains letters.
const legend = "P = primary answers, S = secondary answers, . = nobody; one character is 50 ms."

func nobody(who string) string {
	if who == "" {
		return "nobody"
	}
	return who
}

// short renders a time as people say it: 0.8 ms, 263 ms, 1.9 s.
func short(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 9.95:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 999.5:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// table is the end of the show. What went wrong has lines of its own below it.
func table(results []result) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "STEP\tOUTAGE\tPAGE OUTAGE\tHOLDERS\tOK\tSEEN") // into memory
	var wrong []string
	for _, r := range results {
		outage, page, holders, ok := "-", "-", "-", "NO"
		if r.measured {
			outage, page, holders = short(r.address), short(r.page), fmt.Sprint(r.holders)
		}
		if r.ok {
			ok = "yes"
		} else {
			wrong = append(wrong, r.name+": "+r.text)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.name, outage, page, holders, ok, r.seen)
	}
	_ = w.Flush() // into memory
	for _, s := range wrong {
		_, _ = fmt.Fprintln(&b, s)
	}
	return b.String()
}

// lastLines is the end of text, at most n lines.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
