package config

import "hanode/internal/trust"

// LoadKeys reads the cluster's secrets: the key file, or what Heartbeat's authkeys
// gives, which takes about 0.1 s for each of its keys.
func (n *Node) LoadKeys() (*trust.Keys, error) {
	if len(n.Keys) == 0 {
		return trust.Load(n.KeyFile)
	}
	phrases := make([]string, len(n.Keys))
	for i, k := range n.Keys {
		phrases[i] = string(k)
	}
	return trust.FromPassphrases(phrases...)
}
