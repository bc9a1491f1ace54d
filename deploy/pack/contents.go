package main

import (
	"os"
	"path/filepath"
	"time"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/files"
)

// contents is what a package installs, and where.
func (b *build) contents(arch, format string) files.Contents {
	var all files.Contents
	add := func(from, to string, mode os.FileMode) {
		all = append(all, &files.Content{Source: from, Destination: to, FileInfo: &files.ContentFileInfo{Mode: mode, Owner: "root", Group: "root", MTime: b.date}})
	}
	repo := func(name string) string { return filepath.Join(b.repo, name) }
	made := func(name string) string { return filepath.Join(b.work, name) }

	add(made("hanode-"+arch), "/usr/bin/hanode", 0o755)
	for path, to := range heartbeat {
		all = append(all, &files.Content{Source: to, Destination: path, Type: files.TypeSymlink, FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", MTime: b.date}})
	}
	add(repo("deploy/hanode.service"), unitDir(format)+"/hanode.service", 0o644)
	add(repo("deploy/hanode.sysusers"), "/usr/lib/sysusers.d/hanode.conf", 0o644)
	add(repo("deploy/hanode.tmpfiles"), "/usr/lib/tmpfiles.d/hanode.conf", 0o644)
	all = append(all, &files.Content{Destination: "/etc/hanode", Type: files.TypeDir, FileInfo: &files.ContentFileInfo{Mode: 0o755, Owner: "root", Group: "root", MTime: b.date}})

	add(made("bash"), "/usr/share/bash-completion/completions/hanode", 0o644)
	add(made("zsh"), map[string]string{"deb": "/usr/share/zsh/vendor-completions/_hanode", "rpm": "/usr/share/zsh/site-functions/_hanode"}[format], 0o644)
	add(made("fish"), "/usr/share/fish/vendor_completions.d/hanode.fish", 0o644)
	for _, page := range b.pages {
		add(made("man/"+page), "/usr/share/man/man1/"+page, 0o644)
	}

	doc := "/usr/share/doc/hanode/"
	add(repo("deploy/hanode.hcl"), doc+"examples/hanode.hcl", 0o644)
	add(repo("deploy/web.hcl"), doc+"examples/web.hcl", 0o644)
	add(repo("deploy/addresses-only.conf"), doc+"examples/addresses-only.conf", 0o644)
	add(repo("deploy/heartbeat.conf"), doc+"examples/heartbeat.conf", 0o644)
	for _, page := range []string{
		"install", "first-cluster", "heartbeat", "joining", "two-nodes", "runbook", "configuration", "operations", "problems", "timing", "services", "networks",
	} {
		add(repo("docs/"+page+".md"), doc+page+".md", 0o644)
	}
	if format == "deb" {
		add(made("changelog.gz"), doc+"changelog.gz", 0o644)
		add(made("copyright"), doc+"copyright", 0o644)
		add("files/lintian-overrides", "/usr/share/lintian/overrides/hanode", 0o644)
	} else {
		add(repo("CHANGELOG.md"), doc+"CHANGELOG.md", 0o644)
		add(repo("LICENSE"), "/usr/share/licenses/hanode/LICENSE", 0o644)
	}
	return all
}

// unitDir is where the distribution looks for units of packages.
func unitDir(format string) string {
	if format == "deb" {
		return "/lib/systemd/system"
	}
	return "/usr/lib/systemd/system"
}

func scripts(format string) nfpm.Scripts {
	if format == "deb" {
		return nfpm.Scripts{PostInstall: "files/deb.postinst", PreRemove: "files/deb.prerm", PostRemove: "files/deb.postrm"}
	}
	return nfpm.Scripts{PostInstall: "files/rpm.post", PreRemove: "files/rpm.preun", PostRemove: "files/rpm.postun"}
}

// stamp is how a date is written in a Debian changelog.
func stamp(t time.Time) string { return t.UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700") }
