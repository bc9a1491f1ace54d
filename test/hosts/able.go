package hosts

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"hanode/internal/netlab"
)

// Unable says why no host can be booted here, whatever is installed; "" = it can.
func Unable() string {
	if !netlab.Privileged() {
		return "booting hosts takes root"
	}
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return err.Error()
	}
	for _, kind := range []string{"overlay", "cgroup2", "bpf"} {
		if !strings.Contains(string(b), "\t"+kind+"\n") {
			return "this kernel has no " + kind + " file system, which hosts need"
		}
	}
	return ""
}

// tools are the programs that hosts are built and run with, and who has them.
var tools = map[string]string{
	"systemd-nspawn": "systemd-container", "mmdebstrap": "mmdebstrap", "nsenter": "util-linux",
	"ansible-playbook": "ansible-core", "ansible-lint": "ansible-lint", "ssh": "openssh-client", "cloud-init": "cloud-init", "rpm": "rpm",
}

// missingTools says what to install.
func missingTools() error {
	var errs []error
	for name, pkg := range tools {
		if _, err := exec.LookPath(name); err != nil {
			errs = append(errs, fmt.Errorf("%s is missing: apt-get install %s", name, pkg))
		}
	}
	return errors.Join(errs...)
}
