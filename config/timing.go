package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"hanode/internal/spec"
)

// timingKeys are the keys of a timing block, the profile first.
var timingKeys = []string{"profile", "keepalive", "warntime", "deadtime", "initdead"}

// ExplicitTiming fills in what an operator who gives some of the four times
// leaves out: deadtime from base, keepalive = deadtime/10, warntime =
// deadtime/2, initdead = max(10 x deadtime, 5 s). A zero field of given is one
// that was not given. The result may still break [spec.Timing.Validate].
func ExplicitTiming(given, base spec.Timing) spec.Timing {
	t := given
	if t.Deadtime == 0 {
		t.Deadtime = base.Deadtime
	}
	if t.Keepalive == 0 {
		t.Keepalive = t.Deadtime / 10
	}
	if t.Warntime == 0 {
		t.Warntime = t.Deadtime / 2
	}
	if t.Initdead == 0 {
		t.Initdead = max(10*t.Deadtime, leastInitdead)
	}
	return t
}

// timing reads a timing block. profile is "" when explicit values replace it.
func (b *block) timing() (profile string, t spec.Timing) {
	b.check(shape{keys: timingKeys})
	p := b.str("profile")
	profile = p.or(DefaultProfile)
	base, ok := spec.Profiles[profile]
	if !ok {
		known := slices.Sorted(maps.Keys(spec.Profiles))
		b.add(p.line, finding{
			what: fmt.Sprintf("unknown timing profile %s", quote(profile)), allowed: "profiles are " + orNone(known),
			remedy: didYouMean(profile, known),
		})
		profile, base = DefaultProfile, spec.Profiles[DefaultProfile]
	}
	explicit := map[string]field[time.Duration]{}
	for _, key := range timingKeys[1:] {
		f := b.duration(key)
		if f.set() && f.v == 0 {
			f.bad = true
			b.add(f.line, finding{what: fmt.Sprintf("%s is 0", key), allowed: "it must be above 0"})
		}
		if f.line > 0 {
			explicit[key] = f
		}
	}
	if len(explicit) == 0 {
		return profile, base
	}
	given := spec.Timing{
		Keepalive: explicit["keepalive"].v, Warntime: explicit["warntime"].v,
		Deadtime: explicit["deadtime"].v, Initdead: explicit["initdead"].v,
	}
	t = ExplicitTiming(given, base) // a refused value counts as not given
	if !b.limits(explicit) && !explicit["deadtime"].bad {
		b.clashes(t, profile, explicit)
	}
	return "", t
}

// limits reports single values outside of what the cluster can do.
func (b *block) limits(explicit map[string]field[time.Duration]) bool {
	refused := false
	over := func(key string, most time.Duration, why string) {
		if f := explicit[key]; f.set() && f.v > most {
			refused = true
			b.add(f.line, finding{
				what: fmt.Sprintf("%s %v is too long", key, f.v), allowed: "the most is " + duration(most) + why,
			})
		}
	}
	over("deadtime", MaxDeadtime, ", the longest lease the kernel guard honours")
	over("keepalive", MaxDeadtime, "")
	over("warntime", MaxDeadtime, "")
	over("initdead", MaxInitdead, "")
	if f := explicit["keepalive"]; f.set() && f.v < MinKeepalive {
		refused = true
		b.add(f.line, finding{
			what: fmt.Sprintf("keepalive %v is too short", f.v), allowed: "the least is " + duration(MinKeepalive),
		})
	}
	return refused
}

// clashes reports every rule of spec that t breaks, at the line of the key
// that its message begins with, or of another one that was written.
func (b *block) clashes(t spec.Timing, profile string, explicit map[string]field[time.Duration]) {
	for _, msg := range t.Validate() {
		line := b.line
		for _, word := range strings.FieldsFunc(msg, func(c rune) bool { return c < 'a' || c > 'z' }) {
			if f, ok := explicit[word]; ok {
				line = f.line
				break
			}
		}
		bad := finding{what: msg}
		if !explicit["deadtime"].set() && strings.Contains(msg, "deadtime") {
			bad.remedy = fmt.Sprintf("deadtime comes from profile %q; set it, or change the other", profile)
		}
		b.add(line, bad)
	}
}

// duration renders d as the files take it: "5m" rather than "5m0s".
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
