package main

import (
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hanode/api"
)

func (a *app) removeCommand() *cobra.Command {
	var confirm string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:     "remove NODE",
		GroupID: groupChange,
		Short:   "End the membership of a node that is dead",
		Long: `End the membership of a node that is dead and will not come back: its groups go to
others, its vote is taken, its name is free. A node that lives is refused; run
"hanode leave" on it.

Where fewer votes are left than a loss can be taken from, a sentence must be typed, or
given with --confirm. If the host comes back, its agent is told what happened, holds
nothing, and may join anew: hanode join ADDRESS --token T --fresh.

Its key still opens the cluster's doors: whoever has the disk of the host has the key.
If that may be, make a new key.`,
		Example: `  hanode remove secondary
  hanode remove secondary --confirm "remove secondary" --json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeMembers,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, done := a.client()
			defer done()
			req := api.RemoveRequest{Node: args[0], Confirm: confirm, Wait: wait}
			res, err := c.Remove(cmd.Context(), req)
			e, refused := errors.AsType[*api.Error](err)
			if refused && e.Code == api.CodeNeedsConfirmation && res != nil && res.Confirm != nil {
				if confirm != "" || !a.terminal() {
					return err
				}
				if req.Confirm, err = a.typed(cmd.Context(), e.Message, *res.Confirm); err != nil {
					return err
				}
				res, err = c.Remove(cmd.Context(), req)
			}
			if err != nil {
				return err
			}
			return report(a, res, nil, a.removeText)
		},
	}
	cmd.Flags().StringVar(&confirm, "confirm", "", `the sentence that would be asked for, such as "remove secondary"`)
	return a.withJSON(withWait(cmd, &wait))
}

func (a *app) removeText(r *api.RemoveResult) {
	if !r.Removed {
		a.printf("%s is being removed; `hanode members` shows when it is done", r.Node)
		return
	}
	a.printf("%s is no member any more; voters: %s", r.Node, strings.Join(r.Voters, ", "))
}
