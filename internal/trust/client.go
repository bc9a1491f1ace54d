package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
)

// APIALPN is the protocol of the remote API, for which people and programs have
// certificates. Such a certificate is good for nothing else, and a node's not for this.
const APIALPN = "hanode-api-1"

const clientScheme = "hanode-client"

// Client is whom a certificate for the remote API was made for. What its role allows is
// left to package api.
type Client struct{ Cluster, Name, Role string }

// ClientCert makes a certificate for the remote API, with its key and the cluster's CA, as
// PEM. A secret. It holds until the key is changed that is active now.
func (k *Keys) ClientCert(c Client) ([]byte, error) {
	if err := errors.Join(checkName("cluster name", c.Cluster), checkName("name", c.Name), checkName("role", c.Role)); err != nil {
		return nil, err
	}
	a := k.cas[0]
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the client's key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: c.Name[:min(len(c.Name), 64)]},
		NotBefore: notBefore, NotAfter: notAfter,
		URIs:        []*url.URL{{Scheme: clientScheme, Host: c.Cluster, Path: "/" + c.Role + "/" + c.Name}},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.cert, pub, a.key)
	if err != nil {
		return nil, fmt.Errorf("issue certificate for %s: %w", c.Name, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the client's key: %w", err)
	}
	var out bytes.Buffer
	for _, b := range []pem.Block{{Type: "CERTIFICATE", Bytes: der}, {Type: "CERTIFICATE", Bytes: a.cert.Raw}, {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := pem.Encode(&out, &b); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// RemoteConfig returns the settings of a client of the remote API that has the text of a
// ClientCert: any node of the certificate's cluster will do as the server.
func RemoteConfig(text []byte) (*tls.Config, Client, error) {
	leaf, err := tls.X509KeyPair(text, text)
	if err != nil || len(leaf.Certificate) != 2 {
		return nil, Client{}, fmt.Errorf("that is no certificate of `hanode cert` (%w); make one on a member", err)
	}
	own, err := x509.ParseCertificate(leaf.Certificate[0])
	if err != nil {
		return nil, Client{}, err
	}
	ca, err := x509.ParseCertificate(leaf.Certificate[1])
	if err != nil {
		return nil, Client{}, err
	}
	who, err := clientOf(own)
	if err != nil {
		return nil, who, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{APIALPN}, Certificates: []tls.Certificate{leaf},
		InsecureSkipVerify: true, // VerifyConnection checks instead
		VerifyConnection: func(cs tls.ConnectionState) error {
			if err := verifyChain(cs, []*x509.Certificate{ca}, who.Cluster, ""); err != nil {
				return err
			}
			return spoke(cs, APIALPN)
		},
	}, who, nil
}

// PeerClient is whom the certificate at the other end was made for. The connection must
// come from ServerConfig, which has verified it, and speak APIALPN.
func PeerClient(cs tls.ConnectionState) (Client, error) {
	if len(cs.PeerCertificates) == 0 || cs.NegotiatedProtocol != APIALPN {
		return Client{}, errors.New("the peer showed no certificate for the API")
	}
	return clientOf(cs.PeerCertificates[0])
}

// clientOf reads a client's certificate.
func clientOf(leaf *x509.Certificate) (c Client, err error) {
	if len(leaf.URIs) != 1 || leaf.URIs[0].Scheme != clientScheme || leaf.IsCA {
		return c, errors.New("the certificate is none for the remote API")
	}
	parts := strings.Split(strings.TrimPrefix(leaf.URIs[0].Path, "/"), "/")
	if len(parts) != 2 {
		return c, errors.New("the certificate names no role")
	}
	return Client{Cluster: leaf.URIs[0].Host, Role: parts[0], Name: parts[1]}, nil
}

// verifyClient checks who issued a client's certificate, and for which cluster.
func (k *Keys) verifyClient(cs tls.ConnectionState, cluster string) error {
	c, err := PeerClient(cs)
	if err != nil {
		return err
	}
	if k.issuer(cs.PeerCertificates[0]) == "" {
		return fmt.Errorf("check certificate of %s: %w", c.Name, ErrOtherKey)
	}
	if !slices.Equal(cs.PeerCertificates[0].ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || c.Cluster != cluster {
		return fmt.Errorf("certificate of cluster %q, wanted %q: %w", c.Cluster, cluster, ErrOtherCluster)
	}
	return nil
}
