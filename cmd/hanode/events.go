package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"hanode/api"
)

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	var after uint64
	cmd := &cobra.Command{
		Use:     "events",
		GroupID: groupSee,
		Short:   "Show what happened, when, why and how long it took",
		Example: `  hanode events
  hanode events --follow
  hanode events --json | jq 'select(.kind == "failover")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, done := a.client()
			defer done()
			err := c.Events(cmd.Context(), after, follow, func(e api.Event) error {
				if a.json {
					return api.WriteJSON(a.out, e, false)
				}
				if _, err := fmt.Fprintln(a.out, a.eventText(e)); err != nil {
					return err
				}
				if e.Output != nil {
					a.outputText("        | ", *e.Output)
				}
				return nil
			})
			if errors.Is(err, context.Canceled) {
				return nil // that is how following ends
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens from now on, until interrupted")
	cmd.Flags().Uint64Var(&after, "after", 0, "leave out events up to this index")
	return a.withJSON(cmd)
}

// eventText renders one line; columns have fixed widths, because with --follow
// nobody knows how wide the next line is.
func (a *app) eventText(e api.Event) string {
	where := text(e.Group)
	if e.Group != nil && e.Epoch != nil {
		where = fmt.Sprintf("%s@%d", *e.Group, *e.Epoch)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%6d  %s  %-12s %-12s %-12s %s", e.Index,
		e.Time.In(a.zone).Format("2006-01-02 15:04:05.000"), text(e.Node), where, e.Kind, e.Text)
	if e.Cause != nil && *e.Cause != "" {
		fmt.Fprintf(&b, " (%s)", *e.Cause)
	}
	if e.MS != nil {
		fmt.Fprintf(&b, ", %s", millis(e.MS))
	}
	return clean(b.String())
}
