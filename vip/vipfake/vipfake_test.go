package vipfake

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"hanode/internal/clock"
	"hanode/vip"
)

type manual struct {
	mu  sync.Mutex
	now time.Duration
}

func (m *manual) Now() clock.Instant {
	m.mu.Lock()
	defer m.mu.Unlock()
	return clock.Instant{Boot: m.now, Raw: m.now}
}

func (m *manual) Wall() time.Time { return time.Unix(0, 0).Add(m.Now().Boot) }

func (m *manual) advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now += d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func addr(t *testing.T, s string) vip.Address {
	t.Helper()
	a, err := vip.Parse(s, "")
	must(t, err)
	return a
}

func TestAnswersOnlyOpenAndLeased(t *testing.T) {
	clk := &manual{now: time.Hour}
	h := NewHost(clk)
	k := h.Open()
	a := addr(t, "10.0.0.100/24")
	if err := k.Add(a); !errors.Is(err, vip.ErrNotPrepared) {
		t.Fatalf("Add before Prepare: %v", err)
	}
	if err := k.Open(a); !errors.Is(err, vip.ErrNotPrepared) {
		t.Fatalf("Open before Prepare: %v", err)
	}
	must(t, k.Prepare([]vip.Address{a}))
	must(t, k.Add(a))
	must(t, k.Renew(clk.Now().Add(time.Second)))
	if h.Answers(a.Addr) {
		t.Fatal("answers while closed")
	}
	must(t, k.Open(a))
	if !h.Answers(a.Addr) {
		t.Fatal("silent though open")
	}
	must(t, k.Renew(clk.Now().Add(time.Millisecond)))
	clk.advance(time.Second - 1)
	if !h.Answers(a.Addr) {
		t.Fatal("a shorter renewal moved the lease back")
	}
	clk.advance(1)
	if h.Answers(a.Addr) {
		t.Fatal("answers at the lease end")
	}
	if err := k.Renew(clk.Now().Add(61 * time.Second)); !errors.Is(err, vip.ErrTooFar) {
		t.Fatalf("a lease of 61 s: %v", err)
	}
}

func TestOlderKernelReachesNothing(t *testing.T) {
	clk := &manual{now: time.Hour}
	h := NewHost(clk)
	a := addr(t, "10.0.0.100/24")
	old := h.Open()
	must(t, old.Prepare([]vip.Address{a}))
	must(t, old.Add(a))
	must(t, old.Open(a))
	must(t, old.Renew(clk.Now().Add(time.Second)))
	if !h.Answers(a.Addr) {
		t.Fatal("silent though open")
	}

	k := h.Open() // the agent was killed and started again
	must(t, old.Renew(clk.Now().Add(10*time.Second)))
	must(t, old.Open(a))
	if h.Answers(a.Addr) {
		t.Fatal("an older kernel's writes opened the address")
	}
	removed, err := k.RemoveOurs()
	must(t, err)
	if !slices.Equal(removed, []vip.Address{a}) || h.Has(a.Addr) {
		t.Fatalf("removed %v, still there: %t", removed, h.Has(a.Addr))
	}
	must(t, old.Add(a)) // it can: addresses are the host's
	if !h.Has(a.Addr) || h.Answers(a.Addr) {
		t.Fatal("want it on the host, and silent")
	}
}

func TestHookDelaysTheWrite(t *testing.T) {
	clk := &manual{now: time.Hour}
	h := NewHost(clk)
	k := h.Open()
	a := addr(t, "fd00::100/64")
	must(t, k.Prepare([]vip.Address{a}))
	must(t, k.Add(a))
	must(t, k.Open(a))
	h.SetHook(func(op string) {
		if op == "renew" {
			clk.advance(time.Second) // the host hangs between computing and writing
		}
	})
	must(t, k.Renew(clk.Now().Add(500*time.Millisecond)))
	if h.Answers(a.Addr) {
		t.Fatal("a write delayed past its end opened the address")
	}
}

func TestAnnounceReachesNobodyWhileMuted(t *testing.T) {
	clk := &manual{now: time.Hour}
	h := NewHost(clk)
	var heard []vip.Address
	h.OnAnnounce(func(a vip.Address) { heard = append(heard, a) })
	k := h.Open()
	a := addr(t, "10.0.0.100/24")
	must(t, k.Prepare([]vip.Address{a}))
	must(t, k.Add(a))
	k.Announce(a)
	must(t, k.Open(a))
	must(t, k.Renew(clk.Now().Add(time.Second)))
	if len(heard) != 0 {
		t.Fatal("heard while closed")
	}
	k.Announce(a)
	if len(heard) != 1 || !h.Announcing(a.Addr) {
		t.Fatalf("heard %d, announcing %t", len(heard), h.Announcing(a.Addr))
	}
	must(t, k.Del(a))
	if h.Announcing(a.Addr) {
		t.Fatal("still announcing after Del")
	}
}

func TestTierNoneGuardsNothing(t *testing.T) {
	clk := &manual{now: time.Hour}
	h := NewHost(clk)
	h.SetTier(vip.TierNone)
	k := h.Open()
	a := addr(t, "10.0.0.100/24")
	must(t, k.Prepare([]vip.Address{a}))
	must(t, k.Add(a))
	if !h.Answers(a.Addr) || k.Tier().Extra() != vip.Forever {
		t.Fatalf("answers %t, extra %v", h.Answers(a.Addr), k.Tier().Extra())
	}
	h.Reboot()
	if h.Answers(a.Addr) {
		t.Fatal("answers after a reboot")
	}
}

func TestExpectedIsNotHere(t *testing.T) {
	clk := &manual{now: time.Hour}
	h := NewHost(clk)
	k := h.Open()
	a, b := addr(t, "10.0.0.100/24"), addr(t, "10.0.0.101/24")
	k.Expect(a)
	if len(h.Expected()) > 0 {
		t.Error("expects what was never prepared")
	}
	must(t, k.Prepare([]vip.Address{a, b}))
	must(t, k.Renew(clk.Now().Add(time.Second)))
	k.Expect(a, b)
	must(t, k.Open(a))
	if h.Has(a.Addr) || h.Answers(a.Addr) || len(h.Expected()) != 2 {
		t.Errorf("has %v, answers %v, expects %v", h.Has(a.Addr), h.Answers(a.Addr), h.Expected())
	}
	must(t, k.Add(a))
	k.Expect(a)
	k.Dismiss(a, b)
	if !h.Answers(a.Addr) || h.Has(b.Addr) || len(h.Expected()) > 0 {
		t.Errorf("answers %v, has %v, expects %v", h.Answers(a.Addr), h.Has(b.Addr), h.Expected())
	}
	k.Expect(b)
	next := h.Open()
	if _, err := next.RemoveOurs(); err != nil || len(h.Expected()) > 0 {
		t.Errorf("the next incarnation expects %v, %v", h.Expected(), err)
	}
}
