package hanode_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hanode/api"
	"hanode/config"
	"hanode/internal/spec"
)

var update = flag.Bool("update", false, "write docs/problems.md anew from the catalogue of package agent")

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
	if !nodeLine.MatchString(src) {
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
var notYet = []string{"confirm-off"}

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
	var name string
	var flags []string
	for _, w := range c.words {
		switch {
		case strings.HasPrefix(w, "-"):
			f, _, _ := strings.Cut(w, "=")
			flags = append(flags, f)
		case name == "" && len(flags) == 0:
			name = w
		}
	}
	switch {
	case slices.Contains(notYet, name):
		return ""
	case name != "" && !exists(name):
		return "there is no such command"
	}
	text, err := help(slices.DeleteFunc([]string{name}, func(s string) bool { return s == "" }))
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

// entry is a problem as the catalogue of package agent has it.
type entry struct{ severity, fix string }

const problemsPage = "docs/problems.md"

// docs/problems.md is the catalogue, with what each problem means. Run
// `go test -run TestProblemsPage -update .` after a change of the catalogue, and
// write what a new problem means where its section is still empty.
func TestProblemsPage(t *testing.T) {
	entries := catalogue(t)
	old := read(t, problemsPage)
	opening, meanings := meanings(old)
	text := opening
	for _, code := range slices.Sorted(maps.Keys(entries)) {
		e := entries[code]
		text += fmt.Sprintf("## %s\n\n**%s**. What to do: %s.\n\n%s\n\n", code, e.severity, e.fix, meanings[code])
		if meanings[code] == "" {
			t.Errorf("%s does not say what %s means", problemsPage, code)
		}
		if e.fix == "" || !slices.Contains([]string{"error", "warning", "info"}, e.severity) {
			t.Errorf("problem %s has severity %q and fix %q", code, e.severity, e.fix)
		}
	}
	text = strings.TrimRight(text, "\n") + "\n"
	if *update {
		if err := os.WriteFile(problemsPage, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(text, old); diff != "" {
		t.Errorf("%s is not what the catalogue says; run: go test -run TestProblemsPage -update .\n%s", problemsPage, diff)
	}
}

// meanings takes the page apart: what comes before the first problem, and what is
// written about each by hand.
func meanings(text string) (opening string, by map[string]string) {
	parts := strings.Split("\n"+text, "\n## ")
	by = map[string]string{}
	for _, p := range parts[1:] {
		head, rest, _ := strings.Cut(p, "\n")
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "**") {
			_, rest, _ = strings.Cut(rest, "\n")
		}
		by[head] = strings.TrimSpace(rest)
	}
	return strings.TrimSpace(parts[0]) + "\n\n", by
}

// catalogue reads the map of that name in package agent.
func catalogue(t *testing.T) map[string]entry {
	t.Helper()
	consts := map[string]string{}
	var lit *ast.CompositeLit
	for _, dir := range []string{"vip", "agent"} {
		for _, f := range sources(t, dir) {
			ast.Inspect(f, func(n ast.Node) bool {
				v, ok := n.(*ast.ValueSpec)
				if !ok || len(v.Names) != len(v.Values) {
					return true
				}
				for i, name := range v.Names {
					if s, ok := text(v.Values[i]); ok {
						consts[dir+"."+name.Name] = s
					}
					if c, ok := v.Values[i].(*ast.CompositeLit); ok && dir == "agent" && name.Name == "catalogue" {
						lit = c
					}
				}
				return true
			})
		}
	}
	if lit == nil {
		t.Fatal("package agent has no catalogue any more")
	}
	out := map[string]entry{}
	for _, el := range lit.Elts {
		kv := el.(*ast.KeyValueExpr)
		code, ok := text(kv.Key)
		if sel, is := kv.Key.(*ast.SelectorExpr); is {
			code, ok = consts[sel.X.(*ast.Ident).Name+"."+sel.Sel.Name]
		}
		val := kv.Value.(*ast.CompositeLit)
		severity, ok1 := text(val.Elts[0])
		fix, ok2 := text(val.Elts[1])
		if !ok || !ok1 || !ok2 {
			t.Fatalf("an entry of the catalogue is not plain text: %v", kv.Key)
		}
		out[code] = entry{severity, fix}
	}
	return out
}

// sources parses the files of a package, without its tests.
func sources(t *testing.T, dir string) (out []*ast.File) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, f)
	}
	return out
}

// text is the value of a string literal.
func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// A problem that is shown has an entry; a refusal that is given has a row in the
// page of problems.
func TestCodes(t *testing.T) {
	entries := catalogue(t)
	page := read(t, problemsPage)
	calls := map[string]int{}
	for _, dir := range []string{"agent", "api", "cmd/hanode"} {
		for _, f := range sources(t, dir) {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if ok && len(call.Args) > 0 {
					name, _ := last(call.Fun)
					if code, ok := text(call.Args[0]); ok && kebab.MatchString(code) {
						switch {
						case name == "show" || name == "set" && through(call.Fun, "problems"):
							calls["problem"]++
							if _, known := entries[code]; !known {
								t.Errorf("problem %s is used in %s and is not in the catalogue", code, dir)
							}
						case name == "fail":
							calls["refusal"]++
							refusal(t, page, code)
						}
					}
				}
				if kv, ok := n.(*ast.KeyValueExpr); ok {
					if key, is := kv.Key.(*ast.Ident); is && key.Name == "Code" {
						if code, ok := text(kv.Value); ok {
							calls["refusal"]++
							refusal(t, page, code)
						}
					}
				}
				return true
			})
		}
	}
	for _, code := range []string{
		api.CodeBadRequest, api.CodeNoSuchCall, api.CodeNotAllowed, api.CodeNotFound, api.CodeStopping, api.CodeInternal, api.CodeUnreachable,
	} {
		refusal(t, page, code)
	}
	if calls["problem"] < 10 || calls["refusal"] < 8 {
		t.Errorf("found only %v in the sources: does this test still read them?", calls)
	}
}

var kebab = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)

func refusal(t *testing.T, page, code string) {
	t.Helper()
	if !strings.Contains(page, "| `"+code+"` |") && !strings.Contains(page, "\n## "+code+"\n") {
		t.Errorf("%s does not explain the refusal %s", problemsPage, code)
	}
}

// last is the name that is called.
func last(fun ast.Expr) (string, bool) {
	switch f := fun.(type) {
	case *ast.Ident:
		return f.Name, true
	case *ast.SelectorExpr:
		return f.Sel.Name, true
	}
	return "", false
}

// through reports whether a method is called on a field or variable of that name.
func through(fun ast.Expr, name string) bool {
	sel, ok := fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	got, _ := last(sel.X)
	return got == name
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
