package main

import (
	"github.com/spf13/cobra"
)

// maintenanceResult is what maintenance --json prints.
type maintenanceResult struct {
	Maintenance bool `json:"maintenance"`
}

func (a *app) maintenanceCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:     "maintenance on|off",
		GroupID: groupChange,
		Short:   "Stop or resume everything automatic",
		Long: `While maintenance is on, nothing starts, stops, restarts, moves or fails back
by itself. Leases go on: a node that dies stops answering as always.`,
		Example: `  hanode maintenance on         # before changing many things at once
  hanode maintenance off`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"on", "off"},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, done := a.client()
			defer done()
			on := args[0] == "on"
			if err := c.Maintenance(cmd.Context(), on); err != nil {
				return err
			}
			return report(a, &maintenanceResult{on}, nil, func(*maintenanceResult) {
				if on {
					a.printf("maintenance is on: nothing starts, stops or moves by itself; leases go on")
				} else {
					a.printf("maintenance is off")
				}
			})
		},
	})
}
