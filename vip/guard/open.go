package guard

import "errors"

// RemoveAll takes every guard of this network namespace away, of whatever kind
// and incarnation: for a host that leaves for good, after its addresses are gone.
func RemoveAll(cfg Config) error {
	return errors.Join(removePins(cfg), removeClsact(cfg), removeTable(cfg))
}
