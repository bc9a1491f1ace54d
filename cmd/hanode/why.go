package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"hanode/api"
)

func (a *app) whyCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:     "why GROUP",
		GroupID: groupSee,
		Short:   "Explain why a group is where it is, and where it would go",
		Example: `  hanode why web
  hanode why web --json | jq -r .if_owner_dies`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeGroups,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, done := a.client()
			defer done()
			w, err := c.Why(cmd.Context(), args[0])
			return report(a, w, err, a.whyText)
		},
	})
}

func (a *app) whyText(w *api.Why) {
	if w.Owner == nil {
		a.printf("Nobody owns %s (epoch %d).", w.Group, w.Epoch)
	} else {
		a.printf("%s is on %s (epoch %d).", w.Group, *w.Owner, w.Epoch)
	}
	a.printf("")
	t := newTable(a.out, "NODE", "ELIGIBLE", "SCORE", "BECAUSE")
	for _, r := range w.Reasons {
		eligible, score := "no", unknown
		if r.Eligible {
			eligible = "yes"
		}
		if r.Score != nil {
			score = strconv.FormatFloat(*r.Score, 'g', 6, 64)
		}
		t.row(r.Node, eligible, score, r.Because)
	}
	t.flush()
	if w.Owner == nil || w.IfOwnerDies == nil {
		return
	}
	a.printf("")
	a.printf("If %s dies: %s.", *w.Owner, *w.IfOwnerDies)
}
