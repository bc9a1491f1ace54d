package hanode_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"hanode/config"
)

// pages are all documents of the project.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() != "." && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".md" {
			return nil
		}
		b, err := os.ReadFile(path)
		out[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// block is a fenced block of a page.
type block struct {
	page  string
	line  int
	lang  string
	lines []string
}

func blocks(page, text string) (out []block) {
	var open *block
	for i, line := range strings.Split(text, "\n") {
		mark, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && open == nil:
			open = &block{page: page, line: i + 1, lang: mark}
		case fence:
			out = append(out, *open)
			open = nil
		case open != nil:
			open.lines = append(open.lines, line)
		}
	}
	return out
}

// founders completes an example that shows only a part of a node file.
const founders = `
node "primary"   { address = "10.0.0.1" }
node "secondary" { address = "10.0.0.2" }
node "arbiter" {
  address = "10.0.0.3"
  role    = "witness"
}
`

// Every HCL block of a page is a file that config takes, but for the node blocks
// that an example may leave out.
func TestDocsHCL(t *testing.T) {
	n := 0
	for page, text := range pages(t) {
		for _, b := range blocks(page, text) {
			if b.lang != "hcl" {
				continue
			}
			n++
			src := strings.Join(b.lines, "\n")
			if err := parse(t, src); err != nil {
				t.Errorf("%s:%d:\n%v", b.page, b.line, err)
			}
		}
	}
	if n < 5 {
		t.Errorf("only %d HCL blocks were found in the pages", n)
	}
	if err := parse(t, "link eth0 {}\nnod \"a\" {}"); err == nil {
		t.Error("nonsense was taken for a good example")
	}
}

var (
	groupLine = regexp.MustCompile(`(?m)^group "`)
	nodeLine  = regexp.MustCompile(`(?m)^node "`)
)

func parse(t *testing.T, src string) error {
	t.Helper()
	if groupLine.MatchString(src) {
		_, err := config.ParseCluster("cluster.hcl", []byte(src))
		return err
	}
	if !nodeLine.MatchString(src) && !strings.Contains(src, "retry_join") { // whoever joins lists nobody
		src += founders
	}
	path := filepath.Join(t.TempDir(), "hanode.hcl")
	if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.LoadNode(path)
	return err
}

// The sample node file is good as it is.
func TestSample(t *testing.T) {
	n, err := config.LoadNode("deploy/hanode.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if w := n.Warnings(); len(w) > 0 {
		t.Errorf("the sample has warnings: %v", w)
	}
}

// notYet are commands that pages and remedies name as not available. When one
// comes, the test fails, and what is written about it is to be corrected.
var notYet = []string{}

// command is a hanode command line in a page.
type command struct {
	page  string
	line  int
	words []string
}

var (
	span  = regexp.MustCompile("`(hanode [^`]+)`")
	shell = regexp.MustCompile(`(?:^|[\s;&|(])(?:/usr/bin/|/usr/local/bin/|\./)?hanode ([^|;>&#)]*)`)
)

// commands finds the command lines in fenced shell blocks and in code spans.
func commands(page, text string) (out []command) {
	add := func(line int, args string) { out = append(out, command{page, line, strings.Fields(args)}) }
	for _, b := range blocks(page, text) {
		for i, line := range b.lines {
			prompt := strings.HasPrefix(line, "$ ") || strings.HasPrefix(line, "# ")
			if b.lang != "sh" && !prompt {
				continue
			}
			line = strings.TrimPrefix(strings.TrimPrefix(line, "$ "), "# ")
			for _, m := range shell.FindAllStringSubmatch(line, -1) {
				add(b.line+1+i, m[1])
			}
		}
	}
	fenced := false
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		}
		if fenced {
			continue
		}
		for _, m := range span.FindAllStringSubmatch(line, -1) {
			add(i+1, strings.TrimPrefix(m[1], "hanode "))
		}
	}
	return out
}

// Every command that a page shows exists, with its flags.
func TestDocsCommands(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "hanode")
	if out, err := exec.Command("go", "build", "-o", binary, "./cmd/hanode").CombinedOutput(); err != nil {
		t.Fatalf("build hanode: %v\n%s", err, out)
	}
	helped := map[string]string{}
	help := func(words []string) (string, error) {
		key := strings.Join(words, " ")
		if text, ok := helped[key]; ok {
			return text, nil
		}
		out, err := exec.Command(binary, append(slices.Clone(words), "--help")...).CombinedOutput()
		if err != nil {
			return "", errors.New(strings.TrimSpace(string(out)))
		}
		helped[key] = string(out)
		return string(out), nil
	}
	top, err := help(nil)
	if err != nil {
		t.Fatal(err)
	}
	exists := func(name string) bool {
		return regexp.MustCompile(`(?m)^  ` + regexp.QuoteMeta(name) + ` `).MatchString(top)
	}
	for _, name := range notYet {
		if exists(name) {
			t.Errorf("%s exists now: take it out of notYet and correct what is written about it", name)
		}
	}
	n := 0
	for page, text := range pages(t) {
		for _, c := range commands(page, text) {
			n++
			if complaint := c.check(exists, help); complaint != "" {
				t.Errorf("%s:%d: hanode %s: %s", c.page, c.line, strings.Join(c.words, " "), complaint)
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d command lines were found in the pages", n)
	}
	bad := command{"", 0, []string{"status", "--frobnicate"}}
	if bad.check(exists, help) == "" {
		t.Error("an unknown flag was taken for a good one")
	}
}

// check says what is wrong with the command, or "".
func (c command) check(exists func(string) bool, help func([]string) (string, error)) string {
	var name, sub string // of `key rotate`, rotate
	var flags []string
	for _, w := range c.words {
		switch {
		case strings.HasPrefix(w, "-"):
			f, _, _ := strings.Cut(w, "=")
			flags = append(flags, f)
		case name == "" && len(flags) == 0:
			name = w
		case sub == "" && len(flags) == 0:
			sub = w
		}
	}
	switch {
	case slices.Contains(notYet, name):
		return ""
	case name != "" && !exists(name):
		return "there is no such command"
	}
	text, err := help(slices.DeleteFunc([]string{name}, func(s string) bool { return s == "" }))
	if err == nil && sub != "" && regexp.MustCompile(`(?m)^  `+regexp.QuoteMeta(sub)+` `).MatchString(text) {
		text, err = help([]string{name, sub})
	}
	if err != nil {
		return err.Error()
	}
	for _, f := range flags {
		if !regexp.MustCompile(`(^|[\s,])` + regexp.QuoteMeta(f) + `\b`).MatchString(text) {
			return "there is no flag " + f
		}
	}
	return ""
}

// Links between pages lead somewhere.
func TestDocsLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)(?:#[^)]*)?\)`)
	for page, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", page, m[1], err)
			}
		}
	}
}

// Nothing that is handed out speaks of one machine.
func TestNoMachines(t *testing.T) {
	bad := regexp.MustCompile(`/(work|root|home/[a-z]+)/|GOPROXY=|GOFLAGS=-mod`)
	for page, text := range pages(t) {
		for i, line := range bytes.Split([]byte(text), []byte("\n")) {
			if m := bad.Find(line); m != nil {
				t.Errorf("%s:%d: %s", page, i+1, m)
			}
		}
	}
}
