package main

import (
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"hanode/api"
)

func (a *app) membersCommand() *cobra.Command {
	return a.withJSON(&cobra.Command{
		Use:     "members",
		GroupID: groupSee,
		Short:   "List the nodes: their state, beats, leases and links",
		Long: `List every node of the cluster as this node's agent sees it.

LAST BEAT is how long ago the node was last heard, LEASE how long it may still
hold its groups without being heard again. "-" is unknown, or this node itself. Below
stands why a node has no vote, or why that will change, and which nodes have no log of
their own and follow a voter: in clusters of more than seven.`,
		Example: `  hanode members
  hanode members --json | jq -r '.[] | select(.state != "alive").name'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, done := a.client()
			defer done()
			members, err := c.Members(cmd.Context())
			if members == nil {
				return err
			}
			list := api.List[api.Member](members)
			return report(a, &list, err, a.membersText)
		},
	})
}

func (a *app) membersText(members *api.List[api.Member]) {
	t := newTable(a.out, "NAME", "ROLE", "STATE", "ADDRESS", "VOTER", "LEADER", "LAST BEAT", "LEASE", "LINKS")
	for _, m := range *members {
		t.row(m.Name, string(m.Role), string(m.State), text(m.Address), yes(m.Voter), yes(m.Leader),
			millis(m.LastBeatMS), millis(m.LeaseMS), linksText(m.Links))
	}
	t.flush()
	for _, m := range *members {
		if m.Log != nil && *m.Log == api.LogFollows && (m.State == api.MemberAlive || m.State == api.MemberLate) {
			whom := "a voter"
			if m.Follows != nil {
				whom = *m.Follows
			}
			a.printf("%s: follows %s", m.Name, whom)
			continue
		}
		if m.VoterWhy != nil && !plainVote.MatchString(*m.VoterWhy) {
			a.printf("%s: %s", m.Name, *m.VoterWhy)
		}
	}
}

// plainVote is a reason for a vote that nobody needs to be told.
var plainVote = regexp.MustCompile(`^one of \d+ votes$`)

// linksText renders "eth0 alive, eth1 late".
func linksText(links []api.MemberLink) string {
	var parts []string
	for _, l := range links {
		parts = append(parts, l.Name+" "+string(l.State))
	}
	if len(parts) == 0 {
		return unknown
	}
	return strings.Join(parts, ", ")
}
