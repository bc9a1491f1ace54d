package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"hanode/api"
	"hanode/config"
)

func (a *app) exportCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:     "export",
		GroupID: groupFiles,
		Short:   "Print the wanted set of groups as a cluster file",
		Example: `  hanode export > web.hcl       # what apply takes back unchanged
  hanode export --json | jq '.groups[].name'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, done := a.client()
			defer done()
			groups, err := c.Export(cmd.Context())
			if err != nil {
				return err // half a file must never be applied
			}
			v := api.Exported{Groups: api.FromSpecs(groups)}
			if a.json {
				return api.WriteJSON(a.out, v, true)
			}
			if _, err := a.out.Write(config.FormatCluster(groups)); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			return nil
		},
	})
}
