package resource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hanode/internal/atomicfile"
	"hanode/internal/spec"
)

// dropIns is where units have what was decided since the last boot.
const dropIns = "/run/systemd/system"

// Arrange tells systemd that the agent's own unit is to be stopped before these units
// (resources of type systemd), so that a shutdown of the host is a hand-over: left
// alone it stops them all at once. It is one drop-in of the agent's unit, After= all
// of them, which is the same order as Before= in each, without touching what is not
// ours. It lasts until the next boot. An agent that is not a unit of its own has no
// order and needs none.
//
// The price is a reload of systemd, only when the list has changed; and a stop job of
// one of these waits for the agent's own, which Drain deals with.
func (s *Services) Arrange(ctx context.Context, units []spec.Resource) error {
	c, err := s.bus.get(ctx)
	if err != nil {
		return fmt.Errorf("order units around this one: %w", err)
	}
	self, err := c.GetUnitNameByPID(ctx, uint32(os.Getpid()))
	if err != nil {
		return fmt.Errorf("order units around this one: %w", err)
	}
	if !strings.HasSuffix(self, ".service") {
		return nil
	}
	changed, err := writeOrder(filepath.Join(dropIns, self+".d", "50-groups.conf"), self, units)
	if err != nil {
		return fmt.Errorf("order units around %s: %w", self, err)
	}
	if !changed {
		return nil
	}
	if err := c.ReloadContext(ctx); err != nil {
		return fmt.Errorf("have systemd read the order of units around %s: %w", self, err)
	}
	return nil
}

// writeOrder makes the drop-in say it; false = it did already.
func writeOrder(path, self string, units []spec.Resource) (changed bool, err error) {
	var names []string
	for _, r := range units {
		if name := unitName(r); name != self {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	text := "# Units of groups: at shutdown the agent hands them over before systemd stops them.\n[Unit]\n"
	for _, name := range names {
		text += "After=" + name + "\n"
	}
	old, err := os.ReadFile(path)
	switch {
	case err == nil && string(old) == text:
		return false, nil
	case errors.Is(err, os.ErrNotExist) && len(names) == 0:
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, err
	}
	if err := atomicfile.Write(path, []byte(text)); err != nil {
		return false, err
	}
	return true, os.Chmod(path, 0o644)
}

// Drain says that this agent is about to stop: from now on the stop of a unit does
// not wait for the agent's own, which in the order of Arrange comes first.
func (s *Services) Drain() { s.draining.Store(true) }
