// Package trust turns the key file into everything secret: the keyring of the
// gossip, the sealing of keepalives, the cluster CA and the TLS settings of all
// node-to-node calls, and the one TLS listener that tells protocols apart.
//
// Whoever has the key file is a member. Which member may do what, replay of
// datagrams (by incarnation and sequence) and the operator's API on the local
// socket are left to others.
package trust

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"
)

const (
	keyWord = "hanode-key-1" // opens a line of the key file
	keySize = 32
	maxKeys = 8       // a rotation needs two
	maxFile = 1 << 16 // bytes of a key file
)

// Labels of the derivations. They are part of the wire format: a node with
// another label is a stranger.
const (
	labelGossip    = "hanode gossip"
	labelKeepalive = "hanode keepalive"
	labelCA        = "hanode ca"
)

type secret [keySize]byte

// Keys holds the cluster's secrets. The first is active: it seals and issues.
// All are accepted, so that keys can be rotated without a stop: add the new one
// as second everywhere, make it first everywhere, take the old one away. What a
// running node uses is a [Ring], which gets other Keys.
// Immutable but for its counters; safe for concurrent use.
type Keys struct {
	secrets []secret // at least one
	cas     []*authority
	heard   []atomic.Uint64 // datagrams that each key opened
}

// Generate returns one line for a key file, without line end, with 256 random bits.
func Generate() string {
	var s secret
	rand.Read(s[:])
	return keyWord + " " + base64.StdEncoding.EncodeToString(s[:])
}

// Text is a key file with these keys, for a node that is let in.
func (k *Keys) Text() []byte {
	var b bytes.Buffer
	for _, s := range k.secrets {
		b.WriteString(keyWord + " " + base64.StdEncoding.EncodeToString(s[:]) + "\n")
	}
	return b.Bytes()
}

// Load reads a key file. It refuses one that others than its owner may read or
// write: mode 600 or 400.
func Load(path string) (*Keys, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: the key file does not exist; make one with `hanode key generate > %s` and copy it to every node: %w", path, path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("stat key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file; allowed: a file of %q lines", path, keyWord)
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return nil, fmt.Errorf("%s: mode %03o lets others read or write the key; allowed: 600 or 400; run `chmod 600 %s`", path, m, path)
	}
	src, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	defer clear(src)
	return Parse(path, src)
}

// Parse reads the text of a key file; name stands in its errors, which never
// show a key.
func Parse(name string, src []byte) (*Keys, error) {
	if len(src) > maxFile {
		return nil, fmt.Errorf("%s: longer than %d bytes; allowed: up to %d lines `%s <base64>` and comments", name, maxFile, maxKeys, keyWord)
	}
	var secrets []secret
	var lines []int
	for i, line := range bytes.Split(src, []byte{'\n'}) {
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		s, err := parseLine(text)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, i+1, err)
		}
		for j, other := range secrets {
			if s == other {
				return nil, fmt.Errorf("%s:%d: the same key as in line %d; allowed: each key once; delete one of the lines", name, i+1, lines[j])
			}
		}
		secrets, lines = append(secrets, s), append(lines, i+1)
		if len(secrets) > maxKeys {
			return nil, fmt.Errorf("%s:%d: more than %d keys; allowed: 1 to %d; delete the keys no node uses any more", name, i+1, maxKeys, maxKeys)
		}
	}
	if len(secrets) == 0 {
		return nil, fmt.Errorf("%s:1: no key; allowed: lines `%s <base64 of 32 bytes>`; make one with `hanode key generate`", name, keyWord)
	}
	return newKeys(secrets)
}

func parseLine(text string) (s secret, err error) {
	const remedy = "make a line with `hanode key generate`"
	fields := strings.Fields(text)
	if fields[0] != keyWord {
		return s, fmt.Errorf("a line of an unknown kind; allowed: `%s <base64 of 32 bytes>` and `#` comments; %s", keyWord, remedy)
	}
	if len(fields) != 2 {
		return s, fmt.Errorf("%d words after %s; allowed: one, the base64 of 32 bytes; %s", len(fields)-1, keyWord, remedy)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil {
		return s, fmt.Errorf("the key is no base64; allowed: the base64 of 32 bytes, 44 characters; %s", remedy)
	}
	if len(raw) != keySize {
		return s, fmt.Errorf("the key has %d bytes; allowed: %d; %s", len(raw), keySize, remedy)
	}
	copy(s[:], raw)
	if subtle.ConstantTimeCompare(s[:], make([]byte, keySize)) == 1 {
		return s, fmt.Errorf("the key is all zero; allowed: random keys; %s", remedy)
	}
	return s, nil
}

// FromPassphrases makes Keys from short secrets such as those of Heartbeat's
// authkeys, first active, stretched with argon2id (64 MiB, about 0.1 s each).
// They must not be empty nor repeat. A generated key file is stronger.
func FromPassphrases(phrases ...string) (*Keys, error) {
	if len(phrases) == 0 || len(phrases) > maxKeys {
		return nil, fmt.Errorf("%d passphrases; allowed: 1 to %d", len(phrases), maxKeys)
	}
	var secrets []secret
	seen := map[string]bool{}
	for i, p := range phrases {
		if p == "" || seen[p] {
			return nil, fmt.Errorf("passphrase %d is empty or a repetition; allowed: different ones", i+1)
		}
		seen[p] = true
		// The salt is fixed, since all nodes must come to the same key from the
		// phrase alone.
		k := argon2.IDKey([]byte(p), []byte("hanode passphrase"), 3, 64<<10, 2, keySize)
		secrets = append(secrets, secret(k))
	}
	return newKeys(secrets)
}

func newKeys(secrets []secret) (*Keys, error) {
	k := &Keys{secrets: secrets}
	for _, s := range secrets {
		ca, err := newAuthority(s)
		if err != nil {
			return nil, err
		}
		k.cas = append(k.cas, ca)
	}
	return k.counted(), nil
}

// Gossip returns memberlist's keyring: 32-byte AES keys, the active one first.
func (k *Keys) Gossip() [][]byte {
	ring := make([][]byte, 0, len(k.secrets))
	for _, s := range k.secrets {
		ring = append(ring, s.derive(nil, labelGossip))
	}
	return ring
}

// derive makes the 32-byte subkey for a label.
func (s secret) derive(salt []byte, label string) []byte {
	sub, err := hkdf.Key(sha256.New, s[:], salt, label, keySize)
	if err != nil {
		// Only a length beyond 255 hashes or a short key under FIPS can fail; both are constants here.
		panic("hanode: hkdf: " + err.Error())
	}
	return sub
}

// String hides the secrets from logs.
func (k *Keys) String() string { return fmt.Sprintf("%d keys", len(k.secrets)) }
