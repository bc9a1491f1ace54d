package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"hanode/api"
)

func (a *app) moveCommand() *cobra.Command {
	var unpin bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:     "move GROUP [NODE]",
		GroupID: groupChange,
		Short:   "Move a group to another node (switchover)",
		Long: `Move a group to NODE, or to the best other node, and wait until it runs there.

This pins the group there: failback is suspended until "move GROUP --unpin", or
until the group next fails over.`,
		Example: `  hanode move web               # to the best other node
  hanode move web secondary
  hanode move web --unpin       # let it go back to the node it prefers`,
		Args: func(cmd *cobra.Command, args []string) error {
			if unpin && len(args) == 2 {
				return fmt.Errorf("--unpin takes no NODE; the group goes where it prefers to be")
			}
			return cobra.RangeArgs(1, 2)(cmd, args)
		},
		ValidArgsFunction: a.completeMove,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := api.MoveRequest{Group: args[0], Unpin: unpin, Wait: wait}
			if len(args) == 2 {
				req.To = args[1]
			}
			c, done := a.client()
			defer done()
			res, err := c.Move(cmd.Context(), req)
			return report(a, res, err, func(m *api.MoveResult) { a.moveText(*m) })
		},
	}
	cmd.Flags().BoolVar(&unpin, "unpin", false, "end the pin of an earlier move, so that failback works again")
	return a.withJSON(withWait(cmd, &wait))
}

// moveText prints "web: primary -> secondary, epoch 7, 1.8 ms".
func (a *app) moveText(m api.MoveResult) {
	if m.From != nil && *m.From == m.To {
		a.printf("%s: stays on %s, epoch %d", m.Group, m.To, m.Epoch)
		return
	}
	silent := ""
	if m.SilentMS != nil {
		silent = ", " + millis(m.SilentMS)
	}
	a.printf("%s: %s -> %s, epoch %d%s", m.Group, nobody(m.From), nobody(&m.To), m.Epoch, silent)
}
