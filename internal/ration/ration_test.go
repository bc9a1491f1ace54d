package ration_test

import (
	"net/netip"
	"testing"
	"time"

	"hanode/internal/ration"
)

func addr(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}) }

func TestRation(t *testing.T) {
	r := ration.New(ration.Rate{PerSecond: 10, Burst: 5}, ration.Rate{PerSecond: 100, Burst: 50})
	take := func(who int, now time.Duration, times int) (got int) {
		for range times {
			has := r.Has(addr(who), now)
			ok := r.Take(addr(who), now)
			if ok != has {
				t.Fatalf("Has says %v, Take %v", has, ok)
			}
			if ok {
				got++
			}
		}
		return got
	}
	if n := take(1, time.Hour, 100); n != 5 {
		t.Errorf("at once %d, want the burst of 5", n)
	}
	if n := take(2, time.Hour, 100); n != 5 {
		t.Errorf("another source got %d, want 5: the first one's greed is not its fault", n)
	}
	if n := take(1, time.Hour+300*time.Millisecond, 100); n != 3 {
		t.Errorf("after 300 ms %d, want 3", n)
	}
	if n := take(1, time.Hour, 100); n != 0 {
		t.Errorf("a clock that went back gave %d", n)
	}
	if n := take(1, 2*time.Hour, 100); n != 5 {
		t.Errorf("after an hour %d, want no more than the burst", n)
	}
	all := 0
	for who := range 5000 {
		all += take(who, 3*time.Hour, 10)
	}
	if all != 50 {
		t.Errorf("5,000 sources got %d together, want 50", all)
	}
}

// What a source asks for in vain costs nothing, in memory as in time of others.
func TestNothingGrows(t *testing.T) {
	r := ration.New(ration.Rate{PerSecond: 1, Burst: 1}, ration.Rate{PerSecond: 1000, Burst: 1000})
	n := 0
	if allocs := testing.AllocsPerRun(10_000, func() { n++; r.Take(addr(n), time.Duration(n)) }); allocs > 0 {
		t.Errorf("%v allocations for each", allocs)
	}
}
