package robustness

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// outcome is what came of one run.
type outcome struct {
	row        string
	skipped    string // why it was not fired; "" = it was
	took       bool   // every proof that the fault took hold came out
	outage     time.Duration
	twoHolders int      // instants
	unheld     int      // groups without a holder 5 s after healing
	acked      int      // commands
	lost       int      // of those
	violations []string // all of the above that must not be, and what else must not
	incomplete string   // why the observer's word is not whole; "" = it is
}

// tally is a row of the table.
type tally struct {
	row                                    string
	fired, took, twoHolders, unheld, other int
	acked, lost                            int
	outages                                []time.Duration // of runs that took hold
	skipped                                string
}

func (t *tally) add(o outcome) {
	if o.skipped != "" {
		t.skipped = o.skipped
		return
	}
	t.fired++
	if o.took {
		t.took++
		t.outages = append(t.outages, o.outage)
	}
	t.twoHolders += o.twoHolders
	t.unheld += o.unheld
	t.acked += o.acked
	t.lost += o.lost
	if o.twoHolders+o.unheld+o.lost == 0 && len(o.violations) > 0 {
		t.other++
	}
}

// medianMax of the outages; 0 if there are none.
func (t *tally) medianMax() (median, most time.Duration) {
	if len(t.outages) == 0 {
		return 0, 0
	}
	s := slices.Sorted(slices.Values(t.outages))
	return s[len(s)/2], s[len(s)-1]
}

// table collects rows in the order given.
type table struct {
	rows []*tally
}

func (t *table) row(name string) *tally {
	for _, r := range t.rows {
		if r.row == name {
			return r
		}
	}
	r := &tally{row: name}
	t.rows = append(t.rows, r)
	return r
}

// total sums the rows.
func (t *table) total() tally {
	sum := tally{row: "total"}
	for _, r := range t.rows {
		sum.fired += r.fired
		sum.took += r.took
		sum.twoHolders += r.twoHolders
		sum.unheld += r.unheld
		sum.acked += r.acked
		sum.lost += r.lost
		sum.other += r.other
		sum.outages = append(sum.outages, r.outages...)
	}
	return sum
}

func (t *table) print(w io.Writer) {
	fmt.Fprintf(w, "%-46s %5s %9s %10s %10s %11s %7s %11s %5s\n", "fault", "fired", "took hold",
		"outage med", "max ms", "two holders", "unheld", "acks (lost)", "other")
	sum := t.total()
	for _, r := range append(slices.Clone(t.rows), &sum) {
		if r.fired == 0 && r.skipped != "" {
			fmt.Fprintf(w, "%-46s skipped: %s\n", r.row, r.skipped)
			continue
		}
		median, most := r.medianMax()
		fmt.Fprintf(w, "%-46s %5d %9d %10.1f %10.1f %11d %7d %6d (%d) %5d\n", r.row, r.fired, r.took,
			ms(median), ms(most), r.twoHolders, r.unheld, r.acked, r.lost, r.other)
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
