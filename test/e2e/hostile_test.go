package e2e

import (
	"testing"
	"time"

	"hanode/test/livelab"
)

// A flood of what strangers can send, recorded datagrams of members among it, on both
// links: nothing moves, the beats are heard, and the logs stay short. How much of it is
// for `bench -what flood`.
func TestFlood(t *testing.T) {
	x := form(t, livelab.Options{Profile: "lan", Level: "info"})
	x.holds("primary")
	f, err := x.Flood(livelab.Flood{PerSecond: 10_000, For: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d sent in %v; the longest silence %v, %d lines logged; %v", f.Sent, f.Took.Round(time.Millisecond), f.Silent.Round(time.Millisecond), f.Lines, f.Refused)
	if f.Moves > 0 {
		t.Errorf("%d changes of owner", f.Moves)
	}
	// Each kind of refusal says so once, and once again after ten seconds.
	if f.Lines > 60 {
		t.Errorf("%d lines in the logs", f.Lines)
	}
	for _, what := range []string{"replayed", "other-key", "other-cluster", "malformed"} {
		if f.Refused[what] == 0 {
			t.Errorf("none was refused as %s: %v", what, f.Refused)
		}
	}
	x.holds("primary")
}
