package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"hanode/internal/id"
)

// TestHistoryCatches shows that the checker of histories finds what must not be,
// and lets pass what may be.
func TestHistoryCatches(t *testing.T) {
	const never = 1 << 62
	type op struct {
		act
		call, ret int64
	}
	web := func(kind, who string, e id.Epoch) act {
		return act{object: "group web", kind: kind, who: who, epoch: e}
	}
	lock := func(kind, who string) act { return act{object: "address 10.77.0.100", kind: kind, who: who} }
	reg := func(kind, value string) act { return act{object: "standby a", kind: kind, value: value} }
	for _, c := range []struct {
		name string
		ops  []op
		bad  bool
	}{
		{"one after the other", []op{{lock("open", "a"), 1, 1}, {lock("shut", "a"), 2, 2}, {lock("open", "b"), 3, 3}}, false},
		{"a moment that cannot be told apart", []op{{lock("open", "a"), 1, 1}, {lock("shut", "a"), 2, 4}, {lock("open", "b"), 3, 5}}, false},
		{"two at once", []op{{lock("open", "a"), 1, 1}, {lock("open", "b"), 2, 2}, {lock("shut", "a"), 3, 3}}, true},
		{"a close of what is not open", []op{{lock("shut", "a"), 1, 1}}, true},
		{"held by its owner, and again", []op{{web("assign", "a", 1), 1, 2}, {web("hold", "a", 1), 3, 3}, {web("drop", "a", 0), 4, 4}, {web("hold", "a", 1), 5, 5}}, false},
		{"held by somebody else", []op{{web("assign", "a", 1), 1, 2}, {web("hold", "b", 1), 3, 3}}, true},
		{"held before it was decided", []op{{web("hold", "a", 1), 1, 1}, {web("assign", "a", 1), 2, 3}}, true},
		{"two hold one group", []op{{web("assign", "a", 1), 1, 1}, {web("hold", "a", 1), 2, 2}, {web("assign", "b", 2), 3, 3}, {web("hold", "b", 2), 4, 4}, {web("drop", "a", 0), 5, 5}}, true},
		{"an older epoch after a newer one", []op{
			{web("assign", "a", 1), 1, 1}, {web("assign", "b", 2), 2, 2}, {web("hold", "b", 2), 3, 3}, {web("drop", "b", 0), 4, 4}, {web("hold", "a", 1), 5, 5},
		}, true},
		{"an epoch that goes back", []op{{web("assign", "a", 2), 1, 1}, {web("assign", "b", 1), 2, 2}}, true},
		{"one epoch, two owners", []op{{web("assign", "a", 2), 1, 1}, {web("assign", "b", 2), 2, 2}}, true},
		{"a move that was done", []op{{web("assign", "a", 1), 1, 1}, {web("moved", "b", 2), 2, 6}, {web("assign", "b", 2), 3, 4}}, false},
		{"a move that was told and never decided", []op{{web("assign", "a", 1), 1, 1}, {web("moved", "b", 2), 2, 6}}, true},
		{"a stale read of the owner", []op{{web("assign", "a", 1), 1, 1}, {web("assign", "b", 2), 2, 2}, {web("is", "a", 1), 3, 4}}, true},
		{"a read beside the change", []op{{web("assign", "a", 1), 1, 1}, {web("assign", "b", 2), 4, 5}, {web("is", "a", 1), 3, 6}}, false},
		{"what was acknowledged is read", []op{{reg("write", "true"), 1, 2}, {reg("read", "true"), 3, 4}}, false},
		{"what was acknowledged is lost", []op{{reg("write", "false"), 0, 0}, {reg("write", "true"), 1, 2}, {reg("read", "false"), 3, 4}}, true},
		{"what was acknowledged is lost later", []op{{reg("write", "false"), 0, 0}, {reg("write", "true"), 1, 2}, {reg("read", "true"), 3, 4}, {reg("read", "false"), 5, 6}}, true},
		{"what was not acknowledged may come late", []op{{reg("write", "false"), 0, 0}, {reg("write", "true"), 1, never}, {reg("read", "false"), 3, 4}, {reg("read", "true"), 5, 6}}, false},
		{"or never", []op{{reg("write", "false"), 0, 0}, {reg("write", "true"), 1, never}, {reg("read", "false"), 3, 4}}, false},
		{"but not go again", []op{{reg("write", "false"), 0, 0}, {reg("write", "true"), 1, never}, {reg("read", "true"), 3, 4}, {reg("read", "false"), 5, 6}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &history{}
			for _, o := range c.ops {
				h.ops = append(h.ops, porcupine.Operation{Input: o.act, Call: o.call, Return: o.ret})
			}
			v := h.check(time.Minute)
			if (v.bad != "") != c.bad || v.unknown > 0 {
				t.Errorf("bad %v, want %v: %s", v.bad != "", c.bad, v.bad)
			}
			if c.bad && !strings.Contains(v.bad, "is not linearizable") {
				t.Errorf("said: %s", v.bad)
			}
		})
	}
}
