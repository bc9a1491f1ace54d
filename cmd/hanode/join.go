package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hanode/agent"
	"hanode/api"
	"hanode/config"
	"hanode/internal/spec"
	"hanode/internal/trust"
)

// joinResult is what join --json prints.
type joinResult struct {
	Cluster string           `json:"cluster"`
	Node    string           `json:"node"`
	Role    spec.Role        `json:"role"`
	Address string           `json:"address"`
	Config  string           `json:"config"`
	By      *string          `json:"by"`       // the member that let it in; nil = it was one before
	Aside   *string          `json:"aside"`    // where the old data_dir is
	ClockMS *float64         `json:"clock_ms"` // how far this host's clock is ahead of By's
	Members api.List[string] `json:"members"`
	Start   string           `json:"start"`
}

func (a *app) joinCommand() *cobra.Command {
	var e enrolment
	var token, tokenFile, role string
	var fresh bool
	cmd := &cobra.Command{
		Use:     "join ADDRESS...",
		GroupID: groupChange,
		Short:   "Make this host a member of a cluster",
		Long: `Make this host a member of a cluster: ask the member at ADDRESS to let it in, get
the cluster's key over a connection that the token pins, and write a node file if there
is none. The agent must not run; it starts as a member afterwards.

It may be killed at any moment and run again with the same token. A host that is a
member already is told so, and nothing is changed.

--token shows the token to whoever lists processes; --token-file, or "-" for standard
input, does not. A token lets one host in and ends with it.

A node that was removed, or whose data is lost or of another cluster, comes back with
--fresh, which sets data_dir aside first.`,
		Example: `  hanode join 10.0.0.1 --token hanode-join-1.eyJj...
  hanode join 10.0.0.1 10.0.0.2 --token-file token --role witness
  hanode token create | ssh secondary hanode join 10.0.0.1 --token-file -
  hanode join 10.0.0.1 --token-file token --fresh`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			tok, err := a.readToken(token, tokenFile)
			if err != nil {
				return err
			}
			n, text, err := e.node(tok.Cluster, args[0])
			if err != nil {
				return err
			}
			j, err := agent.Join(cmd.Context(), n, agent.JoinOptions{
				Addrs: args, Token: tok, Role: spec.Role(role), Fresh: fresh, Version: buildVersion(), Log: newLog(a.err, "warn", "text"),
			})
			if err != nil {
				return fmt.Errorf("join: %w", err)
			}
			if err := e.write(text); err != nil {
				return err
			}
			return report(a, e.result(j), nil, a.joinText)
		},
	}
	e.flags(cmd)
	cmd.Flags().StringVar(&token, "token", "", `what "hanode token create" or "hanode init" printed`)
	cmd.Flags().StringVar(&tokenFile, "token-file", "", `a file that holds it; "-" = standard input`)
	cmd.Flags().StringVar(&role, "role", string(spec.RoleNode), "node, or witness (votes, owns nothing)")
	cmd.Flags().BoolVar(&fresh, "fresh", false, "set aside what data_dir holds of an earlier membership")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"node", "witness"}, cobra.ShellCompDirectiveNoFileComp))
	plain := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if role != string(spec.RoleNode) && role != string(spec.RoleWitness) {
			return fmt.Errorf("--role is %q; it must be node or witness", role)
		}
		if (token == "") == (tokenFile == "") {
			return errors.New("give --token or --token-file, and one of them only")
		}
		return plain(cmd, args)
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return a.withJSON(cmd)
}

// readToken takes the token from where it was said to be.
func (a *app) readToken(token, file string) (trust.Token, error) {
	if file != "" {
		in := a.in
		if file != "-" {
			f, err := os.Open(file)
			if err != nil {
				return trust.Token{}, usageError{err}
			}
			defer func() { _ = f.Close() }()
			in = f
		}
		b, err := io.ReadAll(io.LimitReader(in, 8<<10))
		if err != nil {
			return trust.Token{}, fmt.Errorf("read the token: %w", err)
		}
		token = firstToken(string(b))
	}
	tok, err := trust.ParseToken(token)
	if err != nil {
		return tok, usageError{err}
	}
	return tok, nil
}

// firstToken finds a token among other words, such as all that "token create" printed.
func firstToken(text string) string {
	for _, w := range strings.Fields(text) {
		if _, err := trust.ParseToken(w); err == nil {
			return w
		}
	}
	return text
}

func (e *enrolment) result(j agent.Joined) *joinResult {
	r := &joinResult{
		Cluster: j.Cluster, Node: j.Self.Name, Role: j.Self.Role, Address: j.Self.Address, Config: e.file,
		By: api.Known(j.By), Aside: api.Known(j.Aside), Start: e.startLine(),
	}
	if j.By != "" {
		ms := api.MS(j.Clock)
		r.ClockMS = &ms
	}
	for _, m := range j.Members {
		r.Members = append(r.Members, m.Name)
	}
	return r
}

func (a *app) joinText(r *joinResult) {
	if r.Aside != nil {
		a.printf("the old data_dir is now %s", *r.Aside)
	}
	if r.By == nil {
		a.printf("%s is a member of cluster %s already; nothing was changed", r.Node, r.Cluster)
		a.printf("  if the cluster has removed it: hanode join ADDRESS --token T --fresh")
	} else {
		a.printf("%s (%s, %s) was let into cluster %s by %s", r.Node, r.Address, r.Role, r.Cluster, *r.By)
	}
	a.printf("  members: %s", strings.Join(r.Members, ", "))
	if r.ClockMS != nil && (agent.Joined{Clock: time.Duration(*r.ClockMS) * time.Millisecond}).ClockApart() {
		a.printf("  this host's clock differs from %s's by %v; nothing depends on it, but people who read logs will wonder", *r.By, (time.Duration(*r.ClockMS) * time.Millisecond).Round(time.Second))
	}
	a.printf("start the agent: %s", r.Start)
}

// joinEarly makes a node that has retry_join a member before its agent starts, however
// long that takes.
func (a *app) joinEarly(ctx context.Context, n *config.Node) error {
	if len(n.RetryJoin) == 0 || !agent.Outside(n) {
		return nil
	}
	log := newLog(a.err, n.LogLevel, n.LogFormat)
	last := ""
	for {
		tok, err := a.readToken("", n.TokenFile)
		if err == nil {
			var j agent.Joined
			j, err = agent.Join(ctx, n, agent.JoinOptions{Addrs: n.RetryJoin, Token: tok, Version: buildVersion(), Log: log})
			if err == nil {
				log.Info("joined the cluster", "cluster", j.Cluster, "by", j.By)
				return nil
			}
		}
		if text := err.Error(); text != last {
			log.Warn("cannot join yet; trying again", "err", err)
			last = text
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(2 * time.Second):
		}
	}
}
