package resource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"hanode/internal/spec"
)

// systemdDriver runs units through systemd's manager. Its word counts: the result
// of a job, the state of the unit, the list of its processes. Changes of state
// arrive as signals, so that a death is known at once; a look every so often is
// only for signals that were lost.
//
// Restart= of the unit is respected: while systemd itself is about to start it
// again the unit has not failed. Once it has (Result= says why) it is ours.
type systemdDriver struct {
	Plain
	bus      *bus
	draining *atomic.Bool // the agent itself is being stopped
}

// unitTimeout is a little more than systemd's own for a start or stop (90 s), so
// that it is systemd that gives up and says why.
const unitTimeout = 100 * time.Second

func (systemdDriver) Timeouts(spec.Resource) Timeouts {
	return Timeouts{Start: unitTimeout, Stop: unitTimeout, Monitor: 20 * time.Second}
}

// unitName is the unit of r: "apache2" means apache2.service.
func unitName(r spec.Resource) string {
	if i := strings.LastIndexByte(r.Name, '.'); i > 0 && slices.Contains(unitTypes, r.Name[i+1:]) {
		return r.Name
	}
	return r.Name + ".service"
}

var unitTypes = []string{"service", "socket", "mount", "automount", "swap", "target", "path", "timer", "slice"}

// unit is what matters of a unit's properties.
type unit struct {
	id                string // its name; differs from an alias
	load, active, sub string
	file              string // UnitFileState
	wanted            bool   // something starts it by itself
	job               bool   // a job for it is queued or runs
	err               string // LoadError
}

func (d systemdDriver) look(ctx context.Context, name string) (unit, error) {
	c, err := d.bus.get(ctx)
	if err != nil {
		return unit{}, fmt.Errorf("%w: systemd does not answer: %w", ErrUnknown, err)
	}
	p, err := c.GetUnitPropertiesContext(ctx, name)
	if err != nil {
		return unit{}, fmt.Errorf("%w: ask systemd about %s: %w", ErrUnknown, name, err)
	}
	u := unitOf(p)
	d.bus.alias(name, u.id)
	return u, nil
}

// unitOf reads the properties; what is missing or of another type reads as empty.
func unitOf(p map[string]any) unit {
	text := func(k string) string { s, _ := p[k].(string); return s }
	u := unit{id: text("Id"), load: text("LoadState"), active: text("ActiveState"), sub: text("SubState"), file: text("UnitFileState")}
	if w, ok := p["WantedBy"].([]string); ok {
		u.wanted = len(w) > 0
	}
	if j, ok := p["Job"].([]any); ok && len(j) > 0 {
		id, _ := j[0].(uint32)
		u.job = id != 0
	}
	if e, ok := p["LoadError"].([]any); ok && len(e) > 1 {
		u.err, _ = e[1].(string)
	}
	return u
}

// missing says why the unit cannot be started, or "".
func (u unit) missing(name string) string {
	switch u.load {
	case "loaded":
		return ""
	case "not-found":
		return fmt.Sprintf("there is no unit %s; install it, then `systemctl daemon-reload`", name)
	case "masked":
		return fmt.Sprintf("%s is masked; `systemctl unmask %s`", name, name)
	}
	return strings.TrimSpace(fmt.Sprintf("%s cannot be loaded (%s) %s", name, u.load, u.err))
}

// dead: nothing of it is meant to run, nor about to.
func (u unit) dead() bool { return (u.active == "inactive" || u.active == "failed") && !u.job }

// state is what Monitor says of it; result is systemd's word for how it failed.
func (u unit) state(result string) error {
	switch {
	case u.active == "active", u.active == "reloading", u.active == "refreshing":
		return nil
	case u.active == "activating", u.active == "deactivating", u.job:
		return fmt.Errorf("%w: it is %s (%s)", ErrRecovering, u.active, u.sub)
	case u.active == "inactive":
		return ErrStopped
	case u.active == "failed":
		return fmt.Errorf("the unit failed (%s)", result)
	}
	return fmt.Errorf("the unit is %s (%s)", u.active, u.sub)
}

func (d systemdDriver) Monitor(ctx context.Context, r spec.Resource, env Env) error {
	name := unitName(r)
	u, err := d.look(ctx, name)
	if err != nil {
		return fmt.Errorf("systemd %q: %w", r.Name, err)
	}
	result := ""
	if u.active == "failed" {
		result = d.result(ctx, name)
	}
	_, _ = fmt.Fprintf(env.sink(), "%s is %s (%s)\n", u.id, u.active, u.sub)
	switch err := u.state(result); {
	case err == nil, errors.Is(err, ErrStopped):
		return err
	default:
		return fmt.Errorf("systemd %q: %w", r.Name, err)
	}
}

// result is how a unit failed: "exit-code, exited 1", "signal", "start-limit-hit".
func (d systemdDriver) result(ctx context.Context, name string) string {
	c, err := d.bus.get(ctx)
	if err != nil {
		return "unknown"
	}
	p, err := c.GetUnitTypePropertiesContext(ctx, name, unitType(name))
	if err != nil {
		return "unknown"
	}
	result, _ := p["Result"].(string)
	if code, ok := p["ExecMainStatus"].(int32); ok && code != 0 {
		return fmt.Sprintf("%s, status %d", result, code)
	}
	return result
}

// unitType is the interface of a unit's own properties.
func unitType(name string) string {
	t := name[strings.LastIndexByte(name, '.')+1:]
	return strings.ToUpper(t[:1]) + t[1:]
}

func (d systemdDriver) Start(ctx context.Context, r spec.Resource, env Env) error {
	name := unitName(r)
	say := func(err error) error { return fmt.Errorf("systemd %q: start: %w", r.Name, err) }
	u, err := d.look(ctx, name)
	if err != nil {
		return say(err)
	}
	if why := u.missing(name); why != "" {
		return &Failure{NotHere, say(errors.New(why))}
	}
	c, err := d.bus.get(ctx)
	if err != nil {
		return say(err)
	}
	// What failed too often in another life may be tried again: who asks is the
	// cluster. Nothing to reset is an error that means nothing.
	_ = c.ResetFailedUnitContext(ctx, u.id)
	result, err := d.job(ctx, func(done chan<- string) error {
		_, err := c.StartUnitContext(ctx, u.id, "replace", done)
		return err
	})
	if err != nil {
		return say(err)
	}
	_, _ = fmt.Fprintf(env.sink(), "systemd says that the start job of %s is %s\n", u.id, result)
	if u, err = d.settled(ctx, name); err != nil {
		return say(err)
	}
	state := u.state("")
	if u.active == "failed" {
		state = u.state(d.result(ctx, name))
	}
	switch {
	case result == "dependency":
		return say(errors.New("a unit that it depends on failed"))
	case state == nil:
		return nil
	case u.active == "inactive":
		// systemd has forgotten which of the two.
		return say(errors.New("the job ended and nothing runs: a Condition...= of the unit is not met here, or it is a oneshot without RemainAfterExit=yes"))
	}
	return say(fmt.Errorf("job %s: %w", result, state))
}

// job runs fn, which enqueues a job, and waits for its result; "lost" if the
// connection went meanwhile: the unit's state then has to tell.
func (d systemdDriver) job(ctx context.Context, fn func(done chan<- string) error) (string, error) {
	done := make(chan string, 1)
	lost := d.bus.lost()
	if err := fn(done); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", err
	}
	select {
	case res := <-done:
		return res, nil
	case <-lost:
		return "lost", nil
	case <-ctx.Done():
		return "", fmt.Errorf("systemd has not ended the job: %w", ctx.Err())
	}
}

// settled waits until the unit has no job and is not on its way somewhere.
func (d systemdDriver) settled(ctx context.Context, name string) (unit, error) {
	for {
		u, err := d.look(ctx, name)
		if err == nil && !u.job && u.active != "activating" && u.active != "deactivating" {
			return u, nil
		}
		if ctx.Err() != nil {
			if err == nil {
				err = fmt.Errorf("it is still %s (%s)", u.active, u.sub)
			}
			return u, err
		}
		sleep(ctx, 20*time.Millisecond)
	}
}

func (d systemdDriver) Stop(ctx context.Context, r spec.Resource, env Env) error {
	name := unitName(r)
	say := func(err error) error { return fmt.Errorf("systemd %q: stop: %w", r.Name, err) }
	u, err := d.look(ctx, name)
	if err != nil {
		return say(err)
	}
	if !u.dead() {
		c, err := d.bus.get(ctx)
		if err != nil {
			return say(err)
		}
		result, err := d.job(ctx, func(done chan<- string) error {
			_, err := c.StopUnitContext(ctx, u.id, "replace", done)
			if err == nil && d.draining.Load() {
				// Our own stop comes before this unit's (Arrange), and waits for it: this
				// one must not wait for ours. The two jobs become one.
				_, err = c.StopUnitContext(ctx, u.id, "ignore-dependencies", nil)
			}
			return err
		})
		if err != nil {
			return say(err)
		}
		_, _ = fmt.Fprintf(env.sink(), "systemd says that the stop job of %s is %s\n", u.id, result)
		if u, err = d.settled(ctx, name); err != nil {
			return say(err)
		}
	}
	return d.gone(ctx, r, u)
}

// gone verifies that the unit is dead and has no process left.
func (d systemdDriver) gone(ctx context.Context, r spec.Resource, u unit) error {
	if !u.dead() {
		return fmt.Errorf("systemd %q: it still runs after its stop: %s (%s)", r.Name, u.active, u.sub)
	}
	if u.load == "not-found" {
		return nil
	}
	left, err := d.bus.processes(ctx, u.id)
	if err != nil {
		return fmt.Errorf("systemd %q: list its processes: %w", r.Name, err)
	}
	if len(left) > 0 {
		return fmt.Errorf("systemd %q: processes are left of it: %s", r.Name, strings.Join(left, ", "))
	}
	return nil
}

// Kill sends SIGKILL to all of the unit until it is gone. A stop job goes first,
// or Restart= would bring it back.
func (d systemdDriver) Kill(ctx context.Context, r spec.Resource, env Env) error {
	name := unitName(r)
	for {
		u, err := d.look(ctx, name)
		if err == nil {
			if err = d.gone(ctx, r, u); err == nil {
				return nil
			}
		}
		if c, busErr := d.bus.get(ctx); busErr == nil && u.id != "" {
			if !u.dead() {
				_, _ = c.StopUnitContext(ctx, u.id, "replace", nil)
			}
			if kill := c.KillUnitWithTarget(ctx, u.id, dbus.All, 9); kill == nil {
				_, _ = fmt.Fprintf(env.sink(), "sent SIGKILL to all processes of %s\n", u.id)
			}
		}
		if ctx.Err() != nil {
			return err
		}
		sleep(ctx, 50*time.Millisecond)
	}
}

func (d systemdDriver) Check(ctx context.Context, r spec.Resource) []Finding {
	name := unitName(r)
	if strings.Contains(name, "@.") {
		return []Finding{{Meaning: Nowhere, Text: fmt.Sprintf("%s is a template: name an instance, such as %s", name, strings.Replace(name, "@.", "@1.", 1))}}
	}
	u, err := d.look(ctx, name)
	if err != nil {
		if _, booted := os.Stat("/run/systemd/system"); booted == nil {
			return unsure("%v", err) // it runs this host, and is busy or being restarted
		}
		return lacks("%v", err)
	}
	if why := u.missing(name); why != "" {
		return lacks("%s", why)
	}
	if c, err := d.bus.get(ctx); err == nil && strings.HasSuffix(name, ".service") {
		if p, err := c.GetUnitTypePropertiesContext(ctx, u.id, "Service"); err == nil {
			typ, _ := p["Type"].(string)
			stays, ok := p["RemainAfterExit"].(bool)
			if typ == "oneshot" && ok && !stays {
				return []Finding{{Meaning: Nowhere, Text: u.id + " is Type=oneshot without RemainAfterExit=yes: nothing of it stays that could be watched"}}
			}
		}
	}
	if u.file == "enabled" || u.file == "enabled-runtime" || u.file == "generated" && u.wanted {
		return []Finding{{Code: "starts-at-boot", Text: fmt.Sprintf("%s is enabled, so this host starts it at boot, outside of the cluster; `systemctl disable %s`", u.id, u.id)}}
	}
	return nil
}

// Watch looks whenever systemd says that the unit changed, and once it listens.
func (d systemdDriver) Watch(ctx context.Context, r spec.Resource, look func()) {
	defer d.bus.listen(unitName(r), look)()
	if _, err := d.bus.get(ctx); err == nil {
		look() // it may have died between its start and now
	}
	<-ctx.Done()
}
