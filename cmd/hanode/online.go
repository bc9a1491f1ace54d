package main

import "github.com/spf13/cobra"

func (a *app) onlineCommand() *cobra.Command {
	return a.nodeCommand(false, &cobra.Command{
		Use:   "online NODE",
		Short: "Let a node that is on standby own groups again",
		Example: `  hanode online primary
  hanode online primary --json`,
	})
}
