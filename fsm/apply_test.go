package fsm_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/spec"
)

// every command once, each on a running cluster that it changes.
func every() map[string]struct {
	before []fsm.Command
	do     fsm.Command
} {
	a1, b1 := ref("a", 1), ref("b", 1)
	six := 6.0
	ev := fsm.Event{Time: wall, Node: "a", Group: "web", Kind: "started", Text: "web runs on a", MS: &six}
	type step = struct {
		before []fsm.Command
		do     fsm.Command
	}
	return map[string]step{
		"register":        {nil, register("a", 1, "a-2", "host-a")},
		"register, clone": {nil, register("a", 1, "a-2", "host-z")},
		"takeover":        {nil, fence(a1, fsm.Assign{Group: "web", Epoch: 2, To: ref("c", 1)})},
		"fence":           {nil, fence(a1)},
		"switchover":      {nil, assign("web", 2, b1, claim("web", a1, 1))},
		"holding":         {[]fsm.Command{assign("web", 2, b1)}, fsm.Command{Holding: &fsm.Holding{Group: "web", Node: b1, Epoch: 2, Started: true, Events: []fsm.Event{ev}}}},
		"holding again":   {nil, fsm.Command{Holding: &fsm.Holding{Group: "web", Node: a1, Epoch: 1, Started: true, Events: []fsm.Event{ev}}}},
		"holdings": {[]fsm.Command{assign("web", 2, b1)}, holdings(
			fsm.Holding{Group: "web", Node: b1, Epoch: 2, Started: true, Events: []fsm.Event{ev}},
			fsm.Holding{Group: "db", Node: b1, Epoch: 1, Started: true, Events: []fsm.Event{ev}},
		)},
		"released":       {nil, released(claim("web", a1, 1))},
		"failed":         {nil, fsm.Command{Released: &fsm.Released{Claims: []id.Claim{claim("web", a1, 1)}, Failed: "apache2 does not start"}}},
		"failure":        {nil, failed("web", a1, 1, "apache2 does not start", 0)},
		"failure, late":  {[]fsm.Command{assign("web", 2, b1)}, failed("web", a1, 1, "apache2 does not start", 0)},
		"clear":          {[]fsm.Command{failed("web", a1, 1, "no", 0)}, fsm.Command{Clear: &fsm.Clear{Group: "web", Node: "a"}}},
		"clear all":      {[]fsm.Command{failed("web", a1, 1, "no", 0)}, fsm.Command{Clear: &fsm.Clear{}}},
		"groups, retry":  {nil, groups(spec.Group{Name: "web", RetryAfter: time.Minute, Resources: []spec.Resource{{Type: "exec", Name: "x", Restarts: 3, Within: time.Minute}}})},
		"groups, warm":   {nil, groups(spec.Group{Name: "web", Resources: []spec.Resource{{Type: "exec", Name: "x", Concurrent: true}}})},
		"groups, rules":  {nil, groups(spec.Group{Name: "web", With: "db", Apart: "x", After: "y", MaxPerNode: 2, Weight: 3, Resources: ips("", "10.0.0.100/24").Resources}, ips("db", "10.0.0.101/24"))},
		"groups, hooks":  {nil, groups(spec.Group{Name: "web", OnAcquire: []string{"a", "b"}, OnRelease: []string{"c"}, OnProblem: []string{"d"}, Resources: []spec.Resource{{Type: "ip", Name: "10.0.0.100/24", OnAcquire: []string{"e"}, StartTimeout: time.Second}}})},
		"groups, bcast":  {nil, groups(spec.Group{Name: "web", Resources: []spec.Resource{{Type: "ip", Name: "10.0.0.100/24", Network: true, Broadcast: "10.0.0.12"}}})},
		"groups":         {nil, groups(ips("web", "10.0.0.100/24", "10.0.0.101/24"), ips("new", "10.0.0.102"))},
		"groups, prefer": {nil, groups(spec.Group{Name: "web", Prefer: []string{"b"}, Resources: ips("", "10.0.0.100/24").Resources})},
		"standby":        {nil, fsm.Command{Standby: &fsm.Standby{Node: "a", On: true}}},
		"online":         {[]fsm.Command{{Standby: &fsm.Standby{Node: "a", On: true}}}, fsm.Command{Standby: &fsm.Standby{Node: "a"}}},
		"maintenance":    {nil, fsm.Command{Maintenance: &fsm.Maintenance{On: true}}},
		"pin":            {nil, fsm.Command{Pin: &fsm.Pin{Group: "web", On: true}}},
		"stopping":       {nil, fsm.Command{Stopping: &fsm.Stopping{Node: a1}}},
		"leaving":        {nil, fsm.Command{Leave: &fsm.Leave{Node: "a"}}},
		"left":           {nil, fsm.Command{Leave: &fsm.Leave{Node: "c", Done: true}}},
		"voters":         {nil, fsm.Command{SetVoters: &fsm.SetVoters{Version: 2, Names: []string{"a", "b", "w", "c"}}}},
		"disk":           {nil, fsm.Command{SetDisk: &fsm.SetDisk{Node: "a", From: 1}}},
		"power off":      {nil, fsm.Command{PowerOff: &fsm.PowerOff{Node: a1, By: "an operator"}}},
		"power off late": {[]fsm.Command{fence(a1, fsm.Assign{Group: "web", Epoch: 2, To: b1})}, fsm.Command{PowerOff: &fsm.PowerOff{Node: a1, By: "an operator"}}},
		"token":          {nil, token("t1")},
		"token, revoked": {[]fsm.Command{token("t1")}, fsm.Command{RevokeToken: &fsm.RevokeToken{ID: "t1"}}},
		"node joins":     {[]fsm.Command{token("t1")}, joins("d", "10.0.0.5", "t1", "r1")},
		"node again":     {[]fsm.Command{token("t1"), {Leave: &fsm.Leave{Node: "c", Done: true}}}, joins("c", "10.0.0.3", "t1", "r1")},
		"node, no disk":  {[]fsm.Command{token("t1")}, joins("c", "10.0.0.3", "t1", "r1")},
		"key, add":       {nil, rotate(fsm.KeyAdd)},
		"key, use":       {[]fsm.Command{token("t1"), rotate(fsm.KeyAdd)}, rotate(fsm.KeyUse)},
		"key, drop":      {[]fsm.Command{rotate(fsm.KeyAdd), rotate(fsm.KeyUse)}, rotate(fsm.KeyDrop)},
		"key, undo":      {[]fsm.Command{rotate(fsm.KeyAdd)}, rotate(fsm.KeyUndo)},
		"key, done":      {[]fsm.Command{rotate(fsm.KeyAdd), rotate(fsm.KeyUse), rotate(fsm.KeyDrop)}, rotate(fsm.KeyDone)},
		"key, undone":    {[]fsm.Command{rotate(fsm.KeyAdd), rotate(fsm.KeyUndo)}, rotate(fsm.KeyDone)},
		"generation":     {nil, fsm.Command{NewGeneration: &fsm.NewGeneration{Generation: 1, Node: "c", Disk: 2}}},
		"upgrade":        {nil, fsm.Command{Upgrade: &fsm.Upgrade{To: 2}}},
		"register, says": {nil, fsm.Command{Register: &fsm.Register{Node: "a", From: 1, Nonce: "a-2", HostID: "host-a", Speaks: 2}}},
		"report":         {nil, fsm.Command{Report: &fsm.Report{Events: []fsm.Event{ev, {Time: wall, Kind: "other"}}}}},
	}
}

// A command may be committed although its proposer saw an error, so it may come
// twice: that must be the same as once.
func TestTwiceIsOnce(t *testing.T) {
	for name, tt := range every() {
		t.Run(name, func(t *testing.T) {
			r := running(t)
			for _, c := range tt.before {
				r.must(c)
			}
			before := r.json()
			first := r.must(tt.do)
			once := r.json()
			if once == before {
				t.Fatal("the command changed nothing, so the test tests nothing")
			}
			second := r.must(tt.do)
			if diff := cmp.Diff(once, r.json()); diff != "" {
				t.Errorf("the second time changed the state: %s", diff)
			}
			if first.Inc != second.Inc {
				t.Errorf("incarnation %d, then %d", first.Inc, second.Inc)
			}
		})
	}
}

func TestFoundTwice(t *testing.T) {
	r := newReplica(t)
	r.must(found())
	once := r.json()
	r.must(found())
	if diff := cmp.Diff(once, r.json()); diff != "" {
		t.Error(diff)
	}
	other := found()
	other.Found.Digest = "d2"
	if res := r.propose(other); res.Rejected == "" || r.json() != once {
		t.Errorf("another founding was taken: %+v", res)
	}
}

func TestRejectedChangesNothing(t *testing.T) {
	a1 := ref("a", 1)
	for name, tt := range map[string]struct {
		do   fsm.Command
		want string
	}{
		"register a stranger":            {register("x", 0, "x-1", "h"), "not a member"},
		"register from an older one":     {register("a", 0, "late", "host-a"), "incarnation 1, not 0"},
		"register from a newer one":      {register("a", 2, "early", "host-a"), "incarnation 1, not 2"},
		"register without a nonce":       {register("a", 1, "", "host-a"), "nonce"},
		"fence an older one":             {fence(ref("a", 0)), "not a registration"},
		"fence a stranger":               {fence(ref("x", 1)), "not a registration"},
		"assign no group":                {assign("x", 1, a1), "does not exist"},
		"assign an epoch that passed":    {assign("web", 1, ref("b", 1)), "cannot be next"},
		"assign an epoch too far":        {assign("web", 3, ref("b", 1)), "cannot be next"},
		"assign to an older one":         {assign("web", 2, ref("b", 0)), "not registered"},
		"assign to a newer one":          {assign("web", 2, ref("b", 2)), "not registered"},
		"assign to a witness":            {assign("web", 2, ref("w", 1)), "may not own"},
		"assign to a stranger":           {assign("web", 2, ref("x", 1)), "not registered"},
		"hold an epoch that passed":      {holding("web", a1, 0), "does not own"},
		"hold what another owns":         {holding("web", ref("b", 1), 1), "does not own"},
		"hold no group":                  {holding("x", a1, 1), "does not own"},
		"hold some, none of them":        {holdings(fsm.Holding{Group: "x", Node: a1, Epoch: 1}, fsm.Holding{Group: "web", Node: a1}), "does not own x"},
		"standby of a witness":           {fsm.Command{Standby: &fsm.Standby{Node: "w", On: true}}, "witness"},
		"standby of a stranger":          {fsm.Command{Standby: &fsm.Standby{Node: "x", On: true}}, "not a member"},
		"pin no group":                   {fsm.Command{Pin: &fsm.Pin{Group: "x", On: true}}, "does not exist"},
		"clear no group":                 {fsm.Command{Clear: &fsm.Clear{Group: "x"}}, "does not exist"},
		"clear a stranger":               {fsm.Command{Clear: &fsm.Clear{Node: "x"}}, "not a member"},
		"stop an older one":              {fsm.Command{Stopping: &fsm.Stopping{Node: ref("a", 0)}}, "not a registration"},
		"leave while it votes":           {fsm.Command{Leave: &fsm.Leave{Node: "w", Done: true}}, "lease voter"},
		"voters: not the next version":   {fsm.Command{SetVoters: &fsm.SetVoters{Version: 3, Names: []string{"a", "b"}}}, "version 1"},
		"voters: an old version":         {fsm.Command{SetVoters: &fsm.SetVoters{Version: 1, Names: []string{"a", "b"}}}, "version 1"},
		"voters: two at a time":          {fsm.Command{SetVoters: &fsm.SetVoters{Version: 2, Names: []string{"a"}}}, "one at a time"},
		"voters: one for another":        {fsm.Command{SetVoters: &fsm.SetVoters{Version: 2, Names: []string{"a", "b", "c"}}}, "one at a time"},
		"voters: nobody":                 {fsm.Command{SetVoters: &fsm.SetVoters{Version: 2}}, "one at a time"},
		"disk: not the current":          {fsm.Command{SetDisk: &fsm.SetDisk{Node: "a", From: 3}}, "data directory 1"},
		"disk of a stranger":             {fsm.Command{SetDisk: &fsm.SetDisk{Node: "x", From: 1}}, "not a member"},
		"power off a stranger":           {fsm.Command{PowerOff: &fsm.PowerOff{Node: ref("x", 1)}}, "never registered"},
		"power off a newer one":          {fsm.Command{PowerOff: &fsm.PowerOff{Node: ref("a", 2)}}, "never registered"},
		"power off nothing":              {fsm.Command{PowerOff: &fsm.PowerOff{Node: ref("a", 0)}}, "never registered"},
		"fence and assign to the fenced": {fence(ref("c", 1), fsm.Assign{Group: "web", Epoch: 2, To: ref("c", 1)}), "not registered"},
	} {
		t.Run(name, func(t *testing.T) {
			r := running(t)
			before := r.json()
			res := r.propose(tt.do)
			if !strings.Contains(res.Rejected, tt.want) {
				t.Errorf("verdict %q, want something about %q", res.Rejected, tt.want)
			}
			if name == "fence and assign to the fenced" { // the fence stands
				if !r.Copy().Nodes["c"].Fenced {
					t.Error("the fence fell with its assignment")
				}
				r.wantOwner("web", a1, 1)
				return
			}
			if diff := cmp.Diff(before, r.json()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNothingBeforeFounding(t *testing.T) {
	for name, tt := range every() {
		r := newReplica(t)
		before := r.json()
		if res := r.propose(tt.do); !strings.Contains(res.Rejected, "not founded") || r.json() != before {
			t.Errorf("%s: %+v", name, res)
		}
	}
}

// One entry: the fence and every assignment, each with the old owner as its wait
// and the voters' list as of now.
func TestTakeoverIsOneEntry(t *testing.T) {
	r := running(t)
	r.must(assign("db", 2, ref("a", 1), claim("db", ref("b", 1), 1)))
	res := r.must(fence(ref("a", 1), fsm.Assign{Group: "web", Epoch: 2, To: ref("b", 1)}, fsm.Assign{Group: "db", Epoch: 3, To: ref("c", 1)}))
	if diff := cmp.Diff([]string{"db", "web"}, res.Touched); diff != "" {
		t.Error(diff)
	}
	r.wantOwner("web", ref("b", 1), 2, claim("web", ref("a", 1), 1))
	r.wantOwner("db", ref("c", 1), 3, claim("db", ref("a", 1), 2))
	g := r.group("web")
	if w := g.Waits[0]; w.Bound != bound || w.HostID != "host-a" || w.Live || !cmp.Equal(w.Addresses, []string{"10.0.0.100"}) {
		t.Errorf("wait %+v", w)
	}
	if g.Started || g.Cause != "failover" || g.Voters.Version != 1 {
		t.Errorf("%+v", g)
	}
	if rec := g.Record(); rec.Waits[0].Addresses != nil || g.Waits[0].Addresses == nil {
		t.Error("the record carries addresses, or took them from the state")
	}
}

func TestSwitchoverChain(t *testing.T) {
	r := running(t)
	r.must(assign("web", 2, ref("b", 1)))
	r.must(assign("web", 3, ref("c", 1)))
	r.wantOwner("web", ref("c", 1), 3, claim("web", ref("a", 1), 1), claim("web", ref("b", 1), 2))
	if w := r.group("web").Waits; !w[0].Live || !w[1].Live {
		t.Error("a wait for a live registration is not marked so")
	}
	r.must(released(claim("web", ref("b", 1), 2)))
	r.wantOwner("web", ref("c", 1), 3, claim("web", ref("a", 1), 1))
	r.must(assign("web", 4, ref("a", 1), claim("web", ref("c", 1), 3)))
	r.wantOwner("web", ref("a", 1), 4, claim("web", ref("a", 1), 1))
	r.must(holding("web", ref("a", 1), 4))
	r.wantOwner("web", ref("a", 1), 4)
}

// A fence that comes after the assignment makes EXPIRED count by the list as of
// the fence, and the record says so.
func TestLateFenceMovesTheVotersList(t *testing.T) {
	for name, over := range map[string]fsm.Command{
		"fence":                    fence(ref("a", 1)),
		"register on another host": register("a", 1, "a-2", "host-z"),
	} {
		t.Run(name, func(t *testing.T) {
			r := running(t)
			r.must(assign("web", 2, ref("b", 1)))
			r.must(fsm.Command{SetVoters: &fsm.SetVoters{Version: 2, Names: []string{"a", "b", "c", "w"}}})
			if g := r.group("web"); g.Voters.Version != 1 || !g.Waits[0].Live {
				t.Fatalf("before the fence: %+v", g)
			}
			res := r.must(over)
			g := r.group("web")
			if g.Voters.Version != 2 || g.Waits[0].Live || g.Epoch != 2 {
				t.Errorf("after the fence: %+v", g)
			}
			if !cmp.Equal(res.Touched, []string{"web"}) {
				t.Errorf("touched %v", res.Touched)
			}
			r.must(fsm.Command{SetVoters: &fsm.SetVoters{Version: 3, Names: []string{"a", "b", "c"}}})
			if g := r.group("web"); g.Voters.Version != 2 {
				t.Error("a later list took the place of the fence's")
			}
		})
	}
}

func TestRegister(t *testing.T) {
	t.Run("same host releases what it held", func(t *testing.T) {
		r := running(t)
		r.must(assign("db", 2, ref("c", 1)))
		r.must(assign("db", 3, ref("a", 1))) // a owns web and db, and waits for b and c
		r.must(assign("web", 2, ref("b", 1)))
		res := r.must(register("a", 1, "a-2", "host-a"))
		if res.Inc != 2 || !cmp.Equal(res.Touched, []string{"db", "web"}) {
			t.Errorf("%+v", res)
		}
		r.wantOwner("web", ref("b", 1), 2)
		r.wantOwner("db", ref("a", 1), 3, claim("db", ref("b", 1), 1), claim("db", ref("c", 1), 2))
		if !r.group("db").OwnerReleased {
			t.Error("its own group is not released")
		}
		r.must(assign("db", 4, ref("c", 1)))
		r.wantOwner("db", ref("c", 1), 4, claim("db", ref("b", 1), 1), claim("db", ref("c", 1), 2))
	})
	t.Run("another host only fences", func(t *testing.T) {
		r := running(t)
		r.must(assign("db", 2, ref("a", 1)))
		r.must(register("a", 1, "a-2", "host-z"))
		if r.group("web").OwnerReleased {
			t.Error("a clone released the original")
		}
		r.must(assign("web", 2, ref("a", 2)))
		r.wantOwner("web", ref("a", 2), 2, claim("web", ref("a", 1), 1))
		r.must(register("a", 2, "a-3", "host-a")) // the original comes back: what it held is over, what the clone holds is not
		r.wantOwner("web", ref("a", 2), 2)
		if r.group("web").OwnerReleased {
			t.Error("the original released the clone")
		}
	})
	t.Run("a late copy registers nobody", func(t *testing.T) {
		r := running(t)
		r.must(register("a", 1, "a-2", "host-a"))
		r.must(register("a", 2, "a-3", "host-a"))
		if res := r.propose(register("a", 1, "a-2", "host-a")); res.Rejected == "" || res.Inc != 3 {
			t.Errorf("%+v", res)
		}
	})
	t.Run("ends a fence and a stop", func(t *testing.T) {
		r := running(t)
		r.must(fsm.Command{Stopping: &fsm.Stopping{Node: ref("a", 1)}})
		r.must(fence(ref("a", 1)))
		if n := r.Copy().Nodes["a"]; n.Registered() {
			t.Error("a fenced node is registered")
		}
		r.must(register("a", 1, "a-2", "host-a"))
		if n := r.Copy().Nodes["a"]; !n.Registered() || n.Stopped || n.Ref() != ref("a", 2) {
			t.Errorf("%+v", n)
		}
	})
}

func TestHoldingAfterReleaseIsRefused(t *testing.T) {
	r := running(t)
	r.must(released(claim("web", ref("a", 1), 1)))
	if res := r.propose(holding("web", ref("a", 1), 1)); res.Rejected == "" || r.group("web").Started {
		t.Error("a late report says that a group runs which was let go of")
	}
}

// Of many reports in one entry each is judged by itself.
func TestHoldings(t *testing.T) {
	r := running(t)
	b1 := ref("b", 1)
	r.must(assign("web", 2, b1))
	res := r.must(holdings(
		fsm.Holding{Group: "x", Node: b1, Epoch: 1, Started: true},
		fsm.Holding{Group: "web", Node: b1, Epoch: 2, Started: true},
		fsm.Holding{Group: "db", Node: b1, Epoch: 7, Started: false},
	))
	if !r.group("web").Started || !r.group("db").Started || len(r.group("web").Waits) > 0 {
		t.Errorf("web %+v, db %+v", r.group("web"), r.group("db"))
	}
	if !slices.Equal(res.Touched, []string{"web"}) {
		t.Errorf("touched %q", res.Touched)
	}
}

func TestLeave(t *testing.T) {
	r := running(t)
	r.must(fsm.Command{SetVoters: &fsm.SetVoters{Version: 2, Names: []string{"b", "w"}}})
	r.must(fsm.Command{Leave: &fsm.Leave{Node: "a"}})
	if res := r.propose(assign("db", 2, ref("a", 1))); res.Rejected == "" {
		t.Error("a leaving node was given a group")
	}
	if res := r.propose(fsm.Command{Leave: &fsm.Leave{Node: "a", Done: true}}); !strings.Contains(res.Rejected, "still owns web") {
		t.Error(res)
	}
	r.must(assign("web", 2, ref("c", 1)))
	r.must(fsm.Command{Leave: &fsm.Leave{Node: "a", Done: true}})
	if got := r.Copy().NodeNames(); !cmp.Equal(got, []string{"b", "c", "w"}) {
		t.Error(got)
	}
	if res := r.propose(register("a", 1, "back", "host-a")); res.Rejected == "" {
		t.Error("a removed node registered")
	}
	if g := r.group("web"); g.Waits[0].Live {
		t.Error("a removed node counts as live")
	}
	r.must(fsm.Command{Leave: &fsm.Leave{Node: "b"}})
	if res := r.propose(fsm.Command{Leave: &fsm.Leave{Node: "c"}}); !strings.Contains(res.Rejected, "last node") {
		t.Error(res)
	}
}

// A request that is made twice has one number, whatever the leader knew when it was
// made; another request has another.
func TestDiskNumbers(t *testing.T) {
	r := running(t)
	ask := func(from uint64, request string) fsm.Result {
		return r.propose(fsm.Command{SetDisk: &fsm.SetDisk{Node: "a", From: from, Request: request}})
	}
	for i, c := range []struct {
		from     uint64
		request  string
		disk     uint64
		rejected bool
	}{
		{1, "second", 2, false},
		{1, "second", 2, false},
		{2, "second", 2, false}, // it was answered before this request was decided
		{1, "third", 0, true},   // the leader knew too little: it asks again
		{2, "third", 3, false},
		{3, "", 4, false}, // a version that names no request
		{3, "", 4, false},
	} {
		if res := ask(c.from, c.request); res.Disk != c.disk || (res.Rejected != "") != c.rejected {
			t.Errorf("request %d: %+v", i, res)
		}
	}
}

func TestVotersChangeByOne(t *testing.T) {
	r := running(t)
	r.must(fsm.Command{SetVoters: &fsm.SetVoters{Version: 2, Names: []string{"w", "c", "b", "a"}}})
	s := r.Copy()
	want := fsm.VoterList{Version: 2, Names: []string{"a", "b", "c", "w"}}
	if !cmp.Equal(s.Voters, want) || s.Previous.Version != 1 || s.Voters.Majority() != 3 || !s.Voters.Has("c") || s.Voters.Has("x") {
		t.Errorf("%+v before %+v", s.Voters, s.Previous)
	}
	if g := s.Groups["web"]; g.Voters.Version != 1 {
		t.Error("the list of an epoch changed without a fence")
	}
}

func TestMaxBound(t *testing.T) {
	r := running(t)
	if got := r.Copy().MaxBound(); got != bound {
		t.Errorf("%v", got)
	}
	long := register("a", 1, "a-2", "host-a")
	long.Register.Bound = time.Minute
	r.must(long)
	r.must(assign("web", 2, ref("a", 2)))
	r.must(register("a", 2, "a-3", "host-z")) // the new registration is short; the old one's owner still counts
	if got := r.Copy().MaxBound(); got != time.Minute {
		t.Errorf("with a long-bound owner: %v", got)
	}
	r.must(assign("web", 3, ref("c", 1)))
	if got := r.Copy().MaxBound(); got != time.Minute {
		t.Errorf("with a long-bound wait: %v", got)
	}
	r.must(holding("web", ref("c", 1), 3))
	if got := r.Copy().MaxBound(); got != bound {
		t.Errorf("afterwards: %v", got)
	}
}

func TestEventsAreBounded(t *testing.T) {
	r := running(t)
	for i := range 1200 {
		r.must(fsm.Command{Report: &fsm.Report{Events: []fsm.Event{{Time: wall.Add(time.Duration(i)), Kind: "test"}}}})
	}
	s := r.Copy()
	if len(s.Events) != 1000 || s.Events[999].Index != s.EventSeq || s.Events[0].Index != s.EventSeq-999 {
		t.Errorf("%d events, the last is %d of %d", len(s.Events), s.Events[len(s.Events)-1].Index, s.EventSeq)
	}
}
