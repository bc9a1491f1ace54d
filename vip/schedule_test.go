package vip

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// least draws the shortest distance.
func least(int64) int64 { return 0 }

func number(i int) Address {
	a := netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)})
	return Address{Addr: a, Prefix: netip.PrefixFrom(a, 16)}
}

func TestAnnounceSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Duration
		start := time.Now()
		n := newAnnouncer(func(Address) {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(start))
		}, func(netip.Addr) int { return 1 })
		n.sched.chance = least
		var loop sync.WaitGroup
		loop.Go(func() { n.run(t.Context()) })
		sent := func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(at)
		}
		n.start(vip4)
		if sent() != 1 {
			t.Fatalf("%d sent when Announce returns, want 1", sent())
		}
		time.Sleep(130 * time.Second)
		n.stop(vip4.Addr)
		time.Sleep(5 * time.Minute)
		want := []time.Duration{0, 20e6, 100e6, 300e6, 1100e6, 2200e6, 5e9, 65e9, 125e9}
		if !slices.Equal(at, want) {
			t.Fatalf("sent at %v, want %v", at, want)
		}
		n.start(vip4)
		n.again(func(a Address) bool { return a == vip4 })
		n.again(func(a Address) bool { return a == vip6 })
		synctest.Wait()
		if sent() != len(want)+2 {
			t.Errorf("started and restarted: %d more, want 2", sent()-len(want))
		}
		n.stopAll()
		if n.again(func(Address) bool { return true }) != 0 || sent() != len(want)+2 {
			t.Error("a stopped schedule was restarted")
		}
	})
}

// A thousand addresses on one device are announced soon, one after the other, and those
// of another device do not wait for them.
func TestManyAnnouncementsDoNotBurst(t *testing.T) {
	s := newSchedule(least)
	for i := range 1000 {
		s.start(number(i), 1, 0)
	}
	other := number(5000)
	s.start(other, 2, 0)
	seen := map[netip.Addr]time.Duration{}
	var times []time.Duration
	for now := time.Duration(0); now < 10*time.Second; now += max(s.wait(now), 50*time.Microsecond) {
		for a, ok := s.pop(now); ok; a, ok = s.pop(now) {
			if _, twice := seen[a.Addr]; !twice {
				seen[a.Addr] = now
			}
			if a != other {
				times = append(times, now)
			}
		}
	}
	last := time.Duration(0)
	for _, at := range seen {
		last = max(last, at)
	}
	if len(seen) != 1001 || last > 110*time.Millisecond {
		t.Errorf("%d announced, the last after %v", len(seen), last)
	}
	if seen[other.Addr] != 0 {
		t.Errorf("the one on another device waited %v", seen[other.Addr])
	}
	// In no millisecond are there more than two lanes allow.
	for i, j := 0, 0; i < len(times); i++ {
		for times[i]-times[j] > time.Millisecond {
			j++
		}
		if most := 2*(paceBurst+int(time.Millisecond/paceGap)) + 2; i-j+1 > most {
			t.Fatalf("%d announcements in the millisecond before %v", i-j+1, times[i])
		}
	}
	// Each gets repeats although all want them at once.
	if len(times) < 4*1000 {
		t.Errorf("%d announcements of 1000 addresses in 10 s", len(times))
	}
}

// Whatever is started, stopped and started again: nothing that was stopped is
// announced, the first goes at once when there is room, and each that stays is
// announced at least each two minutes.
func TestSchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSchedule(func(n int64) int64 { return rapid.Int64Range(0, n-1).Draw(t, "chance") })
		running, last := map[netip.Addr]bool{}, map[netip.Addr]time.Duration{}
		now := time.Duration(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			a := number(rapid.IntRange(0, 5).Draw(t, "which"))
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				s.start(a, rapid.IntRange(0, 1).Draw(t, "dev"), now)
				running[a.Addr], last[a.Addr] = true, now
			case 1:
				s.stop(a.Addr)
				delete(running, a.Addr)
			default:
				now += max(s.wait(now), 0) + time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "late"))
			}
			for x, ok := s.pop(now); ok; x, ok = s.pop(now) {
				if !running[x.Addr] {
					t.Fatalf("%s is announced and does not run", x.Addr)
				}
				if d := now - last[x.Addr]; d > lateMost+10*time.Second {
					t.Fatalf("%s was not announced for %v", x.Addr, d)
				}
				last[x.Addr] = now
			}
		}
		if len(s.next) != len(running) || len(s.m) != len(running) {
			t.Fatalf("%d run, %d are due, %d are known", len(running), len(s.next), len(s.m))
		}
	})
}
