package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"

	"github.com/spf13/cobra"

	"hanode/api"
	"hanode/config"
)

// validation is what validate --json prints.
type validation struct {
	File     string                      `json:"file"`
	Kind     string                      `json:"kind"` // node, cluster or heartbeat
	OK       bool                        `json:"ok"`
	Findings api.List[config.Diagnostic] `json:"findings"`
	// Lines are the answers to Heartbeat's files.
	Lines api.List[config.HeartbeatLine] `json:"lines"`

	here int // how many findings, the last ones, an agent on this host refuses Heartbeat's files for
}

// groupBlock is what a cluster file has and a node file has not.
var groupBlock = regexp.MustCompile(`(?m)^\s*group\s+["\w]`)

func (a *app) validateCommand() *cobra.Command {
	var kind string
	var skipHost bool
	var ha haDir
	cmd := &cobra.Command{
		Use:     "validate FILE | --ha-dir DIR",
		GroupID: groupFiles,
		Short:   "Check a node file or a cluster file",
		Long: `Check a node file (hanode.hcl) or a cluster file (what apply takes), and list
everything that is wrong with it. A file with group blocks is a cluster file.

A node file is also checked against this host: links, address, key file.

With --ha-dir it reads Heartbeat's ha.cf, haresources and authkeys in DIR, and prints
what becomes of each line: kept, translated, replaced, ignored or refused. What
depends on this host (its name, devices, services) is warned of; the agent refuses it.`,
		Example: `  hanode validate /etc/hanode/hanode.hcl
  hanode validate hanode.hcl --skip-host    # a file meant for another host
  hanode validate web.hcl --json
  hanode validate --ha-dir /etc/ha.d`,
		Args: func(cmd *cobra.Command, args []string) error {
			if kind != "" && kind != "node" && kind != "cluster" {
				return fmt.Errorf("--as is %q; it must be node or cluster", kind)
			}
			return ha.args(cmd, args, cobra.ExactArgs(1))
		},
		ValidArgsFunction: completeFiles("hcl"),
		RunE: func(_ *cobra.Command, args []string) error {
			var v *validation
			var err error
			if ha.dir != "" {
				v = validateHeartbeat(ha, skipHost)
			} else if v, err = validate(args[0], kind, skipHost); err != nil {
				return err
			}
			err = report(a, v, nil, a.validationText)
			if err == nil && !v.OK {
				return exitCode(api.ExitUsage)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&kind, "as", "", "node or cluster (default: by what the file holds)")
	cmd.Flags().BoolVar(&skipHost, "skip-host", false, "do not check a node file against this host")
	ha.flags(cmd)
	_ = cmd.RegisterFlagCompletionFunc("as", cobra.FixedCompletions([]string{"node", "cluster"}, cobra.ShellCompDirectiveNoFileComp))
	return a.withJSON(cmd)
}

func validate(path, kind string, skipHost bool) (*validation, error) {
	if kind == "" {
		src, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil, usageError{err}
		}
		if err != nil {
			return nil, err
		}
		kind = "node"
		if groupBlock.Match(src) {
			kind = "cluster"
		}
	}
	v := &validation{File: path, Kind: kind}
	if kind == "cluster" {
		src, err := os.ReadFile(path)
		if err == nil {
			v.Findings = append(v.Findings, config.ClusterWarnings(path, src)...)
		}
		_, err = config.LoadCluster(path)
		return v, v.add(err)
	}
	n, err := config.LoadNode(path)
	if err == nil {
		v.Findings = append(v.Findings, n.Warnings()...)
		if !skipHost {
			err = n.CheckHost(config.RealHost())
		}
	}
	return v, v.add(err)
}

// add takes up what a check found; an error that is not a list of findings
// comes back.
func (v *validation) add(err error) error {
	var found config.Diagnostics
	if err != nil && !errors.As(err, &found) {
		return usageError{err}
	}
	v.Findings = append(v.Findings, found...)
	v.OK = err == nil
	return nil
}

func (a *app) validationText(v *validation) {
	if v.Kind == kindHeartbeat {
		a.heartbeatText(v)
		return
	}
	for _, d := range v.Findings {
		a.printf("%s", judged(d))
	}
	if v.OK {
		a.printf("%s: a valid %s file", v.File, v.Kind)
	} else {
		a.printf("%s: not a valid %s file", v.File, v.Kind)
	}
}

// judged is a finding with its severity in front, and only there.
func judged(d config.Diagnostic) string {
	severity := d.Severity
	d.Severity = config.SeverityError
	return fmt.Sprintf("%s: %s", severity, d)
}
