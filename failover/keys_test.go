package failover_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"hanode/failover"
	"hanode/fsm"
)

func rotating(phase fsm.KeyPhase, without ...string) *fsm.State {
	s := fsm.New()
	s.Cluster = "web"
	for _, n := range []string{"a", "b", "c"} {
		s.Nodes[n] = &fsm.Node{Name: n, Inc: 1}
	}
	s.Nodes["gone"] = &fsm.Node{Name: "gone", Removed: true}
	if phase != "" {
		s.Rotation = &fsm.Rotation{Phase: phase, From: "old", To: "new", Without: without}
	}
	return s
}

func TestNextKeyPhase(t *testing.T) {
	has := func(keys ...string) failover.KeyReport { return failover.KeyReport{Have: keys} }
	all := func(r failover.KeyReport) map[string]failover.KeyReport {
		return map[string]failover.KeyReport{"a": r, "b": r, "c": r}
	}
	but := func(m map[string]failover.KeyReport, c failover.KeyReport) map[string]failover.KeyReport {
		m["c"] = c
		return m
	}
	two := map[string]failover.KeyReport{"a": has("old", "new"), "b": has("old", "new")}
	for name, tt := range map[string]struct {
		state   *fsm.State
		reports map[string]failover.KeyReport
		waited  time.Duration
		want    fsm.KeyPhase
		why     string
	}{
		"nothing to do":               {rotating(""), all(has("old")), time.Hour, "", ""},
		"all have it":                 {rotating(fsm.KeyAdd), all(has("old", "new")), 0, fsm.KeyUse, ""},
		"one has not":                 {rotating(fsm.KeyAdd), but(all(has("old", "new")), has("old")), failover.KeyPatience - 1, "", ""},
		"one never gets it":           {rotating(fsm.KeyAdd), but(all(has("old", "new")), has("old")), failover.KeyPatience, fsm.KeyUndo, "c has not got the new key"},
		"one cannot":                  {rotating(fsm.KeyAdd), but(all(has("old", "new")), failover.KeyReport{Have: []string{"old"}, Err: "read-only"}), 0, fsm.KeyUndo, "c: read-only"},
		"one is silent":               {rotating(fsm.KeyAdd), two, failover.KeyPatience - 1, "", ""},
		"one stays silent":            {rotating(fsm.KeyAdd), two, failover.KeyPatience, fsm.KeyUndo, "c does not answer"},
		"one was left behind":         {rotating(fsm.KeyAdd, "c"), two, 0, fsm.KeyUse, ""},
		"all use it":                  {rotating(fsm.KeyUse), all(has("new", "old")), 0, fsm.KeyDrop, ""},
		"one still uses the old":      {rotating(fsm.KeyUse), but(all(has("new", "old")), has("old", "new")), 0, "", ""},
		"one never changes":           {rotating(fsm.KeyUse), but(all(has("new", "old")), has("old", "new")), failover.KeyPatience, fsm.KeyUndo, "c does not use"},
		"all dropped it":              {rotating(fsm.KeyDrop), all(has("new")), 0, fsm.KeyDone, ""},
		"one cannot drop it":          {rotating(fsm.KeyDrop), but(all(has("new")), failover.KeyReport{Have: []string{"new", "old"}, Err: "read-only"}), failover.KeyPatience - 1, "", ""},
		"one never drops it":          {rotating(fsm.KeyDrop), but(all(has("new")), has("new", "old")), failover.KeyPatience, fsm.KeyDone, ""},
		"undone everywhere":           {rotating(fsm.KeyUndo), all(has("old", "new")), 0, fsm.KeyDone, ""},
		"undone, one still uses new":  {rotating(fsm.KeyUndo), but(all(has("old")), has("new", "old")), 0, "", ""},
		"undone, one is silent still": {rotating(fsm.KeyUndo), map[string]failover.KeyReport{"a": has("old"), "b": has("old")}, failover.KeyPatience, fsm.KeyDone, ""},
	} {
		next, why := failover.NextKeyPhase(failover.KeyInputs{State: tt.state, Reports: tt.reports, Waited: tt.waited})
		if next != tt.want || !strings.Contains(why, tt.why) || (why == "") != (tt.why == "") {
			t.Errorf("%s: %q %q", name, next, why)
		}
	}
}

func TestWantedKeys(t *testing.T) {
	retired := func(s *fsm.State, keys ...string) *fsm.State {
		for _, k := range keys {
			s.Retired = append(s.Retired, fsm.RetiredKey{Key: k})
		}
		return s
	}
	for name, tt := range map[string]struct {
		state *fsm.State
		have  string
		want  string // fetch, active, drop
	}{
		"nothing to do":             {rotating(""), "old", "- old -"},
		"by hand":                   {rotating(""), "old mine", "- old -"},
		"add":                       {rotating(fsm.KeyAdd), "old", "new old -"},
		"add, has it":               {rotating(fsm.KeyAdd), "old new", "- old -"},
		"add, used by hand":         {rotating(fsm.KeyAdd), "new old", "- old -"},
		"use":                       {rotating(fsm.KeyUse), "old new", "- new -"},
		"use, without it":           {rotating(fsm.KeyUse), "old", "new old -"},
		"drop":                      {rotating(fsm.KeyDrop), "new old", "- new old"},
		"drop, without it":          {rotating(fsm.KeyDrop), "old", "new old -"},
		"undo":                      {rotating(fsm.KeyUndo), "new old", "- old -"},
		"undo, without it":          {rotating(fsm.KeyUndo), "old", "- old -"},
		"done while away":           {retired(rotating(""), "old"), "old new", "- new old"},
		"undone while away":         {retired(rotating(""), "new"), "new old", "- old new"},
		"left behind":               {retired(rotating(""), "old"), "old", "- old -"},
		"the next one":              {retired(rotating(fsm.KeyAdd), "older"), "old older", "new old older"},
		"only what is retired":      {retired(rotating(""), "old", "older"), "old older", "- old -"},
		"the next, after being out": {retired(rotating(fsm.KeyAdd), "older"), "older old", "new old older"},
	} {
		k := failover.WantedKeys(tt.state, strings.Fields(tt.have))
		dash := func(s string) string {
			if s == "" {
				return "-"
			}
			return s
		}
		if got := dash(k.Fetch) + " " + k.Active + " " + dash(strings.Join(k.Drop, ",")); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestKeyHeard(t *testing.T) {
	for name, tt := range map[string]struct {
		was, now map[string]uint64
		want     string
	}{
		"nobody":        {map[string]uint64{"a": 5, "b": 5}, map[string]uint64{"a": 5, "b": 5}, ""},
		"by its own":    {map[string]uint64{"a": 5, "b": 5}, map[string]uint64{"a": 6, "b": 50}, ""},
		"by the other":  {map[string]uint64{"a": 5, "b": 5}, map[string]uint64{"a": 5, "b": 6}, "b"},
		"by two others": {nil, map[string]uint64{"a": 0, "b": 6, "c": 7}, "c"},
	} {
		if got := failover.KeyHeard("a", tt.was, tt.now); got != tt.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// Nodes take the steps at random times, see old states, and are away at times. Whatever
// happens: two nodes that are counted always accept what the other one uses, the rotation
// ends, and in the end all have one key, the same.
func TestRotationNeverParts(t *testing.T) {
	ends := map[string]int{}
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := rotating(fsm.KeyAdd)
		names := []string{"a", "b", "c"}
		have := map[string][]string{"a": {"old", "new"}, "b": {"old"}, "c": {"old"}}
		seen := map[string]*fsm.State{"a": s, "b": s, "c": s} // a node's own, older copy
		away := map[string]bool{}
		waited := time.Duration(0)
		cannot := ""
		if r.IntN(3) == 0 {
			cannot = names[1+r.IntN(2)]
		}
		for step := 0; ; step++ {
			if step > 10_000 {
				t.Fatalf("seed %d: does not end: %+v, %v", seed, s.Rotation, have)
			}
			n := names[r.IntN(3)]
			switch r.IntN(6) {
			case 0:
				away[n] = r.IntN(4) == 0
			case 1, 2:
				if !away[n] {
					seen[n] = s.Clone()
				}
				k := failover.WantedKeys(seen[n], have[n])
				if k.Fetch != "" && !away[n] && n != cannot {
					have[n] = append(have[n], k.Fetch)
				}
				have[n] = slices.DeleteFunc(have[n], func(x string) bool { return x == k.Active || slices.Contains(k.Drop, x) })
				have[n] = append([]string{k.Active}, have[n]...)
			default:
				reports := map[string]failover.KeyReport{}
				for _, n := range names {
					if !away[n] {
						reports[n] = failover.KeyReport{Have: have[n]}
					}
				}
				waited += time.Second
				next, why := failover.NextKeyPhase(failover.KeyInputs{State: s, Reports: reports, Waited: waited})
				if next == "" {
					break
				}
				s = fsm.Preview(s, fsm.Command{RotateKey: &fsm.RotateKey{From: "old", To: "new", Phase: next, Why: why}})
				waited = 0
			}
			for _, x := range names {
				for _, y := range names {
					if !away[x] && !away[y] && !slices.Contains(have[y], have[x][0]) && s.Rotation != nil {
						t.Fatalf("seed %d step %d: %s uses %s, %s has %v; %+v", seed, step, x, have[x][0], y, have[y], s.Rotation)
					}
				}
			}
			if s.Rotation != nil {
				continue
			}
			for _, n := range names { // whoever was away hears the others by one of its keys
				if k := failover.WantedKeys(s, have[n]); !slices.Contains(have[n], k.Active) || s.IsRetired(k.Active) {
					t.Fatalf("seed %d: %s ends with %v, retired %v", seed, n, have[n], s.Retired)
				}
			}
			ends[fmt.Sprint(s.Retired[0].Key, " ", cannot != "")]++
			break
		}
	}
	if ends["old false"] == 0 || ends["new true"] == 0 || ends["new false"] == 0 || ends["old true"] != 0 {
		t.Errorf("how they ended: %v", ends)
	}
}
