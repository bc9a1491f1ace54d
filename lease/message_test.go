package lease_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hanode/internal/id"
	"hanode/lease"
)

type message interface{ Append([]byte) []byte }

// parsers by kind, with one message of each.
var kinds = []struct {
	kind  lease.Kind
	full  message
	parse func([]byte) (message, error)
}{
	{lease.KindBeat, lease.Beat{
		Ref: ref("primary", 3), Seq: 1 << 40, Version: 7, Unleased: time.Second, Left: 215 * time.Microsecond, Applied: 6, Ready: true,
		Term: 1 << 40, Leads: true, Hung: true,
		Silent: []id.NodeRef{ref("a", 1), ref("b", 2)}, Tokens: []id.Claim{claim("web", ref("primary", 3), 9)},
	}, func(b []byte) (message, error) { return lease.ParseBeat("", b) }},
	{
		lease.KindAnswer,
		lease.Reply{Ref: ref("primary", 3), Seq: 12, Answer: lease.Behind, Version: 4, Voters: []string{"a", "b", "c"}},
		func(b []byte) (message, error) { return lease.ParseReply("", b) },
	},
	{
		lease.KindRevoke,
		lease.Revoke{Ref: ref("primary", 3), Bound: 250 * time.Millisecond, Tell: "secondary"},
		func(b []byte) (message, error) { return lease.ParseRevoke(b) },
	},
	{
		lease.KindSilent,
		lease.Silent{Inc: 3, Seq: 1 << 40, Part: 1, Parts: 2, Refs: []id.NodeRef{ref("a", 1), ref("b", 2)}},
		func(b []byte) (message, error) { return lease.ParseSilent(b) },
	},
	{lease.KindExpired, lease.Expired{Ref: ref("primary", 3)}, func(b []byte) (message, error) { return lease.ParseExpired(b) }},
	{
		lease.KindToken,
		lease.Token{Claim: claim("web", ref("primary", 3), 9), Ago: 800 * time.Microsecond},
		func(b []byte) (message, error) { return lease.ParseToken(b) },
	},
}

func TestMessagesRoundTrip(t *testing.T) {
	for _, k := range kinds {
		b := k.full.Append([]byte("prefix"))
		if !bytes.HasPrefix(b, []byte("prefix")) || lease.Kind(b[6]) != k.kind {
			t.Fatalf("%T: encoded as %x", k.full, b)
		}
		got, err := k.parse(b[6:])
		if err != nil {
			t.Fatalf("%T: %v", k.full, err)
		}
		if diff := cmp.Diff(k.full, got); diff != "" {
			t.Errorf("%T: %s", k.full, diff)
		}
	}
}

// A thousand registrations with the longest names are said in parts that fit datagrams.
func TestSilentParts(t *testing.T) {
	var refs []id.NodeRef
	for i := range 1000 {
		refs = append(refs, ref(strings.Repeat("x", i%63+1), 1<<(i%64)))
	}
	var got []id.NodeRef
	parts := lease.Silents(1<<63, 1<<63, refs)
	for i, p := range parts {
		b := p.Append(nil)
		if len(b) > lease.MaxMessage {
			t.Errorf("part %d takes %d bytes", i, len(b))
		}
		back, err := lease.ParseSilent(b)
		if err != nil || back.Part != i || back.Parts != len(parts) {
			t.Fatalf("part %d of %d came as %d of %d: %v", i, len(parts), back.Part, back.Parts, err)
		}
		got = append(got, back.Refs...)
	}
	if diff := cmp.Diff(refs, got); diff != "" {
		t.Error(diff)
	}
	if p := lease.Silents(1, 1, nil); len(p) > 0 {
		t.Errorf("nobody is missed: %v", p)
	}
	for _, bad := range []lease.Silent{{Inc: 0, Parts: 1}, {Inc: 1, Part: 1, Parts: 1}, {Inc: 1, Parts: 1 << 20}} {
		if _, err := lease.ParseSilent(bad.Append(nil)); !errors.Is(err, lease.ErrMalformed) {
			t.Errorf("%+v was taken: %v", bad, err)
		}
	}
}

// The bytes of a beat as earlier versions send it, and as they read ours.
func TestBeatKeepsItsBytes(t *testing.T) {
	old := lease.Beat{Ref: ref("primary", 3), Seq: 300, Version: 7, Left: 215 * time.Microsecond, Applied: 6, Ready: true}
	const first = "0107" + "7072696d617279" + "03" + "ac02" + "07" + "00" + "d701" + "06"
	b, err := hex.DecodeString(first + "01" + "0000")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := lease.ParseBeat("", b); err != nil || cmp.Diff(old, got) != "" {
		t.Errorf("%v: %s", err, cmp.Diff(old, got))
	}
	if got := old.Append(nil); !bytes.Equal(got, b) {
		t.Errorf("encoded as %x, was %x", got, b)
	}
	// The flags: ready, leads, hung, and the term from the fourth bit on.
	now := old
	now.Term, now.Leads = 9, true
	if got := hex.EncodeToString(now.Append(nil)); got != first+"4b"+"0000" {
		t.Errorf("encoded as %s", got)
	}
}

func TestMalformedMessages(t *testing.T) {
	for _, k := range kinds {
		whole := k.full.Append(nil)
		for n := range len(whole) {
			if _, err := k.parse(whole[:n]); !errors.Is(err, lease.ErrMalformed) {
				t.Errorf("%T cut to %d of %d bytes: %v", k.full, n, len(whole), err)
			}
		}
		if _, err := k.parse(append(bytes.Clone(whole), 0)); !errors.Is(err, lease.ErrMalformed) {
			t.Errorf("%T with a byte too many: %v", k.full, err)
		}
		other := bytes.Clone(whole)
		other[0] = 99
		if _, err := k.parse(other); !errors.Is(err, lease.ErrMalformed) {
			t.Errorf("%T as another kind: %v", k.full, err)
		}
	}
	for _, a := range []lease.Answer{0, lease.NotReady + 1, 255} {
		if _, err := lease.ParseReply("", lease.Reply{Ref: ref("a", 1), Answer: a}.Append(nil)); !errors.Is(err, lease.ErrMalformed) {
			t.Errorf("answer %d was taken: %v", a, err)
		}
	}
	if _, err := lease.ParseRevoke(lease.Revoke{Ref: ref("a", 1), Bound: 1 << 62}.Append(nil)); !errors.Is(err, lease.ErrMalformed) {
		t.Errorf("a bound of 146 years was taken: %v", err)
	}
	if _, err := lease.ParseExpired(lease.Expired{Ref: ref(strings.Repeat("x", 256), 1)}.Append(nil)); !errors.Is(err, lease.ErrMalformed) {
		t.Errorf("a name of 256 bytes was taken: %v", err)
	}
}

// A busy cluster with the longest host names must not outgrow a datagram.
func TestBeatFitsADatagram(t *testing.T) {
	long := func(s string) string { return s + strings.Repeat("x", 62) }
	b := lease.Beat{Ref: ref(long("n"), 1<<20), Seq: 1 << 40, Version: 1 << 20, Unleased: time.Hour, Left: time.Hour, Applied: 1 << 20}
	for range 100 {
		b.Silent = append(b.Silent, ref(long("s"), 1<<20))
		b.Tokens = append(b.Tokens, claim(long("g"), b.Ref, 1<<20))
	}
	data := b.Append(nil)
	if len(data) > lease.MaxMessage {
		t.Errorf("a beat of %d bytes", len(data))
	}
	got, err := lease.ParseBeat("", data)
	if err != nil || len(got.Silent) == 0 || len(got.Tokens) == 0 {
		t.Errorf("%d silent, %d tokens, %v", len(got.Silent), len(got.Tokens), err)
	}
}

func fuzz(f *testing.F, kind lease.Kind) {
	for _, k := range kinds {
		f.Add(k.full.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, k := range kinds {
			if k.kind != kind {
				continue
			}
			m, err := k.parse(b)
			if err != nil {
				if !errors.Is(err, lease.ErrMalformed) {
					t.Fatalf("%x: %v", b, err)
				}
				return
			}
			if beat, ok := m.(lease.Beat); ok { // a name that is known beforehand changes nothing
				known, err := lease.ParseBeat(beat.Ref.Name, b)
				if err != nil || !reflect.DeepEqual(known, beat) {
					t.Fatalf("%x: %+v, but from a known sender %+v, %v", b, beat, known, err)
				}
			}
			once := m.Append(nil)
			again, err := k.parse(once)
			if err != nil {
				t.Fatalf("%x: parsed, and its encoding %x does not: %v", b, once, err)
			}
			if twice := again.Append(nil); !bytes.Equal(once, twice) {
				t.Fatalf("%x: encoded as %x, then as %x", b, once, twice)
			}
		}
	})
}

func FuzzParseBeat(f *testing.F)    { fuzz(f, lease.KindBeat) }
func FuzzParseReply(f *testing.F)   { fuzz(f, lease.KindAnswer) }
func FuzzParseRevoke(f *testing.F)  { fuzz(f, lease.KindRevoke) }
func FuzzParseExpired(f *testing.F) { fuzz(f, lease.KindExpired) }
func FuzzParseToken(f *testing.F)   { fuzz(f, lease.KindToken) }
