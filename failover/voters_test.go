package failover

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
)

// voterWorld makes inputs from lines such as "a* zone=r1", "b dead=40s", "w witness",
// "c lag", "d young", "e new": * votes.
func voterWorld(lines ...string) VoterInputs {
	st := fsm.New()
	st.Cluster, st.Timing = "web", spec.Profiles["fast"]
	in := VoterInputs{State: st, Health: map[string]Health{}, Silent: map[string]time.Duration{}, Current: map[string]bool{}}
	for _, l := range lines {
		words := strings.Fields(l)
		name, votes := strings.CutSuffix(words[0], "*")
		n := &fsm.Node{Name: name, Role: spec.RoleNode, Inc: 1, Disk: 1}
		h := Health{Alive: true, Leased: true, Healthy: time.Minute, Inc: 1}
		in.Current[name] = true
		for _, w := range words[1:] {
			key, v, _ := strings.Cut(w, "=")
			switch key {
			case "witness":
				n.Role = spec.RoleWitness
			case "zone":
				n.Zone = v
			case "leads":
				in.Leader = name
			case "lag":
				in.Current[name] = false
			case "young":
				h.Healthy = time.Second
			case "new":
				n.Inc = 0
			case "leaving":
				n.Leaving = true
			case "dead":
				d, err := time.ParseDuration(v)
				if err != nil {
					panic(err)
				}
				h, in.Silent[name] = Health{Dead: true}, d
			default:
				panic(w)
			}
		}
		st.Nodes[name], in.Health[name] = n, h
		if votes {
			st.Voters.Names = append(st.Voters.Names, name)
		}
	}
	st.Voters.Version = 1
	slices.Sort(st.Voters.Names)
	return in
}

func TestNextVoters(t *testing.T) {
	for name, tt := range map[string]struct {
		nodes []string
		want  string // "+x", "-x" or ""
	}{
		"one":                                  {[]string{"a*"}, ""},
		"two: the second has no vote":          {[]string{"a*", "b"}, ""},
		"two that both vote stay so":           {[]string{"a*", "b*"}, ""},
		"the third brings the second's vote":   {[]string{"a*", "b", "c"}, "+b"},
		"a witness first":                      {[]string{"a*", "b", "w witness"}, "+w"},
		"not while the third is not ready":     {[]string{"a*", "b", "c lag"}, ""},
		"then the third":                       {[]string{"a*", "b*", "c"}, "+c"},
		"three are enough for four":            {[]string{"a*", "b*", "c*", "d"}, ""},
		"five nodes, five votes":               {[]string{"a*", "b*", "c*", "d", "e"}, "+d"},
		"and on":                               {[]string{"a*", "b*", "c*", "d*", "e"}, "+e"},
		"four votes of four are one too many":  {[]string{"a* leads", "b*", "c*", "d*"}, "-d"},
		"but the leader keeps its":             {[]string{"a*", "b*", "c*", "d* leads"}, "-c"},
		"and a witness":                        {[]string{"a* leads", "b*", "c*", "w* witness"}, "-c"},
		"not while one is dead":                {[]string{"a* leads", "b*", "c*", "d* dead=1s"}, ""},
		"nor lags":                             {[]string{"a* leads", "b*", "c* lag", "d*"}, ""},
		"seven founders":                       {[]string{"a* leads", "b*", "c*", "d*", "e*", "f*", "g*"}, "-g"},
		"a dead one, a moment":                 {[]string{"a*", "b*", "c* dead=20s", "d"}, ""},
		"a dead one, long: first one more":     {[]string{"a*", "b*", "c* dead=31s", "d"}, "+d"},
		"then one less":                        {[]string{"a*", "b*", "c* dead=31s", "d*"}, "-c"},
		"a dead one that nobody can replace":   {[]string{"a*", "b*", "c* dead=31s"}, ""},
		"nor who lags":                         {[]string{"a*", "b*", "c* dead=31s", "d lag"}, ""},
		"nor who is young":                     {[]string{"a*", "b*", "c* dead=31s", "d young"}, ""},
		"nor who never came up":                {[]string{"a*", "b*", "c* dead=31s", "d new"}, ""},
		"two dead, one by one":                 {[]string{"a*", "b*", "c*", "d* dead=60s", "e* dead=60s", "f", "g"}, "+f"},
		"a fifth that is dead gets none":       {[]string{"a* leads", "b*", "c*", "d*", "e dead=60s"}, ""},
		"a zone without votes first":           {[]string{"a* zone=r1", "b zone=r1", "c zone=r2", "d zone=r1"}, "+c"},
		"zones are evened out":                 {[]string{"a* zone=r1 leads", "b* zone=r1", "c* zone=r2", "d zone=r3"}, "+d"},
		"and then one of the crowded goes":     {[]string{"a* zone=r1 leads", "b* zone=r1", "c* zone=r2", "d* zone=r3"}, "-b"},
		"not if nothing is won":                {[]string{"a* zone=r1 leads", "b* zone=r2", "c* zone=r3", "d zone=r1"}, ""},
		"first the end of a membership":        {[]string{"a*", "b*", "c* leaving", "d"}, ""},
		"who leaves gets no vote":              {[]string{"a*", "b*", "c* dead=60s", "d leaving"}, ""},
		"a second that leaves brings no third": {[]string{"a*", "b", "c leaving"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			in := voterWorld(tt.nodes...)
			next, why := NextVoters(in)
			got := ""
			have := in.State.Voters.Names
			for _, v := range next {
				if !slices.Contains(have, v) {
					got += "+" + v
				}
			}
			for _, v := range have {
				if next != nil && !slices.Contains(next, v) {
					got += "-" + v
				}
			}
			if got != tt.want || (got != "") != (why != "") {
				t.Errorf("%q (%s), want %q", got, why, tt.want)
			}
			for n, w := range WhyVoter(in) {
				if w == "" {
					t.Errorf("nothing is said of %s", n)
				}
			}
		})
	}
}

// Whatever nodes do, step by step: the list changes by one name, who is well keeps a
// majority that it had, and in the end, when all are well, nothing changes any more.
func TestVotersNeverLoseAMajority(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 9))
		var lines []string
		n := 1 + rng.IntN(9)
		for i := range n {
			l := string(rune('a' + i))
			if i == 0 || rng.IntN(2) == 0 {
				l += "*"
			}
			if rng.IntN(4) == 0 {
				l += " witness"
			}
			if rng.IntN(2) == 0 {
				l += fmt.Sprintf(" zone=r%d", rng.IntN(3))
			}
			lines = append(lines, l)
		}
		in := voterWorld(lines...)
		in.Leader = "a"
		steps := 0
		for turn := range 300 {
			calm := turn > 100
			for name := range in.Health {
				switch {
				case calm || name == "a" || rng.IntN(10) < 7:
					in.Health[name], in.Silent[name], in.Current[name] = Health{Alive: true, Leased: true, Healthy: time.Minute}, 0, true
				case rng.IntN(2) == 0:
					in.Health[name], in.Silent[name] = Health{Dead: true}, time.Duration(rng.IntN(60))*time.Second
				default:
					in.Current[name] = false
				}
			}
			have := in.State.Voters.Names
			next, why := NextVoters(in)
			if next == nil {
				if calm {
					break
				}
				continue
			}
			steps++
			if d := len(next) - len(have); d != 1 && d != -1 {
				t.Fatalf("seed %d: %v to %v", seed, have, next)
			}
			well := func(voters []string) (n int) {
				for _, v := range voters {
					if in.Health[v].Alive {
						n++
					}
				}
				return n
			}
			if 2*well(have) > len(have) && 2*well(next) <= len(next) {
				t.Fatalf("seed %d: %v had a majority that is well, %v has not: %s", seed, have, next, why)
			}
			in.State.Voters.Names = slices.Sorted(slices.Values(next))
			if turn == 299 {
				t.Fatalf("seed %d: it never ends: %v, %s", seed, in.State.Voters.Names, why)
			}
		}
		if got, want := len(in.State.Voters.Names), wantedVoters(n); got != want && n >= 3 {
			t.Fatalf("seed %d: %d of %d nodes vote: %v", seed, got, n, in.State.Voters.Names)
		}
	}
}
