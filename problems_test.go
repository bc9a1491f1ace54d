package hanode_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hanode/api"
)

var update = flag.Bool("update", false, "write docs/problems.md anew from the catalogue of package agent")

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
