// Package watch observes from outside who answers for an address. It stands on
// a client of a netlab.Lab and never asks the cluster: Start asks by ARP every
// millisecond and knows from each answer which request it belongs to; StartHTTP
// asks a service by a new connection each time.
//
// It reports what was seen, phase by phase, and which of it means two holders at
// once. What is acceptable is for its caller to say.
package watch

import (
	"cmp"
	"slices"
	"time"
)

// Window is the default time within which X -> Y -> X is an overlap, not two
// moves. It is never less than three intervals of the requests: closer than that
// two changes cannot be seen apart.
const Window = 5 * time.Millisecond

// Report is what an observer saw between its start and Stop.
type Report struct {
	Started, Ended time.Time
	Sent           int            // requests
	Answered       int            // requests with at least one answer
	By             map[string]int // answers by holder: a MAC address or a body
	Lost           int            // answers the kernel dropped before they were read: above 0 the report is incomplete
	Skipped        int            // requests not made because too many were still waiting; HTTP only
	Changes        []Change       // in order of time
	Overlaps       []Overlap      // in order of time
	Announcements  []Announcement // gratuitous ARP for the address; ARP only
	Phases         []Phase        // the first, named "", begins with the observer
	// UDP is the same by datagrams alone: how the service behind the address fared.
	// nil if only ARP was asked.
	UDP *Report
}

// Change is a move of the address as its clients see it: of two answers that
// follow each other in the order of their requests, the second is by another
// holder.
type Change struct {
	At       time.Time // first answer of To
	Request  uint32    // the request it answers
	From, To string
	// Silent is the time from the last answer of From to the first of To, at
	// least about the interval of the requests. 0 if they came in reverse.
	Silent time.Duration
}

// Overlap is an instant with two holders: either one request was answered by
// both, or answers went First, Second, First with the two changes no further apart than
// the window, in the order of the requests and in the order in which they came: a
// request that waited on its way is answered by whoever holds the address by then. A
// change and a change back further apart than that are two moves, and so are nearer ones
// if First announced itself for the second.
type Overlap struct {
	At            time.Time // when the request that shows it was sent
	Request       uint32
	First, Second string
	SameRequest   bool // one request was answered by both
	// Apart is the time between the two answers, or between the two changes.
	Apart time.Duration
}

// Announcement is a gratuitous ARP packet: sender and target address are the VIP.
type Announcement struct {
	At    time.Time
	MAC   string
	Reply bool // sent as a reply, not as a request
}

// Phase is a part of the observation, from its Mark to the next.
type Phase struct {
	Name           string
	Started, Ended time.Time
	Sent, Answered int
	By             map[string]int
	// LongestSilence is the longest part of the phase without an answer. Time in
	// which the observer itself did not get to ask does not count, beyond one
	// interval; LongestPause tells of it.
	LongestSilence time.Duration
	LongestPause   time.Duration // longest time between two requests
	HoldersMax     int           // 0 nobody answered, 1, or 2 and more if there is an overlap
	Changes        []Change
	Overlaps       []Overlap
}

// Phase returns the phase of that name, the last if there are several, and the
// zero Phase if there is none.
func (r Report) Phase(name string) Phase {
	for _, p := range slices.Backward(r.Phases) {
		if p.Name == name {
			return p
		}
	}
	return Phase{}
}

// answer is one answer to one request. Times are since the start.
type answer struct {
	request uint32 // index into record.sent
	at      time.Duration
	who     string
}

type mark struct {
	name string
	at   time.Duration
}

// record is everything an observer wrote down.
type record struct {
	started time.Time
	every   time.Duration
	window  time.Duration
	sent    []time.Duration // by request number, ascending
	answers []answer        // in the order they came
	marks   []mark
	ended   time.Duration
	// announced are the announcements in the order they came; ARP only.
	announced []Announcement
}

// report judges a record. It is pure.
func (r record) report() Report {
	byRequest := slices.Clone(r.answers)
	slices.SortStableFunc(byRequest, func(a, b answer) int {
		return cmp.Or(cmp.Compare(a.request, b.request), cmp.Compare(a.at, b.at))
	})
	rep := Report{
		Started:  r.started,
		Ended:    r.started.Add(r.ended),
		Sent:     len(r.sent),
		Answered: countRequests(byRequest),
		By:       countHolders(byRequest),
		Changes:  r.changes(byRequest),
		Overlaps: r.overlaps(byRequest),

		Announcements: r.announced,
	}
	silences := r.silences()
	for i, m := range r.marks {
		end, hi := r.ended, len(r.sent)
		if i+1 < len(r.marks) {
			end = r.marks[i+1].at
			hi, _ = slices.BinarySearch(r.sent, end)
		}
		lo, _ := slices.BinarySearch(r.sent, m.at)
		p := Phase{Name: m.name, Started: r.started.Add(m.at), Ended: r.started.Add(end)}
		r.count(&p, rep, byRequest, lo, hi)
		for _, s := range silences {
			p.LongestSilence = max(p.LongestSilence, min(s.to, end)-max(s.from, m.at))
		}
		rep.Phases = append(rep.Phases, p)
	}
	return rep
}

func countRequests(byRequest []answer) int {
	n := 0
	for i, a := range byRequest {
		if i == 0 || byRequest[i-1].request != a.request {
			n++
		}
	}
	return n
}

func countHolders(list []answer) map[string]int {
	by := map[string]int{}
	for _, a := range list {
		by[a.who]++
	}
	return by
}

func (r record) changes(byRequest []answer) []Change {
	var list []Change
	for i := 1; i < len(byRequest); i++ {
		from, to := byRequest[i-1], byRequest[i]
		if from.who != to.who {
			list = append(list, Change{
				At: r.started.Add(to.at), Request: to.request, From: from.who, To: to.who, Silent: max(0, to.at-from.at),
			})
		}
	}
	return list
}

// overlaps finds the instants with two holders; see Overlap.
func (r record) overlaps(byRequest []answer) []Overlap {
	var list []Overlap
	last := -1 // index of the answer that made the latest change
	for i := 1; i < len(byRequest); i++ {
		prev, a := byRequest[i-1], byRequest[i]
		if a.who == prev.who {
			continue
		}
		o := Overlap{
			At: r.started.Add(r.sent[a.request]), Request: a.request,
			First: prev.who, Second: a.who,
		}
		switch {
		case a.request == prev.request:
			o.SameRequest, o.Apart = true, a.at-prev.at
			list = append(list, o)
		case last >= 0 && byRequest[last-1].who == a.who && byRequest[last].request != byRequest[last-1].request:
			o.First, o.Second = a.who, prev.who
			o.Apart = r.sent[a.request] - r.sent[byRequest[last].request]
			before, between := byRequest[last-1], byRequest[last]
			inTurn := before.at < between.at && prev.at < a.at
			if o.Apart <= r.window && inTurn && !r.moved(a.who, between.at, a.at+r.window) {
				list = append(list, o)
			}
		}
		last = i
	}
	return list
}

// moved: the address came to who in that time, by its own announcement.
func (r record) moved(who string, from, to time.Duration) bool {
	return slices.ContainsFunc(r.announced, func(a Announcement) bool {
		at := a.At.Sub(r.started)
		return a.MAC == who && at >= from && at <= to
	})
}

// span is a time without an answer.
type span struct{ from, to time.Duration }

// silences lists the times between successive answers, by the order they came,
// less the time in which nothing was asked.
func (r record) silences() []span {
	byTime := slices.Clone(r.answers)
	slices.SortStableFunc(byTime, func(a, b answer) int { return cmp.Compare(a.at, b.at) })
	var list []span
	next, before := 0, time.Duration(0) // next: first request sent after before
	add := func(until time.Duration) {
		for next < len(r.sent) && r.sent[next] < before {
			next++
		}
		if next < len(r.sent) && r.sent[next] < until {
			list = append(list, span{max(before, r.sent[next]-r.every), until})
		}
		before = until
	}
	for _, a := range byTime {
		add(a.at)
	}
	add(r.ended)
	return list
}

// cells is observer.Cells for the times from a to b. It is pure.
func (r record) cells(a, b, width time.Duration) []string {
	if width <= 0 || b < a {
		return nil
	}
	first, _ := slices.BinarySearch(r.sent, a)
	by := make([]string, len(r.sent)-first) // who answered each request
	for _, x := range slices.Backward(r.answers) {
		if int(x.request) >= first {
			by[int(x.request)-first] = x.who // the first to answer
		} else if x.at < a {
			break // older answers are to older requests
		}
	}
	list := make([]string, (b-a)/width)
	lo := first
	for i := range list {
		hi, _ := slices.BinarySearch(r.sent, a+time.Duration(i+1)*width)
		switch {
		case hi > lo:
			list[i] = most(by[lo-first : hi-first])
		case i > 0:
			list[i] = list[i-1]
		}
		lo = hi
	}
	return list
}

// most is the word that is there most often; "" if no other is there more often.
func most(words []string) (word string) {
	n := map[string]int{}
	for _, w := range words {
		n[w]++
	}
	for _, w := range words {
		if n[w] > n[word] {
			word = w
		}
	}
	return word
}

// count fills p with what came of the requests lo to hi-1. All of it counts where
// its request was sent.
func (r record) count(p *Phase, rep Report, byRequest []answer, lo, hi int) {
	p.Sent = hi - lo
	for i := lo + 1; i < hi; i++ {
		p.LongestPause = max(p.LongestPause, r.sent[i]-r.sent[i-1])
	}
	at := func(request int) int {
		i, _ := slices.BinarySearchFunc(byRequest, request, func(a answer, n int) int { return cmp.Compare(int(a.request), n) })
		return i
	}
	mine := byRequest[at(lo):at(hi)]
	p.Answered, p.By = countRequests(mine), countHolders(mine)
	for _, c := range rep.Changes {
		if lo <= int(c.Request) && int(c.Request) < hi {
			p.Changes = append(p.Changes, c)
		}
	}
	for _, o := range rep.Overlaps {
		if lo <= int(o.Request) && int(o.Request) < hi {
			p.Overlaps = append(p.Overlaps, o)
		}
	}
	p.HoldersMax = holdersMax(mine, len(p.Overlaps) > 0)
}

// holdersMax is the largest number of holders at one instant.
func holdersMax(byRequest []answer, overlap bool) int {
	if len(byRequest) == 0 {
		return 0
	}
	most := 1
	for first := 0; first < len(byRequest); {
		end := first + 1
		for end < len(byRequest) && byRequest[end].request == byRequest[first].request {
			end++
		}
		if end-first > most {
			most = max(most, len(countHolders(byRequest[first:end])))
		}
		first = end
	}
	if overlap {
		most = max(most, 2)
	}
	return most
}
