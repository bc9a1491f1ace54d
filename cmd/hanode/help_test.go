package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestEveryHelpHasAnExample(t *testing.T) {
	h := newHost(t)
	root := newApp(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}).rootCommand()
	seen := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		seen++
		if !strings.Contains(cmd.Example, "hanode") {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		if cmd.Short == "" {
			t.Errorf("%s does not say what it does", cmd.CommandPath())
		}
		if !cmd.DisableFlagParsing {
			args := append(strings.Fields(cmd.CommandPath())[1:], "--help")
			code, out, errs := h.plain(args...)
			if code != 0 || errs != "" || !strings.Contains(out, "Examples:\n") || !strings.Contains(out, "--socket") {
				t.Errorf("%v: exit %d, %q, %q", args, code, out, errs)
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
	if seen < 20 {
		t.Errorf("only %d commands", seen)
	}
	if code, out, _ := h.plain(); code != 0 || !strings.Contains(out, "Usage:") {
		t.Errorf("no arguments: exit %d, %q", code, out)
	}
}

// What reports, reports as JSON too.
func TestWhoHasJSON(t *testing.T) {
	root := newApp(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{}).rootCommand()
	without := map[string]bool{"agent": true, "key": true, "token": true, "snapshot": true, "help": true, "completion": true, "demo-inner": true, "demo-web": true}
	for _, cmd := range root.Commands() {
		if got := cmd.Flags().Lookup("json") != nil; got == without[cmd.Name()] {
			t.Errorf("%s --json: %v", cmd.Name(), got)
		}
	}
}

func TestCompletion(t *testing.T) {
	h := newHost(t)
	h.must("apply", h.write("web.hcl", webFile))
	for _, c := range []struct{ line, want string }{
		{"status |", "files web"},
		{"status web |", ""},
		{"why |", "files web"},
		{"why w|", "files web"}, // the shell filters
		{"move |", "files web"},
		{"move web |", "primary secondary"},
		{"move web primary |", ""},
		{"standby |", "primary secondary"},
		{"online |", "primary secondary"},
		{"maintenance |", "on off"},
		{"apply |", "hcl"},
		{"validate --as |", "node cluster"},
		{"members |", ""},
		{"tune |", ""},
		{"tune --re|", "--remote --reset"},
	} {
		words := strings.Split(strings.TrimSuffix(c.line, "|"), " ")
		out := h.complete(words)
		if got := strings.Join(out, " "); got != c.want {
			t.Errorf("%s gives %q, want %q", c.line, got, c.want)
		}
	}
	// Without a quorum the names are still known; without an agent there are none,
	// and no noise on the line that is being typed.
	h.model.Kill("secondary")
	h.model.Kill("arbiter")
	if got := h.complete([]string{"move", ""}); strings.Join(got, " ") != "files web" {
		t.Errorf("no quorum: %q", got)
	}
	h.socket = "/nonexistent"
	if got := h.complete([]string{"move", ""}); len(got) != 0 {
		t.Errorf("no agent: %q", got)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if code, out, _ := h.plain("completion", shell); code != 0 || !strings.Contains(out, "hanode") {
			t.Errorf("completion %s: exit %d", shell, code)
		}
	}
}

// complete asks for completions as the shells' scripts do.
func (h *host) complete(words []string) []string {
	h.t.Helper()
	code, out, _ := h.plain(append([]string{cobra.ShellCompNoDescRequestCmd, "--socket", h.socket}, words...)...)
	if code != 0 {
		h.t.Fatalf("complete %v: exit %d", words, code)
	}
	var names []string
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, ":") {
			names = append(names, line)
		}
	}
	return names
}
