package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hanode/agent"
	"hanode/api"
	"hanode/config"
)

// snapshotResult is what snapshot save and inspect --json print.
type snapshotResult struct {
	File       string           `json:"file"`
	Cluster    string           `json:"cluster"`
	Generation uint64           `json:"generation"`
	Index      uint64           `json:"index"`
	Node       string           `json:"node"` // whose copy it is
	At         time.Time        `json:"at"`
	Nodes      api.List[string] `json:"nodes"`
	Voters     api.List[string] `json:"voters"`
	Groups     api.List[string] `json:"groups"`
}

func (a *app) snapshotCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "snapshot",
		GroupID: groupFiles,
		Short:   "The cluster's state in a file: save it, look into it, begin anew from it",
		Example: `  hanode snapshot save /var/backups/hanode.snapshot
  hanode snapshot inspect /var/backups/hanode.snapshot
  hanode snapshot restore /var/backups/hanode.snapshot`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())}
			}
			return usageError{errors.New("say what to do: hanode snapshot save, inspect or restore")}
		},
	}
	cmd.AddCommand(a.snapshotSaveCommand(), a.snapshotInspectCommand(), a.snapshotRestoreCommand())
	return cmd
}

func (a *app) snapshotSaveCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "save FILE",
		Short: "Write the cluster's state into a file",
		Long: `Write the cluster's state into a file: groups, members, who owns what, the history. It
has all that was committed before; without a quorum it is what this node knows, and
the exit code is 3. The file has no secret, mode 600, and replaces an older one whole or
not at all. Keep it together with the key file and the node files.`,
		Example: `  hanode snapshot save /var/backups/hanode.snapshot`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, done := a.client()
			defer done()
			s, err := c.Snapshot(cmd.Context())
			if s == nil {
				return err
			}
			info, werr := agent.WriteSnapshot(args[0], []byte(s.Data))
			if werr != nil {
				return werr
			}
			return report(a, snapshotOf(args[0], info), err, a.snapshotText)
		},
	})
}

func (a *app) snapshotInspectCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:     "inspect FILE",
		Short:   "Say what a snapshot holds, and whether it is whole",
		Long:    `Say what a snapshot holds, and whether it is whole. It needs no agent.`,
		Example: `  hanode snapshot inspect /var/backups/hanode.snapshot`,
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			info, err := agent.ReadSnapshot(args[0])
			if err != nil {
				return err
			}
			return report(a, snapshotOf(args[0], info), nil, a.snapshotText)
		},
	})
}

func snapshotOf(file string, s agent.SnapshotInfo) *snapshotResult {
	return &snapshotResult{
		File: file, Cluster: s.Cluster, Generation: s.Generation, Index: s.Index, Node: s.Node, At: s.At,
		Nodes: s.Nodes, Voters: s.Voters, Groups: s.Groups,
	}
}

func (a *app) snapshotText(r *snapshotResult) {
	a.printf("%s: cluster %s up to entry %d, generation %d, as %s knew it on %s", r.File, r.Cluster, r.Index, r.Generation, r.Node, a.stamp(r.At))
	a.printf("  members: %s", strings.Join(r.Nodes, ", "))
	a.printf("  voters: %s", strings.Join(r.Voters, ", "))
	a.printf("  groups, and who owned them: %s", strings.Join(r.Groups, ", "))
}

func (a *app) snapshotRestoreCommand() *cobra.Command {
	var file, confirm string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Begin the cluster anew from a snapshot, when every disk is lost",
		Long: `Begin the cluster anew from a snapshot, when every disk is lost. Where one node still has
its data_dir, hanode recover on it loses less.

It runs on a host whose agent does not run, and which was a member when the snapshot was
made. An old data_dir is set aside. Then this node is the whole cluster, with what the
snapshot has, in a later generation: all others are removed, tokens are void, what they
held is waited for as long as the longest lease could last. They come back with
hanode join ADDRESS --token T --fresh. Leave their agents stopped until this one
runs.

What was committed after the snapshot is lost. If a node of the old cluster is
alive, two hosts will answer for the same addresses until it hears of this one. Therefore
a sentence must be typed, or given with --confirm.`,
		Example: `  hanode snapshot restore /var/backups/hanode.snapshot        # says what it would do, and asks
  hanode snapshot restore /var/backups/hanode.snapshot --confirm "primary begins cluster web anew from entry 812"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := config.LoadNode(file)
			if err != nil {
				return usageError{err}
			}
			log := newLog(a.err, "warn", n.LogFormat)
			do := func(confirm string) (agent.Recovery, error) { return agent.Restore(n, args[0], confirm, log) }
			r, err := a.confirmed(cmd, do, confirm, a.restoreText, "every disk of the cluster is lost, and none of its nodes runs")
			if err != nil {
				return err
			}
			err = report(a, recoverOf(r), nil, a.restoreText)
			if err == nil && !r.Done && !a.json {
				return &api.Error{Code: api.CodeNeedsConfirmation, Exit: api.ExitFailed, Message: "nothing was changed yet", Fix: fmt.Sprintf("if every disk is lost: hanode snapshot restore %s --confirm %q", args[0], r.Confirm)}
			}
			return err
		},
	}
	cmd.Flags().StringVar(&file, "config", config.DefaultFile, "the node file")
	cmd.Flags().StringVar(&confirm, "confirm", "", `the sentence that would be asked for, such as "primary begins cluster web anew from entry 812"`)
	return a.withJSON(cmd)
}

// confirmed asks for the sentence that do wants, if it was not given, and does it.
func (a *app) confirmed(cmd *cobra.Command, do func(confirm string) (agent.Recovery, error), confirm string, text func(*recoverResult), why string) (agent.Recovery, error) {
	r, err := do("")
	if err != nil {
		return r, err
	}
	if confirm == "" && a.terminal() && !a.json {
		text(recoverOf(r))
		if confirm, err = a.typed(cmd.Context(), why, r.Confirm); err != nil {
			return r, err
		}
	}
	if confirm == "" {
		return r, nil
	}
	if strings.TrimSpace(confirm) != r.Confirm {
		return r, &api.Error{Code: api.CodeNeedsConfirmation, Exit: api.ExitFailed, Message: "nothing was changed: that is not the sentence", Fix: "it is: " + r.Confirm}
	}
	return do(confirm)
}

func (a *app) restoreText(r *recoverResult) {
	if r.Done {
		a.printf("cluster %s is in generation %d, with %s alone; start its agent", r.Cluster, r.Generation, r.Node)
		if r.Backup != nil {
			a.printf("  the data_dir as it was: %s", *r.Backup)
		}
		a.printf("  the others come back with: hanode token create, then hanode join ADDRESS --token T --fresh")
		return
	}
	a.printf("the snapshot holds cluster %s up to entry %d", r.Cluster, r.Index)
	a.printf("  voters: %s", strings.Join(r.Voters, ", "))
	a.printf("  put out: %s", strings.Join(r.Lost, ", "))
	a.printf("  groups, and who owned them: %s", strings.Join(r.Groups, ", "))
	a.printf("What was committed later is lost. If any of the nodes is alive, two hosts will answer for one address.")
}
