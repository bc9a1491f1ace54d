package fsm_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
)

func token(name string) fsm.Command {
	return fsm.Command{AddToken: &fsm.AddToken{Token: fsm.Token{ID: name, Hash: "hash-" + name, Made: wall, Expires: wall.Add(time.Hour)}}}
}

func joins(name, addr, token, request string) fsm.Command {
	return fsm.Command{AddNode: &fsm.AddNode{
		Node: spec.Node{Name: name, Address: addr, Role: spec.RoleNode, Zone: "z"}, Token: token, Hash: "hash-" + token, Request: request,
	}}
}

func TestTokenLetsOneNodeIn(t *testing.T) {
	r := running(t)
	r.must(token("t1"))
	if res := r.must(joins("d", "10.0.0.5", "t1", "r1")); res.Disk != 1 {
		t.Errorf("a new node got disk %d", res.Disk)
	}
	// Its answer was lost; the node asks again, and again from a later process.
	if res := r.must(joins("d", "10.0.0.5", "t1", "r1")); res.Disk != 1 {
		t.Errorf("asked again, it got disk %d", res.Disk)
	}
	st := r.Copy()
	if n := st.Nodes["d"]; n == nil || n.Token != "t1" || n.Zone != "z" || n.Inc != 0 || st.Voters.Has("d") {
		t.Errorf("d is %+v, voters %v", n, st.Voters)
	}
	if res := r.propose(joins("e", "10.0.0.6", "t1", "r2")); !strings.Contains(res.Rejected, "used by d") {
		t.Errorf("a second node with one token: %+v", res)
	}
}

func TestWhoIsNotLetIn(t *testing.T) {
	for name, tt := range map[string]struct {
		before []fsm.Command
		do     fsm.Command
		want   string
	}{
		"no token":          {nil, joins("d", "10.0.0.5", "t1", "r1"), "not one of this cluster"},
		"another secret":    {[]fsm.Command{token("t1")}, func() fsm.Command { c := joins("d", "10.0.0.5", "t1", "r1"); c.AddNode.Hash = "x"; return c }(), "not one of this cluster"},
		"revoked":           {[]fsm.Command{token("t1"), {RevokeToken: &fsm.RevokeToken{ID: "t1"}}}, joins("d", "10.0.0.5", "t1", "r1"), "revoked"},
		"expired":           {[]fsm.Command{{AddToken: &fsm.AddToken{Token: fsm.Token{ID: "t1", Hash: "hash-t1", Made: wall, Expires: wall}}}}, joins("d", "10.0.0.5", "t1", "r1"), "expired"},
		"used, new request": {[]fsm.Command{token("t1"), joins("d", "10.0.0.5", "t1", "r1")}, joins("d", "10.0.0.5", "t1", "r2"), "used by d"},
		"address taken":     {[]fsm.Command{token("t1")}, joins("d", "10.0.0.1", "t1", "r1"), "that of node a"},
		"name, other case":  {[]fsm.Command{token("t1")}, joins("A", "10.0.0.5", "t1", "r1"), "capitals"},
		"name taken":        {[]fsm.Command{token("t1")}, joins("a", "10.0.0.5", "t1", "r1"), "hanode remove a"},
		"is leaving":        {[]fsm.Command{token("t1"), {Leave: &fsm.Leave{Node: "a"}}}, joins("a", "10.0.0.1", "t1", "r1"), "is leaving"},
		"nobody":            {[]fsm.Command{token("t1")}, joins("", "10.0.0.5", "t1", "r1"), "not whole"},
		"no request":        {[]fsm.Command{token("t1")}, joins("d", "10.0.0.5", "t1", ""), "not whole"},
		"removed since": {
			[]fsm.Command{token("t1"), joins("d", "10.0.0.5", "t1", "r1"), {Leave: &fsm.Leave{Node: "d", Done: true}}},
			joins("d", "10.0.0.5", "t1", "r1"), "used by d",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := running(t)
			for _, c := range tt.before {
				r.must(c)
			}
			before := r.json()
			if res := r.propose(tt.do); !strings.Contains(res.Rejected, tt.want) {
				t.Errorf("verdict %+v, want %q", res, tt.want)
			}
			if r.json() != before {
				t.Error("a rejected request changed the state")
			}
		})
	}
}

// Who was removed comes back as a new disk, and its incarnations go on.
func TestRemovedNodeComesBack(t *testing.T) {
	r := running(t)
	r.must(token("t1"))
	r.must(fsm.Command{Leave: &fsm.Leave{Node: "c"}})
	r.must(fsm.Command{Leave: &fsm.Leave{Node: "c", Done: true}})
	if res := r.must(joins("c", "10.0.0.3", "t1", "r1")); res.Disk != 2 {
		t.Errorf("disk %d, want 2", res.Disk)
	}
	if n := r.Copy().Nodes["c"]; n.Removed || n.Leaving || n.Registered() || n.Inc != 1 {
		t.Errorf("c is %+v", n)
	}
	if res := r.must(register("c", 1, "c-2", "host-c")); res.Inc != 2 {
		t.Errorf("incarnation %d, want 2", res.Inc)
	}
}

func TestTokensOfLongAgoAreForgotten(t *testing.T) {
	r := running(t)
	r.must(token("old"))
	month := fsm.Command{AddToken: &fsm.AddToken{Token: fsm.Token{ID: "new", Hash: "h", Made: wall.Add(31 * 24 * time.Hour), Expires: wall.Add(32 * 24 * time.Hour)}}}
	month.At = wall.Add(31 * 24 * time.Hour)
	data, err := fsm.Encode(month)
	if err != nil {
		t.Fatal(err)
	}
	if res := r.Apply(uint64(len(r.log)+1), data); res.Rejected != "" {
		t.Fatal(res.Rejected)
	}
	if got := r.Copy().Tokens; len(got) != 1 || got["new"].ID == "" {
		t.Errorf("tokens are %v", got)
	}
}

func TestTokensAreBounded(t *testing.T) {
	r := running(t)
	for i := range 1000 {
		r.must(token(fmt.Sprint("t", i)))
	}
	if res := r.propose(token("one more")); res.Rejected == "" {
		t.Error("there is no bound")
	}
}
