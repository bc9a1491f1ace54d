package main

import (
	"time"

	"github.com/spf13/cobra"

	"hanode/api"
)

func (a *app) standbyCommand() *cobra.Command {
	return a.nodeCommand(true, &cobra.Command{
		Use:   "standby NODE",
		Short: "Make a node give up its groups and take no more",
		Long: `Make a node give up its groups and take no more, until "online NODE".
It goes on voting, and stays on standby when it restarts.`,
		Example: `  hanode standby primary        # before working on it
  hanode online primary         # afterwards`,
	})
}

// nodeCommand completes standby and online, which differ in one bit.
func (a *app) nodeCommand(on bool, cmd *cobra.Command) *cobra.Command {
	var wait time.Duration
	cmd.GroupID = groupChange
	cmd.Args = cobra.ExactArgs(1)
	cmd.ValidArgsFunction = a.completeNodes
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, done := a.client()
		defer done()
		res, err := c.Standby(cmd.Context(), args[0], on, wait)
		return report(a, res, err, a.nodeText)
	}
	return a.withJSON(withWait(cmd, &wait))
}

func (a *app) nodeText(n *api.NodeResult) {
	state := "online"
	if n.Standby {
		state = "on standby"
	}
	a.printf("%s is %s; %s moved", n.Node, state, count(len(n.Moves), "group"))
	for _, m := range n.Moves {
		a.moveText(m)
	}
}
