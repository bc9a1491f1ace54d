package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"hanode/api"
	"hanode/config"
)

// imported is what import --json prints.
type imported struct {
	Dir      string                      `json:"dir"`
	Files    api.List[string]            `json:"files"`
	Findings api.List[config.Diagnostic] `json:"findings"`
}

func (a *app) importCommand() *cobra.Command {
	ha := haDir{}
	var out string
	cmd := &cobra.Command{
		Use:     "import",
		GroupID: groupFiles,
		Short:   "Write hanode's files from Heartbeat's",
		Long: `Read Heartbeat's ha.cf, haresources and authkeys and write a node file, a cluster
file and a key file that mean the same. Running an agent with --config and these, or
with --ha-dir and those, is the same.

The files are the same on every host: copy the folder, and keep the key's mode of 600.
It overwrites nothing.`,
		Example: `  hanode import --ha-dir /etc/ha.d
  hanode import --ha-dir /etc/ha.d --out /etc/hanode`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if ha.dir == "" {
				ha.dir = config.DefaultHADir
			}
			res, err := importFiles(ha, out)
			return report(a, res, err, func(r *imported) {
				for _, d := range r.Findings {
					say(a.err, "%s\n", judged(d))
				}
				for _, f := range r.Files {
					a.printf("wrote %s", f)
				}
			})
		},
	}
	ha.flags(cmd)
	cmd.Flags().StringVar(&out, "out", ".", "the folder to write to; it is made if need be")
	_ = cmd.MarkFlagDirname("out")
	return a.withJSON(cmd)
}

// importFiles writes the three files, or none of them.
func importFiles(ha haDir, out string) (*imported, error) {
	hb, err := ha.load()
	if err == nil && len(hb.OnHost) > 0 {
		// What this host does not know cannot be written down.
		err = hb.OnHost
	}
	if err != nil {
		return nil, usageError{err}
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	keys, err := hb.Node.LoadKeys()
	if err != nil {
		return nil, err
	}
	files := hb.Import(host)
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	res := &imported{Dir: out, Findings: api.List[config.Diagnostic](hb.Warnings)}
	for _, f := range []struct {
		name string
		mode fs.FileMode
		text []byte
	}{{config.ImportedNode, 0o644, files.Node}, {config.ImportedCluster, 0o644, files.Cluster}, {config.ImportedKey, 0o600, keys.Text()}} {
		path := filepath.Join(out, f.name)
		if err := writeNew(path, f.text, f.mode); err != nil {
			for _, made := range res.Files {
				err = errors.Join(err, os.Remove(made))
			}
			return nil, err
		}
		res.Files = append(res.Files, path)
	}
	return res, nil
}

// writeNew writes a file that is not there yet.
func writeNew(path string, text []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and nothing was written; move it away, or name another folder with --out", path)
	}
	if err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}
