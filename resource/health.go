package resource

import (
	"errors"
	"fmt"
	"time"

	"hanode/internal/spec"
)

// health is what is known of one check: a pure machine, fed with the outcome of each
// try. It begins with a grace, in which the service comes up and failures do not
// count, until it succeeded rise times in a row; from then on fall failures in a row
// are its end.
type health struct {
	c     spec.Check // with its defaults
	begun time.Time
	up    bool
	row   int   // outcomes in a row that are like the last
	last  error // the newest outcome
	any   bool  // there was one
}

func newHealth(c spec.Check, now time.Time) *health {
	return &health{c: c.WithDefaults(), begun: now}
}

// next takes the outcome of a try that ended at now. A non-nil answer says that the
// service has failed, and why.
func (h *health) next(now time.Time, outcome error) error {
	if !h.any || (outcome == nil) != (h.last == nil) {
		h.row = 0
	}
	h.any, h.last = true, outcome
	h.row++
	switch {
	case outcome == nil:
		h.up = h.up || h.row >= h.c.Rise
	case h.up && h.row >= h.c.Fall:
		return fmt.Errorf("check %s failed %s: %w", h.c, times(h.row), outcome)
	case !h.up && now.Sub(h.begun) >= h.c.Grace:
		return fmt.Errorf("check %s did not succeed within %v of the start: %w", h.c, h.c.Grace, outcome)
	}
	return nil
}

// state is how the check looks to an operator.
func (h *health) state() (State, error) {
	switch {
	case !h.up:
		return Starting, h.last
	case h.last != nil:
		return Running, fmt.Errorf("failed %s, of %d: %w", times(h.row), h.c.Fall, h.last)
	}
	return Running, nil
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times in a row", n)
}

// errNoType means that a newer node wrote a type of check that this one does not know.
var errNoType = errors.New("unknown type of check; upgrade this node")
