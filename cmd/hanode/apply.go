package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hanode/api"
	"hanode/internal/spec"
)

func (a *app) applyCommand() *cobra.Command {
	var sure, noProbe, adopt bool
	var wait time.Duration
	var ha haDir
	cmd := &cobra.Command{
		Use:     "apply FILE | --ha-dir DIR",
		GroupID: groupFiles,
		Short:   "Make a cluster file the whole wanted set of groups",
		Long: `Make FILE ("-" is stdin) the whole wanted set of groups: groups it lacks are
stopped and removed. With --ha-dir it is the haresources in DIR that says them.

If anything that runs would stop or move, this asks on a terminal; elsewhere it
changes nothing and exits 1, unless --yes is given.

Addresses that no group has yet are asked for on the network first, for a second:
if another host answers for one, nothing is changed and its MAC address is named.
--no-probe leaves that out, for networks in which something answers for
everything.

If something of a new or changed group runs on a node already that the cluster did
not start (a unit, a script, an address put on by hand), nothing is changed either.
--adopt takes it over as it runs where its group is to run, and stops it elsewhere.`,
		Example: `  hanode plan web.hcl           # first see what would happen
  hanode apply web.hcl
  hanode apply web.hcl --yes --wait 2m
  hanode apply web.hcl --adopt  # apache2 was started by hand
  hanode apply --ha-dir /etc/ha.d`,
		Args:              func(cmd *cobra.Command, args []string) error { return ha.args(cmd, args, cobra.ExactArgs(1)) },
		ValidArgsFunction: completeFiles("hcl"),
		RunE: func(cmd *cobra.Command, args []string) error {
			groups, err := a.wanted(ha, args)
			if err != nil {
				return err
			}
			c, done := a.client()
			defer done()
			if !sure {
				if err := a.confirm(cmd.Context(), c, groups, len(args) > 0 && args[0] == "-"); err != nil {
					return err
				}
			}
			res, err := c.Apply(cmd.Context(), api.ApplyRequest{Groups: groups, Wait: wait, NoProbe: noProbe, Adopt: adopt})
			return report(a, res, err, a.applyText)
		},
	}
	cmd.Flags().BoolVarP(&sure, "yes", "y", false, "do not ask, even if something stops or moves")
	cmd.Flags().BoolVar(&noProbe, "no-probe", false, "do not look whether another host uses a new address")
	cmd.Flags().BoolVar(&adopt, "adopt", false, "take over what runs already, and stop it where it is not to run")
	ha.flags(cmd)
	return a.withJSON(withWait(cmd, &wait))
}

func (a *app) applyText(r *api.ApplyResult) {
	a.changesText(a.out, r.Changes)
	for _, x := range r.Adopted {
		how := "taken over"
		if x.Stopped {
			how = "stopped"
		}
		a.printf("%s: %s on %s: %s", x.Group, how, x.Node, strings.Join(x.What, ", "))
	}
	if len(r.Groups) == 0 {
		return
	}
	a.printf("")
	for _, g := range r.Groups {
		a.printf("%s: %s on %s, epoch %d", g.Name, text(g.State), nobody(g.Owner), g.Epoch)
	}
}

// confirm returns nil if nothing that runs would stop or move, or if somebody
// says that it may.
func (a *app) confirm(ctx context.Context, c *api.Client, groups []spec.Group, stdinUsed bool) error {
	plan, err := c.Plan(ctx, groups)
	if err != nil {
		return err
	}
	harm := plan.Disruptive()
	if len(harm) == 0 {
		return nil
	}
	a.changesText(a.err, harm)
	if stdinUsed || !a.terminal() {
		return &api.Error{
			Code: api.CodeNeedsConfirmation, Exit: api.ExitFailed,
			Message: fmt.Sprintf("nothing was changed: %s would stop or move, and there is nobody to ask", count(len(harm), "group")),
			Fix:     "if that is wanted, say --yes",
		}
	}
	say(a.err, "Go on? [y/N] ")
	line, err := readLine(ctx, a.in)
	if err != nil {
		return err
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return &api.Error{Code: "declined", Exit: api.ExitFailed, Message: "nothing was changed"}
	}
	return nil
}

// readLine reads a line, or gives up when ctx is done; the reading goroutine
// then ends with the process, because a terminal cannot be interrupted.
func readLine(ctx context.Context, r io.Reader) (string, error) {
	type answer struct {
		line string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(r).ReadString('\n')
		got <- answer{line, err}
	}()
	select {
	case a := <-got:
		if a.err != nil && !errors.Is(a.err, io.EOF) {
			return "", fmt.Errorf("read the answer: %w", a.err)
		}
		return a.line, nil
	case <-ctx.Done():
		return "", fmt.Errorf("nothing was changed: %w", ctx.Err())
	}
}
