package netlab

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRulesOfFaults(t *testing.T) {
	f := newFaults()
	if got := f.rules(); len(got) != 0 {
		t.Errorf("no faults make rules %v", got)
	}
	f.oneWay["p1"], f.oneWay["p2"] = DropIn, DropBoth
	f.group["p1"], f.group["p2"], f.group["p3"] = 0, 1, 1
	f.loss["p3"], f.loss["p4"] = 30, 0
	want := []rule{
		{out: "p1", percent: 100},
		{in: "p2", percent: 100},
		{out: "p2", percent: 100},
		{in: "p1", out: "p2", percent: 100},
		{in: "p1", out: "p3", percent: 100},
		{in: "p2", out: "p1", percent: 100},
		{in: "p3", out: "p1", percent: 100},
		{in: "p3", percent: 30},
		{out: "p3", percent: 30},
	}
	if d := cmp.Diff(want, f.rules(), cmp.AllowUnexported(rule{})); d != "" {
		t.Error(d)
	}
}

func TestRemediesNameWhatForbids(t *testing.T) {
	for _, c := range []struct {
		path, value, want string
	}{
		{"kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"},
		{"kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"},
		{"user/max_user_namespaces", "0", "user.max_user_namespaces="},
		{"none", "", "in a container"},
	} {
		got := strings.Join(remedies(func(path string) string {
			if path == c.path {
				return c.value
			}
			return ""
		}), "\n")
		if !strings.Contains(got, c.want) || !strings.Contains(got, "as root") {
			t.Errorf("%s=%s gives %q, which lacks %q", c.path, c.value, got, c.want)
		}
	}
}
