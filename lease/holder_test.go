package lease_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/internal/spec"
	"hanode/lease"
)

const length = 200 * time.Millisecond

// ms is the instant at which both clocks show n milliseconds.
func ms(n int) clock.Instant { return clocks(n, n) }

func clocks(boot, raw int) clock.Instant {
	return clock.Instant{Boot: time.Duration(boot) * time.Millisecond, Raw: time.Duration(raw) * time.Millisecond}
}

func ref(name string, inc uint64) id.NodeRef { return id.NodeRef{Name: name, Inc: inc} }

func claim(group string, node id.NodeRef, epoch id.Epoch) id.Claim {
	return id.Claim{Group: group, Node: node, Epoch: epoch}
}

// holder of n1/1 that counts by voters, with beats sent at 10, 20, ... ms.
func newHolder(beats int, voters ...string) *lease.Holder {
	h := lease.NewHolder(ref("n1", 1), length, ms(0))
	h.SetVoters(1, voters)
	for i := range beats {
		h.Beat(ms(10 * (i + 1)))
	}
	return h
}

func TestEndIsMthLargestSendTime(t *testing.T) {
	for _, tt := range []struct {
		name   string
		voters []string
		acks   map[string]uint64 // voter -> newest beat it acked
		want   int               // send time that counts; 0 = no lease
	}{
		{"one voter", []string{"a"}, map[string]uint64{"a": 3}, 30},
		{"two voters need both", []string{"a", "b"}, map[string]uint64{"a": 5, "b": 2}, 20},
		{"two voters, one silent", []string{"a", "b"}, map[string]uint64{"a": 5}, 0},
		{"three voters, the second newest", []string{"a", "b", "c"}, map[string]uint64{"a": 5, "b": 1, "c": 4}, 40},
		{"three voters, one silent", []string{"a", "b", "c"}, map[string]uint64{"a": 5, "c": 3}, 30},
		{"four voters need three", []string{"a", "b", "c", "d"}, map[string]uint64{"a": 5, "b": 4, "c": 3, "d": 1}, 30},
		{"five voters, the third newest", []string{"a", "b", "c", "d", "e"}, map[string]uint64{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, 30},
		{"acks of strangers do not count", []string{"a", "b", "c"}, map[string]uint64{"x": 5, "y": 5, "a": 2}, 0},
		{"no voters, no lease", nil, map[string]uint64{"a": 5}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHolder(5, tt.voters...)
			for v, seq := range tt.acks {
				h.Acked(v, seq)
			}
			want := clock.Instant{}
			if tt.want > 0 {
				want = ms(tt.want).Add(length)
			}
			if got := h.End(); got != want {
				t.Errorf("E = %v, want %v", got, want)
			}
		})
	}
}

func TestAcksThatExtendNothing(t *testing.T) {
	h := newHolder(5, "a")
	if !h.Acked("a", 4) {
		t.Fatal("a fresh ack did not extend")
	}
	end := h.End()
	for _, seq := range []uint64{4, 3, 0, 6, 1 << 63} {
		if h.Acked("a", seq) || h.End() != end {
			t.Errorf("ack of beat %d extended the lease", seq)
		}
	}
	for range 2000 { // a beat so old that its send time is forgotten
		h.Beat(ms(1000))
	}
	if h.Acked("a", 5) || h.End() != end {
		t.Error("an ack of a forgotten beat extended the lease")
	}
}

func TestBeatsAreNumberedFromOne(t *testing.T) {
	h := newHolder(0, "a")
	for want := uint64(1); want < 4; want++ {
		if seq, version := h.Beat(ms(1)); seq != want || version != 1 {
			t.Fatalf("beat %d has number %d, version %d", want, seq, version)
		}
	}
}

func TestVotersListOnlyMovesForward(t *testing.T) {
	h := newHolder(0, "a")
	names := []string{"a", "b"}
	h.SetVoters(3, names)
	names[1] = "spoilt by the caller"
	h.SetVoters(2, []string{"x"})
	h.SetVoters(3, []string{"y"})
	if v, got := h.Voters(); v != 3 || !cmp.Equal(got, []string{"a", "b"}) {
		t.Errorf("list is %d %v", v, got)
	}
}

// The faster clock ends a lease; a wait for one runs by the slower.
func TestLeaseRunsByBothClocks(t *testing.T) {
	h := newHolder(1, "a") // sent at 10
	h.Acked("a", 1)        // until 210
	for _, tt := range []struct {
		now  clock.Instant
		want bool
	}{
		{clocks(209, 209), true},
		{clocks(210, 100), false},
		{clocks(100, 210), false},
		{clocks(210, 210), false},
	} {
		if got := h.Leased(tt.now); got != tt.want {
			t.Errorf("at %v leased = %v", tt.now, got)
		}
	}
	if got := h.Unleased(clocks(310, 250)); got != 40*time.Millisecond {
		t.Errorf("without a lease for %v by the slower clock, want 40ms", got)
	}
	if got := newHolder(1, "a").Unleased(ms(70)); got != 70*time.Millisecond {
		t.Errorf("never leased: without one for %v since the registration, want 70ms", got)
	}
}

func leased(h *lease.Holder) *lease.Holder {
	h.Acked("a", 1)
	return h
}

func TestMay(t *testing.T) {
	me, other := ref("n1", 1), ref("n2", 4)
	wait := lease.Wait{Claim: claim("web", other, 6), Bound: time.Second}
	live := wait
	live.Live = true
	right := lease.Right{Group: "web", Epoch: 7, Owner: me, Voters: []string{"a", "b", "c"}}
	waiting, fenceless, exclusive := right, right, right
	waiting.Waits, fenceless.Waits, exclusive.Waits = []lease.Wait{wait}, []lease.Wait{live}, []lease.Wait{wait}
	exclusive.Exclusive = true
	off, unbounded := wait, wait
	off.Off, unbounded.Off, unbounded.Bound = true, true, spec.Unbounded
	exclusiveOff, boundless := exclusive, right
	exclusiveOff.Waits, boundless.Waits = []lease.Wait{off}, []lease.Wait{unbounded}
	majority := func(h *lease.Holder) {
		h.Expired(other, "a")
		h.Expired(other, "c")
	}
	for _, tt := range []struct {
		name  string
		right lease.Right
		do    func(*lease.Holder)
		want  lease.Verdict
	}{
		{"nothing known", lease.Right{Group: "db"}, nil, lease.Verdict{Why: lease.NotOwner}},
		{"free", right, nil, lease.Verdict{OK: true, Epoch: 7}},
		{"of an older incarnation", lease.Right{Group: "web", Epoch: 7, Owner: ref("n1", 2)}, nil, lease.Verdict{Epoch: 7, Why: lease.NotOwner}},
		{"fenced", right, (*lease.Holder).Fence, lease.Verdict{Epoch: 7, Why: lease.NotOwner}},
		{"let go of", right, func(h *lease.Holder) { h.Release("web", 7) }, lease.Verdict{Epoch: 7, Why: lease.LetGo}},
		{"let go of an older epoch", right, func(h *lease.Holder) { h.Release("web", 6) }, lease.Verdict{OK: true, Epoch: 7}},
		{"waits", waiting, nil, lease.Verdict{Epoch: 7, Why: lease.Waiting, Wait: wait}},
		{"the exact token", waiting, func(h *lease.Holder) { h.Token(wait.Claim) }, lease.Verdict{OK: true, Epoch: 7}},
		{"a token of another epoch", waiting, func(h *lease.Holder) { h.Token(claim("web", other, 5)) }, lease.Verdict{Epoch: 7, Why: lease.Waiting, Wait: wait}},
		{"a token of another incarnation", waiting, func(h *lease.Holder) { h.Token(claim("web", ref("n2", 3), 6)) }, lease.Verdict{Epoch: 7, Why: lease.Waiting, Wait: wait}},
		{"a token of another group", waiting, func(h *lease.Holder) { h.Token(claim("db", other, 6)) }, lease.Verdict{Epoch: 7, Why: lease.Waiting, Wait: wait}},
		{"expired, says a majority", waiting, majority, lease.Verdict{OK: true, Epoch: 7}},
		{"expired, says one voter twice", waiting, func(h *lease.Holder) { h.Expired(other, "a"); h.Expired(other, "a") }, lease.Verdict{Epoch: 7, Why: lease.Waiting, Wait: wait}},
		{"expired, says a stranger", waiting, func(h *lease.Holder) { h.Expired(other, "a"); h.Expired(other, "x") }, lease.Verdict{Epoch: 7, Why: lease.Waiting, Wait: wait}},
		{"expired before it was fenced", fenceless, majority, lease.Verdict{Epoch: 7, Why: lease.Waiting, Wait: live}},
		{"exclusive waits", exclusive, nil, lease.Verdict{Epoch: 7, Why: lease.Waiting, Wait: wait}},
		{"exclusive is blocked by expiry alone", exclusive, majority, lease.Verdict{Epoch: 7, Why: lease.Blocked, Wait: wait}},
		{"exclusive and off, but not expired", exclusiveOff, nil, lease.Verdict{Epoch: 7, Why: lease.Waiting, Wait: off}},
		{"exclusive, off and expired", exclusiveOff, majority, lease.Verdict{OK: true, Epoch: 7}},
		{"off, without a bound", boundless, nil, lease.Verdict{OK: true, Epoch: 7}},
		{"exclusive with its token", exclusive, func(h *lease.Holder) { majority(h); h.Token(wait.Claim) }, lease.Verdict{OK: true, Epoch: 7}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := leased(newHolder(1, "a"))
			if tt.right.Epoch > 0 {
				h.Adopt(tt.right)
			}
			if tt.do != nil {
				tt.do(h)
			}
			if got := h.May(tt.right.Group, ms(20)); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
	h := leased(newHolder(1, "a"))
	h.Adopt(right)
	if got := h.May("web", ms(210)); got.OK || got.Why != lease.NoLease {
		t.Errorf("after E: %+v", got)
	}
}

func TestTokenBeforeItsRecord(t *testing.T) {
	h := leased(newHolder(1, "a"))
	h.Token(claim("web", ref("n2", 1), 6))
	h.Adopt(lease.Right{Group: "web", Epoch: 7, Owner: ref("n1", 1), Waits: []lease.Wait{{Claim: claim("web", ref("n2", 1), 6)}}})
	if v := h.May("web", ms(20)); !v.OK {
		t.Errorf("the early token is lost: %+v", v)
	}
}

// A group that is changed under its owner waits for the owner's own older epoch,
// whether that was let go of before or after the record came.
func TestOwnWait(t *testing.T) {
	me := ref("n1", 1)
	next := lease.Right{Group: "web", Epoch: 8, Owner: me, Waits: []lease.Wait{{Claim: claim("web", me, 7), Live: true}}}
	for name, steps := range map[string][]func(*lease.Holder){
		"record, then release": {func(h *lease.Holder) { h.Adopt(next) }, func(h *lease.Holder) { h.Release("web", 7) }},
		"release, then record": {func(h *lease.Holder) { h.Release("web", 7) }, func(h *lease.Holder) { h.Adopt(next) }},
	} {
		t.Run(name, func(t *testing.T) {
			h := leased(newHolder(1, "a"))
			h.Adopt(lease.Right{Group: "web", Epoch: 7, Owner: me})
			for _, step := range steps {
				if v := h.May("web", ms(20)); v.OK && v.Epoch == 8 {
					t.Fatal("holds the new epoch while the old one runs")
				}
				step(h)
			}
			if v := h.May("web", ms(20)); !v.OK || v.Epoch != 8 {
				t.Errorf("waits for itself: %+v", v)
			}
		})
	}
}

func TestAdoptRefusesOldNews(t *testing.T) {
	one, two := lease.Wait{Claim: claim("web", ref("n2", 1), 6)}, lease.Wait{Claim: claim("web", ref("n3", 1), 5)}
	live := one
	live.Live = true
	r := func(epoch id.Epoch, waits ...lease.Wait) lease.Right {
		return lease.Right{Group: "web", Epoch: epoch, Owner: ref("n1", 1), Waits: waits}
	}
	h := newHolder(0, "a")
	for _, tt := range []struct {
		name  string
		right lease.Right
		news  bool
		epoch id.Epoch
		waits int
	}{
		{"first", r(7, live, two), true, 7, 2},
		{"again", r(7, live, two), false, 7, 2},
		{"older epoch", r(6), false, 7, 2},
		{"fenced", r(7, one, two), true, 7, 2},
		{"from before the fence", r(7, live, two), false, 7, 2},
		{"cleared", r(7, one), true, 7, 1},
		{"from before it was cleared", r(7, one, two), false, 7, 1},
		{"next epoch", r(8, one, two), true, 8, 2},
	} {
		if got := h.Adopt(tt.right); got != tt.news {
			t.Errorf("%s: news = %v", tt.name, got)
		}
		if got, _ := h.Right("web"); got.Epoch != tt.epoch || len(got.Waits) != tt.waits {
			t.Errorf("%s: now at epoch %d with %d waits", tt.name, got.Epoch, len(got.Waits))
		}
	}
	if got, _ := h.Right("web"); got.Waits[0].Live {
		t.Error("a record from before the fence took the place of one from after it")
	}
}

// What the owner of an older epoch must do: let go, tell both who waits and the
// leader, and go on telling until the record clears it.
func TestDueAndOwed(t *testing.T) {
	me, next := ref("n1", 1), ref("n2", 1)
	h := newHolder(0, "a")
	h.Adopt(lease.Right{Group: "web", Epoch: 7, Owner: me})
	h.Adopt(lease.Right{Group: "db", Epoch: 3, Owner: next, Waits: []lease.Wait{{Claim: claim("web", me, 7)}}}) // an address moved there
	h.Adopt(lease.Right{Group: "web", Epoch: 8, Owner: next, Waits: []lease.Wait{{Claim: claim("web", me, 7)}, {Claim: claim("web", ref("n1", 9), 6)}}})
	old := claim("web", me, 7)
	if diff := cmp.Diff([]id.Claim{old, old}, h.Due("web")); diff != "" {
		t.Errorf("due: %s", diff)
	}
	if due := h.Due("db"); due != nil {
		t.Errorf("due of another group: %v", due)
	}
	if got := h.Owed(); got != nil {
		t.Errorf("a token is owed before anything was let go of: %v", got)
	}
	h.Release("web", 7)
	h.Release("web", 5) // never goes back
	if h.ReleasedUpTo("web") != 7 || h.Due("web") != nil {
		t.Errorf("released up to %d, still due %v", h.ReleasedUpTo("web"), h.Due("web"))
	}
	if diff := cmp.Diff([]lease.Owed{{Claim: old, To: next}, {Claim: old, To: next}}, h.Owed()); diff != "" {
		t.Errorf("owed: %s", diff)
	}
	h.Adopt(lease.Right{Group: "web", Epoch: 8, Owner: next})
	h.Adopt(lease.Right{Group: "db", Epoch: 3, Owner: next})
	if got := h.Owed(); got != nil {
		t.Errorf("owed after the record cleared it: %v", got)
	}
	h.Adopt(lease.Right{Group: "web", Epoch: 9, Owner: me})
	h.Release("web", 9) // given up without a successor
	if diff := cmp.Diff([]lease.Owed{{Claim: claim("web", me, 9)}}, h.Owed()); diff != "" {
		t.Errorf("owed for what was given up: %s", diff)
	}
}

func TestUnsatisfied(t *testing.T) {
	me, a, b := ref("n1", 1), ref("n2", 1), ref("n3", 1)
	h := newHolder(0, "a")
	wa, wb := lease.Wait{Claim: claim("web", a, 6)}, lease.Wait{Claim: claim("web", b, 5)}
	h.Adopt(lease.Right{Group: "web", Epoch: 7, Owner: me, Waits: []lease.Wait{wa, wb}})
	h.Adopt(lease.Right{Group: "db", Epoch: 7, Owner: a, Waits: []lease.Wait{{Claim: claim("db", b, 6)}}})
	h.Token(wa.Claim)
	if diff := cmp.Diff([]lease.Wait{wb}, h.Unsatisfied()); diff != "" {
		t.Error(diff)
	}
}

// A token names the groups of ours that wait for it, whatever came first; a voter's
// EXPIRED is news once.
func TestWhatIsNews(t *testing.T) {
	me, old := ref("n2", 1), ref("n1", 1)
	h := lease.NewHolder(me, time.Second, clock.Instant{})
	if got := h.Token(claim("early", old, 3)); got != nil {
		t.Errorf("before its record: %v", got)
	}
	h.Adopt(lease.Right{Group: "web", Epoch: 8, Owner: me, Waits: []lease.Wait{{Claim: claim("web", old, 7)}}})
	h.Adopt(lease.Right{Group: "mail", Epoch: 2, Owner: me, Waits: []lease.Wait{{Claim: claim("web", old, 7)}}}) // an address moved there
	h.Adopt(lease.Right{Group: "db", Epoch: 4, Owner: old, Waits: []lease.Wait{{Claim: claim("web", old, 7)}}})
	got := h.Token(claim("web", old, 7))
	slices.Sort(got)
	if !slices.Equal(got, []string{"mail", "web"}) {
		t.Errorf("for %v", got)
	}
	if got := h.Token(claim("web", old, 6)); got != nil {
		t.Errorf("an older claim: %v", got)
	}
	h.Adopt(lease.Right{Group: "web", Epoch: 9, Owner: me}) // settled
	if got := h.Token(claim("web", old, 7)); !slices.Equal(got, []string{"mail"}) {
		t.Errorf("after one record was settled: %v", got)
	}
	for i, want := range []bool{true, true, false, false} {
		if got := h.Expired(old, []string{"a", "b", "a", "b"}[i]); got != want {
			t.Errorf("EXPIRED %d is news: %v", i, got)
		}
	}
}
