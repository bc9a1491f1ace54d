package lease_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/lease"
)

// newGrantor started at 1000 ms, is ready, counts by list 3 and knows n1/2 and
// the fenced n2/5.
func newGrantor() *lease.Grantor {
	g := lease.NewGrantor(ms(1000))
	g.Applied(ms(1000), 3, []string{"a", "b", "c"}, map[string]lease.Registration{
		"n1": {Inc: 2, Bound: 250 * time.Millisecond},
		"n2": {Inc: 5, Fenced: true, Bound: 250 * time.Millisecond},
	})
	g.Ready()
	return g
}

func TestBeatAnswers(t *testing.T) {
	for _, tt := range []struct {
		name    string
		ref     id.NodeRef
		version uint64
		do      func(*lease.Grantor)
		want    lease.Answer
	}{
		{"of record", ref("n1", 2), 3, nil, lease.Ack},
		{"older incarnation", ref("n1", 1), 3, nil, lease.Fenced},
		{"newer than applied", ref("n1", 3), 3, nil, lease.Unknown},
		{"never registered", ref("n1", 0), 3, nil, lease.Unknown},
		{"a stranger", ref("n9", 1), 3, nil, lease.Unknown},
		{"fenced", ref("n2", 5), 3, nil, lease.Fenced},
		{"after a fence", ref("n2", 6), 3, nil, lease.Unknown},
		{"older list", ref("n1", 2), 2, nil, lease.Behind},
		{"newer list", ref("n1", 2), 4, nil, lease.Behind},
		{"revoked", ref("n1", 2), 3, func(g *lease.Grantor) { g.Revoke(ref("n1", 2), time.Second, "x") }, lease.Fenced},
		{"fenced comes before behind", ref("n2", 5), 1, nil, lease.Fenced},
		{"an older one revoked", ref("n1", 2), 3, func(g *lease.Grantor) { g.Revoke(ref("n1", 1), time.Second, "x") }, lease.Ack},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGrantor()
			if tt.do != nil {
				tt.do(g)
			}
			if got := g.Beat(tt.ref, 1, tt.version, ms(1100)); got != tt.want {
				t.Errorf("answer %d, want %d", got, tt.want)
			}
		})
	}
}

func TestNotReadyAcksNothing(t *testing.T) {
	g := lease.NewGrantor(ms(0))
	g.Applied(ms(0), 1, []string{"a"}, map[string]lease.Registration{"n1": {Inc: 1}})
	if got := g.Beat(ref("n1", 1), 1, 1, ms(10)); got != lease.NotReady || g.IsReady() {
		t.Errorf("answer %d before it is ready", got)
	}
	if g.Heard("n1") != ms(10) {
		t.Error("a beat that is not acked was not heard either")
	}
	g.Ready()
	if got := g.Beat(ref("n1", 1), 2, 1, ms(20)); got != lease.Ack {
		t.Errorf("answer %d once ready", got)
	}
}

// due lists what g tells as expired at each millisecond.
func dueAt(g *lease.Grantor, from, to int) (at []int, told [][]string) {
	for n := from; n <= to; n++ {
		for _, e := range g.Due(ms(n)) {
			at, told = append(at, n), append(told, e.To)
		}
	}
	return at, told
}

func TestExpiryCountsFromTheLastAck(t *testing.T) {
	n := ref("n1", 2)
	for _, tt := range []struct {
		name string
		do   func(*lease.Grantor)
		want int
	}{
		{"never acked: from the start", func(*lease.Grantor) {}, 1250},
		{"acked", func(g *lease.Grantor) { g.Beat(n, 1, 3, ms(1100)) }, 1350},
		{"a higher number moves it", func(g *lease.Grantor) { g.Beat(n, 1, 3, ms(1100)); g.Beat(n, 2, 3, ms(1150)) }, 1400},
		{"a repeat does not", func(g *lease.Grantor) {
			g.Beat(n, 2, 3, ms(1100))
			g.Beat(n, 2, 3, ms(1150))
			g.Beat(n, 1, 3, ms(1160))
		}, 1350},
		{"a refused beat does not", func(g *lease.Grantor) { g.Beat(n, 1, 3, ms(1100)); g.Beat(n, 2, 2, ms(1150)) }, 1350},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGrantor()
			tt.do(g)
			g.Revoke(n, 250*time.Millisecond, "n3")
			g.Beat(n, 9, 3, ms(1170)) // revoked: must not move it
			if at, _ := dueAt(g, 1170, 1600); !cmp.Equal(at, []int{tt.want}) {
				t.Errorf("expired at %v, want once at %d", at, tt.want)
			}
		})
	}
}

func TestExpiryRunsByTheSlowerClock(t *testing.T) {
	g := newGrantor()
	g.Revoke(ref("n1", 2), 250*time.Millisecond, "n3")
	for _, now := range []clock.Instant{clocks(2000, 1249), clocks(1249, 2000)} {
		if got := g.Due(now); got != nil {
			t.Errorf("at %v told %v: one clock alone", now, got)
		}
	}
	if got := g.Due(clocks(1250, 1250)); len(got) != 1 {
		t.Errorf("told %v", got)
	}
}

func TestExpiryIsToldToEverybodyWhoAsked(t *testing.T) {
	g := newGrantor()
	n := ref("n1", 2)
	g.Revoke(n, 100*time.Millisecond, "n3", "c")
	g.Revoke(n, 250*time.Millisecond, "a", "c")
	g.Revoke(n, 50*time.Millisecond) // a shorter bound shortens nothing
	if at, to := dueAt(g, 1000, 1300); !cmp.Equal(at, []int{1250}) || !cmp.Equal(to, [][]string{{"a", "c", "n3"}}) {
		t.Errorf("told at %v to %v", at, to)
	}
	g.Revoke(n, 250*time.Millisecond, "n3") // asked again: the answer was lost
	if at, _ := dueAt(g, 1301, 1310); !cmp.Equal(at, []int{1301}) {
		t.Errorf("told again at %v", at)
	}
}

func TestDueIsSorted(t *testing.T) {
	g := newGrantor()
	for _, name := range []string{"n3", "n1", "n2"} {
		g.Revoke(ref(name, 1), 0, "x")
	}
	var got []string
	for _, e := range g.Due(ms(2000)) {
		got = append(got, e.Ref.Name)
	}
	if !cmp.Equal(got, []string{"n1", "n2", "n3"}) {
		t.Error(got)
	}
}

func TestSilentAndExcuse(t *testing.T) {
	g := newGrantor()
	g.Beat(ref("n1", 2), 1, 3, ms(1100))
	after := 250 * time.Millisecond
	n1 := []id.NodeRef{ref("n1", 2)} // n2 is fenced: nobody asks about it
	for _, tt := range []struct {
		now  clock.Instant
		want []id.NodeRef
	}{
		{ms(1349), nil},
		{clocks(1400, 1349), nil},
		{ms(1350), n1},
	} {
		if diff := cmp.Diff(tt.want, g.Silent(tt.now, after)); diff != "" {
			t.Errorf("at %v: %s", tt.now, diff)
		}
	}
	g.Excuse(ms(1360)) // this voter itself was stalled
	if got := g.Silent(ms(1609), after); got != nil {
		t.Errorf("silent in spite of the excuse: %v", got)
	}
	if diff := cmp.Diff(n1, g.Silent(ms(1610), after)); diff != "" {
		t.Error(diff)
	}
	if g.Heard("n9") != ms(1360) {
		t.Error("a node that never beat counts as heard when this voter could first listen, no more")
	}
}

// What an old beat says was true once. Only the newest beat of the registration of
// record tells that it lives.
func TestReplayedBeatsAreNoSignOfLife(t *testing.T) {
	after := 250 * time.Millisecond
	n1 := []id.NodeRef{ref("n1", 2)}
	for _, tt := range []struct {
		name   string
		beat   func(g *lease.Grantor, now clock.Instant)
		silent bool // the registration of record
		heard  bool // the node
	}{
		{"the same beat again", func(g *lease.Grantor, now clock.Instant) { g.Beat(ref("n1", 2), 7, 3, now) }, true, false},
		{"an older one", func(g *lease.Grantor, now clock.Instant) { g.Beat(ref("n1", 2), 6, 3, now) }, true, false},
		{"of an older registration", func(g *lease.Grantor, now clock.Instant) { g.Beat(ref("n1", 1), 90, 3, now) }, true, false},
		{"before a registration, once more", func(g *lease.Grantor, now clock.Instant) { g.Beat(ref("n1", 0), 55, 3, now) }, true, false},
		{"its agent starts anew", func(g *lease.Grantor, now clock.Instant) { g.Beat(ref("n1", 0), 56, 3, now) }, true, true},
		{"and its host did", func(g *lease.Grantor, now clock.Instant) { g.Beat(ref("n1", 0), 5, 3, now) }, true, true},
		{"the next one", func(g *lease.Grantor, now clock.Instant) { g.Beat(ref("n1", 2), 8, 3, now) }, false, true},
		{"of a registration that there is not", func(g *lease.Grantor, now clock.Instant) { g.Beat(ref("n1", 999), 1, 3, now) }, true, true},
		{"the next one, beside such a one", func(g *lease.Grantor, now clock.Instant) {
			g.Beat(ref("n1", 999), 1, 3, now)
			g.Beat(ref("n1", 2), 8, 3, now)
		}, false, true},
		{"though it is not acked", func(g *lease.Grantor, now clock.Instant) { g.Beat(ref("n1", 2), 8, 2, now) }, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGrantor()
			g.Beat(ref("n1", 0), 55, 3, ms(1010))
			g.Beat(ref("n1", 2), 7, 3, ms(1100))
			tt.beat(g, ms(1300))
			var want []id.NodeRef
			if tt.silent {
				want = n1
			}
			if diff := cmp.Diff(want, g.Silent(ms(1400), after)); diff != "" {
				t.Error(diff)
			}
			if heard := g.Heard("n1") == ms(1300); heard != tt.heard {
				t.Errorf("heard at %v", g.Heard("n1"))
			}
		})
	}
}

// A registration that this voter has just learned of is not silent because the one
// before it was, and its beats count although they came before its entry.
func TestNewRegistrationIsNotSilent(t *testing.T) {
	after := 250 * time.Millisecond
	regs := map[string]lease.Registration{"n1": {Inc: 3, Bound: after}}
	silentFrom := func(g *lease.Grantor) int {
		for n := 2000; ; n++ {
			if len(g.Silent(ms(n), after)) > 0 {
				return n
			}
		}
	}
	g := newGrantor()
	g.Applied(ms(2000), 3, []string{"a"}, regs)
	if at := silentFrom(g); at != 2250 {
		t.Errorf("silent at %d ms, applied at 2000", at)
	}
	g = newGrantor()
	g.Beat(ref("n1", 3), 1, 3, ms(2100))
	g.Applied(ms(2000), 3, []string{"a"}, regs)
	g.Applied(ms(2200), 4, []string{"a"}, regs) // no news about it
	if at := silentFrom(g); at != 2350 {
		t.Errorf("silent at %d ms, heard at 2100", at)
	}
}

func TestExcuseForgivesNoPromise(t *testing.T) {
	g := newGrantor()
	g.Revoke(ref("n1", 2), 250*time.Millisecond, "n3")
	g.Excuse(ms(1200))
	if at, _ := dueAt(g, 1000, 1600); !cmp.Equal(at, []int{1250}) {
		t.Errorf("expired at %v", at)
	}
}

func TestNext(t *testing.T) {
	g := newGrantor()
	after, limit := 400*time.Millisecond, 10*time.Second
	if got := g.Next(ms(1100), after, limit); got != 300*time.Millisecond {
		t.Errorf("n1 turns silent in %v, want 300ms", got)
	}
	g.Revoke(ref("n1", 2), 250*time.Millisecond, "n3")
	if got := g.Next(ms(1100), after, limit); got != 150*time.Millisecond {
		t.Errorf("n1 expires in %v, want 150ms", got)
	}
	if got := g.Next(ms(1300), after, limit); got != 0 {
		t.Errorf("overdue in %v, want 0", got)
	}
	g.Due(ms(1300))
	if got := g.Next(ms(2000), after, limit); got != limit {
		t.Errorf("nothing to come in %v, want the limit", got)
	}
}
