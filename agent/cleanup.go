package agent

import (
	"errors"
	"fmt"
	"log/slog"

	"hanode/config"
	"hanode/vip"
)

// Cleanup removes from this host's network what an agent that has ended left there: see
// vip.Cleanup. It refuses while an agent of the cluster runs here. Services that an
// agent started are none of it: they are unreachable without their addresses, and the
// next agent stops them.
func Cleanup(cfg *config.Node, log *slog.Logger) (removed []string, err error) {
	release, err := claim(cfg.Cluster)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	gone, err := vip.Cleanup(vip.Options{Dir: cfg.DataDir, Log: log})
	for _, a := range gone {
		removed = append(removed, a.String())
	}
	if err != nil {
		err = fmt.Errorf("clean up: %w", err)
	}
	return removed, err
}
