package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hanode/api"
	"hanode/failover"
	"hanode/fsm"
	"hanode/internal/spec"
	"hanode/peer"
	"hanode/vip"
)

// word is a look at one group: "" = fit, "?" = not told, else what is missing.
func word(digest, missing string) peer.Fitness {
	j := peer.Judgement{Group: "web", Digest: digest}
	switch missing {
	case "":
	case "?":
		j.Findings = []peer.Finding{{Kind: peer.Unsure, Text: "busy"}}
	default:
		j.Findings = []peer.Finding{{Kind: peer.Lacks, Text: missing}}
	}
	return peer.Fitness{Groups: []peer.Judgement{j}}
}

// TestFitnessDoesNotFlap: what a node says of itself, look by look.
func TestFitnessDoesNotFlap(t *testing.T) {
	for _, c := range []struct {
		name  string
		looks []string // digest:missing
		want  []string // what it says after each
		tells []bool   // whether that is news
	}{
		{"fit", []string{"a:", "a:"}, []string{"", ""}, []bool{true, false}},
		{"unfit from the start", []string{"a:unit", "a:unit", "a:"}, []string{"unit", "unit", ""}, []bool{true, false, true}},
		{"missing for a moment", []string{"a:", "a:unit", "a:", "a:unit", "a:"}, []string{"", "", "", "", ""}, []bool{true, false, false, false, false}},
		{"missing for good", []string{"a:", "a:unit", "a:unit"}, []string{"", "", "unit"}, []bool{true, false, true}},
		{"not told", []string{"a:unit", "a:?", "a:?", "a:"}, []string{"unit", "unit", "unit", ""}, []bool{true, false, false, true}},
		{"never told", []string{"a:?", "a:unit", "a:unit"}, []string{"", "", "unit"}, []bool{true, false, true}},
		{"another form of it", []string{"a:", "b:unit", "b:"}, []string{"", "unit", ""}, []bool{true, true, true}},
		{"something else is missing", []string{"a:unit", "a:device"}, []string{"unit", "device"}, []bool{true, true}},
	} {
		var s self
		for i, l := range c.looks {
			digest, missing, _ := strings.Cut(l, ":")
			news := s.take(word(digest, missing))
			got := ""
			for _, f := range s.word.Groups[0].Findings {
				got += f.Text
			}
			if got != c.want[i] || news != c.tells[i] {
				t.Errorf("%s, look %d: says %q (news %v), want %q (%v)", c.name, i, got, news, c.want[i], c.tells[i])
			}
		}
	}
}

// TestApplyRefused: when no node can run it.
func TestApplyRefused(t *testing.T) {
	lacks := func(kind peer.Kind, text string) peer.Fitness {
		return peer.Fitness{Groups: []peer.Judgement{{Group: "web", Findings: []peer.Finding{{Kind: kind, Text: text}}}}}
	}
	fits := peer.Fitness{Groups: []peer.Judgement{{Group: "web"}}}
	web := spec.Group{Name: "web", Resources: []spec.Resource{{Type: "systemd", Name: "x"}}}
	had := fsm.New()
	had.Groups["web"] = &fsm.Group{Spec: web}
	for _, c := range []struct {
		name   string
		said   map[string]peer.Fitness
		silent []string
		before *fsm.State
		want   string
	}{
		{"all fit", map[string]peer.Fitness{"a": fits, "b": fits}, nil, fsm.New(), ""},
		{"one fits", map[string]peer.Fitness{"a": lacks(peer.Lacks, "no x"), "b": fits}, nil, fsm.New(), ""},
		{"none fits", map[string]peer.Fitness{"a": lacks(peer.Lacks, "no x"), "b": lacks(peer.Lacks, "no y")}, nil, fsm.New(), "no node can run web (a: no x; b: no y)"},
		{"one did not say", map[string]peer.Fitness{"a": lacks(peer.Lacks, "no x")}, []string{"b"}, fsm.New(), ""},
		{"wrong wherever it is", map[string]peer.Fitness{"a": lacks(peer.Nowhere, "no parameter z")}, []string{"b"}, fsm.New(), "a: no parameter z"},
		{"an old version of the agent", map[string]peer.Fitness{"a": lacks(peer.Nowhere, "no parameter z"), "b": fits}, nil, fsm.New(), ""},
		{"a note is no lack", map[string]peer.Fitness{"a": lacks(peer.Note, "enabled at boot")}, nil, fsm.New(), ""},
		{"nobody could tell", map[string]peer.Fitness{"a": lacks(peer.Unsure, "busy")}, nil, fsm.New(), ""},
		{"nobody was asked", nil, nil, fsm.New(), ""},
		{"it was there before", map[string]peer.Fitness{"a": lacks(peer.Lacks, "no x")}, nil, had, ""},
	} {
		err := asked{said: c.said, silent: c.silent}.refuse([]spec.Group{web}, c.before)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// deviceLess makes hosts without the device of their addresses while on is set.
func deviceLess(h *host, on *atomic.Bool) {
	h.fits = func(vip.Address) error {
		if on.Load() {
			return errors.New("this host has no device eth1")
		}
		return nil
	}
}

// TestUnfitNodeIsNotChosen: a node that lacks what a group takes does not get it, says
// so, keeps what it has, and is a choice again once it has it.
func TestUnfitNodeIsNotChosen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, spec.Profiles["lan"], "primary", "secondary", "third")
		defer l.close()
		var second, first atomic.Bool
		second.Store(true)
		deviceLess(l.hosts["secondary"], &second)
		deviceLess(l.hosts["primary"], &first)
		l.startAll()
		l.until("primary holds web", 30*time.Second, l.held("primary"))
		can := func(node string, want bool) func() bool {
			return func() bool {
				leader := l.leader()
				if leader == "" {
					return false
				}
				e, err := failover.Explain(l.on(leader).inputs(), "web")
				return err == nil && slices.ContainsFunc(e.Candidates, func(c failover.Candidate) bool {
					return c.Node == node && c.Eligible == want && (want || strings.Contains(c.Because, "no device eth1"))
				})
			}
		}
		l.until("secondary is no candidate", 20*time.Second, can("secondary", false))
		st, err := l.on("third").Status(context.Background(), "")
		if err != nil || !slices.ContainsFunc(st.Problems, func(p api.StatusProblem) bool {
			return p.Code == "node-unfit" && strings.Contains(p.Text, "secondary cannot run web") && strings.Contains(p.Text, "no device eth1")
		}) {
			t.Errorf("status says nothing of it: %v %v", st, err)
		}
		// Its owner is left alone, whatever it has lost meanwhile.
		first.Store(true)
		l.until("primary is no candidate", 30*time.Second, can("primary", false))
		time.Sleep(5 * time.Second)
		if !l.held("primary")() {
			t.Error("a healthy owner lost its group")
		}
		// A new leader knows at once: the third node takes it, not the second.
		l.hosts["primary"].kill()
		l.until("third holds web", 30*time.Second, l.held("third"))
		second.Store(false)
		l.until("secondary is a candidate", 30*time.Second, can("secondary", true))
	})
}

// TestPlanAsks: plan and apply ask the nodes before anything is committed.
func TestPlanAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, spec.Profiles["lan"], "primary", "secondary", "third")
		defer l.close()
		var all, one atomic.Bool
		for _, n := range []string{"secondary", "third"} {
			deviceLess(l.hosts[n], &all)
		}
		deviceLess(l.hosts["primary"], &one)
		l.startAll()
		l.until("primary holds web", 30*time.Second, l.held("primary"))
		groups := []spec.Group{groupOf("web", vipA, "primary"), groupOf("db", "10.77.0.101", "primary")}
		one.Store(true)
		ctx := context.Background()
		plan, err := l.on("third").Plan(ctx, groups)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(plan.Changes, func(c api.Change) bool { return c.Group == "db" })
		if i < 0 || !strings.Contains(plan.Changes[i].Text, "not on primary: it lacks something: ip \"10.77.0.101\": this host has no device eth1") || strings.Contains(plan.Changes[i].Text, "starts on primary") {
			t.Errorf("%+v", plan.Changes)
		}
		all.Store(true)
		_, err = l.on("third").Apply(ctx, api.ApplyRequest{Groups: groups})
		if err == nil || !strings.Contains(err.Error(), "no node can run db") {
			t.Errorf("applied: %v", err)
		}
		l.view(func(s *fsm.State) {
			if s.Groups["db"] != nil {
				t.Error("it was committed all the same")
			}
		})
		all.Store(false)
		if _, err := l.on("third").Apply(ctx, api.ApplyRequest{Groups: groups, Wait: 20 * time.Second}); err != nil {
			t.Error(err)
		}
		if slices.Contains(l.answers("10.77.0.101"), "primary") {
			t.Error("db is on the one node that cannot run it")
		}
	})
}

// TestPlannedIsNotApplied: what was judged for a plan says nothing about another form
// that is applied at the same revision.
func TestPlannedIsNotApplied(t *testing.T) {
	var f fitness
	f.init()
	group := func(unit string) *fsm.State {
		s := fsm.New()
		s.Nodes["a"] = &fsm.Node{Name: "a", Role: spec.RoleNode}
		s.Groups["web"] = &fsm.Group{Revision: 7, Spec: spec.Group{Name: "web", Resources: []spec.Resource{{Type: "systemd", Name: unit}}}}
		return s
	}
	planned, applied := group("absent"), group("present")
	f.note("a", word(formOf(planned.Groups["web"].Spec), "no such unit"), map[string]bool{})
	if f.lacks(planned, false) == nil {
		t.Error("the plan's lack is not known")
	}
	if l := f.lacks(applied, false); l != nil {
		t.Errorf("what was applied lacks %v", l)
	}
}

// TestForeignKeepsAGroupAway: until it is permitted, for that registration.
func TestForeignKeepsAGroupAway(t *testing.T) {
	var f fitness
	f.init()
	s := fsm.New()
	s.Nodes["a"] = &fsm.Node{Name: "a", Role: spec.RoleNode, Inc: 3}
	g := &fsm.Group{Spec: spec.Group{Name: "web"}}
	s.Groups["web"] = g
	f.note("a", peer.Fitness{Groups: []peer.Judgement{{Group: "web", Digest: formOf(g.Spec), Findings: []peer.Finding{
		{Kind: peer.Foreign, Text: "x"}, {Kind: peer.Foreign, Text: "y"}, {Kind: peer.Lacks, Text: "z"},
	}}}}, map[string]bool{})
	if got := f.lacks(s, false)["a"]["web"]; got != "it lacks something: z; the cluster did not start what is there: x, y" {
		t.Error(got)
	}
	for what, l := range map[string]map[string]map[string]string{
		"as if permitted": f.lacks(s, true),
		"permitted":       func() map[string]map[string]string { g.Adopt.Node = s.Nodes["a"].Ref(); return f.lacks(s, false) }(),
	} {
		if got := l["a"]["web"]; got != "it lacks something: z" {
			t.Errorf("%s: %s", what, got)
		}
	}
	g.Adopt.Node.Inc = 2
	if got := f.lacks(s, false)["a"]["web"]; !strings.Contains(got, "x, y") {
		t.Errorf("an older registration was: %s", got)
	}
}

// TestAdoptionGoesWhereTheGroupIsToBe: elsewhere it is stopped.
func TestAdoptionGoesWhereTheGroupIsToBe(t *testing.T) {
	s := fsm.New()
	for _, n := range []string{"a", "b"} {
		s.Nodes[n] = &fsm.Node{Name: n, Role: spec.RoleNode, Inc: 1}
	}
	found := []strange{{"a", "web", []string{`ip "10.0.0.1/24" (on eth1)`}}, {"b", "web", []string{"x"}}, {"a", "db", []string{"y"}}}
	got := adoptionOf(found, map[string]string{"web": "a"}, s)
	if len(got.takes) != 1 || got.takes[0] != (fsm.Adopt{Group: "web", Node: s.Nodes["a"].Ref()}) {
		t.Errorf("takes %+v", got.takes)
	}
	if !slices.Equal(got.stops["b"], []string{"web"}) || !slices.Equal(got.stops["a"], []string{"db"}) {
		t.Errorf("stops %v", got.stops)
	}
	ip := func(name string) spec.Resource { return spec.Resource{Type: "ip", Name: name} }
	if !got.takesAddress("web", ip("10.0.0.1/24")) || got.takesAddress("web", ip("10.0.0.2/24")) || got.takesAddress("db", ip("10.0.0.1/24")) {
		t.Error("which addresses are taken")
	}
	s.Nodes["a"].Fenced = true
	if got := adoptionOf(found[:1], map[string]string{"web": "a"}, s); len(got.takes) != 0 || len(got.stops) != 1 {
		t.Errorf("a registration that is over: %+v", got)
	}
}
