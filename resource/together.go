package resource

import (
	"context"
	"slices"
	"time"

	"hanode/internal/spec"
)

// Addresses that stand side by side in a group are put on, and taken off, in one go:
// each has nothing to wait for of the others, and clients wait for all of them.

// together is how many resources at the beginning of list start in one go.
func together(list []spec.Resource) int {
	n := slices.IndexFunc(list, func(r spec.Resource) bool { return r.Type != "ip" || len(r.OnAcquire) > 0 })
	if n < 0 {
		return len(list)
	}
	return max(n, 1)
}

// startAt starts the n resources from i on, which go together.
func (g *Group) startAt(ctx context.Context, i, n int) error {
	d, ok := g.s.drivers[g.res[i].Type].(ipDriver)
	if n == 1 || !ok {
		return g.start(ctx, i)
	}
	list, limit := g.res[i:i+n], time.Duration(0)
	for _, r := range list {
		limit = max(limit, limits(d, r).Start)
	}
	g.setAll(i, n, Starting, nil)
	op := Operation{Name: "start", At: time.Now()}
	err := bounded(ctx, limit, func(ctx context.Context) error { return d.a.Up(ctx, list, g.env) })
	g.noteAll(i, n, op, err)
	if err != nil {
		g.setAll(i, n, Failed, err)
		return err
	}
	g.setAll(i, n, Running, nil)
	return nil
}

// stopDownTo stops all from the last to i, right to left, and returns what did not
// stop. Addresses side by side go in one go; what is left of them, one by one.
func (g *Group) stopDownTo(ctx context.Context, i int) (errs []error) {
	for j := len(g.res) - 1; j >= i; j-- {
		from := j
		for from > i && g.res[j].Type == "ip" && g.res[from-1].Type == "ip" {
			from--
		}
		if from < j && g.stopAll(ctx, from, j-from+1) {
			j = from
			continue
		}
		if err := g.stop(ctx, j); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// stopAll stops the n addresses from i on at once; false = not all of them did.
func (g *Group) stopAll(ctx context.Context, i, n int) bool {
	d, ok := g.s.drivers[g.res[i].Type].(ipDriver)
	if !ok {
		return false
	}
	list, limit := g.res[i:i+n], time.Duration(0)
	for _, r := range list {
		limit = max(limit, limits(d, r).Stop)
	}
	g.setAll(i, n, Stopping, nil)
	op := Operation{Name: "stop", At: time.Now()}
	err := bounded(ctx, limit, func(ctx context.Context) error { return d.a.Down(ctx, list, g.env) })
	g.noteAll(i, n, op, err)
	if err == nil {
		g.setAll(i, n, Stopped, nil)
	}
	return err == nil
}

// setAll is set for the n resources from i on.
func (g *Group) setAll(i, n int, s State, err error) {
	for k := range n {
		g.set(i+k, s, err)
	}
}

// noteAll remembers how an operation on the n resources from i on went.
func (g *Group) noteAll(i, n int, op Operation, err error) {
	for k := range n {
		g.note(i+k, op, err, "")
	}
}
