package linkstate

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hanode/internal/clock"
	"hanode/internal/spec"
)

func at(d time.Duration) clock.Instant { return clock.Instant{Boot: time.Hour, Raw: time.Hour}.Add(d) }

func (t *Tracker) state(dev string, now clock.Instant) Link {
	for _, l := range t.Links(now) {
		if l.Dev == dev {
			return l
		}
	}
	return Link{}
}

// A plug that is pulled once is trusted again after a second, one that keeps falling
// out after twice as long each time, and none waits for more than settleMost.
func TestDamping(t *testing.T) {
	var tr Tracker
	tr.See(Fact{Dev: "eth1"}, at(0))
	if l := tr.state("eth1", at(0)); l.State != Up || l.For != long {
		t.Fatalf("a device that was never lost is %+v", l)
	}
	now := time.Duration(0)
	for i, seconds := range []int{1, 2, 4, 8, 16, 32, 64, 64} {
		want := time.Duration(seconds) * time.Second
		now += time.Second
		tr.See(Fact{Dev: "eth1", Why: "has no carrier"}, at(now))
		if l := tr.state("eth1", at(now)); l.State != Down {
			t.Fatalf("loss %d: %+v", i, l)
		}
		now += time.Second
		tr.See(Fact{Dev: "eth1"}, at(now))
		if tr.Ripe(at(now + want - 1)) {
			t.Errorf("loss %d: trusted before %v", i, want)
		}
		if l := tr.state("eth1", at(now+want-1)); l.State != Settling {
			t.Errorf("loss %d: after %v %+v", i, want-1, l)
		}
		if next := tr.Next(at(now)); next != want {
			t.Errorf("loss %d: the next look is in %v, not %v", i, next, want)
		}
		if l := tr.state("eth1", at(now+want)); l.State != Up || l.For != 0 {
			t.Errorf("loss %d: after %v %+v", i, want, l)
		}
		if !tr.Ripe(at(now+want)) || tr.Ripe(at(now+want)) {
			t.Errorf("loss %d: it is to be told once that it is trusted", i)
		}
	}
	now += forget
	tr.See(Fact{Dev: "eth1", Why: "has no carrier"}, at(now))
	tr.See(Fact{Dev: "eth1"}, at(now+1))
	if l := tr.state("eth1", at(now+1+settle)); l.State != Up {
		t.Errorf("what was long ago still counts: %+v", l)
	}
}

// Whatever a device does: one that carries nothing is Down, one that carries is not,
// and one that does not flap is Up within settleMost.
func TestTrackerAgainstTheCable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tr Tracker
		now, why := time.Duration(0), ""
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "later"))
			why = rapid.SampledFrom([]string{"", "has no carrier", "is switched off"}).Draw(t, "why")
			tr.See(Fact{Dev: "eth1", Why: why}, at(now))
			l := tr.state("eth1", at(now))
			if (l.State == Down) != (why != "") || l.Why != why {
				t.Fatalf("the kernel says %q, the tracker %+v", why, l)
			}
		}
		if l := tr.state("eth1", at(now+settleMost)); why == "" && l.State != Up {
			t.Fatalf("still %+v after %v", l, settleMost)
		}
	})
}

func TestOf(t *testing.T) {
	named := spec.Group{Resources: []spec.Resource{{Type: "ip", Name: "10.0.0.9/24", Dev: "eth1"}, {Type: "exec", Name: "x"}}}
	bare := spec.Group{Resources: []spec.Resource{{Type: "ip", Name: "10.0.0.9/24"}}}
	nets := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
	for _, c := range []struct {
		name  string
		links []Link
		g     spec.Group
		want  State
	}{
		{"nothing is said", nil, named, ""},
		{"by name", []Link{{Dev: "eth1", State: Down}}, named, Down},
		{"by name, not by subnet", []Link{{Dev: "eth0", State: Down, Nets: nets}}, named, ""},
		{"by subnet", []Link{{Dev: "eth0", State: Down, Nets: nets}}, bare, Down},
		{"another subnet", []Link{{Dev: "eth0", State: Down}}, bare, ""},
		{"the worst counts", []Link{{Dev: "eth0", State: Up, Nets: nets}, {Dev: "eth1", State: Settling, Nets: nets}}, bare, Settling},
	} {
		if got, ok := Of(c.links, c.g); got.State != c.want || ok != (c.want != "") {
			t.Errorf("%s: %+v %t", c.name, got, ok)
		}
	}
}
