package resource

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hanode/internal/spec"
)

// TestHealth: outcomes in (s = success, f = failure), a second apart; what is said.
func TestHealth(t *testing.T) {
	bad := errors.New("connection refused")
	for _, c := range []struct {
		c        spec.Check
		outcomes string
		want     string // of the last; "" = nothing
		state    State
	}{
		{spec.Check{}, "s", "", Starting},
		{spec.Check{}, "ss", "", Running},
		{spec.Check{}, "ssff", "", Running},
		{spec.Check{}, "ssfff", "failed 3 times in a row", Running},
		{spec.Check{}, "ssffsff", "", Running},
		{spec.Check{}, "ssffsfff", "failed 3 times in a row", Running},
		{spec.Check{Fall: 1, Rise: 1}, "sf", "failed once", Running},
		{spec.Check{Grace: 5 * time.Second}, "ffff", "", Starting},
		{spec.Check{Grace: 5 * time.Second}, "fffff", "did not succeed within 5s of the start: connection refused", Starting},
		{spec.Check{Grace: 5 * time.Second}, "ffffss", "", Running},
		{spec.Check{Grace: 5 * time.Second}, "fsfsf", "did not succeed within 5s", Starting},
		{spec.Check{Grace: 5 * time.Second}, "ffffs", "", Starting}, // a success is no failure, whatever the time
		{spec.Check{Grace: time.Second, Rise: 1}, "sffsff", "", Running},
	} {
		now := time.Unix(1, 0)
		h := newHealth(c.c, now)
		var err error
		for i, o := range c.outcomes {
			if err != nil {
				t.Errorf("%s: ended at %d: %v", c.outcomes, i, err)
			}
			now = now.Add(time.Second)
			err = h.next(now, map[rune]error{'s': nil, 'f': bad}[o])
		}
		if (c.want == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), c.want) || !errors.Is(err, bad)) {
			t.Errorf("%s: %v, want %q", c.outcomes, err, c.want)
		}
		if st, _ := h.state(); st != c.state {
			t.Errorf("%s: %v, want %v", c.outcomes, st, c.state)
		}
	}
}

// TestHealthAgainstDumb compares it with one that looks at all of the past each time.
func TestHealthAgainstDumb(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := spec.Check{
			Rise: rapid.IntRange(1, 4).Draw(t, "rise"), Fall: rapid.IntRange(1, 4).Draw(t, "fall"),
			Grace: time.Duration(rapid.IntRange(1, 10).Draw(t, "grace")) * time.Second,
		}
		begun := time.Unix(1, 0)
		h := newHealth(c, begun)
		var past []bool
		for i, ok := range rapid.SliceOfN(rapid.Bool(), 0, 30).Draw(t, "outcomes") {
			past = append(past, ok)
			now := begun.Add(time.Duration(i) * time.Second)
			var outcome error
			if !ok {
				outcome = fmt.Errorf("no %d", i)
			}
			got := h.next(now, outcome) != nil
			want := dumb(c, past, i)
			if got != want {
				t.Fatalf("%+v after %v: %v, want %v", c, past, got, want)
			}
			if got {
				return
			}
		}
	})
}

// dumb: the check is down by what it saw up to now, a try a second from 0 on.
func dumb(c spec.Check, past []bool, second int) bool {
	last := func(n int, what bool, of []bool) bool {
		if len(of) < n {
			return false
		}
		for _, ok := range of[len(of)-n:] {
			if ok != what {
				return false
			}
		}
		return true
	}
	for i := range past {
		if last(c.Rise, true, past[:i+1]) { // up since then
			return last(c.Fall, false, past[i+1:])
		}
	}
	return !past[len(past)-1] && time.Duration(second)*time.Second >= c.Grace
}
