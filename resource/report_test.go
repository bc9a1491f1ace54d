package resource

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"hanode/internal/spec"
)

// TestOperationIsSeenWhileItRuns: an operator need not wait for the end of a start that
// hangs to see what it says; what it did before stays to be seen meanwhile.
func TestOperationIsSeenWhileItRuns(t *testing.T) {
	h := newHost(t)
	r := spec.Resource{
		Type: "exec", Name: "slow", StartTimeout: time.Minute,
		Start: sh("echo begun; while [ ! -e " + h.path("go") + " ]; do sleep 0.02; done; echo over; exit 1"),
		Stop:  sh("echo stopped"),
	}
	g := h.services.NewGroup()
	done := make(chan error, 1)
	go func() { done <- g.Start(t.Context(), []spec.Resource{r}, env) }()
	var op Operation
	for range 3000 {
		time.Sleep(10 * time.Millisecond)
		if len(g.Status()) == 0 {
			continue
		}
		if op = output(g, 0, "start"); op.Output != "" {
			break
		}
	}
	if !op.Running || op.Output != "begun\n" || op.Err != "" || op.Took <= 0 {
		t.Errorf("while it runs: %+v", op)
	}
	if f := g.LastFailure(); f.Name != "" {
		t.Errorf("nothing failed yet: %+v", f)
	}
	if err := os.WriteFile(h.path("go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("it succeeded")
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if f := g.LastFailure(); f.Running || f.Name != "start" || f.End(1000) != "begun\nover" || f.End(6) != "over" {
		t.Errorf("after its end: %+v", f)
	}
	if n := len(g.Status()[0].Operations); n != 2 {
		t.Errorf("%d operations are remembered, want a start and a stop", n)
	}
}

func TestLastLines(t *testing.T) {
	long := strings.Repeat("x", 50)
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 10, ""},
		{"\n \n", 10, ""},
		{"one\ntwo\n", 100, "one\ntwo"},
		{"one\ntwo\nthree\n", 10, "two\nthree"},
		{"one\ntwo\nthree\n", 5, "three"},
		{long, 10, long[:10]},
		{"\u00e4\u00f6\u00fc", 3, "\u00fc"},
	} {
		if got := lastLines(c.in, c.limit); got != c.want {
			t.Errorf("%q, %d: %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

// recovering is a type whose supervisor starts it again by itself, all the time.
type recovering struct {
	Plain
	looks int
}

func (*recovering) Start(context.Context, spec.Resource, Env) error { return nil }
func (*recovering) Stop(context.Context, spec.Resource, Env) error  { return nil }

func (d *recovering) Monitor(context.Context, spec.Resource, Env) error {
	d.looks++
	if d.looks%3 == 1 { // seen twice while it is being restarted
		return nil
	}
	return ErrRecovering
}

// TestRecoveryIsTold: a restart by the resource's own supervisor counts, so it is told,
// once for each; the one too many is the end.
func TestRecoveryIsTold(t *testing.T) {
	h := newHost(t)
	h.services.drivers["unit"] = &recovering{}
	g := h.services.NewGroup()
	if err := g.Start(t.Context(), []spec.Resource{{Type: "unit", Name: "x", Every: time.Millisecond, Restarts: 2}}, env); err != nil {
		t.Fatal(err)
	}
	var told []int
	g.Restarted = func(_ spec.Resource, times int, err error) {
		if !errors.Is(err, ErrRecovering) {
			t.Error(err)
		}
		told = append(told, times)
	}
	if err := g.Watch(t.Context()); !errors.Is(err, ErrRecovering) {
		t.Errorf("the third: %v", err)
	}
	if !slices.Equal(told, []int{1, 2}) {
		t.Errorf("told %v", told)
	}
}
