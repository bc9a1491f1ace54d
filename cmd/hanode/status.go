package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"hanode/api"
)

func (a *app) statusCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:     "status [GROUP]",
		GroupID: groupSee,
		Short:   "Show who holds what, and what is wrong",
		Long: `Show the cluster in one sentence, then each group with its owner and its
resources, then every problem with what to do about it.

For one GROUP it also shows what each node last did with its resources, and the end of
what their programs printed. Of each operation the node keeps 64 KiB: --json has
all of it, in .groups[].nodes.

Without a quorum this shows what this node knows, and exits 3.`,
		Example: `  hanode status
  hanode status web
  hanode status web --json | jq -r '.groups[].nodes[].resources[].operations[].output'
  hanode status --json | jq -r '.problems[].text'`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeGroups,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, done := a.client()
			defer done()
			group := ""
			if len(args) == 1 {
				group = args[0]
			}
			st, err := c.Status(cmd.Context(), group)
			return report(a, st, err, func(st *api.Status) {
				// Only the sentence about the voters needs them.
				members, err := c.Members(cmd.Context())
				if e, ok := errors.AsType[*api.Error](err); ok && e.Exit != api.ExitNoQuorum {
					members = nil
				}
				a.printf("%s", statusSentence(st, members))
				a.statusText(st, group != "")
			})
		},
	})
}

// statusSentence is the first line: all is well, or not.
func statusSentence(st *api.Status, members []api.Member) string {
	voters, here := 0, 0
	for _, m := range members {
		if m.Voter && m.State != api.MemberLeft {
			voters++
			if m.State == api.MemberAlive || m.State == api.MemberLate {
				here++
			}
		}
	}
	of := ""
	if voters > 0 {
		of = fmt.Sprintf(": %d of %s alive", here, count(voters, "voter"))
	}
	switch {
	case !st.Quorum:
		return fmt.Sprintf("Cluster %s has NO QUORUM%s. This is what this node alone knows.", st.Cluster, of)
	case st.Leader == nil:
		return fmt.Sprintf("Cluster %s has a quorum%s, but no leader yet.", st.Cluster, of)
	}
	return fmt.Sprintf("Cluster %s has a quorum%s; %s leads.", st.Cluster, of, *st.Leader)
}

// statusText counts what there is much of, unless one group was asked for.
func (a *app) statusText(st *api.Status, all bool) {
	a.printf("")
	switch {
	case len(st.Groups) == 0 && !st.Quorum:
		a.printf("No groups are known here.")
	case len(st.Groups) == 0:
		a.printf("No groups. Give it some: hanode apply FILE")
	default:
		t := newTable(a.out, "GROUP", "OWNER", "EPOCH", "STATE", "SINCE")
		list, order, n := countGroups(st.Groups)
		for _, g := range list {
			t.row(g.Name, nobody(g.Owner), strconv.FormatUint(g.Epoch, 10), text(g.State), a.age(g.Since))
			for _, r := range resourceRows(g.Resources, all) {
				t.row("  "+r.what, "", "", r.state, "")
			}
		}
		for _, k := range order {
			t.row(count(n[k], "group"), k.owner, "", k.state, "")
		}
		t.flush()
		if len(order) > 0 {
			a.printf("hanode status GROUP shows one; hanode status --json lists all.")
		}
	}
	for _, g := range st.Groups {
		a.reportsText(g)
	}
	a.printf("")
	if len(st.Problems) == 0 {
		a.printf("No problems.")
		return
	}
	a.printf("%s:", count(len(st.Problems), "problem"))
	for _, p := range st.Problems {
		since := ""
		if p.Since != nil {
			since = ", for " + a.age(p.Since)
		}
		a.printf("  %s: %s (%s%s)", p.Severity, p.Text, p.Code, since)
		if p.Fix != "" {
			a.printf("    fix: %s", p.Fix)
		}
	}
}
