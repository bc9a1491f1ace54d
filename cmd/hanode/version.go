package main

import (
	"context"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"hanode/api"
)

// versions is what version --json prints.
type versions struct {
	Version string       `json:"version"`
	Go      string       `json:"go"`
	Agent   *api.Version `json:"agent"` // nil = not reachable
}

func (a *app) versionCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:     "version",
		GroupID: groupSee,
		Short:   "Print the version of this command and of the running agent",
		Example: `  hanode version
  hanode version --json | jq -r .agent.version`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
			defer cancel()
			c, done := a.client()
			defer done()
			v := versions{Version: buildVersion(), Go: runtime.Version()}
			if agent, err := c.Version(ctx); err == nil {
				v.Agent = &agent
			}
			return report(a, &v, nil, a.versionText)
		},
	})
}

func (a *app) versionText(v *versions) {
	a.printf("hanode %s (%s)", v.Version, v.Go)
	if v.Agent == nil {
		a.printf("no agent is running here")
		return
	}
	a.printf("agent  %s (%s), node %s of cluster %s", v.Agent.Version, v.Agent.Go, v.Agent.Node, v.Agent.Cluster)
	if v.Agent.Version != v.Version {
		a.printf("The agent still runs another version; restart it: systemctl restart hanode")
	}
}
