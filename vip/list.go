package vip

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"hanode/internal/atomicfile"
)

// listName is the file in the data directory with every address an incarnation
// may have put on this host. It is written before the first goes on, so a crash
// cannot leave one that is in no list; kernels before 5.18 keep no mark.
const listName = "vips.json"

type listed struct {
	Address netip.Prefix `json:"address"` // as written
	Dev     string       `json:"dev"`     // "" = any
	Network bool         `json:"network"` // on with that prefix
}

func loadList(dir string) ([]Address, error) {
	b, err := os.ReadFile(filepath.Join(dir, listName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of our addresses: %w", err)
	}
	var in []listed
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("read the list of our addresses %s: %w", filepath.Join(dir, listName), err)
	}
	out := make([]Address, 0, len(in))
	for _, l := range in {
		if l.Address.IsValid() {
			out = append(out, Address{Addr: l.Address.Addr(), Prefix: l.Address, Dev: l.Dev, Network: l.Network})
		}
	}
	return out, nil
}

// saveList replaces the list; when it returns the list survives a power cut.
func saveList(dir string, addrs []Address) error {
	out := make([]listed, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, listed{a.Prefix, a.Dev, a.Network})
	}
	slices.SortFunc(out, func(a, b listed) int { return a.Address.Addr().Compare(b.Address.Addr()) })
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return fmt.Errorf("write the list of our addresses: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, listName), append(b, '\n')); err != nil {
		return fmt.Errorf("write the list of our addresses: %w", err)
	}
	return nil
}
