package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hanode/api"
)

func TestUsageErrors(t *testing.T) {
	h := newHost(t)
	bad := h.write("bad.hcl", `group "web" { prefre = [] }`)
	for _, c := range []struct {
		args string
		want string
	}{
		{"frobnicate", "unknown command"},
		{"status a b", "status --help"},
		{"status --frob", "unknown flag"},
		{"members x", "members --help"},
		{"move", "move --help"},
		{"move web secondary --unpin", "--unpin takes no NODE"},
		{"move web --wait -1s", "--wait is -1s"},
		{"move web --wait soon", "invalid"},
		{"standby", "standby --help"},
		{"online a b", "online --help"},
		{"maintenance", "maintenance --help"},
		{"maintenance maybe", `"maybe"`},
		{"leave now", "leave --help"},
		{"remove", "remove --help"},
		{"remove a --wait -1s", "--wait is -1s"},
		{"token", "token create"},
		{"token frob", "unknown command"},
		{"token create --ttl 0s", "--ttl is 0s"},
		{"token revoke", "revoke --help"},
		{"init x", "init --help"},
		{"join", "join --help"},
		{"join 10.0.0.1", "token"},
		{"join 10.0.0.1 --token x --token-file y", "token"},
		{"join 10.0.0.1 --token x --role boss", "--role"},
		{"join 10.0.0.1 --token x", "is no token"},
		{"join 10.0.0.1 --token-file /nonexistent", "/nonexistent"},
		{"apply", "apply --help"},
		{"apply /nonexistent", "/nonexistent"},
		{"apply " + bad, "prefre"},
		{"plan " + bad, "bad.hcl:1"},
		{"validate", "validate --help"},
		{"validate /nonexistent", "no such file"},
		{"validate " + bad + " --as x", "--as"},
		{"why", "why --help"},
		{"tune primary", "tune --help"},
		{"tune --reset=maybe", "--reset"},
		{"events --after x", "--after"},
		{"key", "key generate"},
		{"key frob", "unknown command"},
		{"key generate x", "generate --help"},
		{"agent --config /nonexistent", "/nonexistent"},
		{"agent x", "agent --help"},
		{"version x", "version --help"},
		{"demo x", "demo --help"},
	} {
		code, out, errs := h.run(strings.Fields(c.args)...)
		if code != api.ExitUsage || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q; want 2 and %q", c.args, code, out, errs, c.want)
		}
	}
}

// Every command that needs an agent exits 4 and names the socket without one.
func TestNoAgent(t *testing.T) {
	h := newHost(t)
	file := h.write("web.hcl", webFile)
	none := filepath.Join(t.TempDir(), "none")
	for _, args := range []string{
		"members", "status", "status web", "apply " + file, "apply --yes " + file, "plan " + file, "export", "move web",
		"standby primary", "online primary", "maintenance on", "leave", "remove primary", "token create", "token list", "token revoke x", "events", "events --follow", "why web", "tune", "tune --reset",
	} {
		code, out, errs := h.plain(append(strings.Fields(args), "--socket", none)...)
		if code != api.ExitUnreachable || out != "" || !strings.Contains(errs, none) || !strings.Contains(errs, "  fix: ") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", args, code, out, errs)
		}
	}
	code, out, errs := h.plain("version", "--json", "--socket", none)
	if code != 0 || errs != "" || !strings.Contains(out, `"agent": null`) {
		t.Errorf("version: exit %d, stdout %q, stderr %q", code, out, errs)
	}
}

// --socket, else HANODE_SOCKET, else the node file, else the default.
func TestWhichSocket(t *testing.T) {
	h := newHost(t)
	h.file = h.write("hanode.hcl", `
name   = "a"
socket = "/from/file"
node "a" { address = "10.0.0.1" }
node "b" { address = "10.0.0.2" }
node "c" { address = "10.0.0.3" }
`)
	says := func(want string, args ...string) {
		t.Helper()
		code, _, errs := h.plain(append([]string{"members"}, args...)...)
		if code != api.ExitUnreachable || !strings.Contains(errs, want) {
			t.Errorf("exit %d, %q, want %s", code, errs, want)
		}
	}
	says("/from/file")
	t.Setenv("HANODE_SOCKET", "/from/environment")
	says("/from/environment")
	says("/from/flag", "--socket", "/from/flag")
	t.Setenv("HANODE_SOCKET", "")
	h.file = h.write("hanode.hcl", "not a node file")
	a := newApp(strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})
	a.nodeFile = h.file
	if got := a.socketPath(); got != "/run/hanode/hanode.sock" {
		t.Errorf("with an unusable file: %s", got)
	}
}

func TestApplyAsks(t *testing.T) {
	h := newHost(t)
	h.must("apply", h.write("web.hcl", webFile))
	none := h.write("none.hcl", "")
	has := func(want bool) {
		t.Helper()
		if got := strings.Contains(h.must("export"), `group "web"`); got != want {
			t.Errorf("web is there: %v, want %v", got, want)
		}
	}

	code, out, errs := h.run("apply", none)
	if code != api.ExitFailed || out != "" || !strings.Contains(errs, "remove") || !strings.Contains(errs, "--yes") {
		t.Errorf("no terminal: exit %d, %q, %q", code, out, errs)
	}
	has(true)

	h.tty = true
	for _, answer := range []string{"", "\n", "n\n", "yess\n"} {
		h.stdin = answer
		code, out, errs = h.run("apply", none)
		if code != api.ExitFailed || out != "" || !strings.Contains(errs, "Go on?") || !strings.Contains(errs, "nothing was changed") {
			t.Errorf("answer %q: exit %d, %q, %q", answer, code, out, errs)
		}
		has(true)
	}
	// A file that came from stdin leaves nobody to ask.
	h.stdin = "# nothing\n"
	if code, _, errs = h.run("apply", "-"); code != api.ExitFailed || strings.Contains(errs, "Go on?") {
		t.Errorf("from stdin: exit %d, %q", code, errs)
	}
	has(true)

	h.stdin = "yes\n"
	if code, out, errs = h.run("apply", none, "--json"); code != 0 || !strings.Contains(errs, "Go on?") {
		t.Errorf("yes: exit %d, %q", code, errs)
	}
	checkJSON(t, "apply", out)
	has(false)

	h.tty, h.stdin = false, ""
	h.must("apply", h.write("web.hcl", webFile)) // adding hurts nobody
	h.must("apply", none, "--yes")
	has(false)
}

// A group that does not run in time: the result on stdout, the reason on stderr.
func TestApplyThatDoesNotRun(t *testing.T) {
	h := newHost(t)
	h.must("standby", "primary")
	h.must("standby", "secondary")
	code, out, errs := h.run("apply", h.write("web.hcl", webFile), "--wait", "2s")
	if code != api.ExitFailed || !strings.Contains(out, "web: stopped on nobody") || !strings.Contains(errs, "after 2s: files, web") {
		t.Errorf("exit %d\n%s\n%s", code, out, errs)
	}
}

// Following shows what happens while it happens, and an interrupt is its end.
func TestEventsFollow(t *testing.T) {
	h := newHost(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	lines := &lineWriter{lines: make(chan string)}
	a := newApp(strings.NewReader(""), lines, os.Stderr)
	a.zone = time.UTC
	ended := make(chan int, 1)
	go func() { ended <- a.run(ctx, []string{"events", "--follow", "--socket", h.socket}) }()
	if got := <-lines.lines; !strings.Contains(got, "arbiter became leader") {
		t.Errorf("got %q", got)
	}
	h.model.Kill("secondary")
	if got := <-lines.lines; !strings.Contains(got, "secondary has not been heard") {
		t.Errorf("got %q", got)
	}
	interrupt()
	if code := <-ended; code != 0 {
		t.Errorf("exit %d", code)
	}
}

// lineWriter passes on each write; the command writes a line at a time.
type lineWriter struct{ lines chan string }

func (w *lineWriter) Write(b []byte) (int, error) {
	w.lines <- string(b)
	return len(b), nil
}

// An answer that was lost is not "done".
func TestOutputThatCannotBeWritten(t *testing.T) {
	h := newHost(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	for _, args := range [][]string{
		{"members"},
		{"members", "--json"},
		{"status"},
		{"export"},
		{"events"},
		{"events", "--json"},
		{"tune"},
		{"tune", "--json"},
		{"version"},
		{"key", "generate"},
		{"maintenance", "off"},
	} {
		var errs bytes.Buffer
		code := run("hanode", append(args, "--socket", h.socket), strings.NewReader(""), full, &errs)
		if code != api.ExitFailed || !strings.Contains(errs.String(), "no space left") {
			t.Errorf("%v: exit %d, %q", args, code, &errs)
		}
	}
	var out bytes.Buffer
	if code := run("hanode", nil, strings.NewReader(""), &out, os.Stderr); code != 0 || !strings.Contains(out.String(), "Usage:") {
		t.Errorf("no arguments: exit %d, %q", code, &out)
	}
}

// The word that a host is off is typed to the letter, or given to the letter.
func TestConfirmOff(t *testing.T) {
	const sentence = "primary is off"
	h := newHost(t)
	h.must("apply", h.write("web.hcl", strings.Replace(webFile, `failback = "on"`, `exclusive = true`, 1)))
	if code, _, errs := h.run("confirm-off", "primary", "--confirm", sentence); code != api.ExitFailed || !strings.Contains(errs, "heard") {
		t.Errorf("a node that is heard: exit %d, %q", code, errs)
	}
	if code, _, _ := h.run("confirm-off"); code != api.ExitUsage {
		t.Errorf("no node: exit %d", code)
	}
	h.model.Kill("primary")
	blocked := func(want bool) {
		t.Helper()
		if got := strings.Contains(h.must("status"), "group-blocked"); got != want {
			t.Errorf("blocked: %v, want %v", got, want)
		}
	}
	blocked(true)
	if code, out, errs := h.run("confirm-off", "primary"); code != api.ExitFailed || out != "" || !strings.Contains(errs, `--confirm "primary is off"`) {
		t.Errorf("nobody to ask: exit %d, %q, %q", code, out, errs)
	}
	h.tty = true
	for _, answer := range []string{"", "\n", "y\n", "yes\n", "Primary is off\n"} {
		h.stdin = answer
		code, out, errs := h.run("confirm-off", "primary")
		if code != api.ExitFailed || out != "" || !strings.Contains(errs, "Type") || !strings.Contains(errs, "nothing was changed") {
			t.Errorf("answer %q: exit %d, %q, %q", answer, code, out, errs)
		}
	}
	if code, _, errs := h.run("confirm-off", "primary", "--confirm", "yes"); code != api.ExitFailed || strings.Contains(errs, "Type") {
		t.Errorf("a wrong --confirm: exit %d, %q", code, errs)
	}
	blocked(true)
	h.stdin = sentence + "\n"
	code, out, errs := h.run("confirm-off", "primary", "--json")
	if code != 0 || !strings.Contains(errs, "Type") {
		t.Errorf("the sentence: exit %d, %q", code, errs)
	}
	checkJSON(t, "confirm-off", out)
	blocked(false)

	h.model.Revive("primary")
	h.must("move", "web", "primary")
	h.model.Kill("primary")
	h.tty, h.stdin = false, ""
	if got := h.must("confirm-off", "primary", "--confirm", sentence); got != "primary counts as off; it may not run web any more\n" {
		t.Errorf("got %q", got)
	}
	blocked(false)
}

// A failure is shown with what clears it, and is forgotten when that is done.
func TestClear(t *testing.T) {
	h := newHost(t)
	h.must("apply", h.write("web.hcl", webFile))
	if got := h.must("clear"); got != "no failures are remembered\n" {
		t.Errorf("nothing failed: %q", got)
	}
	h.model.Fail("web", "apache: exit status 1")
	for _, args := range [][]string{{"clear", "nope"}, {"clear", "web", "nope"}} {
		if code, _, errs := h.run(args...); code != api.ExitFailed || !strings.Contains(errs, "nope") {
			t.Errorf("%v: exit %d, %q", args, code, errs)
		}
	}
	if code, _, _ := h.run("clear", "web", "primary", "more"); code != api.ExitUsage {
		t.Errorf("three arguments: exit %d", code)
	}
	if got := h.must("clear", "web", "secondary"); got != "no failures are remembered\n" {
		t.Errorf("another node: %q", got)
	}
	if out := h.must("status", "--json"); !strings.Contains(out, `"text": "apache: exit status 1"`) {
		t.Errorf("status: %s", out)
	}
	if got := h.must("clear", "web", "primary"); got != "web may be tried on primary again\n" {
		t.Errorf("got %q", got)
	}
	checkJSON(t, "clear", h.must("clear", "--json"))
}
