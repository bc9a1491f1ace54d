package apitest

import (
	"context"
	"slices"
	"strings"
	"time"

	"hanode/api"
	"hanode/internal/spec"
	"hanode/internal/tune"
)

// Tune is what a node under lan tells of beats that come later from each further
// node; at the moment that it begins to measure, it has heard none.
func (a *agent) Tune(_ context.Context, reset bool) (*api.Tuning, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if reset {
		a.measuring = a.now()
	}
	lan := spec.Profiles["lan"]
	m := tune.Measured{Timing: lan, Most: time.Minute, For: a.now().Sub(a.measuring)}
	t := &api.Tuning{Node: a.self, Since: a.measuring, ForMS: api.MS(m.For), Timing: api.FromTiming(lan), Profile: new("lan")}
	for i, n := range a.nodes {
		g := api.BeatGaps{Node: n.Name}
		if beats := uint64(m.For / lan.Keepalive); beats > 0 {
			longest := 104500*time.Microsecond + time.Duration(i)*300*time.Millisecond
			g.Beats, g.LongestMS, g.LongestAt, g.P99MS = beats, new(api.MS(longest)), new(a.now().Add(-4*time.Minute)), new(125.0)
			m.Beats, m.Longest = m.Beats+beats, max(m.Longest, longest)
		}
		if !n.alive {
			g.Outages, g.OutageMS = 1, new(61000.0)
			m.Outages, m.LongestOutage = m.Outages+1, 61*time.Second
		}
		t.Heard = append(t.Heard, g)
	}
	slices.SortFunc(t.Heard, func(x, y api.BeatGaps) int { return strings.Compare(x.Node, y.Node) })
	if m.Beats > 0 {
		t.Stalls, t.StallMS = 3, 340
	}
	r := tune.Recommend(m)
	t.Verdict, t.Recommended, t.Fits, t.Why = string(r.Verdict), api.FromTiming(r.Timing), api.Known(r.Profile), r.Words
	return t, nil
}
