package resource

import (
	"slices"
	"testing"

	"hanode/internal/spec"
)

// What runs and was started by nobody here is foreign; what a group started, what is
// stopped, and what cannot be asked is not.
func TestForeign(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	byHand, stopped, mute := h.service("by-hand"), h.service("stopped"), h.service("mute")
	mute.Monitor = nil
	if err := h.drivers["exec"].Start(ctx, byHand, env); err != nil {
		t.Fatal(err)
	}
	g := spec.Group{Name: "web", Resources: []spec.Resource{{Type: "ip", Name: "10.0.0.1"}, byHand, stopped, mute}}
	if got := h.services.Foreign(ctx, "primary", g); !slices.Equal(got, []string{`exec "by-hand"`}) {
		t.Errorf("found %q", got)
	}
	// A group that starts takes what runs for started: from then on it is its own.
	own := h.services.NewGroup()
	if err := own.Start(ctx, []spec.Resource{byHand}, env); err != nil {
		t.Fatal(err)
	}
	if got := h.services.Foreign(ctx, "primary", g); len(got) != 0 {
		t.Errorf("its own: %q", got)
	}
	if err := own.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if got := h.services.Foreign(ctx, "primary", g); len(got) != 0 {
		t.Errorf("stopped: %q", got)
	}
}
