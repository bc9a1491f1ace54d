package api

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"hanode/internal/spec"
)

// A field that is added to spec and forgotten here would be lost between
// command and agent.
func TestEveryFieldOfAGroupTravels(t *testing.T) {
	var g spec.Group
	fillValue(reflect.ValueOf(&g).Elem())
	roundTrip(t, []spec.Group{g})
}

func TestGroupsTravelUnchanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z][a-z0-9-]{0,20}`)
		dur := rapid.OneOf(
			rapid.Map(rapid.Int64Range(0, int64(10*24*time.Hour)), func(n int64) time.Duration { return time.Duration(n) }),
			rapid.Map(rapid.Int64Range(0, maxMS*1000), func(n int64) time.Duration { return time.Duration(n) * time.Microsecond }),
		)
		words := rapid.Map(rapid.SliceOfN(rapid.String(), 0, 3), func(l []string) []string { return some(l) })
		res := rapid.Custom(func(t *rapid.T) spec.Resource {
			return spec.Resource{
				Type: name.Draw(t, "type"), Name: rapid.String().Draw(t, "name"), Dev: rapid.String().Draw(t, "dev"),
				Start: words.Draw(t, "start"), Stop: words.Draw(t, "stop"), Monitor: words.Draw(t, "monitor"),
				Every: dur.Draw(t, "every"), Timeout: dur.Draw(t, "timeout"), Restarts: rapid.IntRange(0, 9).Draw(t, "restarts"),
			}
		})
		group := rapid.Custom(func(t *rapid.T) spec.Group {
			g := spec.Group{
				Name: name.Draw(t, "name"), Exclusive: rapid.Bool().Draw(t, "exclusive"),
				Prefer:   some(rapid.SliceOfN(name, 0, 3).Draw(t, "prefer")),
				Failback: spec.Failback{On: rapid.Bool().Draw(t, "on"), After: dur.Draw(t, "after")},
			}
			if rs := rapid.SliceOfN(res, 0, 3).Draw(t, "resources"); len(rs) > 0 {
				g.Resources = rs
			}
			return g
		})
		roundTrip(t, rapid.SliceOfN(group, 0, 3).Draw(t, "groups"))
	})
}

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func roundTrip(t fataler, groups []spec.Group) {
	t.Helper()
	var buf bytes.Buffer
	if err := WriteJSON(&buf, planBody{Groups: wire(groups)}, false); err != nil {
		t.Fatal(err)
	}
	got, err := decodePlan(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(groups, got.Groups); diff != "" {
		t.Fatalf("changed on the way (-sent +got):\n%s", diff)
	}
}

func TestBadGroupsAreRefused(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{}`, "groups is missing"},
		{`{"groups":null}`, "groups is missing"},
		{``, "empty"},
		{`{"groups":[]} {}`, "more after"},
		{`{"groups":[],"force":true}`, `unknown field "force"`},
		{`{"groups":[{"name":"web","nmae":"x"}]}`, `unknown field "nmae"`},
		{`{"groups":[{}]}`, "name is missing"},
		{`{"groups":[{"name":"a b"}]}`, "blank"},
		{`{"groups":[{"name":"a\u0007"}]}`, "control character"},
		{`{"groups":[{"name":"` + strings.Repeat("x", 129) + `"}]}`, "128"},
		{`{"groups":[{"name":"web","prefer":[""]}]}`, "prefer is missing"},
		{`{"groups":[{"name":"web","failback":{"on":true,"after_ms":-1}}]}`, "after_ms is -1"},
		{`{"groups":[{"name":"web","resources":[{"type":"ip","name":"x","every_ms":1e300}]}]}`, "every_ms"},
		{`{"groups":[{"name":"web","resources":[{"type":"ip","name":"x","timeout_ms":-2}]}]}`, "timeout_ms"},
		{`{"groups":[{"name":"web","resources":[{"type":"ip","name":"x","restarts":-2}]}]}`, "restarts is -2"},
		{`{"groups":[{"name":"web","resources":[{"name":"x"}]}]}`, "type is missing"},
	} {
		_, err := decodePlan(strings.NewReader(c.body))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.body, err, c.want)
		}
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	decoders := map[string]func(string) error{
		"apply": func(s string) error { _, err := decodeApply(strings.NewReader(s)); return err },
		"move":  func(s string) error { _, err := decodeMove(strings.NewReader(s)); return err },
		"node":  func(s string) error { _, err := decodeNode(strings.NewReader(s)); return err },
		"on":    func(s string) error { _, err := decodeSwitch(strings.NewReader(s)); return err },
		"off":   func(s string) error { _, err := decodeConfirmOff(strings.NewReader(s)); return err },
		"clear": func(s string) error { _, err := decodeClear(strings.NewReader(s)); return err },
		"empty": func(s string) error { _, err := decodeEmpty(strings.NewReader(s)); return err },
	}
	for _, c := range []struct{ call, body, want string }{
		{"apply", `{"groups":[],"wait_ms":-1}`, "wait_ms is -1"},
		{"apply", `{"groups":[],"wait_ms":null}`, ""},
		{"apply", `[]`, "cannot unmarshal"},
		{"move", `{}`, "group is missing"},
		{"move", `{"group":"web","to":""}`, "to is missing"},
		{"move", `{"group":"web","to":null}`, ""},
		{"move", `{"group":"web","to":"b","unpin":true}`, "exclude each other"},
		{"move", `{"group":"web","wait_ms":1e20}`, "wait_ms"},
		{"node", `{"on":true}`, "node is missing"},
		{"node", `{"node":"a"}`, "on is missing"},
		{"node", `{"node":"a","on":false}`, ""},
		{"on", `{}`, "on is missing"},
		{"on", `{"on":false}`, ""},
		{"clear", `{}`, ""},
		{"clear", `{"group":null,"node":null}`, ""},
		{"clear", `{"group":"web","node":"a"}`, ""},
		{"clear", `{"group":""}`, "group is missing"},
		{"clear", `{"node":"a b"}`, "blank"},
		{"off", `{"confirm":"a is off"}`, "node is missing"},
		{"off", `{"node":"a"}`, ""},
		{"empty", `{"x":1}`, "unknown field"},
		{"empty", `{}`, ""},
	} {
		err := decoders[c.call](c.body)
		if c.want == "" && err != nil {
			t.Errorf("%s %s: %v", c.call, c.body, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %s: got %v, want %q", c.call, c.body, err, c.want)
		}
	}
}
