package resource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"hanode/internal/spec"
)

// Drivers maps a resource type to its driver.
type Drivers map[string]Driver

func (d Drivers) of(r spec.Resource) (Driver, error) {
	if drv, ok := d[r.Type]; ok {
		return drv, nil
	}
	return nil, fmt.Errorf("%s %q: %w", r.Type, r.Name, ErrUnknownType)
}

// How many scripts may run at once on this host. Stops are not bounded: nobody
// must wait to let go.
const (
	maxStarts   = 16
	maxMonitors = 16
)

// Services runs resources on this host: the drivers and what they share. Safe for
// concurrent use.
type Services struct {
	drivers  Drivers
	journal  *Journal
	scripts  *scripts
	bus      *bus
	draining atomic.Bool
	starts   chan struct{}
	monitors chan struct{}

	mu        sync.Mutex
	validated map[string]validated
}

// Open reads the journal at path and prepares the drivers. It starts and stops
// nothing; call CleanUp first. An unreadable journal is an error: what it listed
// may still run.
func Open(a Addresses, path string) (*Services, error) {
	j, err := openJournal(path)
	if err != nil {
		return nil, err
	}
	s := &Services{
		journal: j, scripts: newScripts(path), bus: newBus(),
		starts: make(chan struct{}, maxStarts), monitors: make(chan struct{}, maxMonitors), validated: map[string]validated{},
	}
	base, agents := scripted{scripts: s.scripts}, newOCF(ocfRoot)
	s.drivers = Drivers{
		"ip":        ipDriver{a: a, s: s.scripts},
		"exec":      execDriver{base},
		"systemd":   systemdDriver{bus: s.bus, draining: &s.draining},
		"lsb":       agentDriver{base, lsb{initDir}},
		"heartbeat": agentDriver{base, heartbeat{heartbeatDir, initDir, agents}},
		"ocf":       agentDriver{base, agents},
	}
	return s, nil
}

// Close gives back what the process holds. Nothing is stopped by it.
func (s *Services) Close() {
	s.bus.close()
	s.scripts.close()
}

// NewGroup returns a group of which nothing runs.
func (s *Services) NewGroup() *Group { return &Group{s: s} }

// limits are the time-outs of r: the cluster file's, else its type's, else 20 s.
func limits(d Driver, r spec.Resource) Timeouts {
	own := d.Timeouts(r)
	return Timeouts{
		Start:   cmp.Or(r.StartTimeout, r.Timeout, own.Start, defaultTimeout),
		Stop:    cmp.Or(r.StopTimeout, r.Timeout, own.Stop, defaultTimeout),
		Monitor: cmp.Or(r.MonitorTimeout, r.Timeout, own.Monitor, defaultTimeout),
	}
}

// defaultTimeout bounds one operation where neither the resource nor its type says.
const defaultTimeout = 20 * time.Second

// killLimit bounds a Kill, which follows a Stop that failed.
const killLimit = 10 * time.Second

// CleanUp stops everything that an earlier agent may have left running, the last
// started of a group first, groups side by side, and verifies it. What does not
// stop is killed; what survives that stays in the journal and is in the error.
func (s *Services) CleanUp(ctx context.Context, node string) (stopped []string, err error) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	bases := map[string]bool{s.scripts.groups.base: true}
	for _, left := range s.journal.byGroup() {
		for _, e := range left {
			bases[filepath.Dir(e.Cgroup)] = true
		}
		wg.Go(func() {
			for _, e := range left {
				stopErr := s.cleanUp(ctx, e, node)
				mu.Lock()
				if stopErr != nil {
					err = errors.Join(err, stopErr)
				} else {
					stopped = append(stopped, key(e.Group, e.Resource))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for base := range bases {
		sweep(base)
	}
	return stopped, err
}

func (s *Services) cleanUp(ctx context.Context, e entry, node string) error {
	d, err := s.drivers.of(e.Resource)
	if err != nil {
		return err
	}
	env := Env{Group: e.Group, Node: node, Reason: "clean-up", Exclusive: true}
	err = bounded(ctx, limits(d, e.Resource).Stop, func(ctx context.Context) error { return d.Stop(ctx, e.Resource, env) })
	if err != nil {
		kill := bounded(ctx, killLimit, func(ctx context.Context) error { return d.Kill(ctx, e.Resource, env) })
		if kill != nil {
			return errors.Join(err, kill)
		}
	}
	if e.Cgroup != "" && e.Cgroup != s.scripts.groups.dir(key(e.Group, e.Resource)) {
		err = bounded(ctx, killLimit, func(ctx context.Context) error {
			_, err := s.scripts.groups.kill(ctx, key(e.Group, e.Resource), e.Cgroup)
			return err
		})
		if err != nil {
			return err
		}
	}
	return s.journal.drop(e.Group, e.Resource)
}

// bounded runs fn with a time limit.
func bounded(ctx context.Context, limit time.Duration, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return fn(ctx)
}
