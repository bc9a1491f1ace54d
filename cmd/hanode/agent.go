package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"

	"github.com/spf13/cobra"

	"hanode/agent"
	"hanode/config"
	"hanode/internal/supervise"
)

func (a *app) agentCommand() *cobra.Command {
	var file string
	var cleanup, everybody bool
	var ha haDir
	cmd := &cobra.Command{
		Use:     "agent",
		GroupID: groupRun,
		Short:   "Run the agent of this node",
		Long: `Run the agent of this node until SIGTERM, which hands its groups over and
releases them; the node stays a member.

With --ha-dir it runs what Heartbeat's ha.cf, haresources and authkeys in DIR say; see
hanode validate --ha-dir and hanode import.

With --cleanup it runs no agent, but removes what one that was killed left on the
network: addresses, routes, rules and settings of devices that are ours, then the
guard. It touches nothing else, and is refused while an agent runs. The unit runs it
after each stop.`,
		Example: `  hanode agent
  hanode agent --cleanup
  hanode agent --config /etc/hanode/hanode.hcl
  hanode agent --ha-dir /etc/ha.d`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("config") && ha.dir != "" {
				return usageError{errors.New("--config and --ha-dir name two configurations; give one of them")}
			}
			if ha.crc && ha.dir == "" {
				return usageError{errCRCAlone}
			}
			load := func() (*config.Node, error) { return config.LoadNode(file) }
			if ha.dir != "" {
				load = ha.node
			}
			if cleanup {
				if ha.dir != "" {
					load = ha.anywhere
				}
				return a.cleanUp(load)
			}
			return a.runAgent(cmd.Context(), load, everybody)
		},
	}
	cmd.Flags().BoolVar(&cleanup, "cleanup", false, "remove what an agent that was killed left on the network, and end")
	cmd.Flags().StringVar(&file, "config", config.DefaultFile, "the node file")
	cmd.Flags().BoolVar(&everybody, "socket-read", false, "let every user of this host see, over the socket, and change nothing (in the node file: socket_read = true)")
	ha.flags(cmd)
	return cmd
}

func (a *app) runAgent(ctx context.Context, load func() (*config.Node, error), everybody bool) error {
	node, err := load()
	if err != nil {
		return usageError{err}
	}
	if s := a.givenSocket(); s != "" {
		node.Socket = s
	}
	node.SocketRead = node.SocketRead || everybody
	if err := a.joinEarly(ctx, node); err != nil {
		return err
	}
	if err := node.CheckHost(config.RealHost()); err != nil {
		return usageError{err}
	}
	log, closeLog, err := openLog(a.err, node)
	if err != nil {
		return usageError{err}
	}
	defer closeLog()
	for _, w := range node.Warnings() {
		log.Warn(w.String())
	}
	// A Go program that panics, or that a watchdog aborts, exits with 2 like one that
	// is badly configured, and systemd would not start it again. So it dies by a signal.
	debug.SetTraceback("crash")
	opts := agent.Options{Log: log, Version: buildVersion()}
	if s := supervise.Open(); s != nil {
		opts.Supervisor = s
	}
	if err := agent.Run(ctx, node, opts); err != nil {
		if errors.Is(err, agent.ErrNoCluster) {
			return usageError{err} // it would be so at each start
		}
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

// cleanUp is agent --cleanup. A node file that cannot be read does not keep addresses on
// the host: what carries our mark is found without it.
func (a *app) cleanUp(load func() (*config.Node, error)) error {
	node, err := load()
	if err != nil {
		say(a.err, "%v\ncleaning up with the defaults: cluster %s, data_dir %s\n", err, config.DefaultCluster, config.DefaultDataDir)
		node = &config.Node{Cluster: config.DefaultCluster, DataDir: config.DefaultDataDir, LogLevel: "warn"}
	}
	removed, err := agent.Cleanup(node, newLog(a.err, "warn", node.LogFormat))
	for _, r := range removed {
		a.printf("removed %s", r)
	}
	return err
}

// newLog writes to w in the node file's level and format.
func newLog(w io.Writer, level, format string) *slog.Logger {
	opts := &slog.HandlerOptions{}
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err == nil {
		opts.Level = l // config lets no other word pass; the zero level is info
	}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
