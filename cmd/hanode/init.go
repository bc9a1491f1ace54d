package main

import (
	"github.com/spf13/cobra"

	"hanode/agent"
	"hanode/api"
	"hanode/internal/spec"
)

// initResult is what init --json prints.
type initResult struct {
	Cluster string `json:"cluster"`
	Node    string `json:"node"`
	Address string `json:"address"`
	Config  string `json:"config"`
	// Again: the cluster was begun here before, and nothing was changed.
	Again bool `json:"again"`
	// Tokens let one node in each; secrets, shown only now.
	Tokens api.List[string] `json:"tokens"`
	Start  string           `json:"start"` // what starts the agent
}

func (a *app) initCommand() *cobra.Command {
	var e enrolment
	var cluster string
	cmd := &cobra.Command{
		Use:     "init",
		GroupID: groupChange,
		Short:   "Begin a cluster on this host",
		Long: `Begin a cluster on this host: make its secret key, a node file if there is none,
and tokens by which two more hosts join. The cluster is founded when the agent starts.

One node alone keeps its groups, but nothing takes over when it fails. A second one
gets a copy of everything, and still no vote: two nodes cannot tell a dead peer from a
cut cable. With a third, or with a witness on any small machine, all three vote, and
the loss of any one is survived.

To found with three hosts at once instead, list them in node blocks of the node file,
the same on each; then there is no init and no join.`,
		Example: `  hanode init --cluster web
  hanode init --cluster web --address 10.0.0.1 --link eth0 --link eth1
  hanode init --config /etc/hanode/hanode.hcl --json`,
		Args: cobra.NoArgs,
		RunE: func(_ *cobra.Command, _ []string) error {
			n, text, err := e.node(cluster, "")
			if err != nil {
				return err
			}
			f, err := agent.Init(n, spec.Node{Name: n.Name, Address: n.Address, Role: spec.RoleNode, Zone: n.Zone})
			if err != nil {
				return err
			}
			if err := e.write(text); err != nil {
				return err
			}
			r := &initResult{Cluster: n.Cluster, Node: f.Self.Name, Address: f.Self.Address, Config: e.file, Again: f.Again, Start: e.startLine()}
			for _, t := range f.Tokens {
				r.Tokens = append(r.Tokens, t.Text())
			}
			return report(a, r, nil, a.initText)
		},
	}
	e.flags(cmd)
	cmd.Flags().StringVar(&cluster, "cluster", "", "the cluster's name, where there is no node file (default: hanode)")
	return a.withJSON(cmd)
}

func (a *app) initText(r *initResult) {
	if r.Again {
		a.printf("cluster %s was begun on this host before; nothing was changed", r.Cluster)
		a.printf("  more tokens: hanode token create")
		return
	}
	a.printf("cluster %s begins with %s (%s). Now:", r.Cluster, r.Node, r.Address)
	a.printf("  1. start the agent here:")
	a.printf("       %s", r.Start)
	a.printf("  2. on a second host, within %v:", span(agent.TokenTTL))
	a.printf("       hanode join %s --token %s", r.Address, r.Tokens[0])
	a.printf("  3. on a third, or on any small machine with --role witness:")
	a.printf("       hanode join %s --token %s", r.Address, r.Tokens[1])
	a.printf("Each token lets one host in, and is a secret until then. Until three hosts vote, nothing takes over from %s.", r.Node)
}
