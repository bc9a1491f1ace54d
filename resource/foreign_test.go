package resource

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"hanode/internal/spec"
)

// names lists strays.
func names(found []Stray) (out []string) {
	for _, s := range found {
		out = append(out, s.String())
	}
	return out
}

// TestForeign: what runs although no agent started it is found, and only that.
func TestForeign(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	byHand, stopped, mute := h.service("by-hand"), h.service("stopped"), h.service("mute")
	mute.Monitor = nil
	if err := h.drivers["exec"].Start(ctx, byHand, env); err != nil {
		t.Fatal(err)
	}
	rs := []spec.Resource{{Type: "ip", Name: "10.0.0.1"}, byHand, stopped, mute, {Type: "from the future", Name: "x"}}
	look := func() []string { return names(h.services.Foreign(ctx, "primary", "web", rs)) }
	if got := look(); !slices.Equal(got, []string{`exec "by-hand"`}) {
		t.Errorf("found %q", got)
	}
	// What an agent started is its own, under whatever name another group has it too.
	own := h.services.NewGroup()
	if err := own.Start(ctx, []spec.Resource{byHand}, env); err != nil {
		t.Fatal(err)
	}
	other := byHand
	other.Name = "the same"
	if got := append(look(), names(h.services.Foreign(ctx, "primary", "db", []spec.Resource{other}))...); len(got) != 0 {
		t.Errorf("its own: %q", got)
	}
	if err := own.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if got := look(); len(got) != 0 {
		t.Errorf("stopped: %q", got)
	}
}

// TestStopForeign: the last first, verified; what does not stop stays in the journal.
func TestStopForeign(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	one, two, deaf := h.service("one"), h.service("two"), h.service("deaf")
	deaf.Stop = sh("exit 1")
	for _, r := range []spec.Resource{one, two, deaf} {
		if err := h.drivers["exec"].Start(ctx, r, env); err != nil {
			t.Fatal(err)
		}
	}
	rs := []spec.Resource{one, two, deaf}
	err := h.services.StopForeign(ctx, "primary", "web", h.services.Foreign(ctx, "primary", "web", rs))
	if err == nil || !strings.Contains(err.Error(), `exec "deaf"`) || strings.Contains(err.Error(), `"one"`) {
		t.Error(err)
	}
	h.wantLog("start one", "start two", "start deaf", "stop two", "stop one")
	if !h.services.journal.ours(deaf) || h.services.journal.ours(one) {
		t.Error("the journal forgot what may run, or kept what does not")
	}
}

// TestAdmit: a start that is refused touches nothing, also not when it is unwound.
func TestAdmit(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	r := h.service("by-hand")
	if err := h.drivers["exec"].Start(ctx, r, env); err != nil {
		t.Fatal(err)
	}
	g := h.services.NewGroup()
	g.Admit = func(_ context.Context, res []spec.Resource, e Env) error {
		if len(h.services.Foreign(ctx, e.Node, e.Group, res)) > 0 && !e.Adopt {
			return errors.New("it runs already")
		}
		return nil
	}
	first := h.service("first")
	err := g.Start(ctx, []spec.Resource{first, r}, env)
	if err == nil || MeaningOf(err) != NotHere {
		t.Error(err)
	}
	if err := g.Stop(ctx); err != nil {
		t.Error(err)
	}
	h.wantLog("start by-hand")
	// Adopted: it is not started again, and from now on it is ours to stop.
	adopt := env
	adopt.Adopt = true
	if err := g.Start(ctx, []spec.Resource{first, r}, adopt); err != nil {
		t.Error(err)
	}
	if err := g.Stop(ctx); err != nil {
		t.Error(err)
	}
	h.wantLog("start by-hand", "start first", "stop by-hand", "stop first")
}
