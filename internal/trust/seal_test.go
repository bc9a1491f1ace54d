package trust

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
)

func TestSealAndOpen(t *testing.T) {
	k := keys(t, 1, 2)
	s, o := k.Sealer(), k.Opener()
	seen := map[string]bool{}
	for _, text := range []string{"", "x", "a longer one"} {
		for range 3 {
			sealed := s.Seal([]byte("head"), []byte("aad"), []byte(text))
			if string(sealed[:4]) != "head" || len(sealed) != 4+Overhead+len(text) {
				t.Fatal("sealed form", sealed)
			}
			sealed = sealed[4:]
			if seen[string(sealed)] {
				t.Fatal("the same text sealed twice looks the same")
			}
			seen[string(sealed)] = true
			out, err := o.Open([]byte("to"), []byte("aad"), sealed)
			if err != nil || string(out) != "to"+text {
				t.Fatal(string(out), err)
			}
			if _, err := o.Open(nil, []byte("other"), sealed); !errors.Is(err, ErrKey) {
				t.Fatal("other aad:", err)
			}
		}
	}
}

func TestEveryDamagedByteIsRefused(t *testing.T) {
	k := keys(t, 1)
	sealed := k.Sealer().Seal(nil, nil, []byte("text"))
	for _, known := range []bool{false, true} {
		o := k.Opener()
		if known {
			if _, err := o.Open(nil, nil, sealed); err != nil {
				t.Fatal(err)
			}
		}
		for i := range sealed {
			bad := bytes.Clone(sealed)
			bad[i] ^= 1
			want := ErrKey
			if i == 0 {
				want = ErrFormat
			}
			if out, err := o.Open(nil, nil, bad); out != nil || !errors.Is(err, want) {
				t.Fatalf("byte %d, known sender %v: %v", i, known, err)
			}
		}
		for _, n := range []int{0, 1, Overhead - 1, MaxSealed + 1} {
			if _, err := o.Open(nil, nil, append(bytes.Clone(sealed), make([]byte, MaxSealed)...)[:n]); !errors.Is(err, ErrFormat) {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
	}
}

func TestRotation(t *testing.T) {
	old, both, turned, fresh := keys(t, 1), keys(t, 1, 2), keys(t, 2, 1), keys(t, 2)
	for _, c := range []struct {
		from, to *Keys
		ok       bool
	}{{old, both, true}, {both, old, true}, {turned, both, true}, {both, turned, true}, {turned, fresh, true}, {fresh, turned, true}, {old, fresh, false}, {turned, old, false}} {
		_, err := c.to.Opener().Open(nil, nil, c.from.Sealer().Seal(nil, nil, nil))
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrKey) {
			t.Errorf("from %v to %v: %v", c.from, c.to, err)
		}
	}
}

// Junk with made-up or stolen salts must not push real senders out.
func TestJunkEvictsNobody(t *testing.T) {
	k := keys(t, 1)
	o, s := k.Opener(), k.Sealer()
	sealed := s.Seal(nil, nil, []byte("x"))
	if _, err := o.Open(nil, nil, sealed); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * maxSenders {
		junk := bytes.Clone(sealed)
		copy(junk[1:], fmt.Sprintf("%016d", i))
		if _, err := o.Open(nil, nil, junk); !errors.Is(err, ErrKey) {
			t.Fatal(err)
		}
	}
	if len(o.senders) != 1 || o.senders[s.now.Load().salt] == nil {
		t.Fatal(len(o.senders), "senders remembered after junk")
	}
}

func TestTheLongestSilentSenderIsForgotten(t *testing.T) {
	k := keys(t, 1)
	o := k.Opener()
	open := func(s *Sealer) {
		t.Helper()
		if _, err := o.Open(nil, nil, s.Seal(nil, nil, nil)); err != nil {
			t.Fatal(err)
		}
	}
	first, second := k.Sealer(), k.Sealer()
	open(first)
	open(second)
	for range maxSenders - 2 {
		open(k.Sealer())
	}
	open(first)
	open(k.Sealer()) // one too many
	if len(o.senders) != maxSenders || o.senders[first.now.Load().salt] == nil || o.senders[second.now.Load().salt] != nil {
		t.Fatal("forgot the wrong one of", len(o.senders))
	}
	open(second) // costs a derivation, no more
}

func TestConcurrentUse(t *testing.T) {
	k := keys(t, 1, 2)
	s, o := k.Sealer(), k.Opener()
	var mu sync.Mutex
	nonces := map[string]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				sealed := s.Seal(nil, nil, []byte("x"))
				if _, err := o.Open(nil, nil, sealed); err != nil {
					t.Error(err)
				}
				mu.Lock()
				nonces[string(sealed[1:counterEnd])] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(nonces) != 4000 {
		t.Fatal(len(nonces), "different nonces of 4000")
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	k := keys(t, 1)
	s, o := k.Sealer(), k.Opener()
	text, aad := make([]byte, 100), make([]byte, 20)
	buf, out := make([]byte, 0, 200), make([]byte, 0, 200)
	o.Open(out, aad, s.Seal(buf, aad, text))
	n := testing.AllocsPerRun(100, func() {
		if _, err := o.Open(out, aad, s.Seal(buf, aad, text)); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Fatal(n, "allocations per datagram")
	}
}

func FuzzOpen(f *testing.F) {
	k := keys(f, 1)
	o, s := k.Opener(), k.Sealer()
	f.Add([]byte{}, []byte{})
	f.Add(s.Seal(nil, []byte("a"), []byte("text")), []byte("b"))
	f.Fuzz(func(t *testing.T, sealed, aad []byte) {
		out, err := o.Open(nil, aad, sealed)
		if err == nil {
			if string(out) != "text" || string(aad) != "a" {
				t.Fatalf("opened what nobody sealed: %q", out)
			}
			return
		}
		if out != nil {
			t.Fatal("a plaintext with", err)
		}
		if !errors.Is(err, ErrKey) && !errors.Is(err, ErrFormat) {
			t.Fatal(err)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	s := keys(b, 1).Sealer()
	buf, text := make([]byte, 0, 300), make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		s.Seal(buf, nil, text)
	}
}

func BenchmarkOpen(b *testing.B) {
	k := keys(b, 1)
	o := k.Opener()
	sealed, buf := k.Sealer().Seal(nil, nil, make([]byte, 200)), make([]byte, 0, 300)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := o.Open(buf, nil, sealed); err != nil {
			b.Fatal(err)
		}
	}
}

// What a flood of junk costs: a derivation for each key and datagram.
func BenchmarkOpenJunk(b *testing.B) {
	o := keys(b, 1).Opener()
	sealed := keys(b, 2).Sealer().Seal(nil, nil, make([]byte, 200))
	for b.Loop() {
		if _, err := o.Open(nil, nil, sealed); err == nil {
			b.Fatal("opened")
		}
	}
}
