package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hanode/api"
)

func (a *app) keyStatusCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "status",
		Short: "Show which keys the members have, and how far a change of them is",
		Long: `Show which keys the members have, by their fingerprints, and how far a change of them
is. The first key of a node is the one that it uses; it accepts all of them.`,
		Example: `  hanode key status
  hanode key status --json | jq -r '.nodes[] | [.node, .active] | @tsv'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, done := a.client()
			defer done()
			st, err := c.KeyStatus(cmd.Context())
			return report(a, st, err, a.keyText)
		},
	})
}

func (a *app) keyRotateCommand() *cobra.Command {
	req := api.RotateKeyRequest{}
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Change the cluster's key while it runs",
		Long: `Change the cluster's key while it runs. Every member gets the new key beside the old
one, then all change to it, then all forget the old one; clients notice nothing. A step
is taken when every member has followed the one before. If one cannot, all go back to
the key they had, and it is said which and why.

The key is made by the leader, and members fetch it from each other over their
encrypted connections. A second line in the key file of every node, put there
by hand, is taken instead: then nothing travels.

It may be interrupted, and run again, at any moment. A member that is down has to be
started first, or named with --without: it then needs the new key file by hand.

Tokens that were not used yet end with the old key.`,
		Example: `  hanode key rotate
  hanode key rotate --without secondary
  hanode key rotate --undo`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, done := a.client()
			defer done()
			st, err := c.RotateKey(cmd.Context(), req)
			return report(a, st, err, a.keyText)
		},
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch {
		case req.Undo && len(req.Without) > 0:
			return errors.New("--undo takes no --without")
		case req.Wait < 0:
			return fmt.Errorf("--wait is %v; it must be 0 or more", req.Wait)
		}
		return cobra.NoArgs(cmd, args)
	}
	cmd.Flags().StringSliceVar(&req.Without, "without", nil, "a member to leave behind; may be given several times")
	cmd.Flags().BoolVar(&req.Undo, "undo", false, "take back a change that is under way")
	cmd.Flags().DurationVar(&req.Wait, "wait", rotateWait, "how long to wait for the end; 0 does not wait")
	return a.withJSON(cmd)
}

// rotateWait is longer than the cluster waits for a node in one step.
const rotateWait = 5 * time.Minute

func (a *app) keyText(st *api.KeyStatus) {
	if r := st.Rotation; r != nil {
		a.printf("the key is being changed from %s to %s: phase %s since %s", shortKey(r.From), shortKey(r.To), r.Phase, a.stamp(r.Since))
		if r.Why != nil {
			a.printf("  it is undone: %s", *r.Why)
		}
		if len(r.Without) > 0 {
			a.printf("  left behind: %s", strings.Join(r.Without, ", "))
		}
		for _, w := range r.WaitsFor {
			a.printf("  %s", w)
		}
	}
	t := newTable(a.out, "NODE", "KEY", "ALSO ACCEPTS", "PROBLEM")
	for _, n := range st.Nodes {
		var also []string
		for i, k := range n.Keys {
			if i > 0 {
				also = append(also, shortKey(k))
			}
		}
		active := unknown
		if n.Active != nil {
			active = shortKey(*n.Active)
		}
		t.row(n.Node, active, text(api.Known(strings.Join(also, " "))), text(n.Problem))
	}
	t.flush()
	if n := len(st.Retired); n > 0 {
		last := st.Retired[n-1]
		if last.Undone != nil {
			a.printf("the last change, to %s, was undone on %s: %s", shortKey(last.Key), a.stamp(last.At), *last.Undone)
		} else {
			a.printf("%s was replaced on %s", shortKey(last.Key), a.stamp(last.At))
		}
	}
}

// shortKey is enough of a fingerprint to tell keys apart.
func shortKey(fingerprint string) string { return fingerprint[:min(12, len(fingerprint))] }
