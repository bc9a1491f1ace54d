package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every hanode command that a page names, in a block or in a line, is one: it exists,
// has those flags, and takes that many arguments; a sentence may name it without any.
// (Those of the blocks are run as well, by test/hosts.)
func TestDocsCommands(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) < 10 {
		t.Fatalf("pages: %q, %v", pages, err)
	}
	n := 0
	for _, page := range append(pages, "../../README.md", "../../CONTRIBUTING.md") {
		if filepath.Base(page) == "bugs.md" {
			continue // what happened once
		}
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range commandsOf(string(b)) {
			n++
			if err := takes(line); err != nil {
				t.Errorf("%s: `%s`: %v", filepath.Base(page), line, err)
			}
		}
	}
	if n < 40 {
		t.Errorf("the pages name %d commands", n)
	}
	for _, bad := range []string{"hanode stats", "hanode move", "hanode apply --ja web.hcl", "hanode status a b c"} {
		if takes(bad) == nil {
			t.Errorf("%q was taken for a command", bad)
		}
	}
}

var (
	codeSpan = regexp.MustCompile("`(hanode [^`]+)`")
	codeLine = regexp.MustCompile(`(?m)^(?:\$ )?\(?(?:umask 077; )?(hanode [a-z][^\n]*)$`)
	nameOnly = regexp.MustCompile(`^hanode( [a-z-]+){1,2}$`)
	fenced   = regexp.MustCompile("(?s)```.*?```")
	word     = regexp.MustCompile(`"[^"]*"|'[^']*'|\S+`)
	noise    = regexp.MustCompile(`\s+#.*$|\s+(?:[0-9]?>|\||&).*$|\).*$`)
)

// commandsOf lists the command lines of a page.
func commandsOf(text string) (out []string) {
	for _, block := range fenced.FindAllString(text, -1) {
		if strings.HasPrefix(block, "```hcl") {
			continue
		}
		for _, m := range codeLine.FindAllStringSubmatch(block, -1) {
			out = append(out, m[1])
		}
	}
	for _, m := range codeSpan.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		line := strings.Join(strings.Fields(m[1]), " ")
		if nameOnly.MatchString(line) && takes(line) != nil {
			line += " --help"
		}
		out = append(out, line)
	}
	return out
}

// takes says why line is no command; it runs nothing.
func takes(line string) error {
	var args []string
	for _, w := range word.FindAllString(noise.ReplaceAllString(line, ""), -1)[1:] {
		args = append(args, strings.Trim(w, `"'`))
	}
	root := newApp(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}).rootCommand()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if cmd == root {
		return fmt.Errorf("there is no such command")
	}
	if slices.Contains(rest, "--help") {
		return nil
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}
