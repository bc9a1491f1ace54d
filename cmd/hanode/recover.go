package main

import (
	"strings"

	"github.com/spf13/cobra"

	"hanode/agent"
	"hanode/api"
	"hanode/config"
)

// recoverResult is what recover --json prints.
type recoverResult struct {
	Cluster    string           `json:"cluster"`
	Node       string           `json:"node"`
	Generation uint64           `json:"generation"` // that begins, or would
	Term       uint64           `json:"term"`
	Index      uint64           `json:"index"` // how far this disk's log reaches, within Term
	Voters     api.List[string] `json:"voters"`
	Lost       api.List[string] `json:"lost"`
	Groups     api.List[string] `json:"groups"`
	Confirm    string           `json:"confirm"` // the sentence that says it
	Backup     *string          `json:"backup"`  // nil = there was none, or nothing was done
	Done       bool             `json:"done"`
}

func (a *app) recoverCommand() *cobra.Command {
	var file, confirm string
	cmd := &cobra.Command{
		Use:     "recover",
		GroupID: groupChange,
		Short:   "Go on with this node alone, when a majority of the voters is lost for good",
		Long: `Go on with this node alone, when a majority of the voters is lost for good. Not for a
majority that is down, or cut off: start it, or mend the network; without a majority
the cluster waits, and loses nothing.

It runs on a host whose agent does not run, and reads what its disk holds. Whatever the
lost nodes had acknowledged and this disk has not is lost. Of several survivors, take the
one whose log reaches furthest: the highest term, then the highest entry.

It copies data_dir first. Then this node is the whole cluster, in the next generation:
all others are removed, tokens are void, and what they held is waited for as long as the
longest lease could last. A node of the old generation that comes back is told so, holds
nothing, and joins anew: hanode join ADDRESS --token T --fresh.

If the others are not lost but only cut off, two hosts will answer for the same addresses.
Therefore a sentence must be typed, or given with --confirm.`,
		Example: `  hanode recover                                                       # says what it would do, and asks
  hanode recover --confirm "primary goes on without secondary, arbiter"
  hanode recover --json | jq .index                                    # how far this disk's log reaches`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := config.LoadNode(file)
			if err != nil {
				return usageError{err}
			}
			log := newLog(a.err, "warn", n.LogFormat)
			do := func(confirm string) (agent.Recovery, error) { return agent.Recover(n, confirm, log) }
			r, err := a.confirmed(cmd, do, confirm, a.recoverText, "the other voters are lost for good, and will not come back by themselves")
			if err != nil {
				return err
			}
			err = report(a, recoverOf(r), nil, a.recoverText)
			if err == nil && !r.Done && !a.json {
				return &api.Error{Code: api.CodeNeedsConfirmation, Exit: api.ExitFailed, Message: "nothing was changed yet", Fix: "if the others are lost for good: hanode recover --confirm \"" + r.Confirm + "\""}
			}
			return err
		},
	}
	cmd.Flags().StringVar(&file, "config", config.DefaultFile, "the node file")
	cmd.Flags().StringVar(&confirm, "confirm", "", `the sentence that would be asked for, such as "primary goes on without secondary, arbiter"`)
	return a.withJSON(cmd)
}

func recoverOf(r agent.Recovery) *recoverResult {
	return &recoverResult{
		Cluster: r.Cluster, Node: r.Node, Generation: r.Generation, Term: r.Term, Index: r.Index,
		Voters: r.Voters, Lost: r.Lost, Groups: r.Groups, Confirm: r.Confirm, Backup: api.Known(r.Backup), Done: r.Done,
	}
}

func (a *app) recoverText(r *recoverResult) {
	if r.Done {
		a.printf("cluster %s is in generation %d, with %s alone; start its agent", r.Cluster, r.Generation, r.Node)
		a.printf("  the data_dir as it was: %s", *r.Backup)
		a.printf("  the others come back with: hanode token create, then hanode join ADDRESS --token T --fresh")
		return
	}
	a.printf("this disk of %s holds cluster %s up to entry %d of term %d", r.Node, r.Cluster, r.Index, r.Term)
	a.printf("  voters: %s", strings.Join(r.Voters, ", "))
	a.printf("  put out: %s", strings.Join(r.Lost, ", "))
	a.printf("  groups, and who owned them by this disk: %s", strings.Join(r.Groups, ", "))
	a.printf("What only the others had on their disks is lost. If any of them is alive, two hosts will answer for one address.")
}
