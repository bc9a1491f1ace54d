package linkstate

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"hanode/internal/clock"
)

// Damping. A lost carrier is told at once: clients wait. One that is back is told
// only when it has held for settle, and for twice as long with each further loss, up to
// settleMost: a switch port that opens late or a loose plug moves a group away once, and
// not back and forth. Losses are forgotten when the device held for forget.
const (
	settle     = time.Second
	settleMost = 64 * time.Second
	forget     = 10 * time.Minute
)

// Fact is what the kernel says of a device now.
type Fact struct {
	Dev  string
	Why  string         // why it carries nothing; "" = it does
	Nets []netip.Prefix // nil = as before
}

// Tracker remembers the devices and damps them. Time is an argument. Not safe for
// concurrent use. The zero value knows of none.
type Tracker struct {
	m map[string]*tracked
}

type tracked struct {
	why    string        // "" = it carries
	since  clock.Instant // when why last became empty, or ceased to be
	losses int           // of the carrier, since forget ago
	nets   []netip.Prefix
	ripe   bool // Ripe told that it is trusted again
}

// See notes a fact and reports whether that changes what Links says. A device that is
// seen for the first time is taken as it is: up is Up, for as long as anybody may ask.
func (t *Tracker) See(f Fact, now clock.Instant) bool {
	if t.m == nil {
		t.m = map[string]*tracked{}
	}
	d := t.m[f.Dev]
	if d == nil {
		d = &tracked{why: f.Why, nets: f.Nets}
		if f.Why != "" {
			d.since, d.losses = now, 1
		}
		t.m[f.Dev] = d
		return true
	}
	changed := d.why != f.Why
	if f.Nets != nil && !slices.Equal(d.nets, f.Nets) {
		d.nets, changed = f.Nets, true
	}
	if (d.why == "") == (f.Why == "") {
		d.why = f.Why // down for another reason
		return changed
	}
	if f.Why != "" {
		if d.losses > 0 && now.Elapsed(d.since) >= forget {
			d.losses = 0
		}
		d.losses++
	}
	d.why, d.since, d.ripe = f.Why, now, false
	return true
}

// Ripe reports whether a device was settling when it was last asked, and is so no more.
func (t *Tracker) Ripe(now clock.Instant) (news bool) {
	for _, d := range t.m {
		if d.why == "" && d.losses > 0 && !d.ripe && now.Elapsed(d.since) >= d.hold() {
			d.ripe, news = true, true
		}
	}
	return news
}

// Forget drops the devices that keep says nothing of.
func (t *Tracker) Forget(keep func(dev string) bool) (changed bool) {
	for dev := range t.m {
		if !keep(dev) {
			delete(t.m, dev)
			changed = true
		}
	}
	return changed
}

// Has reports whether the device was ever seen.
func (t *Tracker) Has(dev string) bool { return t.m[dev] != nil }

// Nets are the subnets that a device had when it was last seen.
func (t *Tracker) Nets(dev string) []netip.Prefix {
	if d := t.m[dev]; d != nil {
		return d.nets
	}
	return nil
}

// hold is how long a device must carry before it counts.
func (d *tracked) hold() time.Duration {
	if d.losses == 0 {
		return 0
	}
	return min(settle<<min(d.losses-1, 16), settleMost)
}

// long is how long a device that was never lost is said to be up.
const long = 365 * 24 * time.Hour

// Links lists the devices, by name.
func (t *Tracker) Links(now clock.Instant) []Link {
	out := make([]Link, 0, len(t.m))
	for dev, d := range t.m {
		l := Link{Dev: dev, State: Up, Why: d.why, Nets: d.nets, For: long}
		if d.losses > 0 {
			l.For = now.Elapsed(d.since)
		}
		switch {
		case d.why != "":
			l.State = Down
		case l.For < d.hold():
			l.State = Settling
		case d.losses > 0:
			l.For -= d.hold() // it counts from here on
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b Link) int { return cmp.Compare(a.Dev, b.Dev) })
	return out
}

// Next is how long until Links says something else by itself; negative: never.
func (t *Tracker) Next(now clock.Instant) time.Duration {
	next := time.Duration(-1)
	for _, d := range t.m {
		if d.why != "" || d.losses == 0 {
			continue
		}
		if left := d.hold() - now.Elapsed(d.since); left > 0 && (next < 0 || left < next) {
			next = left
		}
	}
	return next
}
