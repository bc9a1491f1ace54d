package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"hanode/api"
	"hanode/demo"
)

func (a *app) demoCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:     "demo",
		GroupID: groupRun,
		Short:   "Build a cluster on this machine, break it, and measure",
		Long: `Build hosts from network namespaces on this machine, run real agents on them,
break things, and measure how long a client hears nothing.`,
		Example: `  hanode demo
  hanode demo --keep            # leave the hosts running, to play with
  hanode demo --json | jq '.steps[] | {name, outage_ms}'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			binary, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program's file: %w", err)
			}
			ok, err := demo.Run(cmd.Context(), demo.Options{
				JSON: a.json, Keep: keep, Out: a.out, Err: a.err, Columns: columns(a.out.w), Binary: binary,
			})
			if err == nil && !ok {
				return exitCode(api.ExitFailed)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave everything running at the end")
	return a.withJSON(cmd)
}

// demoInnards are the programs the demo starts inside its hosts.
func (a *app) demoInnards() []*cobra.Command {
	return []*cobra.Command{{
		Use: "demo-web", Short: "Part of demo", Example: "  hanode demo",
		Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error { return asExit(demo.Web(args)) },
	}}
}

// columns is the width of the terminal that w is; 0 if it is none.
func columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

// asExit is the error that ends the process with code; none for 0.
func asExit(code int) error {
	if code == 0 {
		return nil
	}
	return exitCode(code)
}
