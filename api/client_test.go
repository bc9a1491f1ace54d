package api_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hanode/api"
	"hanode/api/apitest"
	"hanode/internal/spec"
)

// start serves a model cluster, as node "primary" shows it, on a unix socket.
// stop ends the agent; it is also called at the end of the test.
func start(t *testing.T) (model *apitest.Cluster, c *api.Client, stop func()) {
	t.Helper()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	model = apitest.Three(func() time.Time { return now })
	path := filepath.Join(t.TempDir(), "s")
	log := slog.New(slog.DiscardHandler)
	s, err := api.Listen(path, false, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, model.At("primary"), log) }()
	stopped := false
	stop = func() {
		cancel()
		if !stopped {
			stopped = true
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
	}
	t.Cleanup(stop)
	c = api.Dial(path)
	t.Cleanup(c.Close)
	return model, c, stop
}

var (
	web = spec.Group{
		Name: "web", Prefer: []string{"primary"}, Failback: spec.Failback{On: true},
		Resources: []spec.Resource{{Type: "ip", Name: "10.0.0.100/24", Dev: "eth1"}, {Type: "systemd", Name: "apache2", Every: 5 * time.Second}},
	}
	files = spec.Group{Name: "files", Failback: spec.Failback{On: true, After: 5 * time.Minute}, Exclusive: true}
)

func apply(t *testing.T, c *api.Client, groups ...spec.Group) {
	t.Helper()
	if _, err := c.Apply(t.Context(), api.ApplyRequest{Groups: groups, Wait: time.Second}); err != nil {
		t.Fatal(err)
	}
}

// owner asks who owns a group, over the socket.
func owner(t *testing.T, c *api.Client, group string) (string, uint64) {
	t.Helper()
	st, err := c.Status(t.Context(), group)
	if st == nil {
		t.Fatal(err)
	}
	if len(st.Groups) != 1 || st.Groups[0].Owner == nil {
		t.Fatalf("group %s: %+v", group, st.Groups)
	}
	return *st.Groups[0].Owner, st.Groups[0].Epoch
}

// Every call gives over the socket what the Backend gives directly.
func TestEveryCallOverTheSocket(t *testing.T) {
	model, c, _ := start(t)
	b := model.At("primary")
	ctx := t.Context()
	apply(t, c, files, web)

	same := func(what string, direct, err1, remote, err2 any) {
		t.Helper()
		if diff := cmp.Diff([]any{direct, err1}, []any{remote, err2}); diff != "" {
			t.Errorf("%s (-direct +remote):\n%s", what, diff)
		}
	}
	m1, e1 := b.Members(ctx)
	m2, e2 := c.Members(ctx)
	same("members", m1, e1, m2, e2)
	s1, e1 := b.Status(ctx, "web")
	s2, e2 := c.Status(ctx, "web")
	// A list that is empty is [] there and nil here.
	if len(s1.Problems) != 0 || len(s2.Problems) != 0 {
		t.Errorf("problems: %v, %v", s1.Problems, s2.Problems)
	}
	s1.Problems, s2.Problems = nil, nil
	s1.Groups[0].Failures, s2.Groups[0].Failures = nil, nil
	same("status", s1, e1, s2, e2)
	_, e1 = b.Clear(ctx, api.ClearRequest{Group: "nope"})
	_, e2 = c.Clear(ctx, api.ClearRequest{Group: "nope"})
	same("clear nope", nil, e1, nil, e2)
	model.Fail("web", "apache2: exit status 1")
	f1, e1 := b.Status(ctx, "web")
	f2, e2 := c.Status(ctx, "web")
	f1.Problems, f2.Problems = nil, nil
	same("status with a failure", f1, e1, f2, e2)
	if n := len(f2.Groups[0].Failures); n != 1 {
		t.Errorf("%d failures", n)
	}
	if r, err := c.Clear(ctx, api.ClearRequest{Group: "web"}); err != nil || len(r.Cleared) != 1 || r.Cleared[0] != (api.Cleared{Group: "web", Node: "primary"}) {
		t.Errorf("clear: %+v, %v", r, err)
	}
	g1, e1 := b.Export(ctx)
	g2, e2 := c.Export(ctx)
	same("export", g1, e1, g2, e2)
	p1, e1 := b.Plan(ctx, []spec.Group{files})
	p2, e2 := c.Plan(ctx, []spec.Group{files})
	same("plan", p1, e1, p2, e2)
	w1, e1 := b.Why(ctx, "web")
	w2, e2 := c.Why(ctx, "web")
	same("why", w1, e1, w2, e2)
	_, e1 = b.Why(ctx, "nope")
	_, e2 = c.Why(ctx, "nope")
	same("why nope", nil, e1, nil, e2)
	v2, err := c.Version(ctx)
	same("version", b.Version(), nil, v2, err)
	same("events", collect(t, b.Events), nil, collect(t, c.Events), nil)
}

func collect(t *testing.T, events func(context.Context, uint64, bool, func(api.Event) error) error) (out []api.Event) {
	t.Helper()
	if err := events(t.Context(), 1, false, func(e api.Event) error { out = append(out, e); return nil }); err != nil {
		t.Error(err)
	}
	if len(out) == 0 || out[0].Index != 2 {
		t.Errorf("events after 1: %v", out)
	}
	return out
}

func TestSwitchoverAndItsPin(t *testing.T) {
	_, c, _ := start(t)
	apply(t, c, web)
	m, err := c.Move(t.Context(), api.MoveRequest{Group: "web", Wait: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if *m.From != "primary" || m.To != "secondary" || m.Epoch != 2 || m.SilentMS == nil {
		t.Errorf("got %+v", m)
	}
	if m, err = c.Move(t.Context(), api.MoveRequest{Group: "web", Unpin: true}); err != nil || m.To != "primary" || m.Epoch != 3 {
		t.Errorf("unpin: %+v, %v", m, err)
	}
	for _, to := range []string{"arbiter", "nobody"} {
		_, err = c.Move(t.Context(), api.MoveRequest{Group: "web", To: to})
		if e, ok := errors.AsType[*api.Error](err); !ok || e.Exit != api.ExitFailed || e.Fix == "" {
			t.Errorf("to %s: %v", to, err)
		}
	}
}

func TestStandbyAndMaintenance(t *testing.T) {
	model, c, _ := start(t)
	apply(t, c, web, files)
	r, err := c.Standby(t.Context(), "primary", true, time.Second)
	if err != nil || !r.Standby || len(r.Moves) != 2 || r.Moves[0].To != "secondary" {
		t.Fatalf("standby: %+v, %v", r, err)
	}
	if r, err = c.Standby(t.Context(), "primary", false, 0); err != nil || r.Standby {
		t.Fatalf("online: %+v, %v", r, err)
	}
	if err := c.Maintenance(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	model.Kill("primary")
	if o, _ := owner(t, c, "web"); o != "primary" {
		t.Errorf("under maintenance web went to %s", o)
	}
	if err := c.Maintenance(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if o, _ := owner(t, c, "web"); o != "secondary" {
		t.Errorf("after maintenance web is on %s", o)
	}
}

// Without a quorum the local knowledge and the sentence both arrive.
func TestNoQuorum(t *testing.T) {
	model, c, _ := start(t)
	apply(t, c, web)
	model.Kill("secondary")
	model.Kill("arbiter")
	ctx := t.Context()
	members, err := c.Members(ctx)
	wantNoQuorum(t, "members", err)
	if len(members) != 3 {
		t.Errorf("members: %v", members)
	}
	st, err := c.Status(ctx, "")
	wantNoQuorum(t, "status", err)
	if st == nil || st.Quorum || len(st.Groups) != 1 {
		t.Errorf("status: %+v", st)
	}
	w, err := c.Why(ctx, "web")
	wantNoQuorum(t, "why", err)
	if w == nil || len(w.Reasons) != 3 {
		t.Errorf("why: %+v", w)
	}
	seen := 0
	wantNoQuorum(t, "events", c.Events(ctx, 0, false, func(api.Event) error { seen++; return nil }))
	if seen != 4 {
		t.Errorf("%d events, want 4", seen)
	}
	_, err = c.Move(ctx, api.MoveRequest{Group: "web"})
	wantNoQuorum(t, "move", err)
	_, err = c.Plan(ctx, nil)
	wantNoQuorum(t, "plan", err)
	_, err = c.Apply(ctx, api.ApplyRequest{})
	wantNoQuorum(t, "apply", err)
	_, err = c.Standby(ctx, "primary", true, 0)
	wantNoQuorum(t, "standby", err)
	wantNoQuorum(t, "maintenance", c.Maintenance(ctx, true))
	wantNoQuorum(t, "leave", c.Leave(ctx))
	groups, err := c.Export(ctx)
	wantNoQuorum(t, "export", err)
	if len(groups) != 1 {
		t.Errorf("export: %v", groups)
	}
}

func wantNoQuorum(t *testing.T, what string, err error) {
	t.Helper()
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Exit != api.ExitNoQuorum || !strings.Contains(e.Message, "secondary, arbiter") || e.Fix == "" {
		t.Errorf("%s: got %v, want exit 3 and the missing voters", what, err)
	}
}

// Groups that do not run in time come back with the reason.
func TestApplyThatDoesNotRun(t *testing.T) {
	_, c, _ := start(t)
	for _, n := range []string{"primary", "secondary"} {
		if _, err := c.Standby(t.Context(), n, true, 0); err != nil {
			t.Fatal(err)
		}
	}
	res, err := c.Apply(t.Context(), api.ApplyRequest{Groups: []spec.Group{web}, Wait: time.Second})
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Exit != api.ExitFailed || !strings.Contains(e.Message, "not running after 1s: web") {
		t.Errorf("error %v", err)
	}
	if res == nil || len(res.Groups) != 1 || *res.Groups[0].State != api.GroupStopped {
		t.Errorf("result %+v", res)
	}
}

// Applying nothing removes everything; it is said, not left out.
func TestApplyOfNothing(t *testing.T) {
	_, c, _ := start(t)
	apply(t, c, web)
	apply(t, c)
	if groups, err := c.Export(t.Context()); err != nil || len(groups) != 0 {
		t.Errorf("left: %v, %v", groups, err)
	}
	apply(t, c, web)
	if _, epoch := owner(t, c, "web"); epoch != 2 {
		t.Errorf("epoch %d was used before", epoch)
	}
}

func TestFollowingEvents(t *testing.T) {
	model, c, stop := start(t)
	apply(t, c, web)
	got := make(chan api.Event)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Events(t.Context(), 2, true, func(e api.Event) error { got <- e; return nil })
	}()
	model.Kill("primary")
	for _, want := range []string{"dead", "failover"} {
		if e := <-got; e.Kind != want {
			t.Errorf("got %+v, want %s", e, want)
		}
	}
	model.Revive("primary")
	for _, want := range []string{"alive", "failback"} {
		if e := <-got; e.Kind != want {
			t.Errorf("got %+v, want %s", e, want)
		}
	}
	stop()
	if e, ok := errors.AsType[*api.Error](<-ended); !ok || e.Code != api.CodeStopping || e.Exit != api.ExitUnreachable {
		t.Errorf("the agent stopped: %+v", e)
	}
}

func TestFollowingEndsAsTheCallerLikes(t *testing.T) {
	_, c, _ := start(t)
	enough := errors.New("enough")
	if err := c.Events(t.Context(), 0, true, func(api.Event) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Events(ctx, 0, true, func(api.Event) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A call under way when the agent stops ends, and the socket is gone.
func TestStoppingAgent(t *testing.T) {
	_, c, stop := start(t)
	if _, err := c.Members(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	_, err := c.Members(t.Context())
	if e, ok := errors.AsType[*api.Error](err); !ok || e.Exit != api.ExitUnreachable {
		t.Errorf("got %v", err)
	}
}

func TestLeave(t *testing.T) {
	_, c, _ := start(t)
	apply(t, c, web)
	if err := c.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o, _ := owner(t, c, "web"); o != "secondary" {
		t.Errorf("web is on %s", o)
	}
}
