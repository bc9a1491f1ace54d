package agent

import (
	"strings"
	"testing"
	"time"

	"hanode/api"
	"hanode/internal/clock"
	"hanode/internal/spec"
	"hanode/internal/tune"
)

func tuned(t *testing.T, a *Agent, reset bool) (*api.Tuning, map[string]api.BeatGaps) {
	t.Helper()
	r, err := a.Tune(t.Context(), reset)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]api.BeatGaps{}
	for _, g := range r.Heard {
		by[g.Node] = g
	}
	return r, by
}

// Each node tells what it heard: nothing of note while all is well; beats that came
// almost too late, which `status` shows as well; and outages apart from them.
func TestTune(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		a := l.on("primary")
		calm, by := tuned(t, a, true)
		if len(by) != 3 || calm.Node != "primary" || calm.ForMS != 0 || calm.Verdict != string(tune.Unknown) {
			t.Errorf("just reset: %+v", calm)
		}
		time.Sleep(10 * time.Second)
		calm, by = tuned(t, a, false)
		if calm.ForMS != 10_000 || calm.Profile == nil || *calm.Profile != "fast" || calm.Verdict != string(tune.Keep) || calm.Recommended != calm.Timing {
			t.Errorf("calm: %+v", calm)
		}
		for name, g := range by {
			if g.Beats < 300 || g.LongestMS == nil || *g.LongestMS > 60 || g.Outages != 0 {
				t.Errorf("calm: %s: %+v", name, g)
			}
		}
		if ps := a.tightProblem(); len(ps) != 0 {
			t.Errorf("calm, but %+v", ps)
		}

		l.net.Cut("secondary", "primary", "", true)
		time.Sleep(180 * time.Millisecond)
		l.net.Cut("secondary", "primary", "", false)
		time.Sleep(time.Second)
		late, by := tuned(t, a, false)
		g := by["secondary"]
		if g.LongestMS == nil || *g.LongestMS < 180 || *g.LongestMS > 210 || g.LongestAt == nil || g.Outages != 0 {
			t.Errorf("late: %+v", g)
		}
		if late.Verdict != string(tune.Raise) || late.Recommended.DeadtimeMS < 1.5**g.LongestMS || late.Fits == nil || *late.Fits != "lan" {
			t.Errorf("late: %+v", late)
		}
		if ps := a.tightProblem(); len(ps) != 1 || ps[0].Code != "timing-tight" || !strings.Contains(ps[0].Text, "beats of secondary") || !strings.Contains(ps[0].Text, "profile lan would do") {
			t.Errorf("late, and the problems: %+v", ps)
		}
		if _, by := tuned(t, l.on("arbiter"), false); by["secondary"].LongestMS == nil || *by["secondary"].LongestMS > 60 {
			t.Errorf("arbiter heard it all the time: %+v", by["secondary"])
		}

		l.net.Cut("secondary", "primary", "", true)
		time.Sleep(2 * time.Second)
		l.net.Cut("secondary", "primary", "", false)
		time.Sleep(time.Second)
		out, by := tuned(t, a, false)
		if o := by["secondary"]; o.Outages != 1 || o.OutageMS == nil || *o.OutageMS < 2000 || *o.LongestMS != *g.LongestMS || out.Recommended != late.Recommended {
			t.Errorf("an outage: %+v, %+v", o, out.Recommended)
		}
		if _, by = tuned(t, a, true); by["secondary"].Beats != 0 || by["secondary"].LongestMS != nil || len(a.tightProblem()) != 0 {
			t.Errorf("reset: %+v", by["secondary"])
		}
	})
}

// What is tight is forgotten a day later, and counts from the next one on.
func TestTightIsForgotten(t *testing.T) {
	var g gaps
	dead := spec.Profiles["lan"].Deadtime
	at := clock.Instant{Boot: 48 * time.Hour, Raw: 48 * time.Hour}
	for _, c := range []struct {
		after time.Duration
		gap   time.Duration
		tight time.Duration
	}{
		{0, 600 * time.Millisecond, 0},
		{0, 900 * time.Millisecond, 900 * time.Millisecond},
		{time.Hour, 700 * time.Millisecond, 900 * time.Millisecond},
		{time.Hour, 2 * time.Second, 900 * time.Millisecond}, // an outage
		{tightShown, 700 * time.Millisecond, 700 * time.Millisecond},
	} {
		at = at.Add(c.after)
		g.add(c.gap, dead, at)
		if g.tight != c.tight {
			t.Errorf("after %v: tight is %v, want %v", c.gap, g.tight, c.tight)
		}
	}
	if g.max != 900*time.Millisecond || g.outages != 1 || !g.tightAt.Before(at.Add(1)) {
		t.Errorf("%+v", g)
	}
}
