package tune

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hanode/internal/spec"
)

const ms = time.Millisecond

func TestRecommend(t *testing.T) {
	lan, vm, quick := spec.Profiles["lan"], spec.Profiles["vm"], spec.Profiles["fast"]
	for _, c := range []struct {
		name     string
		timing   spec.Timing
		longest  time.Duration
		measured time.Duration
		verdict  Verdict
		deadtime time.Duration
		profile  string
		says     string
	}{
		{"calm, a short while", lan, 104 * ms, time.Hour, Keep, time.Second, "lan", "Measure for a day"},
		{"calm, for a week", lan, 104 * ms, 7 * Enough, Lower, 250 * ms, "lan", "failover can be faster"},
		{"calm and already quick", quick, 65 * ms, 7 * Enough, Keep, 250 * ms, "fast", "Keep it"},
		{"gaps of a guest", lan, 700 * ms, time.Hour, Raise, 1400 * ms, "vm", "taken for dead"},
		{"just enough", lan, 666 * ms, 2 * Enough, Keep, time.Second, "vm", "1.5 times"},
		{"just too long", lan, 667 * ms, 2 * Enough, Raise, 1400 * ms, "vm", "less than 1.5 times"},
		{"vm has room", vm, 700 * ms, 2 * Enough, Lower, 1400 * ms, "vm", "4.3 times"},
		{"beats that hardly come", spec.Profiles["heartbeat"], 25 * time.Second, Enough, Raise, 50 * time.Second, "", "taken for dead"},
		{"over what can be set", spec.Timing{Keepalive: time.Second, Warntime: 30 * time.Second, Deadtime: 60 * time.Second, Initdead: time.Minute}, 45 * time.Second, Enough, TooLate, time.Minute, "", "mend the network"},
	} {
		a := Recommend(Measured{Timing: c.timing, Most: time.Minute, For: c.measured, Beats: 9, Longest: c.longest})
		if a.Verdict != c.verdict || a.Timing.Deadtime != c.deadtime || a.Profile != c.profile {
			t.Errorf("%s: %s, deadtime %v, profile %q; want %s, %v, %q", c.name, a.Verdict, a.Timing.Deadtime, a.Profile, c.verdict, c.deadtime, c.profile)
		}
		if all := strings.Join(a.Words, " "); !strings.Contains(all, c.says) {
			t.Errorf("%s: %q does not say %q", c.name, all, c.says)
		}
	}
	if a := Recommend(Measured{Timing: lan, Most: time.Minute}); a.Verdict != Unknown || a.Timing != lan || a.Profile != "" || len(a.Words) != 1 {
		t.Errorf("nothing heard: %+v", a)
	}
	a := Recommend(Measured{Timing: lan, Most: time.Minute, Beats: 9, Longest: 104 * ms, For: Enough, Outages: 3, LongestOutage: time.Hour})
	if all := strings.Join(a.Words, " "); a.Timing.Deadtime > time.Second || !strings.Contains(all, "Gaps of deadtime or longer (3, up to 1h0m0s)") {
		t.Errorf("an outage: %+v", a)
	}
}

// Whatever was measured, what is recommended can be set, and is never under 1.5
// times the longest gap unless no deadtime that can be set is.
func TestRecommendationIsGood(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		span := func(lo, hi time.Duration, name string) time.Duration {
			return time.Duration(rapid.Int64Range(int64(lo), int64(hi)).Draw(t, name))
		}
		now := spec.Timing{Keepalive: span(ms, 29*time.Second, "keepalive")}
		now.Deadtime = span(max(2*now.Keepalive+1, 50*ms), time.Minute, "deadtime")
		now.Warntime = span(1, now.Deadtime-1, "warntime")
		now.Initdead = span(now.Deadtime, time.Hour, "initdead")
		m := Measured{
			Timing: now, Most: time.Minute, For: span(0, 100*Enough, "for"),
			Beats: rapid.Uint64().Draw(t, "beats"), Longest: span(0, now.Deadtime-1, "longest"), Outages: rapid.Uint64().Draw(t, "outages"),
		}
		a := Recommend(m)
		if bad := a.Timing.Validate(); len(bad) > 0 {
			t.Fatalf("%+v cannot be set: %v", a.Timing, bad)
		}
		if a.Timing.Deadtime > m.Most || a.Timing.Keepalive < ms || a.Timing.Initdead > time.Hour {
			t.Fatalf("%+v is out of the limits", a.Timing)
		}
		if len(a.Words) == 0 {
			t.Fatal("no reason is given")
		}
		if a.Verdict == Unknown {
			return
		}
		if enough := a.Timing.Deadtime*2 >= 3*m.Longest; enough == (a.Verdict == TooLate) {
			t.Fatalf("%s: deadtime %v for gaps of %v", a.Verdict, a.Timing.Deadtime, m.Longest)
		}
		if a.Verdict == Raise != (m.Longest*3 > now.Deadtime*2 && a.Verdict != TooLate) {
			t.Fatalf("%s: deadtime was %v for gaps of %v", a.Verdict, now.Deadtime, m.Longest)
		}
		if a.Verdict == Raise != Tight(m.Longest, now.Deadtime) && a.Verdict != TooLate {
			t.Fatalf("%s, and tight: %v", a.Verdict, Tight(m.Longest, now.Deadtime))
		}
		if a.Verdict == Lower && (m.For < Enough || a.Timing.Deadtime >= now.Deadtime) {
			t.Fatalf("lower to %v from %v after %v", a.Timing.Deadtime, now.Deadtime, m.For)
		}
		if a.Verdict == Keep && a.Timing != now {
			t.Fatal("keep, but another timing")
		}
		if a.Profile != "" && spec.Profiles[a.Profile].Deadtime*2 < 3*m.Longest {
			t.Fatalf("profile %s for gaps of %v", a.Profile, m.Longest)
		}
	})
}

// Every profile is looked at, the quickest first.
func TestProfilesAreInOrder(t *testing.T) {
	if len(profiles) != len(spec.Profiles) || !slices.IsSortedFunc(profiles, func(a, b string) int {
		return int(spec.Profiles[a].Deadtime - spec.Profiles[b].Deadtime)
	}) {
		t.Errorf("%v", profiles)
	}
}
