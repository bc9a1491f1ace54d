package vip

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
	"time"

	"hanode/internal/clock"
)

var (
	macA = [6]byte{2, 0, 0, 0, 0, 0xa}
	macB = [6]byte{2, 0, 0, 0, 0, 0xb}
)

func sightAt(d time.Duration) clock.Instant {
	return clock.Instant{Boot: time.Hour, Raw: time.Hour}.Add(d)
}

// one is what is said of the only address.
func (s *sightings) one(d time.Duration) Sighting {
	for _, x := range s.list(sightAt(d)) {
		return x
	}
	return Sighting{}
}

func watched() *sightings {
	s := newSightings()
	s.prepared(map[netip.Addr]bool{vip4.Addr: true})
	return s
}

// A holder believes the first claim, but for those of its first second, defends, and
// forgets who falls silent.
func TestHolderSeesAnotherOne(t *testing.T) {
	s := watched()
	s.hold(vip4.Addr, true, sightAt(0))
	if !s.claim(claim{vip4.Addr, macA}, sightAt(ownTime/2)) || len(s.one(ownTime/2).MACs) > 0 {
		t.Error("what its last holder sent a moment ago is answered and no conflict")
	}
	if !s.claim(claim{vip4.Addr, macA}, sightAt(2*time.Second)) {
		t.Error("not defended")
	}
	v := s.one(4 * time.Second)
	if !v.Conflict() || !v.Held || !bytes.Equal(v.MACs[0], macA[:]) || v.Since != 2*time.Second {
		t.Errorf("seen: %+v", v)
	}
	for d := 5 * time.Second; d <= 40*time.Second; d += askEvery {
		s.ask(vip4.Addr, "eth1", sightAt(d))
	}
	if v := s.one(40 * time.Second); v.Conflict() || v.Silent != 0 {
		t.Errorf("long silent: %+v", v)
	}
	s.claim(claim{vip4.Addr, macA}, sightAt(41*time.Second))
	s.hold(vip4.Addr, false, sightAt(42*time.Second))
	if v := s.one(42 * time.Second); v.Conflict() {
		t.Errorf("no longer held: %+v", v)
	}
}

// From outside two hosts must both answer two questions in a row: an address that moves
// is no conflict.
func TestOutsiderCountsAnswers(t *testing.T) {
	s := watched()
	d := time.Duration(0)
	round := func(macs ...[6]byte) Sighting {
		d += askEvery
		s.ask(vip4.Addr, "eth1", sightAt(d))
		for _, m := range macs {
			s.claim(claim{vip4.Addr, m}, sightAt(d+time.Millisecond))
		}
		return s.one(d + 2*time.Millisecond)
	}
	for range 5 {
		if v := round(macA); v.Conflict() || v.Silent > 0 {
			t.Errorf("one holder: %+v", v)
		}
	}
	for i, macs := range [][][6]byte{{macA, macB}, {macB}, {macB}, {macB}} {
		if v := round(macs...); v.Conflict() {
			t.Errorf("moved, round %d: %+v", i, v)
		}
	}
	if v := round(macB); len(v.MACs) != 1 || !bytes.Equal(v.MACs[0], macB[:]) {
		t.Errorf("after the move: %+v", v)
	}
	round(macA, macB)
	round(macA, macB)
	if v := round(macA, macB); !v.Conflict() || len(v.MACs) != 2 {
		t.Errorf("two hosts: %+v", v)
	}
	// An announcement between two questions is no answer.
	s.claim(claim{vip4.Addr, [6]byte{2, 2, 2, 2, 2, 2}}, sightAt(d+2*answerTime))
	round(macB)
	if v := round(macB); v.Conflict() {
		t.Errorf("one is gone: %+v", v)
	}
	for i := range 4 {
		if v := round(); v.Silent != i {
			t.Errorf("round %d without an answer: %+v", i, v)
		}
	}
	if v := round(macA); v.Silent != 4 {
		t.Errorf("%+v", v)
	}
	if v := round(macA); v.Silent != 0 {
		t.Errorf("answered again: %+v", v)
	}
}

func TestClaims(t *testing.T) {
	mac := net.HardwareAddr(macA[:])
	own := netip.MustParseAddr("fe80::1")
	for _, a := range bothVIPs {
		for _, f := range announcement(a.Addr, mac, true) {
			if c, ok := parseClaim(f); !ok || c.addr != a.Addr || c.mac != macA {
				t.Errorf("%s: %+v %t", a, c, ok)
			}
			for i := range f {
				if c, ok := parseClaim(f[:i]); ok {
					t.Errorf("%s: the first %d bytes claim %+v", a, i, c)
				}
			}
		}
		for _, from := range []netip.Addr{own, {}} {
			if c, ok := parseClaim(question(a.Addr, mac, from)); ok {
				t.Errorf("a question claims %+v", c)
			}
		}
	}
	f := announcement(vip6.Addr, mac, true)[0]
	f[etherLen+7] = 64 // a router passed it on
	if _, ok := parseClaim(f); ok {
		t.Error("an advertisement from another link was taken")
	}
}

// FuzzParseClaim: whatever a frame holds, a claim is of an address that can be one, and
// survives being sent.
func FuzzParseClaim(f *testing.F) {
	for _, a := range bothVIPs {
		for _, b := range announcement(a.Addr, macA[:], true) {
			f.Add(b)
		}
		f.Add(question(a.Addr, macA[:], netip.Addr{}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ok := parseClaim(b)
		if !ok {
			return
		}
		if !c.addr.IsValid() || c.addr.IsUnspecified() || c.addr.Is4In6() {
			t.Errorf("%x claims %s", b, c.addr)
		}
		for _, again := range announcement(c.addr, c.hw(), false) {
			if d, ok := parseClaim(again); !ok || d != c {
				t.Errorf("%+v, said again, is %+v %t", c, d, ok)
			}
		}
	})
}
