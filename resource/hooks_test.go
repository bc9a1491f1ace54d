package resource

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hanode/internal/spec"
)

// upAfter is a kernel that notes whether a file was there when an address came.
type upAfter struct {
	Addresses
	path  string
	ups   int
	after bool
}

func (u *upAfter) Up(context.Context, []spec.Resource, Env) error {
	_, err := os.Stat(u.path)
	u.ups, u.after = u.ups+1, err == nil
	return nil
}

// on_acquire of an address comes before it; without it there is no address.
func TestOnAcquireOfAnAddress(t *testing.T) {
	dir := t.TempDir()
	k := &upAfter{path: filepath.Join(dir, "attached")}
	s := must[*Services](t)(Open(k, filepath.Join(dir, "running.json")))
	t.Cleanup(s.Close)
	r := spec.Resource{Type: "ip", Name: "10.0.0.100/24", OnAcquire: sh(`echo "$HANODE_GROUP $HANODE_EPOCH $HANODE_VIP $HANODE_OPERATION" >` + k.path)}
	g := s.NewGroup()
	if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil || k.ups != 1 || !k.after {
		t.Errorf("%v, %+v", err, k)
	}
	if b, _ := os.ReadFile(k.path); string(b) != "web 7 10.0.0.100 on_acquire\n" {
		t.Errorf("it was told %q", b)
	}
	for name, c := range map[string]struct {
		argv []string
		want string
	}{
		"refused": {sh("echo no such instance; exit 3"), "no such instance"},
		"missing": {[]string{"/nowhere/attach"}, "no such file"},
		"hangs":   {sh("sleep 1000"), "was killed"},
	} {
		r.OnAcquire, r.StartTimeout = c.argv, 300*time.Millisecond
		if err := s.NewGroup().Start(t.Context(), []spec.Resource{r}, env); err == nil || !strings.Contains(err.Error(), c.want) || k.ups != 1 {
			t.Errorf("%s: %v, put on %d times", name, err, k.ups)
		}
	}
}

// A hook says what it printed and how it ended, and ends with its context.
func TestHook(t *testing.T) {
	s := must[*Services](t)(Open(nil, filepath.Join(t.TempDir(), "running.json")))
	t.Cleanup(s.Close)
	e := env
	e.Problem = "apache2 is dead"
	if op := s.Hook(t.Context(), "on_problem", sh(`echo "$HANODE_OPERATION: $HANODE_PROBLEM"`), e); op.Err != "" || op.Output != "on_problem: apache2 is dead\n" {
		t.Errorf("%+v", op)
	}
	if op := s.Hook(t.Context(), "on_release", sh("echo gone; exit 3"), env); !strings.Contains(op.Err, "exit status 3") || op.Output != "gone\n" {
		t.Errorf("%+v", op)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if op := s.Hook(ctx, "on_release", sh("sleep 1000"), env); op.Err == "" || op.Took > 5*time.Second {
		t.Errorf("%+v", op)
	}
}
