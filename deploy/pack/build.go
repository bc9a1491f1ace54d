package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// build is one version of hanode on its way into packages.
type build struct {
	repo    string // the repository
	work    string // what is made; gone at the end
	version string
	date    time.Time // of the commit, on every file: the same commit makes the same package
	pages   []string  // man pages, by file name

	compression string // of the packages
}

func newBuild(version, work string) (*build, error) {
	repo, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	b := &build{repo: repo, work: work, version: version}
	out, err := b.run(nil, "git", "log", "-1", "--format=%ct %h")
	var seconds int64
	var hash string
	if _, scanErr := fmt.Sscan(out, &seconds, &hash); err != nil || scanErr != nil {
		seconds, hash = time.Now().Unix(), "unknown" // a copy without its history
	}
	if s := os.Getenv("SOURCE_DATE_EPOCH"); s != "" {
		if seconds, err = strconv.ParseInt(s, 10, 64); err != nil {
			return nil, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
	}
	b.date = time.Unix(seconds, 0).UTC()
	if b.version == "" {
		b.version = b.describe(hash)
	}
	return b, nil
}

// describe is the version of the commit: its tag, v1.2.3, or how far it is past one.
// Before the first tag it sorts below all that will come.
func (b *build) describe(hash string) string {
	tag, err := b.run(nil, "git", "describe", "--tags", "--match", "v[0-9]*")
	if err != nil {
		return fmt.Sprintf("0~git%s.%s", b.date.Format("20060102"), hash)
	}
	return strings.ReplaceAll(strings.TrimPrefix(strings.TrimSpace(tag), "v"), "-", "+")
}

// run runs a program in the repository and returns its standard output.
func (b *build) run(env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = b.repo, append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(errs.String()+out.String()))
	}
	return out.String(), nil
}

// binary builds hanode for an architecture: static, without what only debuggers read.
func (b *build) binary(arch string) error {
	_, err := b.run([]string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + arch}, "go", "build", "-trimpath",
		"-ldflags", "-s -w -X main.version="+b.version, "-o", filepath.Join(b.work, "hanode-"+arch), "./cmd/hanode")
	return err
}

// texts makes man pages, completions, changelog and copyright.
func (b *build) texts() error {
	man := filepath.Join(b.work, "man")
	if err := os.Mkdir(man, 0o755); err != nil {
		return err
	}
	if _, err := b.run([]string{"SOURCE_DATE_EPOCH=" + strconv.FormatInt(b.date.Unix(), 10)},
		"go", "test", "-count=1", "-run", "^TestManPages$", "./cmd/hanode", "-args", "-man", man); err != nil {
		return err
	}
	pages, err := filepath.Glob(filepath.Join(man, "*.1"))
	if err != nil || len(pages) == 0 {
		return fmt.Errorf("no man pages were made: %v", err)
	}
	for _, p := range pages {
		if err := b.compress(p, p+".gz"); err != nil {
			return err
		}
		b.pages = append(b.pages, filepath.Base(p)+".gz")
	}
	hanode := filepath.Join(b.work, "hanode")
	if _, err := b.run([]string{"CGO_ENABLED=0"}, "go", "build", "-o", hanode, "./cmd/hanode"); err != nil {
		return err
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		text, err := b.run(nil, hanode, "completion", shell)
		if err != nil {
			return err
		}
		if err := b.write(shell, text); err != nil {
			return err
		}
	}
	log := fmt.Sprintf("hanode (%s) unstable; urgency=medium\n\n  * What changed is in CHANGELOG.md of the sources.\n\n -- hanode developers <hanode@packages.invalid>  %s\n", b.version, stamp(b.date))
	if err := b.write("changelog", log); err != nil {
		return err
	}
	if err := b.compress(filepath.Join(b.work, "changelog"), filepath.Join(b.work, "changelog.gz")); err != nil {
		return err
	}
	return b.write("copyright", fmt.Sprintf(copyright, b.date.Year()))
}

// heartbeat are the commands of Heartbeat that the binary answers to, where Debian's
// package of that name has them, and where the links lead.
var heartbeat = map[string]string{
	"/usr/bin/cl_status":               "hanode",
	"/usr/share/heartbeat/hb_standby":  "../../bin/hanode",
	"/usr/share/heartbeat/hb_takeover": "../../bin/hanode",
	"/usr/share/heartbeat/hb_addnode":  "../../bin/hanode",
	"/usr/share/heartbeat/hb_delnode":  "../../bin/hanode",
}

func (b *build) write(name, text string) error {
	return os.WriteFile(filepath.Join(b.work, name), []byte(text), 0o644)
}

// compress writes from to to, without name and time in it.
func (b *build) compress(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(text); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(to, out.Bytes(), 0o644)
}

const copyright = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: hanode

Files: *
Copyright: %d hanode developers
License: Apache-2.0
 On Debian systems, the full text of the Apache License, Version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
`
