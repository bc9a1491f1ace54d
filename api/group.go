package api

import (
	"encoding/json"
	"fmt"
	"time"

	"hanode/internal/spec"
)

// Group is spec.Group as JSON: the same facts, durations in milliseconds, no
// key left out.
type Group struct {
	Name      string       `json:"name"`
	Prefer    List[string] `json:"prefer"`
	Failback  Failback     `json:"failback"`
	Exclusive bool         `json:"exclusive"`
	// RetryAfterMS is 0 for the default, as is WithinMS of a resource.
	RetryAfterMS float64 `json:"retry_after_ms"`
	// With, Apart and After name another group; "" = none. 0 = any, and 1.
	With       string         `json:"with"`
	Apart      string         `json:"apart"`
	After      string         `json:"after"`
	MaxPerNode int            `json:"max_per_node"`
	Weight     int            `json:"weight"`
	OnAcquire  List[string]   `json:"on_acquire"`
	OnRelease  List[string]   `json:"on_release"`
	OnProblem  List[string]   `json:"on_problem"`
	Resources  List[Resource] `json:"resources"`
	Checks     List[Check]    `json:"checks"`
}

// Check is spec.Check as JSON; 0 is the default.
type Check struct {
	Type       string       `json:"type"`
	Target     string       `json:"target"`
	Command    List[string] `json:"command"`
	After      int          `json:"after"`
	IntervalMS float64      `json:"interval_ms"`
	TimeoutMS  float64      `json:"timeout_ms"`
	GraceMS    float64      `json:"grace_ms"`
	Rise       int          `json:"rise"`
	Fall       int          `json:"fall"`
}

// Failback is spec.Failback as JSON.
type Failback struct {
	On      bool    `json:"on"`
	AfterMS float64 `json:"after_ms"`
}

// Resource is spec.Resource as JSON.
type Resource struct {
	Type             string       `json:"type"`
	Name             string       `json:"name"`
	Dev              string       `json:"dev"`
	OnAcquire        List[string] `json:"on_acquire"`
	Start            List[string] `json:"start"`
	Stop             List[string] `json:"stop"`
	Monitor          List[string] `json:"monitor"`
	EveryMS          float64      `json:"every_ms"`
	TimeoutMS        float64      `json:"timeout_ms"`
	StartTimeoutMS   float64      `json:"start_timeout_ms"`
	StopTimeoutMS    float64      `json:"stop_timeout_ms"`
	MonitorTimeoutMS float64      `json:"monitor_timeout_ms"`
	Restarts         int          `json:"restarts"`
	WithinMS         float64      `json:"within_ms"`
	Concurrent       bool         `json:"concurrent"`

	Agent  string `json:"agent"`
	Params Params `json:"params"`

	Network   bool        `json:"network"`
	Broadcast string      `json:"broadcast"`
	Source    bool        `json:"source"`
	Label     string      `json:"label"`
	Routes    List[Route] `json:"routes"`
	Rules     List[Rule]  `json:"rules"`
}

// Route is spec.Route as JSON.
type Route struct {
	To     string `json:"to"`
	Via    string `json:"via"`
	Table  int    `json:"table"`
	Metric int    `json:"metric"`
}

// Rule is spec.Rule as JSON.
type Rule struct {
	To       string `json:"to"`
	Table    int    `json:"table"`
	Priority int    `json:"priority"`
}

// Params are an agent's parameters; none is {} in JSON, not null.
type Params map[string]string

// MarshalJSON implements that.
func (p Params) MarshalJSON() ([]byte, error) {
	if p == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(map[string]string(p))
}

// FromSpecs returns groups in their JSON form.
func FromSpecs(groups []spec.Group) []Group {
	out := make([]Group, 0, len(groups))
	for _, g := range groups {
		w := Group{
			Name: g.Name, Prefer: g.Prefer, Exclusive: g.Exclusive,
			Failback: Failback{On: g.Failback.On, AfterMS: MS(g.Failback.After)}, RetryAfterMS: MS(g.RetryAfter),
			With: g.With, Apart: g.Apart, After: g.After, MaxPerNode: g.MaxPerNode, Weight: g.Weight,
			OnAcquire: g.OnAcquire, OnRelease: g.OnRelease, OnProblem: g.OnProblem,
		}
		for _, r := range g.Resources {
			var routes []Route
			for _, x := range r.Routes {
				routes = append(routes, Route(x))
			}
			var rules []Rule
			for _, x := range r.Rules {
				rules = append(rules, Rule(x))
			}
			w.Resources = append(w.Resources, Resource{
				Type: r.Type, Name: r.Name, Dev: r.Dev, OnAcquire: r.OnAcquire,
				Network: r.Network, Broadcast: r.Broadcast, Source: r.Source, Label: r.Label, Routes: routes, Rules: rules,
				Start: r.Start, Stop: r.Stop, Monitor: r.Monitor,
				EveryMS: MS(r.Every), TimeoutMS: MS(r.Timeout), Restarts: r.Restarts, WithinMS: MS(r.Within), Concurrent: r.Concurrent,
				StartTimeoutMS: MS(r.StartTimeout), StopTimeoutMS: MS(r.StopTimeout), MonitorTimeoutMS: MS(r.MonitorTimeout),
				Agent: r.Agent, Params: r.Params,
			})
		}
		for _, c := range g.Checks {
			w.Checks = append(w.Checks, Check{
				Type: c.Type, Target: c.Target, Command: c.Command, After: c.After, Rise: c.Rise, Fall: c.Fall,
				IntervalMS: MS(c.Interval), TimeoutMS: MS(c.Timeout), GraceMS: MS(c.Grace),
			})
		}
		out = append(out, w)
	}
	return out
}

// Specs is the inverse of FromSpecs; empty lists become nil. It checks the form
// (names are printable and not too long, numbers are in range), not the sense.
func Specs(groups []Group) ([]spec.Group, error) {
	out := make([]spec.Group, 0, len(groups))
	for _, w := range groups {
		g, err := w.spec()
		if err != nil {
			return nil, fmt.Errorf("group %q: %w", w.Name, err)
		}
		out = append(out, g)
	}
	return out, nil
}

func (w Group) spec() (spec.Group, error) {
	g := spec.Group{
		Name: w.Name, Prefer: some(w.Prefer), Exclusive: w.Exclusive,
		With: w.With, Apart: w.Apart, After: w.After, MaxPerNode: w.MaxPerNode, Weight: w.Weight,
		OnAcquire: some(w.OnAcquire), OnRelease: some(w.OnRelease), OnProblem: some(w.OnProblem),
	}
	if err := checkName("name", w.Name); err != nil {
		return g, err
	}
	for _, n := range w.Prefer {
		if err := checkName("prefer", n); err != nil {
			return g, err
		}
	}
	for key, name := range map[string]string{"with": w.With, "apart": w.Apart, "after": w.After} {
		if name != "" {
			if err := checkName(key, name); err != nil {
				return g, err
			}
		}
	}
	if w.MaxPerNode < 0 || w.Weight < 0 {
		return g, fmt.Errorf("max_per_node is %d and weight %d; they must be 0 or more", w.MaxPerNode, w.Weight)
	}
	after, err := duration("failback.after_ms", w.Failback.AfterMS)
	if err != nil {
		return g, err
	}
	g.Failback = spec.Failback{On: w.Failback.On, After: after}
	if g.RetryAfter, err = duration("retry_after_ms", w.RetryAfterMS); err != nil {
		return g, err
	}
	for _, r := range w.Resources {
		res, err := r.spec()
		if err != nil {
			return g, fmt.Errorf("resource %s %q: %w", r.Type, r.Name, err)
		}
		g.Resources = append(g.Resources, res)
	}
	for _, c := range w.Checks {
		k, err := c.spec()
		if err != nil {
			return g, fmt.Errorf("check %s %q: %w", c.Type, c.Target, err)
		}
		g.Checks = append(g.Checks, k)
	}
	return g, nil
}

func (w Check) spec() (spec.Check, error) {
	c := spec.Check{Type: w.Type, Target: w.Target, Command: some(w.Command), After: w.After, Rise: w.Rise, Fall: w.Fall}
	if err := checkName("type", w.Type); err != nil {
		return c, err
	}
	for _, f := range []struct {
		to   *time.Duration
		name string
		ms   float64
	}{{&c.Interval, "interval_ms", w.IntervalMS}, {&c.Timeout, "timeout_ms", w.TimeoutMS}, {&c.Grace, "grace_ms", w.GraceMS}} {
		var err error
		if *f.to, err = duration(f.name, f.ms); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (w Resource) spec() (spec.Resource, error) {
	r := spec.Resource{
		Type: w.Type, Name: w.Name, Dev: w.Dev, OnAcquire: some(w.OnAcquire), Concurrent: w.Concurrent, Restarts: w.Restarts,
		Start: some(w.Start), Stop: some(w.Stop), Monitor: some(w.Monitor), Agent: w.Agent,
	}
	if len(w.Params) > 0 {
		r.Params = w.Params
	}
	r.Network, r.Broadcast, r.Source, r.Label = w.Network, w.Broadcast, w.Source, w.Label
	for _, x := range w.Routes {
		r.Routes = append(r.Routes, spec.Route(x))
	}
	for _, x := range w.Rules {
		r.Rules = append(r.Rules, spec.Rule(x))
	}
	if err := checkName("type", w.Type); err != nil {
		return r, err
	}
	if w.Restarts < 0 {
		return r, fmt.Errorf("restarts is %d; it must be 0 or more", w.Restarts)
	}
	for _, f := range []struct {
		to   *time.Duration
		name string
		ms   float64
	}{
		{&r.Every, "every_ms", w.EveryMS},
		{&r.Within, "within_ms", w.WithinMS},
		{&r.Timeout, "timeout_ms", w.TimeoutMS},
		{&r.StartTimeout, "start_timeout_ms", w.StartTimeoutMS},
		{&r.StopTimeout, "stop_timeout_ms", w.StopTimeoutMS},
		{&r.MonitorTimeout, "monitor_timeout_ms", w.MonitorTimeoutMS},
	} {
		var err error
		if *f.to, err = duration(f.name, f.ms); err != nil {
			return r, err
		}
	}
	return r, nil
}

// some is l, or nil if it is empty.
func some(l List[string]) []string {
	if len(l) == 0 {
		return nil
	}
	return l
}

// maxName is the longest name of a group or node, in bytes.
const maxName = 128

// checkName refuses what can be no name of a group or node at all; which names
// exist is the Backend's business.
func checkName(field, name string) error {
	if name == "" {
		return fmt.Errorf("%s is missing", field)
	}
	if len(name) > maxName {
		return fmt.Errorf("%s has %d bytes; the most is %d", field, len(name), maxName)
	}
	for _, r := range name {
		if r <= ' ' || r == 0x7f || r == 0xfffd {
			return fmt.Errorf("%s %q has a blank, a control character or bad UTF-8 in it", field, name)
		}
	}
	return nil
}
