// Command pack makes the Debian and RPM packages of hanode: it builds the binary for
// each architecture, has the man pages and completions written by the commands
// themselves, and hands all to nfpm. Run it in its own folder:
//
//	go run . -version 1.2.3 -arch amd64,arm64 -formats deb,rpm -out ../../dist
//
// It is a module of its own, so that what nfpm brings along stays out of the agent's.
// What is in a package is in contents.go; what its scripts do, and why, is in files.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers the format
	_ "github.com/goreleaser/nfpm/v2/rpm" // registers the format
)

func main() {
	version := flag.String("version", "", "version; empty = from git")
	archs := flag.String("arch", "amd64,arm64", "architectures, as Go names them")
	formats := flag.String("formats", "deb,rpm", "package formats")
	out := flag.String("out", "../../dist", "folder for the packages")
	compression := flag.String("compression", "xz", "xz, or gzip: made in a tenth of the time, and larger")
	flag.Parse()
	if err := run(*version, *compression, strings.Split(*archs, ","), strings.Split(*formats, ","), *out); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(version, compression string, archs, formats []string, out string) error {
	work, err := os.MkdirTemp("", "hanode-pack-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	b, err := newBuild(version, work)
	if err != nil {
		return err
	}
	b.compression = compression
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	if err := b.texts(); err != nil {
		return err
	}
	for _, arch := range archs {
		if err := b.binary(arch); err != nil {
			return err
		}
		for _, format := range formats {
			path, err := b.pack(arch, format, out)
			if err != nil {
				return fmt.Errorf("%s for %s: %w", format, arch, err)
			}
			fmt.Println(path)
		}
	}
	return nil
}

// pack writes one package and returns its path.
func (b *build) pack(arch, format, out string) (string, error) {
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "hanode", Arch: arch, Platform: "linux", Version: b.version, VersionSchema: "none",
		Section: "admin", Priority: "optional", License: "Apache-2.0",
		Maintainer:  "hanode developers <hanode@packages.invalid>",
		Description: describe(format), MTime: b.date, DisableGlobbing: true,
		Overridables: nfpm.Overridables{
			Umask: 0o022, Depends: []string{"systemd"}, Contents: b.contents(arch, format),
			Scripts: scripts(format), Conflicts: instead,
			Deb: nfpm.Deb{Compression: b.compression},
			RPM: nfpm.RPM{Compression: b.compression, BuildHost: "hanode", Summary: summary, Group: "System Environment/Daemons"},
		},
	})
	if format == "deb" { // to rpm this would mean to remove it without a word
		info.Replaces = instead
	}
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return "", err
	}
	p, err := nfpm.Get(format)
	if err != nil {
		return "", err
	}
	path := filepath.Join(out, p.ConventionalFileName(info))
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := p.Package(info, f); err != nil {
		_ = f.Close()
		_ = os.Remove(path)
		return "", err
	}
	return path, f.Close()
}

// instead is what cannot be installed beside it: Heartbeat, whose commands are here. Two
// programs that hold the same addresses must not run on one host anyway.
var instead = []string{"heartbeat"}

const summary = "failover cluster for Linux services"

// describe is the package's description; a Debian one begins with the summary.
func describe(format string) string {
	if format == "deb" {
		return summary + "\n" + description
	}
	return strings.ReplaceAll(description, "\n.\n", "\n\n")
}

const description = `hanode keeps services and their addresses running on one of several hosts.
When a host dies, hangs or loses its network, another one takes over; at no
instant do two of them answer for the same address: each owner holds a lease
that a majority of the nodes renews, and its kernel silences the addresses
the moment the lease ends.
.
Nothing starts before /etc/hanode/hanode.hcl is written.`
