package demo

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTable(t *testing.T) {
	got := table([]result{
		{name: "power cut", measured: true, address: 249900 * time.Microsecond, page: 1234 * time.Millisecond, holders: 1, ok: true, seen: "secondary after 250 ms", text: "long"},
		{name: "hang", measured: true, address: 900 * time.Microsecond, holders: 2, text: "two at once"},
		{name: "move", text: "no leader"},
	})
	want := strings.TrimPrefix(`
STEP       OUTAGE  PAGE OUTAGE  HOLDERS  OK   SEEN
power cut  250 ms  1.2 s        1        yes  secondary after 250 ms
hang       0.9 ms  0.0 ms       2        NO   |
move       -       -            -        NO   |
hang: two at once
move: no leader
`, "\n")
	if d := cmp.Diff(strings.ReplaceAll(want, "|", ""), got); d != "" {
		t.Error(d)
	}
}

// fill is a timeline that is there from the start.
func fill(cells ...string) func() []string { return func() []string { return cells } }

func TestTimelineWithoutATerminal(t *testing.T) {
	var out strings.Builder
	s := newScreen(&out, 0)
	s.line("(%d) a step", 1)
	s.begin(fill(primary, primary, "", secondary, "02:00:00:00:00:01"))
	s.draw()
	s.draw()
	s.end()
	s.draw() // nothing is shown between two steps
	s.begin(fill(strings.Split(strings.Repeat("-", widest+1), "")...))
	s.end()
	want := "(1) a step\n    PP.S?\n    " + strings.Repeat("?", widest) + "\n    ?\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
}

func TestTimelineOnATerminal(t *testing.T) {
	var out strings.Builder
	s := newScreen(&out, 20) // room for 4 cells
	s.begin(fill())
	s.draw()
	s.begin(fill(primary, primary, primary, "", secondary))
	s.draw()
	s.begin(fill(primary, ""))
	s.draw()
	s.line("something is said")
	s.draw()
	s.end()
	const clear = "\r\x1b[K"
	want := "    PP.S  secondary" + clear + "    P.  nobody" + clear + "something is said\n" +
		"    P.  nobody" + clear + "    P.\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
	out.Reset()
	narrow := newScreen(&out, 15)
	narrow.begin(fill(primary))
	narrow.draw()
	if out.Len() > 0 {
		t.Errorf("without room it draws %q", out.String())
	}
}

func TestTheTimelineIsDrawnUntilStopped(t *testing.T) {
	var out strings.Builder
	s := newScreen(&out, 80)
	drawn := make(chan struct{}, 1)
	s.begin(func() []string {
		select {
		case drawn <- struct{}{}:
		default:
		}
		return []string{primary}
	})
	stop := s.run()
	<-drawn
	stop()
	if got := out.String(); !strings.HasPrefix(got, "    P  primary") {
		t.Errorf("%q", got)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0 ms", 840 * time.Microsecond: "0.8 ms", 9940 * time.Microsecond: "9.9 ms", 9950 * time.Microsecond: "10 ms",
		263400 * time.Microsecond: "263 ms", 999600 * time.Microsecond: "1.0 s", 12340 * time.Millisecond: "12.3 s",
	} {
		if got := short(d); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
}

func TestLastLines(t *testing.T) {
	for _, c := range []struct{ in, want string }{{"", ""}, {"a\n", "a"}, {"a\nb\n", "a\nb"}, {"a\nb\nc\n", "b\nc"}} {
		if got := lastLines(c.in, 2); got != c.want {
			t.Errorf("%q gives %q", c.in, got)
		}
	}
}
