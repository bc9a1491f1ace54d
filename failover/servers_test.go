package failover

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hanode/fsm"
	"hanode/internal/spec"
)

// TestNextServers: step by step, from any servers and any health, it comes to an end at
// which all voters are servers, no more than wanted are, and as many as are fit; it never
// drops a voter.
func TestNextServers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := VoterInputs{State: fsm.New(), Health: map[string]Health{}, Silent: map[string]time.Duration{}, Current: map[string]bool{}, Servers: rapid.SampledFrom([]int{0, 1, 3, 4, 5, 7, 9}).Draw(t, "limit")}
		in.State.Version = rapid.IntRange(1, follows).Draw(t, "speaks")
		in.State.Timing = spec.Profiles["lan"]
		var servers []string
		n := rapid.IntRange(1, 14).Draw(t, "nodes")
		for i := range n {
			name := fmt.Sprintf("n%02d", i)
			in.State.Nodes[name] = &fsm.Node{Name: name, Inc: uint64(rapid.IntRange(0, 3).Draw(t, "inc"))}
			if rapid.IntRange(0, 3).Draw(t, "well") > 0 {
				in.Health[name] = Health{Alive: true, Leased: true, Healthy: time.Minute}
			} else {
				in.Silent[name] = time.Duration(rapid.IntRange(0, 60).Draw(t, "silent")) * time.Second
			}
			if rapid.Bool().Draw(t, "server") {
				servers = append(servers, name)
			}
			if i < 5 && rapid.Bool().Draw(t, "votes") {
				in.State.Voters.Names = append(in.State.Voters.Names, name)
			}
		}
		for step := 0; ; step++ {
			add, drop := NextServers(in, servers)
			if add == "" && drop == "" {
				break
			}
			if step > 4*n {
				t.Fatalf("it does not come to an end: add %q, drop %q of %v", add, drop, servers)
			}
			if add != "" && (slices.Contains(servers, add) || drop != "") || drop != "" && (!slices.Contains(servers, drop) || in.State.Voters.Has(drop)) {
				t.Fatalf("add %q, drop %q of %v, voters %v", add, drop, servers, in.State.Voters.Names)
			}
			if add != "" {
				servers = append(servers, add)
			} else {
				servers = without(servers, drop)
			}
		}
		limit := cmp.Or(in.Servers, MostServers)
		if in.State.Version < follows {
			limit = n
		}
		if len(servers) > max(limit, len(in.State.Voters.Names)) {
			t.Fatalf("%d servers, and at most %d are wanted", len(servers), limit)
		}
		for _, v := range in.State.Voters.Names {
			if !slices.Contains(servers, v) {
				t.Fatalf("%s votes and has no log", v)
			}
		}
		for name := range in.State.Nodes {
			fit := in.Health[name].Alive && in.State.Nodes[name].Inc > 0
			if !slices.Contains(servers, name) && len(servers) < limit && (fit || n <= limit) {
				t.Fatalf("%s is no server, and only %d of %d are", name, len(servers), limit)
			}
		}
	})
}
