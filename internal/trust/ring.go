package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
)

// Ring is the keys of a running node, which can be replaced while it runs: datagrams are
// sealed and opened, and handshakes are made, with those of the moment. A connection ends
// when the key goes that vouched for its other end. Safe for concurrent use.
type Ring struct {
	keys atomic.Pointer[Keys]

	mu    sync.Mutex
	watch []func(*Keys)
	conns map[*tracked]string // the fingerprint of the key that vouched
}

// NewRing returns a ring with these keys.
func NewRing(k *Keys) *Ring {
	r := &Ring{conns: map[*tracked]string{}}
	r.keys.Store(k)
	return r
}

// Keys is what the ring holds now.
func (r *Ring) Keys() *Keys { return r.keys.Load() }

// Watch calls fn with the keys now, and whenever others are set. Calls do not overlap; fn
// must not call the ring.
func (r *Ring) Watch(fn func(*Keys)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watch = append(r.watch, fn)
	fn(r.Keys())
}

// Set replaces the keys. When it returns nothing is sealed or accepted with those that
// are gone.
func (r *Ring) Set(k *Keys) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys.Store(k)
	for _, fn := range r.watch {
		fn(k)
	}
	have := k.Fingerprints()
	for c, by := range r.conns {
		if !slices.Contains(have, by) {
			delete(r.conns, c)
			_ = c.Conn.Close()
		}
	}
}

// ServerConfig is [Keys.ServerConfig] with the keys of each moment.
func (r *Ring) ServerConfig(cluster, name string, alpn ...string) (*tls.Config, error) {
	var mu sync.Mutex
	var of *Keys
	var made *tls.Config
	now := func() (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		if k := r.Keys(); k != of {
			cfg, err := k.ServerConfig(cluster, name, alpn...)
			if err != nil {
				return nil, err
			}
			of, made = k, cfg
		}
		return made, nil
	}
	if _, err := now(); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if c, ok := hello.Conn.(*pending); ok {
			c.ring = r
		}
		cfg, err := now()
		if err != nil {
			return nil, err
		}
		if c, err := cfg.GetConfigForClient(hello); c != nil || err != nil {
			return c, err
		}
		return cfg, nil
	}}, nil
}

// Client makes the handshake with node peer on raw for one protocol; see
// [Keys.ClientConfig]. On an error raw is closed.
func (r *Ring) Client(ctx context.Context, raw net.Conn, cluster, name, peer, alpn string) (*tls.Conn, error) {
	cfg, err := r.Keys().ClientConfig(cluster, name, peer, alpn)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	c := &tracked{Conn: raw, ring: r}
	t := tls.Client(c, cfg)
	err = t.HandshakeContext(ctx)
	if err == nil {
		err = c.vouched(t.ConnectionState())
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return t, nil
}

// tracked is a raw connection that its ring knows of until it is closed.
type tracked struct {
	net.Conn
	ring *Ring // nil = of a mux whose keys never change
}

// vouched notes which key speaks for the other end. One that showed no certificate (it
// comes to join) is nobody's.
func (c *tracked) vouched(cs tls.ConnectionState) error {
	if c.ring == nil || len(cs.PeerCertificates) == 0 {
		return nil
	}
	c.ring.mu.Lock()
	defer c.ring.mu.Unlock()
	by := c.ring.Keys().issuer(cs.PeerCertificates[0])
	if by == "" {
		return fmt.Errorf("its key was dropped a moment ago: %w", ErrOtherKey)
	}
	c.ring.conns[c] = by
	return nil
}

// Close closes the connection.
func (c *tracked) Close() error {
	if c.ring != nil {
		c.ring.mu.Lock()
		delete(c.ring.conns, c)
		c.ring.mu.Unlock()
	}
	return c.Conn.Close()
}

// issuer is the fingerprint of the key that signed a certificate; "" = none of ours. The
// signature says it: what the certificate claims of its issuer is its holder's word.
func (k *Keys) issuer(leaf *x509.Certificate) string {
	for _, ca := range k.cas {
		if leaf.CheckSignatureFrom(ca.cert) == nil {
			return fingerprint(ca.public())
		}
	}
	return ""
}

// Has reports whether the key of that fingerprint is among them.
func (k *Keys) Has(fprint string) bool { return slices.Contains(k.Fingerprints(), fprint) }

// Heard counts the datagrams that each key has opened, by fingerprint, since this
// value was made.
func (k *Keys) Heard() map[string]uint64 {
	out := map[string]uint64{}
	for i, f := range k.Fingerprints() {
		out[f] = k.heard[i].Load()
	}
	return out
}

// Only returns the one key of that fingerprint, or nil.
func (k *Keys) Only(fprint string) *Keys {
	return k.pick(func(f string) bool { return f == fprint })
}

// Without returns the keys but those, or nil if none is left.
func (k *Keys) Without(fprints ...string) *Keys {
	return k.pick(func(f string) bool { return !slices.Contains(fprints, f) })
}

func (k *Keys) pick(keep func(fprint string) bool) *Keys {
	out := &Keys{}
	for i, f := range k.Fingerprints() {
		if keep(f) {
			out.secrets, out.cas = append(out.secrets, k.secrets[i]), append(out.cas, k.cas[i])
		}
	}
	return out.counted()
}

// Before returns these keys and then those of others that are not among them.
func (k *Keys) Before(others *Keys) *Keys {
	out := &Keys{secrets: slices.Clone(k.secrets), cas: slices.Clone(k.cas)}
	for i, f := range others.Fingerprints() {
		if !k.Has(f) {
			out.secrets, out.cas = append(out.secrets, others.secrets[i]), append(out.cas, others.cas[i])
		}
	}
	return out.counted()
}

func (k *Keys) counted() *Keys {
	if len(k.secrets) == 0 {
		return nil
	}
	k.heard = make([]atomic.Uint64, len(k.secrets))
	return k
}
