package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"hanode/api"
	"hanode/config"
	"hanode/internal/atomicfile"
	"hanode/internal/trust"
)

// certResult is what cert --json prints.
type certResult struct {
	Name    string `json:"name"`
	Role    string `json:"role"`
	Cluster string `json:"cluster"`
	File    string `json:"file"`
}

func (a *app) certCommand() *cobra.Command {
	var file, role, out string
	cmd := &cobra.Command{
		Use:     "cert NAME",
		GroupID: groupFiles,
		Short:   "Make a certificate for the remote API",
		Long: `Make a certificate with which somebody, or a program, may ask agents over the network:
hanode --remote ADDRESS --cert FILE status. It runs on a node, as root, and needs
no agent. The agents that are asked have remote_api = true in their node files.

Its role says what it allows:
  read      see
  operate   move groups, standby, maintenance, clear
  admin     everything: apply, tokens, members, keys

The file is a secret. It holds until the cluster's key is changed; that ends all
certificates.`,
		Example: `  hanode cert monitoring --role read --out monitoring.pem
  hanode --remote 10.0.0.1 --cert monitoring.pem status`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case !slices.Contains(api.Roles(), role):
				return fmt.Errorf("--role is %q; it is one of %s", role, strings.Join(api.Roles(), ", "))
			case out == "":
				return errors.New("--out is missing: the file to write")
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			n, err := config.LoadNode(file)
			if err != nil {
				return usageError{err}
			}
			keys, err := n.LoadKeys()
			if err != nil {
				return err
			}
			text, err := keys.ClientCert(trust.Client{Cluster: n.Cluster, Name: args[0], Role: role})
			if err != nil {
				return err
			}
			if err := atomicfile.Write(out, text); err != nil {
				return fmt.Errorf("write the certificate: %w", err)
			}
			return report(a, &certResult{Name: args[0], Role: role, Cluster: n.Cluster, File: out}, nil, func(r *certResult) {
				a.printf("%s: %s may %s in cluster %s, until its key is changed", r.File, r.Name, r.Role, r.Cluster)
			})
		},
	}
	cmd.Flags().StringVar(&file, "config", config.DefaultFile, "the node file")
	cmd.Flags().StringVar(&role, "role", "", "what it allows: "+strings.Join(api.Roles(), ", "))
	cmd.Flags().StringVar(&out, "out", "", "the file to write, mode 600")
	return a.withJSON(cmd)
}

// atHome are the commands that ask no agent: they are about this host.
var atHome = []string{
	"agent", "init", "join", "recover", "validate", "import", "demo", "cert",
	"key generate", "snapshot inspect", "snapshot restore",
}

// openRemote makes the client of the agent that --remote names, if it does.
func (a *app) openRemote(cmd *cobra.Command) error {
	if a.remote == "" {
		return nil
	}
	if name := strings.TrimPrefix(cmd.CommandPath(), "hanode "); slices.Contains(atHome, name) {
		return usageError{fmt.Errorf("hanode %s is about the host where it runs; run it there, without --remote", name)}
	}
	if a.cert == "" {
		return usageError{errors.New("--remote takes --cert FILE, which `hanode cert` makes on a node")}
	}
	text, err := os.ReadFile(a.cert)
	if err != nil {
		return usageError{fmt.Errorf("read the certificate: %w", err)}
	}
	address := a.remote
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(strings.Trim(address, "[]"), strconv.Itoa(config.DefaultPort+1))
	}
	if a.far, err = api.DialRemote(address, text); err != nil {
		return usageError{fmt.Errorf("%s: %w", a.cert, err)}
	}
	return nil
}
