package hanode_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hanode/config"
)

const heartbeatPage = "docs/heartbeat.md"

// The table of directives is made of what the parser reads. Run
// `go test -run TestHeartbeatPage . -args -update` after a change.
func TestHeartbeatPage(t *testing.T) {
	old := read(t, heartbeatPage)
	var b strings.Builder
	b.WriteString("| directive | takes | default | answer | becomes, or why not |\n|---|---|---|---|---|\n")
	for _, d := range config.HeartbeatDirectives() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", d.Name, d.Takes, d.Default, d.Answer, d.Says)
	}
	const begin, end = "<!-- directives -->\n", "<!-- end -->\n"
	head, rest, ok := strings.Cut(old, begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no lines %q and %q", heartbeatPage, begin, end)
	}
	text := head + begin + b.String() + end + tail
	if *update {
		if err := os.WriteFile(heartbeatPage, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(text, old); diff != "" {
		t.Errorf("%s is not what the parser reads; run: go test -run TestHeartbeatPage . -args -update\n%s", heartbeatPage, diff)
	}
}
