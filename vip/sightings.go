package vip

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"time"

	"hanode/internal/clock"
)

// Sighting is what the network said about one prepared address lately.
type Sighting struct {
	Addr netip.Addr
	Dev  string
	// Held: it is on this host, and MACs are other hosts that claim it too. Otherwise
	// they are all that answered the last two questions.
	Held bool
	MACs []net.HardwareAddr
	// Since is for how long the first of MACs has been seen.
	Since time.Duration
	// Silent is how often in a row nobody answered; 0 for an address that is held here.
	Silent int
}

// Conflict reports whether more than one host has the address.
func (s Sighting) Conflict() bool { return s.Held && len(s.MACs) > 0 || len(s.MACs) > 1 }

// Unanswered reports whether nobody has answered for long enough to be worth telling.
func (s Sighting) Unanswered() bool { return s.Silent >= silentRounds }

// silentRounds is how many questions in a row that takes.
const silentRounds = 3

const (
	// askEvery is between two questions about one address, or longer where there are so
	// many that there would be more than one each askGap.
	askEvery = 5 * time.Second
	askGap   = 10 * time.Millisecond
	// answerTime is how long an answer may take.
	answerTime = time.Second
	// ownTime is how long after it came here an address may still be claimed by its last
	// holder: frames that were under way.
	ownTime = time.Second
)

// sightings judge what is heard. Questions about an address are asked in rounds; a round
// ends with the next question. Pure: time is an argument. Not safe for concurrent use.
type sightings struct {
	m map[netip.Addr]*sight
}

type sight struct {
	dev    string
	held   bool
	since  clock.Instant // of held, or its end
	asked  clock.Instant // the last question; zero = none
	rounds int           // questions since held changed
	silent int
	macs   map[[6]byte]*seen
}

// seen is a host that claimed the address.
type seen struct {
	first, last clock.Instant
	answered    int // the round in which it last answered a question
	row         int // rounds it answered, without a gap until the last that is over
}

func newSightings() *sightings { return &sightings{m: map[netip.Addr]*sight{}} }

// prepared notes which addresses there are, and forgets the others.
func (s *sightings) prepared(known map[netip.Addr]bool) {
	for a := range s.m {
		if !known[a] {
			delete(s.m, a)
		}
	}
	for a := range known {
		if s.m[a] == nil {
			s.m[a] = &sight{macs: map[[6]byte]*seen{}}
		}
	}
}

// hold notes whether a is on this host.
func (s *sightings) hold(a netip.Addr, held bool, now clock.Instant) {
	if x := s.m[a]; x != nil && x.held != held {
		x.held, x.since, x.rounds, x.silent = held, now, 0, 0
		clear(x.macs)
	}
}

// ask notes a question that goes out now on a device, and closes the round before.
func (s *sightings) ask(a netip.Addr, dev string, now clock.Instant) {
	x := s.m[a]
	if x == nil {
		return
	}
	if x.dev != dev { // another network
		x.dev, x.silent, x.rounds = dev, 0, 0
		clear(x.macs)
	}
	answered := false
	for mac, m := range x.macs {
		if m.answered == x.rounds {
			answered = true
			m.row++
		} else if m.row = 0; !x.held || now.Elapsed(m.last) > 3*now.Elapsed(x.asked) {
			delete(x.macs, mac)
		}
	}
	if x.silent++; answered || x.held || x.rounds == 0 {
		x.silent = 0
	}
	x.rounds++
	x.asked = now
}

// claim takes a claim by another host. It reports whether the holder should say anew
// that the address is his.
func (s *sightings) claim(c claim, now clock.Instant) (defend bool) {
	x := s.m[c.addr]
	if x == nil || x.held && now.Elapsed(x.since) < ownTime {
		return x != nil && x.held
	}
	answers := x.rounds > 0 && now.Elapsed(x.asked) < answerTime
	m := x.macs[c.mac]
	if m == nil {
		if !x.held && !answers {
			return false // it may be on its way from one host to another
		}
		m = &seen{first: now}
		x.macs[c.mac] = m
	}
	m.last = now
	if answers {
		m.answered = x.rounds
	}
	return x.held
}

// list says what stands, by address; quiet ones are left out.
func (s *sightings) list(now clock.Instant) []Sighting {
	var out []Sighting
	for a, x := range s.m {
		if v := s.of(a, now); x.rounds > 0 || len(v.MACs) > 0 {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, func(a, b Sighting) int { return a.Addr.Compare(b.Addr) })
	return out
}

// of says what stands about a.
func (s *sightings) of(a netip.Addr, now clock.Instant) Sighting {
	x := s.m[a]
	if x == nil {
		return Sighting{Addr: a}
	}
	v := Sighting{Addr: a, Dev: x.dev, Held: x.held, Silent: x.silent}
	first := now
	for mac, m := range x.macs {
		if !x.held && m.row < 2 { // one answer says little: the address may just move
			continue
		}
		v.MACs = append(v.MACs, bytes.Clone(mac[:]))
		if m.first.Boot < first.Boot {
			first = m.first
		}
	}
	v.Since = now.Elapsed(first)
	slices.SortFunc(v.MACs, func(a, b net.HardwareAddr) int { return bytes.Compare(a, b) })
	return v
}
