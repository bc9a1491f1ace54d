package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"hanode/api"
	"hanode/config"
)

// The groups of the help text.
const (
	groupSee    = "see"
	groupChange = "change"
	groupFiles  = "files"
	groupRun    = "run"
)

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "hanode",
		Short: "Keeps services and their addresses running on one of several hosts",
		Long: `hanode keeps services and their addresses running on one of several hosts.

Every host runs "hanode agent"; the other commands talk to it over a unix socket.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage or bad configuration,
3 no quorum, 4 the agent cannot be reached.`,
		Example: `  hanode status                 # who holds what, and what is wrong
  hanode move web secondary     # a planned switchover
  hanode why web                # why it is where it is
  hanode demo                   # a cluster on this machine, and its failovers`,
		SilenceErrors: true,
		// A suggestion takes four lines; the list of commands is one --help away.
		DisableSuggestions: true,
		SilenceUsage:       true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			a.started = true
			return a.openRemote(cmd)
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.PersistentFlags().StringVar(&a.socket, "socket", "",
		"the agent's unix socket (default: $HANODE_SOCKET, else what "+config.DefaultFile+" says, else "+config.DefaultSocket+")")
	root.PersistentFlags().StringVar(&a.remote, "remote", "",
		"ask the agent at ADDRESS[:PORT] instead of this host's, with --cert; its node file says remote_api = true")
	root.PersistentFlags().StringVar(&a.cert, "cert", os.Getenv("HANODE_CERT"), "a file that hanode cert made (default: $HANODE_CERT)")
	root.AddGroup(
		&cobra.Group{ID: groupSee, Title: "See:"},
		&cobra.Group{ID: groupChange, Title: "Change:"},
		&cobra.Group{ID: groupFiles, Title: "Files:"},
		&cobra.Group{ID: groupRun, Title: "Run:"},
	)
	root.AddCommand(
		a.statusCommand(), a.membersCommand(), a.whyCommand(), a.eventsCommand(), a.tuneCommand(), a.versionCommand(),
		a.moveCommand(), a.standbyCommand(), a.onlineCommand(), a.maintenanceCommand(), a.clearCommand(), a.confirmOffCommand(),
		a.initCommand(), a.joinCommand(), a.tokenCommand(), a.removeCommand(), a.leaveCommand(), a.recoverCommand(),
		a.applyCommand(), a.planCommand(), a.exportCommand(), a.validateCommand(), a.importCommand(), a.keyCommand(), a.certCommand(), a.snapshotCommand(),
		a.agentCommand(), a.demoCommand(),
	)
	root.AddCommand(a.demoInnards()...)
	addCompletion(root)
	return root
}

// socketPath is where the agent listens: --socket, else HANODE_SOCKET, else what
// the file says, else the default.
func (a *app) socketPath() string {
	if s := a.givenSocket(); s != "" {
		return s
	}
	if n, err := config.LoadNode(a.nodeFile); err == nil && n.Socket != "" {
		return n.Socket
	}
	return config.DefaultSocket
}

// givenSocket is the socket that was named outside of any file; "" = none was.
func (a *app) givenSocket() string {
	if a.socket != "" {
		return a.socket
	}
	return os.Getenv("HANODE_SOCKET")
}

// client returns a client of this host's agent, or of the one of --remote, and its end.
func (a *app) client() (*api.Client, func()) {
	if a.far != nil {
		return a.far, a.far.Close
	}
	c := api.Dial(a.socketPath())
	return c, c.Close
}

// withJSON adds --json to a command that reports.
func (a *app) withJSON(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&a.json, "json", false, "print JSON")
	return cmd
}

// withWait adds --wait to a command that waits for what it started.
func withWait(cmd *cobra.Command, wait *time.Duration) *cobra.Command {
	cmd.Flags().DurationVar(wait, "wait", 30*time.Second, "how long to wait for the result; 0 does not wait")
	args := cmd.Args
	cmd.Args = func(cmd *cobra.Command, given []string) error {
		if *wait < 0 {
			return fmt.Errorf("--wait is %v; it must be 0 or more", *wait)
		}
		return args(cmd, given)
	}
	return cmd
}

// report prints v as JSON if that is asked for, else with text. A nil v prints
// nothing. err, if any, comes back to end the command, after what is known.
func report[T any](a *app, v *T, err error, text func(*T)) error {
	if v == nil {
		return err
	}
	if !a.json {
		text(v)
		return err
	}
	if werr := api.WriteJSON(a.out, v, true); werr != nil && err == nil {
		return werr
	}
	return err
}
