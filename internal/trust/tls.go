package trust

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	// ErrOtherKey: the peer's certificate comes from a key file that has none of
	// our keys. Remedy: the same key file on both nodes.
	ErrOtherKey = errors.New("the peer has another key file")
	// ErrOtherCluster: the peer has our key but belongs to another cluster.
	ErrOtherCluster = errors.New("the peer belongs to another cluster")
	// ErrOtherName: the server we reached is a member, but not the one we wanted,
	// as when two nodes exchanged their addresses.
	ErrOtherName = errors.New("another node answered")
)

// JoinALPN is the one protocol that a client may speak without a certificate,
// since it comes to fetch the key: see ServerConfig and JoinConfig.
const JoinALPN = "hanode-join-1"

// Certificates hold for all time: a host that boots in 1970 must serve. What
// ends a node's right is a new key, not a date.
var (
	notBefore = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	someDay   = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) // "now" for every check
	notAfter  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// validName is what may stand in a certificate as a node's or cluster's name.
var validName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$`)

func checkName(what, name string) error {
	if len(name) > 200 || !validName.MatchString(name) {
		return fmt.Errorf("%s %q cannot stand in a certificate; allowed: letters, digits, '-', '_' and single dots, at most 200 characters", what, name)
	}
	return nil
}

// CheckName says why name cannot be a node's.
func CheckName(name string) error { return checkName("node name", name) }

// authority is the cluster CA of one secret. Every node that has the secret
// makes the very same one.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newAuthority(s secret) (*authority, error) {
	key := ed25519.NewKeyFromSeed(s.derive(nil, labelCA))
	id := keyID(key.Public().(ed25519.PublicKey))
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hanode " + id},
		NotBefore: notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte(id),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make cluster CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back cluster CA: %w", err)
	}
	return &authority{cert: cert, key: key}, nil
}

// issue makes a certificate for a node, with a fresh key.
func (a *authority) issue(cluster, name string) (tls.Certificate, error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make node key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make serial number: %w", err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name[:min(len(name), 64)]},
		NotBefore: notBefore, NotAfter: notAfter,
		DNSNames: []string{name}, URIs: []*url.URL{{Scheme: "hanode", Host: cluster, Path: "/" + name}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue certificate for %s: %w", name, err)
	}
	return tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}, nil
}

// ServerConfig returns the settings of this node's TLS listener: TLS 1.3, a
// member's certificate wanted from every client (the only exception: a client
// that offers JoinALPN alone, where alpn has it; APIALPN takes a ClientCert instead), no
// resumption. The handshake
// fails with ErrOtherKey or ErrOtherCluster.
func (k *Keys) ServerConfig(cluster, name string, alpn ...string) (*tls.Config, error) {
	cfg, err := k.base(cluster, name)
	if err != nil {
		return nil, err
	}
	cfg.NextProtos = alpn
	cfg.ClientAuth = tls.RequireAnyClientCert
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol == APIALPN {
			return k.verifyClient(cs, cluster)
		}
		return k.verify(cs, cluster, "")
	}
	open := cfg.Clone()
	open.NextProtos, open.ClientAuth, open.VerifyConnection = []string{JoinALPN}, tls.NoClientCert, nil
	joins := slices.Contains(alpn, JoinALPN)
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if c, ok := hello.Conn.(*pending); ok {
			c.hint = k.judge(hello.ServerName, cluster)
		}
		if joins && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == JoinALPN {
			return open, nil
		}
		return nil, nil
	}
	return cfg, nil
}

// ClientConfig returns the settings to call the node peer for one protocol. The
// handshake fails with ErrOtherKey, ErrOtherCluster, or with ErrOtherName when a
// member of another name answers.
//
// Where only the server misses our active key (a rotation in the wrong order)
// the handshake succeeds here and the first read fails with a TLS alert; the
// server counts it as other-key.
func (k *Keys) ClientConfig(cluster, name, peer, alpn string) (*tls.Config, error) {
	if err := checkName("peer name", peer); err != nil {
		return nil, err
	}
	cfg, err := k.base(cluster, name)
	if err != nil {
		return nil, err
	}
	cfg.NextProtos = []string{alpn}
	cfg.ServerName = hint(k.cas[0].public(), cluster)
	cfg.InsecureSkipVerify = true // VerifyConnection checks instead, by our rules
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if err := k.verify(cs, cluster, peer); err != nil {
			return err
		}
		return spoke(cs, alpn)
	}
	return cfg, nil
}

// Fingerprint names the active cluster CA, for a join token, and with it the key.
func (k *Keys) Fingerprint() string { return fingerprint(k.cas[0].public()) }

// Fingerprints names all keys, the active one first. They are no secret: whoever is
// connected to learns them.
func (k *Keys) Fingerprints() []string {
	var out []string
	for _, ca := range k.cas {
		out = append(out, fingerprint(ca.public()))
	}
	return out
}

// JoinConfig returns the settings of a client that has no key yet but a join
// token: it accepts any member of the cluster under the CA of that fingerprint,
// fails with ErrOtherKey or ErrOtherCluster otherwise, and speaks JoinALPN.
func JoinConfig(fprint, cluster string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{JoinALPN},
		InsecureSkipVerify: true, // VerifyConnection checks instead
		VerifyConnection: func(cs tls.ConnectionState) error {
			for _, ca := range cs.PeerCertificates {
				pub, ok := ca.PublicKey.(ed25519.PublicKey)
				if !ok || fingerprint(pub) != fprint || !ca.IsCA {
					continue
				}
				if err := verifyChain(cs, []*x509.Certificate{ca}, cluster, ""); err != nil {
					return err
				}
				return spoke(cs, JoinALPN)
			}
			return fmt.Errorf("its CA is not the one of the join token: %w", ErrOtherKey)
		},
	}
}

// PeerName returns the node name in the peer's certificate. The connection must
// come from one of this package's settings, which have verified it.
func PeerName(cs tls.ConnectionState) (string, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", errors.New("the peer showed no certificate")
	}
	_, name, err := identity(cs.PeerCertificates[0])
	return name, err
}

func (k *Keys) base(cluster, name string) (*tls.Config, error) {
	if err := errors.Join(checkName("cluster name", cluster), checkName("node name", name)); err != nil {
		return nil, err
	}
	leaf, err := k.cas[0].issue(cluster, name)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{leaf}, SessionTicketsDisabled: true,
	}, nil
}

func (k *Keys) verify(cs tls.ConnectionState, cluster, peer string) error {
	var roots []*x509.Certificate
	for _, ca := range k.cas {
		roots = append(roots, ca.cert)
	}
	return verifyChain(cs, roots, cluster, peer)
}

// verifyChain checks who issued the peer's certificate and for whom, never when.
// An empty peer means any node.
func verifyChain(cs tls.ConnectionState, cas []*x509.Certificate, cluster, peer string) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("the peer showed no certificate")
	}
	leaf := cs.PeerCertificates[0]
	roots := x509.NewCertPool()
	for _, ca := range cas {
		roots.AddCert(ca)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: someDay, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return fmt.Errorf("check certificate: %w: %w", ErrOtherKey, err)
	}
	if leaf.IsCA {
		return fmt.Errorf("the certificate is a CA's, not a node's: %w", ErrOtherName)
	}
	of, name, err := identity(leaf)
	switch {
	case err != nil:
		return err
	case of != cluster:
		return fmt.Errorf("certificate of cluster %q, wanted %q: %w", of, cluster, ErrOtherCluster)
	case peer != "" && name != peer:
		return fmt.Errorf("certificate of node %q, wanted %q: %w", name, peer, ErrOtherName)
	}
	return nil
}

// identity reads cluster and node name from a certificate of ours.
func identity(leaf *x509.Certificate) (cluster, name string, err error) {
	if len(leaf.URIs) != 1 || len(leaf.DNSNames) != 1 || leaf.URIs[0].Scheme != "hanode" {
		return "", "", errors.New("the peer's certificate names no hanode node")
	}
	name, found := strings.CutPrefix(leaf.URIs[0].Path, "/")
	if !found || name != leaf.DNSNames[0] || checkName("node name", name) != nil {
		return "", "", errors.New("the peer's certificate names its node in two ways")
	}
	return leaf.URIs[0].Host, name, nil
}

func spoke(cs tls.ConnectionState, alpn string) error {
	if cs.NegotiatedProtocol != alpn {
		return fmt.Errorf("the peer does not speak %s", alpn)
	}
	return nil
}

func (a *authority) public() ed25519.PublicKey { return a.cert.PublicKey.(ed25519.PublicKey) }

func fingerprint(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(append([]byte("hanode ca fingerprint:"), pub...))
	return hex.EncodeToString(sum[:])
}

// A client that finds a stranger hangs up before it showed its certificate, so
// a server could never say why. The server name of the first message therefore
// carries two hashes, of CA and cluster. They are a hint for the counters of
// Mux; nothing is decided by them.

func keyID(pub ed25519.PublicKey) string { return shortHash("hanode key id:", pub, "") }

func hint(pub ed25519.PublicKey, cluster string) string {
	return keyID(pub) + "." + shortHash("hanode cluster:", pub, cluster)
}

func shortHash(label string, pub ed25519.PublicKey, s string) string {
	sum := sha256.Sum256(slices.Concat([]byte(label), pub, []byte(s)))
	return hex.EncodeToString(sum[:8])
}

// judge says what a client's hint shows: nil, ErrOtherKey or ErrOtherCluster.
func (k *Keys) judge(serverName, cluster string) error {
	id, _, found := strings.Cut(serverName, ".")
	if !found || len(serverName) != 33 {
		return nil // not one of ours at all
	}
	for _, ca := range k.cas {
		if id != keyID(ca.public()) {
			continue
		}
		if serverName != hint(ca.public(), cluster) {
			return ErrOtherCluster
		}
		return nil
	}
	return ErrOtherKey
}
