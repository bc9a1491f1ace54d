package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"hanode/internal/trust"
)

func (a *app) keyCommand() *cobra.Command {
	key := &cobra.Command{
		Use:     "key",
		GroupID: groupFiles,
		Short:   "The secret that the nodes of a cluster share: make it, see who has it, change it",
		Example: `  hanode key generate > /etc/hanode/key && chmod 600 /etc/hanode/key
  hanode key status
  hanode key rotate`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())}
			}
			return usageError{errors.New("say what to do: hanode key generate, status or rotate")}
		},
	}
	key.AddCommand(a.keyStatusCommand(), a.keyRotateCommand())
	key.AddCommand(&cobra.Command{
		Use:   "generate",
		Short: "Print a new key, one line for the key file",
		Long: `Print a new key of 256 random bits, one line for the key file.

The same file goes to every node, readable by root only. It may hold several
lines: the first is used, all are accepted.`,
		Example: `  (umask 077; hanode key generate > /etc/hanode/key)`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, err := fmt.Fprintln(a.out, strings.TrimSpace(trust.Generate())); err != nil {
				return fmt.Errorf("write the key: %w", err)
			}
			return nil
		},
	})
	return key
}
