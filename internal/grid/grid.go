// Package grid lets the periodic work of one agent fall on the same instants. Each time
// that a process which sleeps is woken costs some hundredths of a millisecond of
// processor, whatever it does then: ten tickers of 100 ms, each in a phase of its own,
// wake it a hundred times a second, and ten on one grid ten times.
//
// Two grids have nothing in common: what runs on two hosts, or for two agents in one
// process, is not made to happen at once.
package grid

import "time"

// Grid is the instants that are whole multiples away from its origin. Safe for
// concurrent use.
type Grid struct{ origin time.Time }

// New returns a grid that begins now.
func New() *Grid { return &Grid{time.Now()} }

// Ticker ticks on a grid.
type Ticker struct {
	C     <-chan time.Time
	timer *time.Timer
	grid  *Grid
	every time.Duration
}

// Ticker ticks at the whole multiples of every, which must be positive. Who takes a
// tick off C calls Next; ticks that nobody had time for are left out.
func (g *Grid) Ticker(every time.Duration) *Ticker {
	t := time.NewTimer(g.Until(every))
	return &Ticker{C: t.C, timer: t, grid: g, every: every}
}

// Next has the ticker tick once more.
func (t *Ticker) Next() { t.timer.Reset(t.grid.Until(t.every)) }

// Stop ends it.
func (t *Ticker) Stop() { t.timer.Stop() }

// Until is how long the next whole multiple of every is away, which must be positive;
// never 0, so that one instant does not tick twice.
func (g *Grid) Until(every time.Duration) time.Duration {
	return every - time.Since(g.origin)%every
}
