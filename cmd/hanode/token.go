package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"hanode/api"
)

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "token",
		GroupID: groupChange,
		Short:   "Let hosts into the cluster: make, list and revoke tokens",
		Long: `A token lets one host join the cluster. It names the cluster's key and holds a secret
that is used once; it expires. The cluster keeps only what tells a right one from a
wrong one.`,
		Example: `  hanode token create
  hanode token list
  hanode token revoke k3x7a2qb`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())}
			}
			return usageError{errors.New("say what to do: hanode token create, list or revoke")}
		},
	}
	cmd.AddCommand(a.tokenCreateCommand(), a.tokenListCommand(), a.tokenRevokeCommand())
	return cmd
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token that lets one host join",
		Long: `Make a token that lets one host join, and print the command to run there. This is
the only time that it is shown.`,
		Example: `  hanode token create
  hanode token create --ttl 10m --json | jq -r .token`,
		Args: func(cmd *cobra.Command, args []string) error {
			if ttl <= 0 {
				return fmt.Errorf("--ttl is %v; it must be above 0", ttl)
			}
			return cobra.NoArgs(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, done := a.client()
			defer done()
			t, err := c.CreateToken(cmd.Context(), ttl)
			if err != nil {
				return err
			}
			return report(a, t, nil, a.tokenText)
		},
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "how long it may be used")
	return a.withJSON(cmd)
}

func (a *app) tokenText(t *api.Token) {
	where := "ADDRESS"
	if t.Join != nil {
		where = *t.Join
	}
	a.printf("token %s lets one host in until %s; on that host:", t.ID, a.stamp(t.Expires))
	a.printf("  hanode join %s --token %s", where, text(t.Token))
}

func (a *app) tokenListCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:   "list",
		Short: "List the tokens, newest first",
		Long:  `List the tokens, newest first: which may still be used, and whom the others let in.`,
		Example: `  hanode token list
  hanode token list --json | jq -r '.[] | select(.state == "open").id'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, done := a.client()
			defer done()
			tokens, err := c.Tokens(cmd.Context())
			if tokens == nil && err != nil {
				return err
			}
			list := api.List[api.Token](tokens)
			return report(a, &list, err, func(list *api.List[api.Token]) {
				t := newTable(a.out, "TOKEN", "STATE", "MADE", "EXPIRES", "USED BY")
				for _, x := range *list {
					t.row(x.ID, x.State, a.stamp(x.Made), a.stamp(x.Expires), text(x.UsedBy))
				}
				t.flush()
			})
		},
	})
}

// revoked is what token revoke --json prints.
type revoked struct {
	ID      string `json:"id"`
	Revoked bool   `json:"revoked"`
}

func (a *app) tokenRevokeCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:     "revoke TOKEN",
		Short:   "End a token that nobody has used",
		Long:    `End a token that nobody has used. TOKEN is its ID, as "hanode token list" shows it.`,
		Example: `  hanode token revoke k3x7a2qb`,
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return a.openTokens(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c, done := a.client()
			defer done()
			if err := c.RevokeToken(cmd.Context(), args[0]); err != nil {
				return err
			}
			return report(a, &revoked{ID: args[0], Revoked: true}, nil, func(r *revoked) { a.printf("token %s lets nobody in any more", r.ID) })
		},
	})
}
