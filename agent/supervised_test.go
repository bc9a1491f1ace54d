package agent

import (
	"testing"
	"time"

	"hanode/internal/clock"
)

// told is a supervisor that only waits for Ready.
type told struct{ ready func() }

func (t told) Ready()               { t.ready() }
func (told) Alive()                 {}
func (told) Status(string)          {}
func (told) Stopping(time.Duration) {}

func TestAHungLoopIsNamed(t *testing.T) {
	at := func(d time.Duration) clock.Instant { return clock.Instant{}.Add(d) }
	var all turns
	if got := all.hangs(at(time.Hour)); got != "" {
		t.Errorf("before the loops run, %q hangs", got)
	}
	for l := range loopCount {
		all[l].Store(int64(time.Minute))
	}
	if got := all.hangs(at(time.Minute + turnLimit)); got != "" {
		t.Errorf("%q hangs", got)
	}
	for l := range loopCount {
		later := at(2 * time.Minute)
		for o := range loopCount {
			all[o].Store(int64(later.Boot))
		}
		all[l].Store(int64(time.Minute))
		if got := all.hangs(later); got != l.String() {
			t.Errorf("%q hangs, want %q", got, l)
		}
	}
}
