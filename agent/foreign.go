package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/spec"
	"hanode/resource"
)

// foreign is what this node knows of strays: what is here of a group although the
// cluster did not bring it. It is told with the node's fitness: a group does not start
// where something of it is foreign, until an operator has it adopted (`apply --adopt`).
type foreign struct {
	mu       sync.Mutex
	of       map[string]strays // by the form of a group
	stopping map[string]int    // groups whose strays are being stopped, by how many callers
}

// strays are those of one form of a group.
type strays struct {
	found []resource.Stray
	all   time.Time // when all its resources were asked last
	any   time.Time // when some were
}

const (
	// foreignEvery is how often programs are run to find out: a monitor of each script of
	// each group. What can be told without is asked with each look at this host.
	foreignEvery = time.Minute
	// foreignSoon is how often, while something is known to be foreign.
	foreignSoon = 2 * time.Second
)

func (f *foreign) init() {
	f.of, f.stopping = map[string]strays{}, map[string]int{}
}

// strays looks for what is foreign of g here. fresh: all of it is asked, however lately
// that was done. What could not be told by the end of ctx is as it was.
func (a *Agent) strays(ctx context.Context, g spec.Group, fresh bool) []resource.Stray {
	f, form, now := &a.foreign, formOf(g), time.Now()
	f.mu.Lock()
	was, known := f.of[form]
	f.mu.Unlock()
	age := now.Sub(was.all)
	all := fresh || !known || age >= foreignEvery || len(was.found) > 0 && age >= foreignSoon
	rs := g.Resources
	if !all {
		rs = slices.DeleteFunc(slices.Clone(rs), func(r spec.Resource) bool { return !resource.Quick(r) })
	}
	found := a.services.Foreign(ctx, a.cfg.Name, g.Name, rs)
	if ctx.Err() != nil {
		return was.found
	}
	next := strays{found: found, all: now, any: now}
	if !all {
		next.all = was.all
		for _, s := range was.found {
			if !resource.Quick(s.Resource) {
				next.found = append(next.found, s)
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.of[form] = next
	for k, s := range f.of {
		if now.Sub(s.any) > foreignEvery {
			delete(f.of, k) // nobody has that form any more
		}
	}
	return next.found
}

// knownStrays is what strays said last; it looks only if it never did, and not for longer
// than judgeLimit: clients wait, and a monitor that hangs tells nothing.
func (a *Agent) knownStrays(ctx context.Context, g spec.Group) []resource.Stray {
	form := a.fit.digest(g)
	a.foreign.mu.Lock()
	was, known := a.foreign.of[form]
	a.foreign.mu.Unlock()
	if known {
		return was.found
	}
	ctx, cancel := context.WithTimeout(ctx, judgeLimit)
	defer cancel()
	return a.strays(ctx, g, true)
}

// admit refuses to start resources of which something is foreign here, unless that may
// be adopted. An address that is adopted is taken off, so that there is only ours.
func (w *worker) admit(ctx context.Context, res []spec.Resource, env resource.Env) error {
	a := w.a
	for a.foreign.isStopping(w.name) && ctx.Err() == nil {
		sleepCtx(ctx, 10*time.Millisecond)
	}
	var g spec.Group
	a.machine.View(func(s *fsm.State) {
		if x := s.Groups[w.name]; x != nil {
			g = x.Spec
		}
	})
	found := slices.DeleteFunc(slices.Clone(a.knownStrays(ctx, g)), func(s resource.Stray) bool {
		return !slices.ContainsFunc(res, func(r spec.Resource) bool { return r.Type == s.Resource.Type && r.Name == s.Resource.Name })
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case len(found) == 0:
		return nil
	case !env.Adopt:
		// What was known may be old, and a refusal costs a move.
		if found = a.services.Foreign(ctx, a.cfg.Name, w.name, resourcesOf(found)); len(found) == 0 {
			return ctx.Err()
		}
		signal(a.fit.wake)
		return fmt.Errorf("%s; stop it there, or take it over with `hanode apply --adopt`", foreignText(found))
	}
	for _, s := range found {
		if s.Resource.Type == "ip" {
			if err := (addresses{a}).RemoveStray(s.Resource); err != nil {
				return err
			}
		}
	}
	a.log.Info("taking over what runs already", "group", w.name, "what", stringsOf(found))
	ev := fsm.Event{
		Time: a.host.Clock.Wall(), Node: a.cfg.Name, Group: w.name, Epoch: env.Epoch, Kind: "adopted",
		Text: fmt.Sprintf("%s takes over what was on %s already: %s", w.name, a.cfg.Name, strings.Join(stringsOf(found), ", ")),
	}
	a.goLoop(func(ctx context.Context) { w.tell(ctx, env.Epoch, ev) })
	return nil
}

// foreignText is a sentence about strays of one group.
func foreignText[T fmt.Stringer](found []T) string {
	return "the cluster did not start what is there: " + strings.Join(stringsOf(found), ", ")
}

func stringsOf[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = s.String()
	}
	return out
}

func resourcesOf(found []resource.Stray) (out []spec.Resource) {
	for _, s := range found {
		out = append(out, s.Resource)
	}
	return out
}

// mayAdopt reports whether an operator let this registration take over what is foreign
// of the group, and it has not done so yet. revision names that permission.
func (w *worker) mayAdopt() (revision uint64, ok bool) {
	w.a.hold.Lock()
	self := id.NodeRef{}
	if h := w.a.hold.holder; h != nil {
		self = h.Ref()
	}
	w.a.hold.Unlock()
	w.a.machine.View(func(s *fsm.State) {
		if g := s.Groups[w.name]; g != nil && g.Adopt.Node == self {
			revision = g.Adopt.Revision
		}
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	return revision, revision > w.adopted && !self.Zero()
}

func (f *foreign) isStopping(group string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stopping[group] > 0
}

// StopForeign stops what is foreign of the groups here, because they are to run
// elsewhere. An operator asked for it.
func (s service) StopForeign(ctx context.Context, groups []spec.Group) error {
	var wg sync.WaitGroup
	errs := make([]error, len(groups))
	for i, g := range groups {
		wg.Go(func() { errs[i] = s.a.stopForeign(ctx, g) })
	}
	wg.Wait()
	signal(s.a.fit.wake)
	return errors.Join(errs...)
}

func (a *Agent) stopForeign(ctx context.Context, g spec.Group) error {
	f := &a.foreign
	f.mu.Lock()
	f.stopping[g.Name]++ // from here on nothing of it begins to start
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.stopping[g.Name]--; f.stopping[g.Name] == 0 {
			delete(f.stopping, g.Name)
		}
	}()
	if w := a.groups.get(g.Name); w != nil && (w.here() || !w.warm.idle()) {
		return fmt.Errorf("%s runs on %s meanwhile, so nothing of it was stopped there", g.Name, a.cfg.Name)
	}
	found := a.strays(ctx, g, true)
	if len(found) == 0 {
		return ctx.Err()
	}
	a.log.Info("stopping what the cluster did not start, by order of an operator", "group", g.Name, "what", stringsOf(found))
	if err := a.services.StopForeign(ctx, a.cfg.Name, g.Name, found); err != nil {
		return fmt.Errorf("%s of %s does not stop on %s: %w", strings.Join(stringsOf(found), ", "), g.Name, a.cfg.Name, err)
	}
	if left := a.strays(ctx, g, true); len(left) > 0 {
		return fmt.Errorf("%s of %s runs on %s again after its stop", strings.Join(stringsOf(left), ", "), g.Name, a.cfg.Name)
	}
	return ctx.Err()
}
