package hanode_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// hazards are names of the libraries with what is wrong with them, and the
// functions that may use them all the same. cluster/DESIGN.md says what is done
// instead.
var hazards = map[string]struct {
	why string
	may []string
}{
	"VerifyLeader": {why: "it counts nonvoters; pass a barrier"},
	"LastContact": {
		why: "raft's leader lease proves nothing; leases come from beats",
		may: []string{"cluster.Fed"}, // who gets no news looks elsewhere for some
	},
	"LeadershipTransfer":         {why: "it can wedge a later term (hashicorp/raft #696); hand over with cluster.Node.HandOver"},
	"LeadershipTransferToServer": {why: "it can wedge a later term (hashicorp/raft #696); hand over with cluster.Node.HandOver"},
	"LeaderLeaseTimeout":         {why: "raft's leader lease is set, and nothing is built on it", may: []string{"cluster.Start"}},
	"AddVoter": {
		why: "it does not wait until the server has caught up; only one place knows who has",
		may: []string{"agent.members", "cluster.AddVoter"},
	},
	// memberlist says who could be there. Who is dead is for beats and leases to say.
	"Seen":        {why: "gossip's word on who lives decides nothing; it is for tests to look at"},
	"NumMembers":  {why: "gossip's word on who lives decides nothing"},
	"NotifyLeave": {why: "gossip's word on who died decides nothing"},
	"StateDead":   {why: "gossip's word on who died decides nothing"},
}

// misuses lists the hazards in one file.
func misuses(fset *token.FileSet, f *ast.File) (bad []string) {
	for _, d := range f.Decls {
		in := f.Name.Name + "."
		if fn, ok := d.(*ast.FuncDecl); ok {
			in += fn.Name.Name
		}
		ast.Inspect(d, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if h, ok := hazards[s.Sel.Name]; ok && !slices.Contains(h.may, in) {
				bad = append(bad, fset.Position(s.Pos()).String()+" uses "+s.Sel.Name+": "+h.why)
			}
			return true
		})
	}
	return bad
}

func TestLibraryHazards(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, b := range misuses(fset, f) {
			t.Error(b)
		}
		return nil
	})
	if err != nil || files < 100 {
		t.Fatalf("%d files, %v", files, err)
	}
}

// The rules refuse what they are there to refuse.
func TestLibraryHazardRules(t *testing.T) {
	for src, want := range map[string]bool{
		"package cluster\nfunc (n *Node) Propose() { n.raft.VerifyLeader() }":                  true,
		"package cluster\nfunc f() { go func() { _ = r.LeadershipTransferToServer(a, b) }() }": true,
		"package cluster\nvar f = raft.Raft.LeadershipTransfer":                                true,
		"package agent\nfunc (a *Agent) members() { n.AddVoter(name, 1) }":                     false,
		"package agent\nfunc (a *Agent) join() { n.AddVoter(name, 1) }":                        true,
		"package cluster\nfunc Start() { rc.LeaderLeaseTimeout = raftLease }":                  false,
		"package agent\nfunc (a *Agent) plan() { _ = a.gossip.Seen()[name] }":                  true,
		"package agent\nfunc (a *Agent) plan() { seen() }":                                     false,
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, "x.go", src, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := misuses(fset, f); len(got) > 0 != want {
			t.Errorf("%s: %q", src, got)
		}
	}
}
