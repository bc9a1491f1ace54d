package watch

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// fresh is how long an answer speaks for its holder.
const fresh = 20 * time.Millisecond

// Snapshot is the view at this moment, for a live timeline.
type Snapshot struct {
	Holder         string        // who answers; "" = nobody for 20 ms
	Silent         time.Duration // without an answer, as in Phase.LongestSilence
	Sent, Answered int           // Answered counts answers
	Skipped        int           // as in Report
}

// observer writes a record down while it grows. Watcher and Prober embed it.
type observer struct {
	onChange func(Change)

	mu      sync.Mutex
	rec     record // guarded by mu
	skipped int    // guarded by mu
}

func newObserver(every, window time.Duration, onChange func(Change)) *observer {
	return &observer{
		onChange: onChange,
		rec:      record{started: time.Now(), every: every, window: max(window, 3*every), marks: []mark{{}}},
	}
}

// Mark begins a phase. A name may be used again: Report.Phase gives the last.
func (o *observer) Mark(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rec.marks = append(o.rec.marks, mark{name, time.Since(o.rec.started)})
}

// Snapshot is what is known now.
func (o *observer) Snapshot() Snapshot {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := Snapshot{Sent: len(o.rec.sent), Answered: len(o.rec.answers), Skipped: o.skipped}
	var last answer
	if n := len(o.rec.answers); n > 0 {
		last = o.rec.answers[n-1]
	}
	// A silence begins where something was asked: see record.silences.
	if i, _ := slices.BinarySearch(o.rec.sent, last.at); i < len(o.rec.sent) {
		s.Silent = time.Since(o.rec.started) - max(last.at, o.rec.sent[i]-o.rec.every)
	}
	if s.Silent <= fresh {
		s.Holder = last.who
	}
	return s
}

// Now is who answers: a MAC address as net.HardwareAddr prints it, or a body. It
// is "" once 20 ms passed without an answer to what was asked.
func (o *observer) Now() string { return o.Snapshot().Holder }

// WaitHolder waits until who is the one that answers; "" waits until nobody
// does.
func (o *observer) WaitHolder(who string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		now := o.Now()
		if now == who {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("after %v the address is held by %q, not by %q", timeout, now, who)
		}
	}
}

// ask numbers the next request and notes that it is being sent now.
func (o *observer) ask() uint32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rec.sent = append(o.rec.sent, time.Since(o.rec.started))
	return uint32(len(o.rec.sent) - 1)
}

// skip notes a request that was not made.
func (o *observer) skip() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.skipped++
}

// heard notes an answer that came at the given time. An answer to a request that
// was never made is not noted.
func (o *observer) heard(request uint32, at time.Time, who string) {
	o.mu.Lock()
	if int(request) >= len(o.rec.sent) {
		o.mu.Unlock()
		return
	}
	a := answer{request: request, at: at.Sub(o.rec.started), who: who}
	a.at = max(a.at, o.rec.sent[request]) // the kernel's clock reads a little apart from ours
	var before answer
	if n := len(o.rec.answers); n > 0 {
		before = o.rec.answers[n-1]
	}
	o.rec.answers = append(o.rec.answers, a)
	change := Change{
		At: o.rec.started.Add(a.at), Request: request, From: before.who, To: who, Silent: max(0, a.at-before.at),
	}
	o.mu.Unlock()
	if o.onChange != nil && before.who != who {
		o.onChange(change)
	}
}

// announced notes an announcement.
func (o *observer) announced(a Announcement) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rec.announced = append(o.rec.announced, a)
}

// Look is the report on what was seen until now. The observation goes on, its
// report at the end is not changed by it; what only the end can tell (Lost) is empty.
func (o *observer) Look() Report {
	o.mu.Lock()
	rec, skipped := o.rec, o.skipped // the lists only grow: what is in them stays
	rec.ended = max(time.Since(rec.started), rec.marks[len(rec.marks)-1].at)
	o.mu.Unlock()
	r := rec.report()
	r.Skipped = skipped
	return r
}

// Cells is who answered in each whole cell of that width from a time on, but for the
// last width, to which answers are still on their way; for a picture of it: whoever answered the most of what was asked in the cell, ""
// if as much was not answered. A cell in which nothing was asked is like the one
// before.
func (o *observer) Cells(from time.Time, width time.Duration) []string {
	o.mu.Lock()
	rec := o.rec // the lists only grow: what is in them stays
	o.mu.Unlock()
	return rec.cells(from.Sub(rec.started), time.Since(rec.started)-width, width)
}

// end closes the record at the given time and judges it.
func (o *observer) end(at time.Time) Report {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rec.ended = max(at.Sub(o.rec.started), o.rec.marks[len(o.rec.marks)-1].at)
	r := o.rec.report()
	r.Skipped = o.skipped
	return r
}
