// Package hanode_test holds the tests of the house as a whole: which package may
// import which, and whether every room says what it is for.
package hanode_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "hanode/"

// mayImport says which of our packages each package may import, apart from
// internal ones. A package that is not listed fails the test, so adding one means
// deciding where it sits. Test files may import what they like.
var mayImport = map[string][]string{
	// The leaves: what a node is made of. They do not know each other.
	"fsm":          {},
	"lease":        {},
	"gossip":       {},
	"config":       {},
	"api":          {},
	"vip":          {"vip/guard"},
	"vip/guard":    {},
	"vip/vipfake":  {"vip", "vip/guard"},
	"api/apitest":  {"api"},
	"internal/...": {},

	// They act on replicated state.
	"failover": {"fsm"},
	"cluster":  {"fsm"},
	"resource": {"fsm"},
	"peer":     {"fsm"},

	// The only one that sees all of them.
	"agent": {"api", "cluster", "config", "failover", "fsm", "gossip", "lease", "peer", "resource", "vip"},

	// The edge: no logic, or other people's view.
	"demo":         {"api"},
	"cmd/hanode":   {"agent", "api", "config", "demo"},
	"test/livelab": {"api", "config"},
	"test/e2e":     {"api", "config", "test/livelab"},
	"test/hosts":   {},
	"bench":        {"api", "config", "test/livelab", "vip", "vip/guard"},
}

// onlyIn says who may import a package that most must not: a library that one
// room hides from the rest, or a part that only tests and demonstrations use.
// "x/..." covers x and everything below it, on both sides.
var onlyIn = map[string][]string{
	"github.com/hashicorp/raft/...":           {"cluster"},
	"github.com/hashicorp/raft-boltdb/v2/...": {"cluster"},
	"go.etcd.io/bbolt/...":                    {"cluster"},
	"github.com/hashicorp/memberlist/...":     {"gossip"},
	"github.com/hashicorp/hcl/v2/...":         {"config"},
	"github.com/hashicorp/go-hclog/...":       {"internal/logbridge"},
	"github.com/vishvananda/netlink/...":      {"vip/...", "internal/netlab/..."},
	"github.com/vishvananda/netns/...":        {"vip/...", "internal/netlab/..."},
	"github.com/cilium/ebpf/...":              {"vip/..."},
	"github.com/google/nftables/...":          {"vip/...", "internal/netlab/..."},
	"github.com/spf13/cobra/...":              {"cmd/hanode"},
	"github.com/coreos/go-systemd/...":        {"resource"},
	"github.com/godbus/dbus/...":              {"resource"},

	"hanode/internal/netlab/...": {"internal/netlab/...", "demo", "test/...", "bench"},
	"hanode/internal/memnet/...": {"internal/memnet/..."},
	"hanode/vip/internal/...":    {"vip/..."},
	"hanode/vip/vipfake":         {},
	"hanode/api/apitest":         {},
}

// goPackage is what `go list` says of a package, without its test files.
type goPackage struct {
	ImportPath, Dir string
	GoFiles         []string
	TestGoFiles     []string
	XTestGoFiles    []string
	Imports         []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,TestGoFiles,XTestGoFiles,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < len(mayImport)/2 {
		t.Fatalf("go list names only %d packages", len(all))
	}
	return all
}

// within reports whether path is pattern, or below it if that ends in "/...".
func within(path, pattern string) bool {
	if above, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == above || strings.HasPrefix(path, above+"/")
	}
	return path == pattern
}

func anyOf(path string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return within(path, p) })
}

// rule is the line of mayImport for a package; packages below an internal folder
// need none of their own.
func rule(name string) (allowed []string, known bool) {
	if allowed, known = mayImport[name]; known {
		return allowed, true
	}
	return nil, within(name, "internal/...") || strings.Contains(name, "/internal/")
}

func TestImportDirections(t *testing.T) {
	for _, p := range packages(t) {
		name, ours := strings.CutPrefix(p.ImportPath, module)
		if !ours || len(p.GoFiles) == 0 {
			continue // the module's root, or tests only
		}
		for _, complaint := range judge(name, p.Imports) {
			t.Error(complaint)
		}
	}
}

// judge lists what is wrong with a package that imports these.
func judge(name string, imports []string) (bad []string) {
	allowed, known := rule(name)
	if !known {
		return []string{name + " is not in mayImport: say what it may import"}
	}
	for _, imp := range imports {
		dep, ours := strings.CutPrefix(imp, module)
		internal := within(dep, "internal/...") || strings.Contains(dep, "/internal/")
		if ours && !internal && !slices.Contains(allowed, dep) {
			bad = append(bad, name+" imports "+dep+"; of ours it may import internal packages and ["+strings.Join(allowed, " ")+"]")
		}
		for pattern, who := range onlyIn {
			if within(imp, pattern) && !anyOf(name, who) {
				bad = append(bad, name+" imports "+imp+", which only ["+strings.Join(who, " ")+"] may")
			}
		}
	}
	return bad
}

// The rules refuse what they are there to refuse.
func TestImportRules(t *testing.T) {
	for _, c := range []struct {
		name, imports string
		bad           bool
	}{
		{"lease", "hanode/internal/id", false},
		{"lease", "hanode/fsm", true},
		{"failover", "hanode/fsm", false},
		{"failover", "hanode/lease", true},
		{"failover", "github.com/hashicorp/raft", true},
		{"cluster", "github.com/hashicorp/raft", false},
		{"cluster", "github.com/hashicorp/raft-boltdb/v2", false},
		{"agent", "github.com/hashicorp/memberlist", true},
		{"agent", "hanode/internal/netlab", true},
		{"agent", "hanode/vip/vipfake", true},
		{"vip", "github.com/vishvananda/netlink/nl", false},
		{"resource", "github.com/vishvananda/netlink", true},
		{"internal/trust", "hanode/fsm", true},
		{"demo", "hanode/agent", true},
		{"somewhere", "fmt", true},
	} {
		if got := judge(c.name, []string{c.imports}); (len(got) > 0) != c.bad {
			t.Errorf("%s importing %s: %q, want refused = %v", c.name, c.imports, got, c.bad)
		}
	}
}

// Every package opens by saying what it is for, and every exported name by what
// it is.
func TestComments(t *testing.T) {
	for _, p := range packages(t) {
		files := p.GoFiles
		if len(files) == 0 {
			files = slices.Concat(p.TestGoFiles, p.XTestGoFiles)
		}
		opening := ""
		for _, name := range files {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if ast.IsGenerated(f) {
				continue
			}
			if text := f.Doc.Text(); len(text) > len(opening) {
				opening = text
			}
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			for _, bare := range undocumented(f) {
				pos := fset.Position(bare.Pos())
				t.Errorf("%s:%d: %s is exported and has no comment", filepath.Join(p.ImportPath, name), pos.Line, bare.Name)
			}
		}
		if len(new(comment.Parser).Parse(opening).Content) == 0 {
			t.Errorf("package %s does not say what it is for", p.ImportPath)
		} else if !strings.HasPrefix(opening, "Package ") && !strings.HasPrefix(opening, "Command ") {
			t.Errorf("the comment of package %s begins with %.40q; it should with Package or Command", p.ImportPath, opening)
		}
	}
}

// speakForThemselves are methods that the language or its library gives a meaning.
var speakForThemselves = []string{
	"String", "Error", "Unwrap", "Is", "Len", "Less", "Swap",
	"MarshalJSON", "UnmarshalJSON", "MarshalText", "UnmarshalText",
	"Read", "Write", "Close", "LocalAddr", "RemoteAddr", "SetDeadline", "SetReadDeadline", "SetWriteDeadline",
}

// undocumented lists the exported names of a file that have no comment. A comment
// on a group of constants or variables covers the group.
func undocumented(f *ast.File) (bare []*ast.Ident) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			plain := slices.Contains(speakForThemselves, d.Name.Name) && d.Recv != nil
			if d.Name.IsExported() && d.Doc.Text() == "" && !plain && reachable(d.Recv) {
				bare = append(bare, d.Name)
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() && d.Doc.Text()+s.Doc.Text() == "" {
						bare = append(bare, s.Name)
					}
				case *ast.ValueSpec:
					said := d.Doc.Text() + s.Doc.Text() + s.Comment.Text()
					for _, n := range s.Names {
						if n.IsExported() && said == "" {
							bare = append(bare, n)
						}
					}
				}
			}
		}
	}
	return bare
}

// reachable reports whether a method's receiver is an exported type; true for a
// function.
func reachable(recv *ast.FieldList) bool {
	if recv == nil {
		return true
	}
	x := recv.List[0].Type
	for {
		switch y := x.(type) {
		case *ast.StarExpr:
			x = y.X
		case *ast.IndexExpr:
			x = y.X
		case *ast.IndexListExpr:
			x = y.X
		case *ast.Ident:
			return y.IsExported()
		default:
			return true
		}
	}
}

// No file but the tests' own is so long that nobody reads it to the end.
func TestNoGiants(t *testing.T) {
	const limit = 800 // lines
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if n := fset.Position(f.End()).Line; n > limit {
			t.Errorf("%s has %d lines; more than %d want a wall", path, n, limit)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
