package resource

import (
	"context"
	"fmt"
	"slices"

	"hanode/internal/spec"
)

// Foreign lists what of a group runs on this host although no agent started it: a unit
// that somebody started by hand or at boot, a script whose monitor says that it runs.
// Resources that cannot be asked are left out, and so are addresses. It changes nothing.
func (s *Services) Foreign(ctx context.Context, node string, g spec.Group) []string {
	var out []string
	for _, r := range g.Resources {
		d, err := s.drivers.of(r)
		if err != nil || r.Type == "ip" || r.Type == "exec" && len(r.Monitor) == 0 || s.journal.has(g.Name, r) {
			continue
		}
		err = bounded(ctx, limits(d, r).Monitor, func(ctx context.Context) error {
			return d.Monitor(ctx, r, Env{Group: g.Name, Node: node, Reason: "look"})
		})
		// It may have been started for the group while we asked.
		if err == nil && ctx.Err() == nil && !s.journal.has(g.Name, r) {
			out = append(out, fmt.Sprintf("%s %q", r.Type, r.Name))
		}
	}
	slices.Sort(out)
	return out
}
