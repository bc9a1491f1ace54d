package hanode_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// readsWall lists every file in which the wall clock is read, and why that decides
// nothing. A wall clock that is stepped by an hour must change what
// people read, and nothing else; the guard's nftables tier is the exception, and
// the reason why it is the weaker one.
var readsWall = map[string]string{
	"vip/guard/nft.go": "the nftables tier: the kernel compares packets with a wall-clock deadline",

	"agent/agent.go":       "stamps a command: people read it in events",
	"agent/admit.go":       "stamps a command; whether a token has expired, which lets nobody hold anything",
	"agent/backend.go":     "stamps a command: people read it in events",
	"agent/foreign.go":     "stamps a command: people read it in events",
	"agent/hooks.go":       "stamps a command: people read it in events",
	"agent/joining.go":     "stamps a command: people read it in events",
	"agent/founding.go":    "stamps a command: people read it in events",
	"agent/registering.go": "stamps a command: people read it in events",
	"agent/leader.go":      "stamps a command: people read it in events",
	"agent/snapshot.go":    "when a snapshot was made, for people; a generation, which need only be later than others",
	"agent/rotation.go":    "stamps a command: people read it in events",
	"agent/twonode.go":     "stamps a command; and of two operators' words that cross the later one counts: a wrong order loses what was changed between, it makes no second holder",
	"agent/worker.go":      "stamps a command, and since when a group runs: people read it in events and status",
	"agent/blocked.go":     "stamps a command: people read it in events",
	"agent/claims.go":      "since when a conflict is, and a group where it is, for people",
	"agent/links.go":       "since when a device is down, for people",
	"agent/pulse.go":       "when a stall was, for people",
	"agent/tuning.go":      "since when beats are measured, for people",
}

// mayAsk says which packages may ask Go for the time, and what for. Go measures
// what lies between two of its readings by the monotonic clock, so a step moves
// nothing; none of these may keep a reading, or compare it with another host's.
var mayAsk = map[string]string{
	"internal/clock":     "this is the clock",
	"internal/grid":      "how far the next tick is away",
	"internal/logbridge": "how often a line may be repeated",
	"internal/netio":     "deadlines of sockets",
	"internal/realtime":  "how long the kernel is waited for",
	"internal/trust":     "deadlines of handshakes; when somebody was refused, for people",
	"agent":              "limits of waiting; when a problem was seen, and the name of a data directory that was set aside, for people",
	"api":                "deadlines of sockets",
	"gossip":             "memberlist wants a time for each packet; when somebody was refused, for people",
	"resource":           "how often a resource is looked at, and how long it may take",
	"vip":                "when announcements are due; how long a probe waits",
	"vip/guard":          "deadlines of sockets",
	"peer":               "how often a line is written",
	"cluster":            "how long a write takes",
	"fence":              "how long an agent may take",
}

// decides are the packages that decide: they are told the time by their callers
// and never look.
var decides = []string{"lease", "fsm", "failover"}

// TestWallClockDecidesNothing looks at every file that is not a test, nor of the
// edge (commands, demonstrations, labs).
func TestWallClockDecidesNothing(t *testing.T) {
	used := map[string]bool{}
	for _, path := range deciding(t) {
		dir := filepath.ToSlash(filepath.Dir(path))
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			where := fset.Position(s.Pos())
			x, isName := s.X.(*ast.Ident)
			switch {
			case s.Sel.Name == "Wall" && dir != "internal/clock" && !isField(f, s):
				used[path] = true
				if readsWall[path] == "" {
					t.Errorf("%v reads the wall clock; take Clock.Now, or say in readsWall why it decides nothing", where)
				}
			case isName && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until"}, s.Sel.Name):
				if slices.Contains(decides, dir) {
					t.Errorf("%v: package %s decides; its callers tell it the time", where, dir)
				} else if mayAsk[dir] == "" {
					t.Errorf("%v asks for the time; take clock.Clock, or say in mayAsk why it may", where)
				}
			}
			return true
		})
	}
	for _, path := range slices.Sorted(maps.Keys(readsWall)) {
		if !used[path] {
			t.Errorf("%s does not read the wall clock any more; take it off readsWall", path)
		}
	}
}

// TestNobodyComparesStamps: what a host wrote down by its wall clock is compared
// with nothing where decisions are made.
func TestNobodyComparesStamps(t *testing.T) {
	// An event that is proposed twice is told by its stamp among other things.
	allowed := []string{"fsm/state.go: e.Time.Equal"}
	for _, path := range deciding(t) {
		if !slices.Contains(decides, filepath.ToSlash(filepath.Dir(path))) {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"After", "Before", "Sub", "Equal", "Compare", "Unix", "UnixNano", "UnixMilli"}, s.Sel.Name) {
				return true
			}
			x, ok := s.X.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"At", "Time", "Since", "Wall"}, x.Sel.Name) {
				return true
			}
			who, _ := x.X.(*ast.Ident)
			if text := fmt.Sprintf("%s: %v.%s.%s", path, who, x.Sel.Name, s.Sel.Name); !slices.Contains(allowed, text) {
				t.Errorf("%v compares a wall-clock stamp: %s", fset.Position(s.Pos()), text)
			}
			return true
		})
	}
}

// isField: the selector names a field of that name (failover.Inputs.Wall carries a
// stamp that was read elsewhere), and is not called.
func isField(f *ast.File, s *ast.SelectorExpr) bool {
	called := false
	ast.Inspect(f, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok && c.Fun == ast.Expr(s) {
			called = true
		}
		return !called
	})
	return !called
}

// deciding lists the Go files of everything but tests and the edge.
func deciding(t *testing.T) (out []string) {
	t.Helper()
	edge := []string{"cmd", "demo", "bench", "test", "deploy", "internal/netlab", "internal/memnet", "vip/vipfake", "api/apitest", "api/web"}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		path = filepath.ToSlash(path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains(edge, path) || d.Name() == "testdata" || path != "." && strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"):
			out = append(out, path)
		}
		return nil
	})
	if err != nil || len(out) < 50 {
		t.Fatal(len(out), err)
	}
	return out
}
