package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"hanode/api"
	"hanode/config"
	"hanode/internal/clock"
	"hanode/internal/spec"
	"hanode/internal/tune"
)

// Tune reports what this node measured and what timing that recommends. Each node
// tells what it heard itself; nobody else is asked.
func (a *Agent) Tune(_ context.Context, reset bool) (*api.Tuning, error) {
	if reset {
		a.pulse.restart(a.host.Clock.Now())
		a.ears.forget()
	}
	now, wall := a.now(), a.host.Clock.Wall()
	m, born, heard := a.measured(now)
	advice := tune.Recommend(m)
	out := &api.Tuning{
		Node: a.cfg.Name, Since: wall.Add(-now.Elapsed(born)), ForMS: api.MS(m.For),
		Timing: api.FromTiming(m.Timing), Profile: api.Known(profileOf(m.Timing)),
		Verdict: string(advice.Verdict), Recommended: api.FromTiming(advice.Timing),
		Fits: api.Known(advice.Profile), Why: advice.Words,
	}
	for _, name := range slices.Sorted(maps.Keys(heard)) {
		g := heard[name]
		out.Heard = append(out.Heard, g.report(name, now, wall))
	}
	a.pulse.mu.Lock()
	out.Stalls, out.StallMS = a.pulse.stall.count, api.MS(a.pulse.stall.longest)
	a.pulse.mu.Unlock()
	return out, nil
}

// measured sums up since when this node measures, and the gaps by node.
func (a *Agent) measured(now clock.Instant) (m tune.Measured, born clock.Instant, heard map[string]gaps) {
	t := a.timing()
	heard = map[string]gaps{}
	for name, h := range a.ears.all() {
		if name != a.cfg.Name {
			heard[name] = h.gaps
		}
	}
	m = tune.Measured{Timing: t, Most: config.MaxDeadtime}
	for _, g := range heard {
		m.Beats += g.count()
	}
	a.pulse.mu.Lock()
	heard[a.cfg.Name] = a.pulse.sent
	born = a.pulse.born
	a.pulse.mu.Unlock()
	if born.IsZero() {
		born = now // nothing runs yet
	}
	m.For = now.Elapsed(born)
	for _, g := range heard {
		if g.max < t.Deadtime { // else it was measured under another timing
			m.Longest = max(m.Longest, g.max)
		}
		m.Outages += g.outages
		m.LongestOutage = max(m.LongestOutage, g.longestOutage)
	}
	return m, born, heard
}

// profileOf is the profile that t is; "" = none.
func profileOf(t spec.Timing) string {
	for name, p := range spec.Profiles {
		if p == t {
			return name
		}
	}
	return ""
}

func (g *gaps) report(node string, now clock.Instant, wall time.Time) api.BeatGaps {
	out := api.BeatGaps{Node: node, Beats: g.count(), Outages: g.outages}
	ms := func(d time.Duration) *float64 { v := api.MS(d); return &v }
	if !g.maxAt.IsZero() {
		at := wall.Add(-now.Elapsed(g.maxAt))
		out.LongestMS, out.LongestAt = ms(g.max), &at
	}
	if out.Beats > 0 {
		out.P99MS = ms(g.within(0.99))
	}
	if g.outages > 0 {
		out.OutageMS = ms(g.longestOutage)
	}
	return out
}

// tightProblem says that nothing broke, but that beats came so late within the
// last day that a little more would have been taken for a death.
func (a *Agent) tightProblem() []api.StatusProblem {
	now := a.host.Clock.Now()
	m, _, heard := a.measured(now)
	worst := ""
	for _, name := range slices.Sorted(maps.Keys(heard)) {
		g := heard[name]
		if g.tight > 0 && now.Elapsed(g.tightAt) < tightShown && (worst == "" || g.tight > heard[worst].tight) {
			worst = name
		}
	}
	if worst == "" {
		return nil
	}
	g := heard[worst]
	text := fmt.Sprintf("%s heard beats of %s %v apart; deadtime is %v, and should be 1.5 times the longest gap or more", a.cfg.Name, worst, g.tight.Round(time.Millisecond), m.Timing.Deadtime)
	if worst == a.cfg.Name {
		text = fmt.Sprintf("%s sent beats %v apart; deadtime is %v, and should be 1.5 times the longest gap or more", worst, g.tight.Round(time.Millisecond), m.Timing.Deadtime)
	}
	m.Longest, m.Beats = g.tight, max(m.Beats, 1)
	if fits := tune.Recommend(m).Profile; fits != "" {
		text += "; profile " + fits + " would do"
	}
	at := a.host.Clock.Wall().Add(-now.Elapsed(g.tightAt))
	return []api.StatusProblem{show("timing-tight", text, &at)}
}
