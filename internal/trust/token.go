package trust

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// tokenWord opens a token's text.
const tokenWord = "hanode-join-1"

// Token is what a node that has no key yet shows to join: it names the cluster and
// pins its CA, so that the node hands its secret, and gives its trust, to nobody else.
type Token struct {
	Cluster     string
	Fingerprint string // of the CA, as Keys.Fingerprint says it
	ID          string // public; how people name the token
	Secret      string // 128 bits of base32; "" never
}

// tokenJSON is a token as its text carries it.
type tokenJSON struct {
	Cluster     string `json:"c"`
	Fingerprint []byte `json:"f"`
	ID          string `json:"i"`
	Secret      string `json:"s"`
}

// NewToken makes one of the cluster whose active CA is that of the keys.
func (k *Keys) NewToken(cluster string) Token {
	return Token{Cluster: cluster, Fingerprint: k.Fingerprint(), ID: strings.ToLower(rand.Text()[:8]), Secret: rand.Text()}
}

// Text is what an operator pastes. Its last bytes check the rest: half of a token is
// told from a wrong one.
func (t Token) Text() string {
	f, err := hex.DecodeString(t.Fingerprint)
	if err != nil {
		panic("hanode: a token with a fingerprint that is none: " + err.Error()) // ours are hex
	}
	b, err := json.Marshal(tokenJSON{Cluster: t.Cluster, Fingerprint: f, ID: t.ID, Secret: t.Secret})
	if err != nil {
		panic("hanode: encode token: " + err.Error()) // strings and bytes: cannot fail
	}
	return tokenWord + "." + base64.RawURLEncoding.EncodeToString(append(b, tokenSum(b)...))
}

// String hides the secret from logs.
func (t Token) String() string { return "token " + t.ID }

// Hash is what the cluster keeps of the secret.
func (t Token) Hash() string { return SecretHash(t.Secret) }

// SecretHash is the hash of a token's secret, in hex. The secret is random and long, so
// that nothing slower is needed.
func SecretHash(secret string) string {
	sum := sha256.Sum256([]byte("hanode token:" + secret))
	return hex.EncodeToString(sum[:])
}

func tokenSum(b []byte) []byte {
	sum := sha256.Sum256(append([]byte("hanode token sum:"), b...))
	return sum[:4]
}

const maxTokenText = 2000

// ParseToken reads a token's text. Its errors never show it.
func ParseToken(text string) (t Token, err error) {
	text = strings.TrimSpace(text)
	word, code, found := strings.Cut(text, ".")
	if !found || word != tokenWord || len(text) > maxTokenText {
		return t, fmt.Errorf("that is no token; a token begins with %q; make one with `hanode token create` on a member", tokenWord+".")
	}
	damaged := errors.New("the token is not whole; copy all of it, or make another with `hanode token create`")
	b, err := base64.RawURLEncoding.Strict().DecodeString(code)
	if err != nil || len(b) < 4 || !bytes.Equal(b[len(b)-4:], tokenSum(b[:len(b)-4])) {
		return t, damaged
	}
	var j tokenJSON
	if err := json.Unmarshal(b[:len(b)-4], &j); err != nil || len(j.Fingerprint) != sha256.Size || j.ID == "" || j.Secret == "" {
		return t, damaged
	}
	if err := checkName("the token's cluster", j.Cluster); err != nil {
		return t, err
	}
	return Token{Cluster: j.Cluster, Fingerprint: hex.EncodeToString(j.Fingerprint), ID: j.ID, Secret: j.Secret}, nil
}
