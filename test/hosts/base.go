package hosts

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// packages are what the base system has beyond a minimal Debian: an init, a network,
// the services of the story, and their clients; and what installs hosts by themselves.
var packages = []string{
	"systemd", "systemd-sysv", "dbus", "iproute2", "procps",
	"apache2", "samba", "smbclient", "resource-agents", "kmod", "psmisc",
	"openssh-server", "python3", "cloud-init", "curl", "wget", "rpm",
}

// suite is the Debian that is booted.
const suite = "bookworm"

// masked are units that a host of a test has no use for, or that wait for what is
// not there: nmbd for a network with broadcasts, and smbd for nmbd.
var masked = []string{
	"nmbd.service", "samba-ad-dc.service", "getty@tty1.service", "getty.target", "console-getty.service",
	"e2scrub_reap.service", "e2scrub_all.timer", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer",
	"fstrim.timer", "logrotate.timer", "systemd-pstore.service", "systemd-timesyncd.service", "systemd-networkd.service",
	"systemd-networkd.socket", "systemd-resolved.service",
}

// baseFiles are what every host has on its disk beyond the base. The services are those of the
// cluster: none of them starts at boot.
var baseFiles = map[string]string{
	"/etc/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=volatile\nRuntimeMaxUse=32M\nRateLimitIntervalSec=0\n",
	"/etc/cloud/cloud-init.disabled":        "",
	"/etc/apache2/conf-available/lab.conf":  "ServerName localhost\n",
	"/etc/samba/smb.conf": `[global]
  workgroup = WORKGROUP
  server role = standalone server
  disable netbios = yes
  smb ports = 445
  map to guest = Bad User
  load printers = no
  printing = bsd
  printcap name = /dev/null
[share]
  path = /srv/share
  guest ok = yes
  read only = no
`,
}

// Cache is the folder that keeps base systems: the one that is named, else one of
// this user's.
func Cache(named string) (string, error) {
	if named != "" {
		return filepath.Abs(named)
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "hanode", "hosts"), err
}

// EnsureBase returns the base system's folder in cache, and builds it with
// mmdebstrap if it is not there: packages from the mirror that this machine's own
// apt uses, or from mirror if that is given. What it does goes to log. Do not write
// to it.
func EnsureBase(cache, mirror string, log io.Writer) (string, error) {
	dir := filepath.Join(cache, "base-"+recipe())
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil { // somebody else may be building it
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	half, err := os.MkdirTemp(cache, "half-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(half) }() // a finished one has another name
	if err := buildBase(half, mirror, log); err != nil {
		return "", fmt.Errorf("build the base system of the test hosts: %w", err)
	}
	return dir, os.Rename(half, dir)
}

// recipe changes when what EnsureBase would build changes.
func recipe() string {
	sum := sha256.New()
	fmt.Fprint(sum, suite, packages)
	return hex.EncodeToString(sum.Sum(nil)[:6])
}

func buildBase(dir, mirror string, log io.Writer) error {
	args := []string{"--variant=minbase", "--include=" + strings.Join(packages, ","), "--quiet", suite, dir}
	if mirror == "" {
		mirror = machineMirror()
	}
	if mirror != "" {
		args = append(args, mirror)
	}
	cmd := exec.Command("mmdebstrap", args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mmdebstrap: %w", err)
	}
	// Where packages came from is this machine's business.
	var errs []error
	for _, name := range []string{"etc/apt/sources.list", "etc/apt/sources.list.d", "etc/resolv.conf", "var/lib/apt/lists"} {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}

// machineMirror is this machine's list of package sources if it is of Debian; "" =
// mmdebstrap's default.
func machineMirror() string {
	for _, path := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), suite) && strings.Contains(string(b), "debian") {
			return path
		}
	}
	return ""
}

// pages are what the web server and the share show.
var pages = map[string]string{
	"/srv/share/hello.txt": "a file of the share\n",
}

// furnish makes a host of a test of what mmdebstrap left.
func (d disk) furnish() error {
	var errs []error
	for path, text := range baseFiles {
		errs = append(errs, d.Write(path, text, 0o644))
	}
	for path, text := range pages {
		errs = append(errs, d.Write(path, text, 0o644))
	}
	const units = "/etc/systemd/system/"
	errs = append(errs, os.Chmod(filepath.Join(d.root, "srv/share"), 0o777),
		d.link("/lib/systemd/system/multi-user.target", units+"default.target"),
		d.link("../conf-available/lab.conf", "/etc/apache2/conf-enabled/lab.conf"))
	for _, u := range masked {
		errs = append(errs, d.link("/dev/null", units+u))
	}
	for _, name := range []string{"ssh.service", "apache2.service", "smbd.service", "winbind.service", "apache-htcacheclean.service"} {
		errs = append(errs, d.remove(units+"multi-user.target.wants/"+name))
	}
	return errors.Join(errs...)
}

// link makes path a symbolic link, whatever it was.
func (d disk) link(to, path string) error {
	if err := d.remove(path); err != nil {
		return err
	}
	return os.Symlink(to, filepath.Join(d.root, path))
}

// remove removes a file; one that is not there is as good.
func (d disk) remove(path string) error {
	if err := os.Remove(filepath.Join(d.root, path)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
