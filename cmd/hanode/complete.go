package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"hanode/internal/spec"
)

// completeTime bounds what a TAB may cost.
const completeTime = time.Second

type completer = func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective)

// completeGroups completes the first argument with the names of the groups.
func (a *app) completeGroups(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.groupNames(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
}

// completeNodes completes the first argument with the nodes that can own groups.
func (a *app) completeNodes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.nodeNames(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
}

// completeMembers completes the first argument with all members.
func (a *app) completeMembers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.memberNames(cmd.Context(), false), cobra.ShellCompDirectiveNoFileComp
}

// openTokens are the IDs of tokens that may be revoked.
func (a *app) openTokens(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	c, done := a.client()
	defer done()
	tokens, _ := c.Tokens(ctx)
	var ids []string
	for _, t := range tokens {
		if t.State == "open" {
			ids = append(ids, clean(t.ID))
		}
	}
	return ids
}

// completeMove completes a group, then a node.
func (a *app) completeMove(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return a.completeNodes(cmd, nil, prefix)
	}
	return a.completeGroups(cmd, args, prefix)
}

// completeFiles completes the first argument with files of the given endings.
func completeFiles(endings ...string) completer {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return endings, cobra.ShellCompDirectiveFilterFileExt
	}
}

// groupNames are the groups the agent knows; none if it cannot be asked.
func (a *app) groupNames(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	c, done := a.client()
	defer done()
	st, _ := c.Status(ctx, "") // without a quorum the names are still right
	var names []string
	if st != nil {
		for _, g := range st.Groups {
			names = append(names, clean(g.Name))
		}
	}
	return names
}

func (a *app) nodeNames(ctx context.Context) []string { return a.memberNames(ctx, true) }

// memberNames are the members, or those that can own groups.
func (a *app) memberNames(ctx context.Context, owners bool) []string {
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	c, done := a.client()
	defer done()
	members, _ := c.Members(ctx)
	var names []string
	for _, m := range members {
		if !owners || m.Role != spec.RoleWitness {
			names = append(names, clean(m.Name))
		}
	}
	slices.Sort(names)
	return names
}

// addCompletion adds cobra's own commands, with examples.
func addCompletion(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	examples := map[string]string{
		"help":       "  hanode help move",
		"completion": "  hanode completion bash > /etc/bash_completion.d/hanode",
		"bash":       "  hanode completion bash > /etc/bash_completion.d/hanode\n  source <(hanode completion bash)",
		"zsh":        "  hanode completion zsh > \"${fpath[1]}/_hanode\"",
		"fish":       "  hanode completion fish > ~/.config/fish/completions/hanode.fish",
		"powershell": "  hanode completion powershell | Out-String | Invoke-Expression",
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Example == "" {
			cmd.Example = examples[cmd.Name()]
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
}
