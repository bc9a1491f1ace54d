package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"hanode/api"
	"hanode/config"
	"hanode/internal/spec"
)

func (a *app) planCommand() *cobra.Command {
	var ha haDir
	cmd := &cobra.Command{
		Use:     "plan FILE | --ha-dir DIR",
		GroupID: groupFiles,
		Short:   "Show what apply would do, and do nothing",
		Example: `  hanode plan web.hcl
  hanode plan web.hcl --json | jq '.changes[] | select(.moves)'`,
		Args:              func(cmd *cobra.Command, args []string) error { return ha.args(cmd, args, cobra.ExactArgs(1)) },
		ValidArgsFunction: completeFiles("hcl"),
		RunE: func(cmd *cobra.Command, args []string) error {
			groups, err := a.wanted(ha, args)
			if err != nil {
				return err
			}
			c, done := a.client()
			defer done()
			plan, err := c.Plan(cmd.Context(), groups)
			return report(a, plan, err, func(p *api.Plan) { a.changesText(a.out, p.Changes) })
		},
	}
	ha.flags(cmd)
	return a.withJSON(cmd)
}

// wanted reads the groups of a cluster file, or of Heartbeat's haresources.
func (a *app) wanted(ha haDir, args []string) ([]spec.Group, error) {
	if ha.dir == "" {
		return a.loadCluster(args[0])
	}
	n, err := ha.node()
	if err != nil {
		return nil, usageError{err}
	}
	return n.LoadGroups()
}

// maxStdin is the longest cluster file read from stdin, in bytes.
const maxStdin = 1 << 20

// loadCluster reads a cluster file, "-" from stdin. What is wrong with it is a
// usage error.
func (a *app) loadCluster(path string) ([]spec.Group, error) {
	if path != "-" {
		groups, err := config.LoadCluster(path)
		if err != nil {
			return nil, usageError{err}
		}
		if src, err := os.ReadFile(path); err == nil {
			a.warn(config.ClusterWarnings(path, src))
		}
		return groups, nil
	}
	src, err := io.ReadAll(io.LimitReader(a.in, maxStdin+1))
	if err != nil {
		return nil, fmt.Errorf("read stdin: %w", err)
	}
	if len(src) > maxStdin {
		return nil, usageError{fmt.Errorf("stdin is longer than %d bytes", maxStdin)}
	}
	groups, err := config.ParseCluster("stdin", src)
	if err != nil {
		return nil, usageError{err}
	}
	a.warn(config.ClusterWarnings("stdin", src))
	return groups, nil
}

// warn tells what is no error, where it disturbs no reader of the output.
func (a *app) warn(ds config.Diagnostics) {
	for _, d := range ds {
		say(a.err, "%s\n", clean(d.String()))
	}
}

// changesText prints what would change, or that nothing would.
func (a *app) changesText(w io.Writer, changes []api.Change) {
	if len(changes) == 0 {
		say(w, "No groups, before and after.\n")
		return
	}
	t := newTable(w, "GROUP", "ACTION", "STOPS", "MOVES", "WHAT HAPPENS")
	for _, c := range changes {
		t.row(c.Group, string(c.Action), yes(c.Stops), yes(c.Moves), c.Text)
	}
	t.flush()
}
