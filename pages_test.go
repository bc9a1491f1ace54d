package hanode_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"hanode/api"
	"hanode/config"
	"hanode/internal/spec"
)

// All direct dependencies are explained, and nothing else.
func TestDependencies(t *testing.T) {
	table := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(read(t, "docs/dependencies.md"), -1) {
		table[m[1]] = true
	}
	required := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) v\S+( // indirect)?$`).FindAllStringSubmatch(read(t, "go.mod"), -1) {
		required[m[1]] = m[2] == ""
	}
	for mod, direct := range required {
		if direct && !table[mod] {
			t.Errorf("docs/dependencies.md does not say what %s is for", mod)
		}
	}
	for mod := range table {
		if _, ok := required[mod]; !ok {
			t.Errorf("docs/dependencies.md lists %s, which go.mod does not require", mod)
		}
	}
}

// allowed is what config says is allowed where a file has a key it does not know.
func allowed(t *testing.T, src string) []string {
	t.Helper()
	_, err := config.ParseCluster("x", []byte(src))
	if !groupLine.MatchString(src) {
		path := filepath.Join(t.TempDir(), "x.hcl")
		if err := os.WriteFile(path, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = config.LoadNode(path)
	}
	var found config.Diagnostics
	if !errors.As(err, &found) {
		t.Fatalf("%q gave %v", src, err)
	}
	for _, d := range found {
		if words, ok := strings.CutPrefix(d.Allowed, "keys are "); ok {
			return strings.FieldsFunc(words, func(r rune) bool { return r == ',' || r == ' ' })
		}
	}
	t.Fatalf("no list of keys in %v", found)
	return nil
}

// Every key of both files has a row with its default.
func TestConfigurationPage(t *testing.T) {
	text := read(t, "docs/configuration.md")
	row := func(key, def string) {
		t.Helper()
		m := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(key) + "` \\|([^\n]*)$").FindStringSubmatch(text)
		switch {
		case m == nil:
			t.Errorf("docs/configuration.md has no row for %s", key)
		case def != "" && !strings.Contains(m[1], "`"+def+"`"):
			t.Errorf("the row of %s in docs/configuration.md does not give its default %s: %s", key, def, m[1])
		}
	}
	defaults := map[string]string{
		"cluster": config.DefaultCluster, "data_dir": config.DefaultDataDir, "key_file": config.DefaultKeyFile,
		"socket": config.DefaultSocket, "http": config.DefaultHTTP, "port": strconv.Itoa(config.DefaultPort),
		"log_level": config.DefaultLogLevel, "log_format": config.DefaultLogFormat,
		"profile": config.DefaultProfile, "every": config.DefaultEvery.String(),
	}
	for _, src := range []string{
		"zzz = 1\n" + founders,
		"timing { zzz = 1 }\n" + founders,
		`node "a" { zzz = 1 }`,
		"group \"a\" {\n zzz = 1\n}",
		"group \"a\" {\n resource \"ip\" \"10.0.0.100/24\" { zzz = 1 }\n}",
		"group \"a\" {\n resource \"exec\" \"x\" { zzz = 1 }\n}",
	} {
		for _, key := range allowed(t, src) {
			row(key, defaults[key])
			delete(defaults, key)
		}
	}
	for key := range defaults {
		t.Errorf("config does not take %s any more", key)
	}
}

// The table of profiles is what the profiles are.
func TestTimingPage(t *testing.T) {
	text := read(t, "docs/timing.md")
	short := func(d time.Duration) string {
		if d < time.Second {
			return fmt.Sprintf("%d ms", d.Milliseconds())
		}
		return fmt.Sprintf("%g s", d.Seconds())
	}
	for name, p := range spec.Profiles {
		row := fmt.Sprintf("| `%s` | %s | %s | %s | %s | %d ms |",
			name, short(p.Keepalive), short(p.Warntime), short(p.Deadtime), short(p.Initdead), p.LeaseLength().Milliseconds())
		if !strings.Contains(text, row) {
			t.Errorf("docs/timing.md lacks the row\n%s", row)
		}
	}
}

// The exit codes and the states of nodes and groups are all explained.
func TestOperationsPage(t *testing.T) {
	text := read(t, "docs/operations.md")
	for _, s := range []api.MemberState{api.MemberJoining, api.MemberAlive, api.MemberLate, api.MemberDead, api.MemberLeft} {
		if !strings.Contains(text, fmt.Sprintf("| `%s` |", s)) {
			t.Errorf("docs/operations.md does not explain the node state %s", s)
		}
	}
	for _, s := range []api.GroupState{
		api.GroupRunning, api.GroupStarting, api.GroupStopping, api.GroupStopped, api.GroupFailed, api.GroupBlocked,
	} {
		if !strings.Contains(text, fmt.Sprintf("| `%s` |", s)) {
			t.Errorf("docs/operations.md does not explain the group state %s", s)
		}
	}
	for _, code := range []int{api.ExitDone, api.ExitFailed, api.ExitUsage, api.ExitNoQuorum, api.ExitUnreachable} {
		if !strings.Contains(text, fmt.Sprintf("| %d |", code)) {
			t.Errorf("docs/operations.md does not explain exit code %d", code)
		}
	}
}
