package hosts

import (
	"context"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"hanode/internal/netlab"
)

// Client is a user of the services: a network namespace on the outer switch, and
// the programs of the base system.
type Client struct {
	*netlab.Host
	disk
}

// FetchFile gets a file of a Samba share as a guest.
func (c *Client) FetchFile(addr, share, file string, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "smbclient", "//"+addr+"/"+share, "--no-pass", "--command", "get "+file+" -")
	cmd.Path = "/usr/bin/smbclient" // in the base system, not on this machine
	cmd.Err = nil
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: c.root, Setpgid: true}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	var out string
	err := c.Do(func() (err error) {
		out, err = output(cmd, c.Name())
		return err
	})
	if err != nil {
		return "", err
	}
	// It tells on the same output what it did.
	lines := strings.SplitAfter(out, "\n")
	var text strings.Builder
	for _, l := range lines {
		if !strings.HasPrefix(l, "getting file ") {
			text.WriteString(l)
		}
	}
	return text.String(), nil
}
