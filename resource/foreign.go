package resource

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"hanode/internal/spec"
)

// Stray is something of a group that is on this host although no agent brought it
// there: a unit that somebody started by hand or at boot, a script whose monitor says
// that it runs, an address that somebody put on.
type Stray struct {
	Resource spec.Resource
	Where    string // the devices of an address; "" = it runs
}

func (s Stray) String() string {
	if s.Where != "" {
		return fmt.Sprintf("%s %q (on %s)", s.Resource.Type, s.Resource.Name, s.Where)
	}
	return fmt.Sprintf("%s %q", s.Resource.Type, s.Resource.Name)
}

// Quick reports whether Foreign can tell without running a program.
func Quick(r spec.Resource) bool { return r.Type == "ip" || r.Type == "systemd" }

// Foreign lists the strays among rs, resources of group, in their order. What cannot be
// asked is left out. It changes nothing.
func (s *Services) Foreign(ctx context.Context, node, group string, rs []spec.Resource) []Stray {
	found := make([]*Stray, len(rs))
	var wg sync.WaitGroup
	on := s.strayAddresses(rs)
	for i, r := range rs {
		if r.Type == "ip" {
			if where := on[r.Address()]; where != "" {
				found[i] = &Stray{r, where}
			}
			continue
		}
		wg.Go(func() { found[i] = s.foreign(ctx, node, group, r) })
	}
	wg.Wait()
	var out []Stray
	for _, f := range found {
		if f != nil {
			out = append(out, *f)
		}
	}
	return out
}

func (s *Services) strayAddresses(rs []spec.Resource) map[string]string {
	ips := slices.DeleteFunc(slices.Clone(rs), func(r spec.Resource) bool { return r.Type != "ip" })
	ip, ok := s.drivers["ip"].(ipDriver)
	if len(ips) == 0 || !ok {
		return nil
	}
	return ip.a.Strays(ips)
}

func (s *Services) foreign(ctx context.Context, node, group string, r spec.Resource) *Stray {
	d, err := s.drivers.of(r)
	if err != nil {
		return nil
	}
	if r.Type == "exec" && len(r.Monitor) == 0 || s.journal.ours(r) {
		return nil
	}
	if !Quick(r) {
		select {
		case s.monitors <- struct{}{}:
			defer func() { <-s.monitors }()
		case <-ctx.Done():
			return nil
		}
	}
	err = bounded(ctx, limits(d, r).Monitor, func(ctx context.Context) error {
		return d.Monitor(ctx, r, Env{Group: group, Node: node, Reason: "look"})
	})
	// It may have been started for the group while we asked.
	if err != nil || ctx.Err() != nil || s.journal.ours(r) {
		return nil
	}
	return &Stray{Resource: r}
}

// StopForeign stops strays of group, the last first, and verifies it, as what an earlier
// agent left running is stopped. Nothing may start the group here meanwhile.
func (s *Services) StopForeign(ctx context.Context, node, group string, strays []Stray) error {
	var errs []error
	for i := len(strays) - 1; i >= 0; i-- {
		r := strays[i].Resource
		if ip, ok := s.drivers[r.Type].(ipDriver); ok {
			errs = append(errs, ip.a.RemoveStray(r))
			continue
		}
		// Noted first: if this agent dies, the next one goes on.
		err := s.journal.note(group, r, "")
		if err == nil {
			err = s.cleanUp(ctx, entry{Group: group, Resource: r}, node)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ours reports whether r may be running because an agent started it, for this group or
// for another one that has the same.
func (j *Journal) ours(r spec.Resource) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.m {
		if sameThing(e.Resource, r) {
			return true
		}
	}
	return false
}

// sameThing: what the two stand for runs once on a host.
func sameThing(a, b spec.Resource) bool {
	switch {
	case a.Type != b.Type:
		return false
	case a.Type == "exec":
		return reflect.DeepEqual([][]string{a.Start, a.Stop, a.Monitor}, [][]string{b.Start, b.Stop, b.Monitor})
	case a.Type == "ocf":
		return a.Agent == b.Agent && reflect.DeepEqual(a.Params, b.Params)
	}
	return a.Name == b.Name
}
