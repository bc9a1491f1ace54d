package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"hanode/api"
)

func (a *app) confirmOffCommand() *cobra.Command {
	var confirm string
	cmd := &cobra.Command{
		Use:     "confirm-off NODE",
		GroupID: groupChange,
		Short:   "Say that a node's host is off, so that nothing waits for it",
		Long: `Say that the host of NODE is off, or was since.

An exclusive group (one with storage, or with exclusive = true) never starts on a
second host while the first may still run it. A host that is not heard may have
lost only its network. Look at it, or pull its plug; then say so here, and the
group starts elsewhere. For a host that was switched off and is back again, say it
too: the cluster cannot tell it from a copy of the machine.

If the host was not off, two hosts may write to one storage. Therefore a sentence
must be typed, or given with --confirm. A node that is heard is refused.`,
		Example: `  hanode confirm-off primary                                # asks
  hanode confirm-off primary --confirm "primary is off"     # does not ask
  hanode confirm-off primary --confirm "primary was off"    # it is back already`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, done := a.client()
			defer done()
			req := api.ConfirmOffRequest{Node: args[0], Confirm: confirm}
			res, err := c.ConfirmOff(cmd.Context(), req)
			e, refused := errors.AsType[*api.Error](err)
			if refused && e.Code == api.CodeNeedsConfirmation && res != nil {
				if confirm != "" || !a.terminal() {
					return err
				}
				if req.Confirm, err = a.typed(cmd.Context(), e.Message, res.Confirm); err != nil {
					return err
				}
				res, err = c.ConfirmOff(cmd.Context(), req)
			}
			if err != nil {
				return err
			}
			return report(a, res, nil, a.confirmOffText)
		},
	}
	cmd.Flags().StringVar(&confirm, "confirm", "", `the sentence that would be asked for, such as "primary is off"`)
	return a.withJSON(cmd)
}

// typed asks for a sentence to the letter.
func (a *app) typed(ctx context.Context, why, sentence string) (string, error) {
	say(a.err, "%s.\nType %q if that is certain: ", clean(why), clean(sentence))
	line, err := readLine(ctx, a.in)
	if err != nil {
		return "", err
	}
	if line = strings.TrimSpace(line); line != sentence {
		return "", &api.Error{Code: "declined", Exit: api.ExitFailed, Message: "nothing was changed"}
	}
	return line, nil
}

func (a *app) confirmOffText(r *api.ConfirmOffResult) {
	if len(r.Groups) == 0 {
		a.printf("%s counts as off", r.Node)
		return
	}
	a.printf("%s counts as off; it may not run %s any more", r.Node, strings.Join(r.Groups, ", "))
}
