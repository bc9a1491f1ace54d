package main

import (
	"github.com/spf13/cobra"

	"hanode/api"
)

func (a *app) clearCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:     "clear [GROUP] [NODE]",
		GroupID: groupChange,
		Short:   "Forget failures, so that groups are tried again where they failed",
		Long: `Forget failures of GROUP (or of every group) on NODE (or on every node).

A node that could not run a group is not given it for a while (retry_after, longer
with each failure). After a repair say so here: the node may have the group at once.
A group that runs elsewhere stays there, unless failback says otherwise.`,
		Example: `  hanode clear                  # everything is repaired
  hanode clear web
  hanode clear web secondary`,
		Args:              cobra.MaximumNArgs(2),
		ValidArgsFunction: a.completeMove,
		RunE: func(cmd *cobra.Command, args []string) error {
			var req api.ClearRequest
			for i, to := range []*string{&req.Group, &req.Node} {
				if i < len(args) {
					*to = args[i]
				}
			}
			c, done := a.client()
			defer done()
			res, err := c.Clear(cmd.Context(), req)
			return report(a, res, err, a.clearText)
		},
	})
}

func (a *app) clearText(r *api.ClearResult) {
	for _, c := range r.Cleared {
		a.printf("%s may be tried on %s again", c.Group, c.Node)
	}
	if len(r.Cleared) == 0 {
		a.printf("no failures are remembered")
	}
}
