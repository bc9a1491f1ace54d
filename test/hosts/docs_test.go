package hosts

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// notRun are blocks of commands that this test does not run, by a piece of their text,
// and why.
var notRun = map[string]string{
	"go run ./cmd/hanode demo": "the tests of package demo run the demonstration; the other line is this test's own command",
	"make deb":                 "the packages that are installed here were made by the same program",
	"hanode init --cluster":    "the cluster of this test has founders in its files; test/e2e forms one this way",
	"hanode join 10.0.0.1":     "the same",
	"hanode token create":      "the same",
	"hanode cert":              "the remote API is off until the file says otherwise; test/e2e asks it",
	"aws ec2 assign":           "it takes an account with that cloud",
	"gcloud compute":           "it takes an account with that cloud",
	"az network":               "it takes an account with that cloud",
	"openstack port":           "it takes an account with that cloud",
	"/etc/pve/firewall":        "it takes a Proxmox host",
}

// docPages are run in this order, on the same hosts; any other page must have nothing to
// run.
var docPages = []string{"docs/install.md", "README.md", "docs/first-cluster.md", "docs/operations.md", "docs/runbook.md", "docs/joining.md", "docs/networks.md", "docs/access.md", "docs/keys.md"}

// docBlock is a block of commands and where it is run.
type docBlock struct {
	page  string
	hosts []string
	text  string
}

// ownTest are pages that another test runs, on hosts of its own.
var ownTest = map[string]string{heartbeatPage: "TestHeartbeatStory"}

var docBlocks = regexp.MustCompile("(?ms)^ *```sh(?: host=(\\S+))?\n(.*?)^ *```$")

func blocksOf(page, text string) (out []docBlock) {
	for _, m := range docBlocks.FindAllStringSubmatch(text, -1) {
		b := docBlock{page: page, text: m[2], hosts: []string{"primary"}}
		switch m[1] {
		case "":
		case "every":
			b.hosts = []string{"primary", "secondary", "arbiter"}
		default:
			b.hosts = strings.Split(m[1], ",")
		}
		out = append(out, b)
	}
	return out
}

// allBlocks reads every page; one that has commands and is not in docPages fails.
func allBlocks(t *testing.T) (out []docBlock) {
	t.Helper()
	found := map[string][]docBlock{}
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		paths, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			page, err := filepath.Rel("../..", path)
			if err != nil {
				t.Fatal(err)
			}
			if list := blocksOf(page, string(b)); len(list) > 0 {
				found[page] = list
				if !slices.Contains(docPages, page) && ownTest[page] == "" {
					t.Errorf("%s has commands, and this test does not know when to run them", page)
				}
			}
		}
	}
	for _, page := range docPages {
		out = append(out, found[page]...)
	}
	return out
}

// TestDocs runs every command of the documents on booted hosts, page by page, as the
// reader would.
func TestDocs(t *testing.T) {
	s := newStory(t)
	blocks := allBlocks(t)
	boot(t, s.Hosts...)
	s.sshd(t.TempDir())
	for _, h := range s.all() {
		// The examples have the lab's addresses, so there is nothing to edit.
		h.write("/usr/local/bin/vi", "#!/bin/sh\n", 0o755)
		if err := h.Copy(deb(versionNew), "/root/"+filepath.Base(deb(versionNew)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	used := map[string]bool{}
	ran := 0
	for _, b := range blocks {
		if why := exempt(b, used); why != "" {
			t.Logf("%s: not run, %s: %s", b.page, why, firstLine(b.text))
			continue
		}
		text := strings.ReplaceAll(b.text, "VERSION_amd64", "*")
		for _, name := range b.hosts {
			ran++
			script := "cd /root; set -e\n" + text
			if out, err := s.on(name).Run("sh", "-c", script); err != nil {
				t.Fatalf("%s, on %s:\n%s\n%v\n%s", b.page, name, text, err, out)
			}
		}
		if strings.Contains(text, "systemctl start hanode") && b.page == "docs/first-cluster.md" {
			s.formed()
		}
	}
	for piece := range notRun {
		if !used[piece] {
			t.Errorf("no page has %q any more; take it off notRun", piece)
		}
	}
	t.Logf("%d blocks of commands were run", ran)
	s.formed()
	if out := s.primary.run("hanode", "status"); !strings.Contains(out, "web") {
		t.Errorf("in the end the status is:\n%s", out)
	}
}

func exempt(b docBlock, used map[string]bool) (reason string) {
	for piece, why := range notRun {
		if strings.Contains(b.text, piece) { // maybe more than one
			used[piece] = true
			reason = why
		}
	}
	return reason
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return fmt.Sprintf("%q", line)
}
