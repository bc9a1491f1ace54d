package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"hanode/config"
)

// kindHeartbeat is what validate calls Heartbeat's three files.
const kindHeartbeat = "heartbeat"

// haDir are the flags of a command that reads Heartbeat's files.
type haDir struct {
	dir string
	crc bool
}

func (h *haDir) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&h.dir, "ha-dir", "", "the folder of Heartbeat's ha.cf, haresources and authkeys, such as "+config.DefaultHADir)
	cmd.Flags().BoolVar(&h.crc, "insecure-crc", false, "with --ha-dir: take the auth method crc, which keeps nobody out")
	_ = cmd.MarkFlagDirname("ha-dir")
}

var errCRCAlone = errors.New("--insecure-crc is of Heartbeat's authkeys; it needs --ha-dir")

// args checks the arguments: none with --ha-dir, else what the command takes.
func (h *haDir) args(cmd *cobra.Command, args []string, without cobra.PositionalArgs) error {
	switch {
	case h.dir != "":
		return cobra.NoArgs(cmd, args)
	case h.crc:
		return errCRCAlone
	}
	return without(cmd, args)
}

func (h *haDir) load() (*config.Heartbeat, error) {
	return config.LoadHeartbeat(h.dir, config.RealHAHost(), config.HAOptions{InsecureCRC: h.crc})
}

// node loads the files for an agent, which refuses what this host lacks.
func (h *haDir) node() (*config.Node, error) {
	hb, err := h.load()
	if err == nil && len(hb.OnHost) > 0 {
		err = hb.OnHost
	}
	if err != nil {
		return nil, err
	}
	return hb.Node, nil
}

// anywhere loads the files for a clean-up, for which it does not matter what the host
// lacks, nor mostly what is wrong with them.
func (h *haDir) anywhere() (*config.Node, error) {
	hb, err := h.load()
	if hb.Node != nil {
		return hb.Node, nil
	}
	return nil, err
}

func validateHeartbeat(h haDir, skipHost bool) *validation {
	hb, err := h.load()
	v := &validation{File: h.dir, Kind: kindHeartbeat, Lines: hb.Lines}
	_ = v.add(err) // its errors are findings
	v.Findings = append(v.Findings, hb.Warnings...)
	if !skipHost {
		for _, d := range hb.OnHost {
			d.Severity = config.SeverityWarning
			v.Findings = append(v.Findings, d)
		}
		v.here = len(hb.OnHost)
	}
	return v
}

// heartbeatText prints the answer to each line, then what is wrong.
func (a *app) heartbeatText(v *validation) {
	if len(v.Lines) > 0 {
		t := newTable(a.out, "WHERE", "LINE", "ANSWER", "BECOMES", "WHY")
		for _, l := range v.Lines {
			t.row(fmt.Sprintf("%s:%d", filepath.Base(l.File), l.Line), l.Text, string(l.Answer), l.To, l.Why)
		}
		t.flush()
		if len(v.Findings) > 0 {
			a.printf("")
		}
	}
	for _, d := range v.Findings {
		a.printf("%s", judged(d))
	}
	switch {
	case !v.OK:
		a.printf("%s: Heartbeat's files cannot be used as they are", v.File)
	case v.here == 1:
		a.printf("%s: Heartbeat's files can be used, but an agent on this host refuses them for what the last warning says", v.File)
	case v.here > 1:
		a.printf("%s: Heartbeat's files can be used, but an agent on this host refuses them for what the last %d warnings say", v.File, v.here)
	default:
		a.printf("%s: Heartbeat's files can be used", v.File)
	}
}
