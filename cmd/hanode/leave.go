package main

import "github.com/spf13/cobra"

// leaveResult is what leave --json prints.
type leaveResult struct {
	Left bool `json:"left"`
}

func (a *app) leaveCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:     "leave",
		GroupID: groupChange,
		Short:   "Hand over this node's groups and end its membership",
		Long: `Hand over this node's groups, end its membership, and set its data_dir aside.
To stop a node only for a while, stop the service; it then stays a member.`,
		Example: `  hanode leave
  hanode leave --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, done := a.client()
			defer done()
			if err := c.Leave(cmd.Context()); err != nil {
				return err
			}
			return report(a, &leaveResult{Left: true}, nil, func(*leaveResult) {
				a.printf("this node has left the cluster")
			})
		},
	})
}
