package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// One story, told by every command as people and as programs read it.
func TestOutput(t *testing.T) {
	h := newHost(t)
	file := h.write("web.hcl", webFile)
	var b strings.Builder
	for _, step := range []struct {
		args string
		do   func()
		code int
	}{
		{args: "status"},
		{args: "status --json"},
		{args: "plan FILE"},
		{args: "plan FILE --json"},
		{args: "apply FILE"},
		{args: "apply FILE --json"},
		{args: "export"},
		{args: "export --json"},
		{do: func() { h.now = h.now.Add(2*time.Hour + 13*time.Minute) }},
		{args: "members"},
		{args: "members --json"},
		{args: "status"},
		{args: "status web"},
		{args: "status web --json"},
		{args: "why web"},
		{args: "why web --json"},
		{args: "move web secondary"},
		{args: "move web secondary --json"},
		{args: "move web"},
		{args: "move web primary --json"},
		{args: "move web --unpin"},
		{args: "move web arbiter", code: 1},
		{args: "move nope", code: 1},
		{args: "tune"},
		{args: "tune --json"},
		{args: "standby primary"},
		{args: "status"},
		{args: "why web"},
		{args: "online primary --json"},
		{args: "standby nobody", code: 1},
		{args: "maintenance on"},
		{args: "maintenance off --json"},
		{args: "plan EMPTY"},
		{do: func() { h.now = h.now.Add(30 * time.Second); h.model.Kill("secondary") }},
		{args: "members"},
		{args: "status"},
		{args: "why web"},
		{args: "events"},
		{args: "events --json --after 9"},
		{args: "tune"},
		{args: "tune --reset"},
		{args: "tune --json"},
		{args: "tune"},
		{args: "token create"},
		{args: "token create --ttl 10m --json"},
		{args: "token revoke t1"},
		{args: "token revoke t1 --json"},
		{args: "token revoke nope", code: 1},
		{args: "token list"},
		{args: "token list --json"},
		{args: "remove primary", code: 1},
		{args: "remove nobody", code: 1},
		{args: "remove secondary", code: 1},
		{do: func() { h.model.Kill("arbiter") }},
		{args: "remove secondary", code: 3},
		{args: "members", code: 3},
		{args: "status", code: 3},
		{args: "status web --json", code: 3},
		{args: "why web", code: 3},
		{args: "events --after 11", code: 3},
		{args: "events --after 11 --json", code: 3},
		{args: "move web", code: 3},
		{args: "export", code: 3},
		{args: "plan FILE", code: 3},
		{args: "apply FILE", code: 3},
		{args: "maintenance on", code: 3},
		{args: "confirm-off secondary", code: 3},
		{args: "leave", code: 3},
		{do: func() { h.model.Revive("arbiter"); h.model.Revive("secondary") }},
		{args: "leave"},
	} {
		if step.do != nil {
			step.do()
			continue
		}
		args := strings.Fields(step.args)
		for i, a := range args {
			switch a {
			case "FILE":
				args[i] = file
			case "EMPTY":
				args[i] = h.write("empty.hcl", "")
			}
		}
		code, out, errs := h.run(args...)
		if code != step.code {
			t.Errorf("%s: exit %d, want %d: %s", step.args, code, step.code, errs)
		}
		if code == 0 && errs != "" {
			t.Errorf("%s: done, but stderr says %s", step.args, errs)
		}
		if code != 0 && errs == "" {
			t.Errorf("%s: exit %d without a word", step.args, code)
		}
		if strings.Contains(step.args, "--json") {
			checkJSON(t, step.args, out)
		}
		fmt.Fprintf(&b, "$ hanode %s\n%s", step.args, out)
		for line := range strings.Lines(errs) {
			fmt.Fprintf(&b, "! %s", line)
		}
		if code != 0 {
			fmt.Fprintf(&b, "= %d\n", code)
		}
		b.WriteString("\n")
	}
	golden(t, "story.txt", b.String())
}

func checkJSON(t *testing.T, what, out string) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(out))
	for n := 0; ; n++ {
		var v any
		if err := dec.Decode(&v); err == io.EOF && n > 0 {
			return
		} else if err != nil {
			t.Fatalf("%s: not JSON: %v in %q", what, err, out)
		}
	}
}

// The form the contract promises, to the letter.
func TestMoveLine(t *testing.T) {
	h := newHost(t)
	h.must("apply", h.write("web.hcl", webFile))
	if got := h.must("move", "web", "secondary"); got != "web: primary -> secondary, epoch 2, 1.8 ms\n" {
		t.Errorf("got %q", got)
	}
}

// export prints what apply takes back unchanged.
func TestExportIsWhatApplyTakes(t *testing.T) {
	h := newHost(t)
	h.must("apply", h.write("web.hcl", webFile))
	first := h.must("export")
	h.stdin = first
	if got := h.must("plan", "-"); strings.Contains(got, "change") || strings.Contains(got, "add") || strings.Contains(got, "remove") {
		t.Errorf("applying the export would change something:\n%s", got)
	}
	h.must("apply", "-")
	if again := h.must("export"); again != first {
		t.Errorf("changed from\n%s\nto\n%s", first, again)
	}
}

// What a monitor printed must not steer the terminal, nor fake a row.
func TestOutputIsHarmless(t *testing.T) {
	if got := clean("a\x1b[2Jb\nc\td\u009bx\x7f "); got != "a[2Jb c dx" {
		t.Errorf("got %q", got)
	}
	var b strings.Builder
	tab := newTable(&b, "A", "B")
	tab.row("x\ny\tz", "")
	tab.flush()
	if got := b.String(); got != "A      B\nx y z\n" {
		t.Errorf("got %q", got)
	}
}

func TestSpansAndMillis(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59 * time.Second: "59s", 192 * time.Second: "3m12s",
		2*time.Hour + 13*time.Minute + 59*time.Second: "2h13m", 124 * time.Hour: "5d4h",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %s, want %s", d, got, want)
		}
	}
	for ms, want := range map[float64]string{
		-1: "over", 0: "0.0 ms", 1.84: "1.8 ms", 9.94: "9.9 ms", 9.96: "10 ms", 861.3: "861 ms", 999.6: "1.0 s",
		12_345: "12.3 s", 59_960: "59s", 3_900_000: "1h5m", 1e300: "-",
	} {
		if got := millis(&ms); got != want {
			t.Errorf("millis(%v) = %s, want %s", ms, got, want)
		}
	}
	if millis(nil) != unknown {
		t.Error("unknown has a number")
	}
}
