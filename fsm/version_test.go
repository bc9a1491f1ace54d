package fsm_test

import (
	"errors"
	"testing"

	"hanode/fsm"
	"hanode/internal/spec"
)

// A broadcast address has no place in version 1: it is not proposed while somebody could
// not read it. A founding has no such somebody: whoever founds it speaks what it needs.
func TestBroadcastNeedsVersion2(t *testing.T) {
	plain, own := ips("web", webIP), ips("web", webIP)
	own.Resources[0].Network, own.Resources[0].Broadcast = true, "10.0.0.12"
	with := func(g spec.Group) fsm.Command {
		c := found()
		f := *c.Found
		f.Groups = []spec.Group{g}
		c.Found = &f
		return c
	}
	for _, c := range []struct {
		do   fsm.Command
		need int
	}{{groups(plain), 1}, {groups(own), 2}, {with(plain), 1}, {with(own), 2}} {
		if got := c.do.Needs(); got != c.need {
			t.Errorf("%+v needs version %d, not %d", c.do, got, c.need)
		}
		r := newReplica(t)
		if c.do.Found == nil {
			r.must(with(plain))
			if err := r.Speakable(c.do); (err == nil) != (c.need == 1) || err != nil && !errors.Is(err, fsm.ErrNotYet) {
				t.Errorf("%+v while version 1 is spoken: %v", c.do, err)
			}
			continue
		}
		if err := r.Speakable(c.do); err != nil {
			t.Error(err)
		}
		r.must(c.do)
		r.View(func(s *fsm.State) {
			if s.Speaks() != c.need {
				t.Errorf("founded with %+v it speaks version %d, not %d", c.do, s.Speaks(), c.need)
			}
		})
	}
}
