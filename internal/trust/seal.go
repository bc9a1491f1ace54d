package trust

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// Sealed form: version | salt | counter | AES-256-GCM ciphertext and tag. The
// key is HKDF(secret, salt), the nonce the salt's last four bytes and the
// counter, taken from the datagram as they stand.
const (
	sealVersion = 1
	saltSize    = 16
	counterEnd  = 1 + saltSize + 8
	nonceStart  = counterEnd - 12
	tagSize     = 16

	// Overhead is how many bytes Seal adds to a plaintext.
	Overhead = counterEnd + tagSize
	// MaxSealed is the longest sealed datagram, what UDP over IPv4 carries.
	MaxSealed = 65507

	maxSenders = 1024 // derived keys an Opener remembers; one per live process of the cluster is needed
)

var (
	// ErrKey: the datagram is not sealed with any of our keys, or damaged.
	ErrKey = errors.New("sealed with another key, or damaged")
	// ErrFormat: too short, too long, or another version; no key was tried.
	ErrFormat = errors.New("not a sealed datagram of this version")
)

// Sealer seals datagrams with the active key of a ring. Safe for concurrent use. Each
// Sealer has a random salt of its own for each key, hence a key of its own, and never
// uses a nonce twice. Not for a process that is duplicated while it runs: of a virtual
// machine resumed twice from one snapshot both copies would repeat nonces.
type Sealer struct {
	ring *Ring
	now  atomic.Pointer[sealing]
}

// sealing is a Sealer under one key.
type sealing struct {
	key     secret
	aead    cipher.AEAD
	salt    [saltSize]byte
	counter atomic.Uint64
}

// Sealer makes a new one for keys that never change.
func (k *Keys) Sealer() *Sealer { return NewRing(k).Sealer() }

// Sealer makes a new one. One per process is enough.
func (r *Ring) Sealer() *Sealer {
	s := &Sealer{ring: r}
	s.current()
	return s
}

// current is the sealing under the active key. Two that find at once that the key has
// changed agree on one of theirs.
func (s *Sealer) current() *sealing {
	for {
		now, key := s.now.Load(), s.ring.Keys().secrets[0]
		if now != nil && now.key == key {
			return now
		}
		next := &sealing{key: key}
		rand.Read(next.salt[:])
		next.aead = key.aead(next.salt[:])
		if s.now.CompareAndSwap(now, next) {
			return next
		}
	}
}

// Seal appends the sealed plaintext to dst and returns it; it allocates only if
// dst lacks capacity for len(plaintext) + Overhead. aad is authenticated, not
// sent. dst must not overlap plaintext or aad. What comes to more than MaxSealed
// is sealed, but no Opener takes it.
//
// A sealed datagram can be recorded and sent again: the receiver must refuse
// what it has seen, by a number inside.
func (s *Sealer) Seal(dst, aad, plaintext []byte) []byte {
	x := s.current()
	count := x.counter.Add(1)
	if count == math.MaxUint64 {
		// Not in 500 years at a datagram per nanosecond; a repeated nonce would give the key away.
		panic("hanode: keepalive counter exhausted")
	}
	dst = slices.Grow(dst, len(plaintext)+Overhead)
	start := len(dst)
	dst = append(dst, sealVersion)
	dst = append(dst, x.salt[:]...)
	dst = binary.BigEndian.AppendUint64(dst, count)
	return x.aead.Seal(dst, dst[start+nonceStart:start+counterEnd], plaintext, aad)
}

// Opener opens what any Sealer of the ring's keys sealed. Safe for concurrent use.
type Opener struct {
	ring *Ring

	mu      sync.RWMutex
	keys    *Keys // whose senders are known
	senders map[[saltSize]byte]*sender
	clock   atomic.Uint64 // ticks once per opened datagram, to find the longest unused sender
}

// sender is the derived key of one Sealer.
type sender struct {
	aead cipher.AEAD
	key  int // index in the secrets
	used atomic.Uint64
}

// Opener makes a new one that accepts these keys, which never change.
func (k *Keys) Opener() *Opener { return NewRing(k).Opener() }

// Opener makes a new one that accepts all keys of the ring.
func (r *Ring) Opener() *Opener {
	return &Opener{ring: r, keys: r.Keys(), senders: map[[saltSize]byte]*sender{}}
}

// known is the keys of now and, if it was heard before, who sealed with this salt.
func (o *Opener) known(salt [saltSize]byte) (*Keys, *sender) {
	keys := o.ring.Keys()
	o.mu.RLock()
	same, s := o.keys == keys, o.senders[salt]
	o.mu.RUnlock()
	if same {
		return keys, s
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.keys != keys { // a key that was dropped must open nothing any more
		o.keys = keys
		clear(o.senders)
	}
	return keys, o.senders[salt]
}

// Open appends the plaintext of a sealed datagram to dst. On an error, ErrKey or
// ErrFormat, it returns nil. It allocates only if dst lacks capacity or the
// sender is new. dst must not overlap sealed.
//
// It says who sealed (a member), not when: a replay opens as well.
func (o *Opener) Open(dst, aad, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead || len(sealed) > MaxSealed || sealed[0] != sealVersion {
		return nil, ErrFormat
	}
	salt := [saltSize]byte(sealed[1 : 1+saltSize])
	nonce, text := sealed[nonceStart:counterEnd], sealed[counterEnd:]
	keys, known := o.known(salt)
	if known != nil {
		if out, err := known.aead.Open(dst, nonce, text, aad); err == nil {
			known.used.Store(o.clock.Add(1))
			keys.heard[known.key].Add(1)
			return out, nil
		}
	}
	for i, s := range keys.secrets {
		if known != nil && known.key == i {
			continue
		}
		aead := s.aead(sealed[1 : 1+saltSize])
		out, err := aead.Open(dst, nonce, text, aad)
		if err != nil {
			continue
		}
		o.remember(keys, salt, &sender{aead: aead, key: i})
		keys.heard[i].Add(1)
		return out, nil
	}
	return nil, ErrKey
}

// remember keeps a sender whose datagram opened; when full, the one that was
// silent longest goes.
func (o *Opener) remember(keys *Keys, salt [saltSize]byte, s *sender) {
	s.used.Store(o.clock.Add(1))
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.keys != keys {
		return
	}
	if len(o.senders) >= maxSenders && o.senders[salt] == nil {
		var oldest [saltSize]byte
		least := uint64(math.MaxUint64)
		for k, v := range o.senders {
			if u := v.used.Load(); u < least {
				oldest, least = k, u
			}
		}
		delete(o.senders, oldest)
	}
	o.senders[salt] = s
}

func (s secret) aead(salt []byte) cipher.AEAD {
	block, err := aes.NewCipher(s.derive(salt, labelKeepalive))
	if err != nil {
		panic("hanode: aes: " + err.Error()) // the key size is a constant
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("hanode: gcm: " + err.Error()) // so is the block size
	}
	return aead
}

// Salt names a Sealer: one process with one key.
type Salt [saltSize]byte

// Peek reads who claims to have sealed a datagram, and as its how manieth, without
// opening it: nothing says that it is so. false = it is not sealed at all.
func Peek(sealed []byte) (Salt, uint64, bool) {
	if len(sealed) < Overhead || len(sealed) > MaxSealed || sealed[0] != sealVersion {
		return Salt{}, 0, false
	}
	return Salt(sealed[1 : 1+saltSize]), binary.BigEndian.Uint64(sealed[1+saltSize:]), true
}

// Salt returns what Peek reads in the datagrams of this Sealer.
func (s *Sealer) Salt() Salt { return s.current().salt }
