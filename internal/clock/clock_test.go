package clock

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func instant(t *rapid.T, label string) Instant {
	d := rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "ns"))
	})
	return Instant{Boot: d.Draw(t, label), Raw: d.Draw(t, label)}
}

// TestHolderAndWaiter: a holder goes by the faster clock, a waiter by the slower
// one, so the two can never overlap on one host's readings.
func TestHolderAndWaiter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now, since := instant(t, "now"), instant(t, "since")
		d := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "d"))
		end := since.Add(d)
		if now.Before(end) && now.Elapsed(since) >= d {
			t.Fatalf("at %v the lease from %v for %v runs, and is waited out", now, since, d)
		}
		if now.Before(end) != (now.Remaining(end) > 0) {
			t.Fatalf("Before says %v, Remaining %v", now.Before(end), now.Remaining(end))
		}
		both := now.Boot-since.Boot >= d && now.Raw-since.Raw >= d
		if (now.Elapsed(since) >= d) != both {
			t.Fatalf("elapsed %v of %v: both clocks must say so", now.Elapsed(since), d)
		}
		if l := Later(now, since); now.Before(l) && since.Before(l) || l.Boot < now.Boot || l.Raw < since.Raw || l != Later(since, now) {
			t.Fatalf("later of %v and %v is %v", now, since, l)
		}
	})
}

func TestOneClockAlone(t *testing.T) {
	at := Instant{Boot: time.Hour, Raw: time.Hour}
	suspended := Instant{Boot: 2 * time.Hour, Raw: time.Hour + time.Millisecond} // RAW stops in suspend
	if suspended.Before(at.Add(time.Minute)) {
		t.Error("a lease outlived a suspend")
	}
	if e := suspended.Elapsed(at); e != time.Millisecond {
		t.Error("a waiter counted the suspend:", e)
	}
	if !(Instant{}).IsZero() || at.IsZero() {
		t.Error("zero is never, and only zero")
	}
}

func TestSystem(t *testing.T) {
	c, err := System()
	if err != nil {
		t.Fatal(err)
	}
	before := c.Now()
	if before.IsZero() || before.Boot <= 0 || before.Raw <= 0 {
		t.Error(before)
	}
	time.Sleep(time.Millisecond)
	if e := c.Now().Elapsed(before); e < 900*time.Microsecond {
		t.Error("a millisecond took", e)
	}
	if w := time.Since(c.Wall()); w < -time.Minute || w > time.Minute {
		t.Error("wall differs by", w)
	}
}
