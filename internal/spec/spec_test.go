package spec

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestLeaseLength: the longest a holder holds, by a clock that runs slow, is less
// than what a waiter waits, by a clock that runs fast.
func TestLeaseLength(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dead := time.Duration(rapid.Int64Range(int64(50*time.Millisecond), int64(24*time.Hour)).Draw(t, "deadtime"))
		d := Timing{Deadtime: dead}.LeaseLength()
		holds, waits := float64(d)/(1-0.05), float64(dead)/(1+0.05)
		if d <= 0 || holds >= waits {
			t.Fatalf("deadtime %v: holds up to %v, waited out after %v", dead, time.Duration(holds), time.Duration(waits))
		}
		if float64(d) < 0.8*float64(dead)-float64(leaseSlack) {
			t.Fatalf("deadtime %v: %v is less than it need be", dead, d)
		}
	})
	if d := (Timing{Deadtime: time.Second}).LeaseLength(); d < 900*time.Millisecond || d > 901*time.Millisecond {
		t.Error(d)
	}
}

func TestProfilesAreValid(t *testing.T) {
	for _, want := range []string{"fast", "lan", "vm", "wan", "heartbeat"} {
		p, ok := Profiles[want]
		if bad := p.Validate(); !ok || len(bad) > 0 {
			t.Errorf("%s: %v", want, bad)
		}
		if p.LeaseLength() <= 2*p.Keepalive {
			t.Errorf("%s: one lost beat mutes", want)
		}
	}
	if len(Profiles) != 5 {
		t.Error("a profile without a test")
	}
}

func TestValidate(t *testing.T) {
	good := Profiles["lan"]
	for _, c := range []struct {
		name string
		fn   func(*Timing)
		want []string
	}{
		{"no keepalive", func(t *Timing) { t.Keepalive = 0 }, []string{"keepalive is 0s"}},
		{"deadtime of two beats", func(t *Timing) { t.Keepalive = 500 * time.Millisecond }, []string{"deadtime 1s", "2 x keepalive (500ms)"}},
		{"deadtime too short", func(t *Timing) {
			*t = Timing{time.Millisecond, 2 * time.Millisecond, 40 * time.Millisecond, time.Second}
		}, []string{"deadtime 40ms", "50ms"}},
		{"warntime", func(t *Timing) { t.Warntime = time.Second }, []string{"warntime 1s", "deadtime (1s)"}},
		{"no warntime", func(t *Timing) { t.Warntime = 0 }, []string{"warntime 0s"}},
		{"initdead", func(t *Timing) { t.Initdead = 999 * time.Millisecond }, []string{"initdead 999ms", "deadtime (1s)"}},
	} {
		tm := good
		c.fn(&tm)
		bad := tm.Validate()
		if len(bad) != 1 {
			t.Errorf("%s: %q", c.name, bad)
		}
		for _, w := range c.want {
			if !strings.Contains(strings.Join(bad, ""), w) {
				t.Errorf("%s: %q lacks %q", c.name, bad, w)
			}
		}
	}
	if bad := (Timing{}).Validate(); len(bad) < 4 {
		t.Errorf("nothing at all: %q", bad)
	}
}

func TestFailbackString(t *testing.T) {
	for want, f := range map[string]Failback{"on": {On: true}, "off": {After: time.Hour}, "after 5m0s": {On: true, After: 5 * time.Minute}} {
		if got := f.String(); got != want {
			t.Errorf("%+v is %q", f, got)
		}
	}
}

// TestAddress: R11 compares addresses, however they were written.
func TestAddress(t *testing.T) {
	for name, want := range map[string]string{
		"10.0.0.100/24": "10.0.0.100", "10.0.0.100": "10.0.0.100", "::ffff:10.0.0.100": "10.0.0.100",
		"2001:DB8:0::1/64": "2001:db8::1", "not an address": "not an address", "": "",
	} {
		if got := (Resource{Type: "ip", Name: name}).Address(); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

// TestAvoid: doubled with each failure, up to the most.
func TestAvoid(t *testing.T) {
	for _, c := range []struct {
		retry time.Duration
		n     int
		want  time.Duration
	}{
		{0, 0, 0},
		{0, 1, 10 * time.Minute},
		{0, 2, 20 * time.Minute},
		{0, 4, 80 * time.Minute},
		{0, 5, 2 * time.Hour},
		{0, 1 << 40, 2 * time.Hour},
		{time.Second, 3, 4 * time.Second},
		{time.Second, 13, 4096 * time.Second},
		{time.Second, 14, 2 * time.Hour},
		{2 * time.Hour, 1, 2 * time.Hour},
	} {
		if got := (Group{RetryAfter: c.retry}).Avoid(c.n); got != c.want {
			t.Errorf("%v after %d: %v, want %v", c.retry, c.n, got, c.want)
		}
	}
}
