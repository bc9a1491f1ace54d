package config

import (
	"fmt"
	"os"
	"slices"

	"hanode/internal/trust"
)

// LoadKeys reads the cluster's secrets: the key file, or what Heartbeat's authkeys
// gives, which takes about 0.1 s for each of its keys.
func (n *Node) LoadKeys() (*trust.Keys, error) {
	if len(n.Keys) == 0 {
		return trust.Load(n.KeyFile)
	}
	return fromSecrets(n.Keys)
}

// ReloadKeys reads the file that LoadKeys was about as it is now; authkeys by the same
// rules as at the start.
func (n *Node) ReloadKeys() (*trust.Keys, error) {
	if len(n.Keys) == 0 {
		return trust.Load(n.KeyFile)
	}
	src, err := readLimited(n.KeyFile, maxKeyBytes)
	if err != nil {
		return nil, unread(n.KeyFile, err, "put it back")
	}
	info, err := os.Stat(n.KeyFile)
	if err != nil {
		return nil, unread(n.KeyFile, err, "put it back")
	}
	r := &haReport{}
	checkAuthMode(r, n.KeyFile, info.Mode())
	auth := parseHaAuth(r, n.KeyFile, src, n.insecureCRC)
	if err := r.diags.err(); err != nil {
		return nil, err
	}
	return fromSecrets(auth.keys)
}

// sampleKeys are those of the authkeys that Heartbeat came with.
var sampleKeys = []Secret{"HI!", "Hello!"}

func fromSecrets(keys []Secret) (*trust.Keys, error) {
	phrases := make([]string, len(keys))
	for i, k := range keys {
		if slices.Contains(sampleKeys, k) {
			return nil, fmt.Errorf("authkeys: key %d is one of the sample that Heartbeat came with, and everybody knows it; choose another: dd if=/dev/urandom bs=24 count=1 | base64", i+1)
		}
		phrases[i] = string(k)
	}
	return trust.FromPassphrases(phrases...)
}
