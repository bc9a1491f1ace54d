package lease

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"hanode/internal/id"
)

// Kind is the first byte of a message.
type Kind byte

// The kinds. Numbers are part of the wire format and never change meaning.
const (
	KindBeat    Kind = 1
	KindAnswer  Kind = 2
	KindRevoke  Kind = 3
	KindExpired Kind = 4
	KindToken   Kind = 5
	KindRecord  Kind = 6 // body is the agent's: a replicated record, after commit
	KindLate    Kind = 7 // body is the agent's: an election hint
	KindLinks   Kind = 8 // body is the agent's: the sender's devices
	KindHeld    Kind = 9 // body is the agent's: how far the sender's disk has got
	KindSilent  Kind = 10
)

// MaxMessage bounds an encoded message; it fits one datagram on any link after
// sealing.
const MaxMessage = 1300

// ErrMalformed is any message that does not decode. It changes nothing.
var ErrMalformed = errors.New("malformed message")

// Beat is a keepalive: "(n,k) is alive", and the request to extend its lease.
type Beat struct {
	Ref     id.NodeRef
	Seq     uint64
	Version uint64 // of the voters' list the sender counts by
	// Unleased is for how long the sender has had no lease; 0 = it has one (R6).
	Unleased time.Duration
	Left     time.Duration // lease left at the send time; for status
	// Applied is the voters' list the sender, a voter, has applied; 0 = no voter (R7).
	Applied uint64
	Ready   bool // the sender is a voter and answers beats (R5)
	// Term is the newest term in which the sender led since its start, and Leads
	// says that it leads in it still and could commit. 0 = none, or a sender of a
	// version that does not say.
	Term  uint64
	Leads bool
	// Hung: the sender's disk does not finish a write. It can hold, not start.
	Hung bool
	// Silent lists registrations that the sender, a voter, has not heard for
	// deadtime, the first MaxSilent of them: if there are more, see [Silent].
	Silent []id.NodeRef
	// Tokens the sender owes; only while it has no better way (R10).
	Tokens []id.Claim
}

// Reply answers a beat.
type Reply struct {
	Ref     id.NodeRef // of the beat
	Seq     uint64     // of the beat
	Answer  Answer
	Version uint64
	Voters  []string // only with Behind
}

// MaxSilent bounds Beat.Silent.
const MaxSilent = 8

// Silent is one part of all that a voter has not heard for deadtime, where that is more
// than a beat takes. Part counts from 0 and is less than Parts.
type Silent struct {
	Inc         uint64 // the sender's incarnation, not 0
	Seq         uint64 // of its beat that this goes with; the same in all parts
	Part, Parts int
	Refs        []id.NodeRef
}

// silentRoom is how many bytes of a Silent may be Refs.
const silentRoom = MaxMessage - 64

// Silents says all of refs, in as many parts as it takes.
func Silents(inc, seq uint64, refs []id.NodeRef) []Silent {
	var out []Silent
	room := 0
	for _, r := range refs {
		size := 1 + len(r.Name) + binary.MaxVarintLen64
		if room < size {
			room = silentRoom
			out = append(out, Silent{Inc: inc, Seq: seq, Part: len(out)})
		}
		room -= size
		last := &out[len(out)-1]
		last.Refs = append(last.Refs, r)
	}
	for i := range out {
		out[i].Parts = len(out)
	}
	return out
}

// Revoke asks a voter to promise nothing more to Ref and to say when its last
// promise ended.
type Revoke struct {
	Ref   id.NodeRef
	Bound time.Duration
	Tell  string // who else wants EXPIRED; "" = the sender only
}

// Expired says that the sender will never ack Ref again and that its last
// promise ended.
type Expired struct{ Ref id.NodeRef }

// Token says that the claim's holder let go.
type Token struct {
	id.Claim
	Ago time.Duration // how long ago its guard closed; for the silence a move reports
}

type writer struct{ b []byte }

func (w *writer) u(v uint64)               { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) d(v time.Duration)        { w.u(uint64(max(v, 0) / time.Microsecond)) }
func (w *writer) s(v string)               { w.u(uint64(len(v))); w.b = append(w.b, v...) }
func (w *writer) ref(r id.NodeRef)         { w.s(r.Name); w.u(r.Inc) }
func (w *writer) claim(c id.Claim)         { w.s(c.Group); w.ref(c.Node); w.u(uint64(c.Epoch)) }
func newWriter(dst []byte, k Kind) *writer { return &writer{append(dst, byte(k))} }

type reader struct {
	b     []byte
	bad   bool
	known string // a name that needs no new string; "" = none
}

func (r *reader) u() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// maxDuration keeps a duration read from the wire far from overflow.
const maxDuration = 365 * 24 * time.Hour

func (r *reader) d() time.Duration {
	v := r.u()
	if v > uint64(maxDuration/time.Microsecond) {
		r.bad = true
		return 0
	}
	return time.Duration(v) * time.Microsecond
}

func (r *reader) s() string {
	n := r.u()
	if n > uint64(len(r.b)) || n > 255 {
		r.bad, r.b = true, nil
		return ""
	}
	s := r.known
	if string(r.b[:n]) != s { // this comparison makes no string
		s = string(r.b[:n])
	}
	r.b = r.b[n:]
	return s
}

func (r *reader) ref() id.NodeRef { return id.NodeRef{Name: r.s(), Inc: r.u()} }

func (r *reader) claim() id.Claim {
	return id.Claim{Group: r.s(), Node: r.ref(), Epoch: id.Epoch(r.u())}
}

// count reads a list length; every element takes at least one byte.
func (r *reader) count() int {
	n := r.u()
	if n > uint64(len(r.b)) {
		r.bad = true
		return 0
	}
	return int(n)
}

func (r *reader) end() error {
	if r.bad || len(r.b) != 0 {
		return ErrMalformed
	}
	return nil
}

func open(b []byte, k Kind) (*reader, error) { return openFrom(b, k, "") }

func openFrom(b []byte, k Kind, known string) (*reader, error) {
	if len(b) == 0 || Kind(b[0]) != k {
		return nil, ErrMalformed
	}
	return &reader{b: b[1:], known: known}, nil
}

// Append encodes the beat behind dst. Lists that do not fit MaxMessage are cut.
func (m Beat) Append(dst []byte) []byte {
	w := newWriter(dst, KindBeat)
	w.ref(m.Ref)
	w.u(m.Seq)
	w.u(m.Version)
	w.d(m.Unleased)
	w.d(m.Left)
	w.u(m.Applied)
	// A reader of an older version looks at the first bit only.
	flags := m.Term << 3
	for i, on := range []bool{m.Ready, m.Leads, m.Hung} {
		if on {
			flags |= 1 << i
		}
	}
	w.u(flags)
	silent := m.Silent[:min(len(m.Silent), MaxSilent)]
	w.u(uint64(len(silent)))
	for _, r := range silent {
		w.ref(r)
	}
	tokens := m.Tokens[:min(len(m.Tokens), 4)]
	w.u(uint64(len(tokens)))
	for _, c := range tokens {
		w.claim(c)
	}
	return w.b
}

// ParseBeat decodes a beat. from is who sent it: a beat that tells of nobody else
// is decoded without allocating.
func ParseBeat(from string, b []byte) (m Beat, err error) {
	r, err := openFrom(b, KindBeat, from)
	if err != nil {
		return m, err
	}
	m.Ref, m.Seq, m.Version = r.ref(), r.u(), r.u()
	m.Unleased, m.Left, m.Applied = r.d(), r.d(), r.u()
	flags := r.u()
	m.Ready, m.Leads, m.Hung, m.Term = flags&1 != 0, flags&2 != 0, flags&4 != 0, flags>>3
	for range r.count() {
		m.Silent = append(m.Silent, r.ref())
	}
	for range r.count() {
		m.Tokens = append(m.Tokens, r.claim())
	}
	return m, r.end()
}

// Append encodes the reply behind dst.
func (m Reply) Append(dst []byte) []byte {
	w := newWriter(dst, KindAnswer)
	w.ref(m.Ref)
	w.u(m.Seq)
	w.u(uint64(m.Answer))
	w.u(m.Version)
	w.u(uint64(len(m.Voters)))
	for _, v := range m.Voters {
		w.s(v)
	}
	return w.b
}

// ParseReply decodes a reply. self is whose beat it should answer: then it is
// decoded without allocating.
func ParseReply(self string, b []byte) (m Reply, err error) {
	r, err := openFrom(b, KindAnswer, self)
	if err != nil {
		return m, err
	}
	m.Ref, m.Seq = r.ref(), r.u()
	a := r.u()
	if a < uint64(Ack) || a > uint64(NotReady) {
		return m, fmt.Errorf("answer %d: %w", a, ErrMalformed)
	}
	m.Answer, m.Version = Answer(a), r.u()
	for range r.count() {
		m.Voters = append(m.Voters, r.s())
	}
	return m, r.end()
}

// Append encodes the part behind dst.
func (m Silent) Append(dst []byte) []byte {
	w := newWriter(dst, KindSilent)
	w.u(m.Inc)
	w.u(m.Seq)
	w.u(uint64(m.Part))
	w.u(uint64(m.Parts))
	w.u(uint64(len(m.Refs)))
	for _, r := range m.Refs {
		w.ref(r)
	}
	return w.b
}

// maxSilentParts bounds what a sender may say: more than 60,000 short names.
const maxSilentParts = 1000

// ParseSilent decodes a part.
func ParseSilent(b []byte) (m Silent, err error) {
	r, err := open(b, KindSilent)
	if err != nil {
		return m, err
	}
	m.Inc, m.Seq = r.u(), r.u()
	part, parts := r.u(), r.u()
	for range r.count() {
		m.Refs = append(m.Refs, r.ref())
	}
	if parts > maxSilentParts || part >= parts || m.Inc == 0 {
		return Silent{}, ErrMalformed
	}
	m.Part, m.Parts = int(part), int(parts)
	return m, r.end()
}

// Append encodes the request behind dst.
func (m Revoke) Append(dst []byte) []byte {
	w := newWriter(dst, KindRevoke)
	w.ref(m.Ref)
	w.d(m.Bound)
	w.s(m.Tell)
	return w.b
}

// ParseRevoke decodes a revoke.
func ParseRevoke(b []byte) (m Revoke, err error) {
	r, err := open(b, KindRevoke)
	if err != nil {
		return m, err
	}
	m.Ref, m.Bound, m.Tell = r.ref(), r.d(), r.s()
	return m, r.end()
}

// Append encodes the evidence behind dst.
func (m Expired) Append(dst []byte) []byte {
	w := newWriter(dst, KindExpired)
	w.ref(m.Ref)
	return w.b
}

// ParseExpired decodes an expired.
func ParseExpired(b []byte) (m Expired, err error) {
	r, err := open(b, KindExpired)
	if err != nil {
		return m, err
	}
	m.Ref = r.ref()
	return m, r.end()
}

// Append encodes the token behind dst.
func (m Token) Append(dst []byte) []byte {
	w := newWriter(dst, KindToken)
	w.claim(m.Claim)
	w.d(m.Ago)
	return w.b
}

// ParseToken decodes a token.
func ParseToken(b []byte) (m Token, err error) {
	r, err := open(b, KindToken)
	if err != nil {
		return m, err
	}
	m.Claim, m.Ago = r.claim(), r.d()
	return m, r.end()
}
