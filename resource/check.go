package resource

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"hanode/internal/spec"
)

// Lack is why this host cannot run a group, or what an operator should know of it.
type Lack struct {
	Group string
	Finding
}

// CheckOptions say how to look.
type CheckOptions struct {
	Limit time.Duration // bounds all of it
	// Fresh: ask services themselves, although that was done less than validAgain ago.
	Fresh bool
}

// validAgain is how long a service's own word is believed: to ask it takes a program.
const validAgain = 5 * time.Minute

// Check looks whether this host has what the groups need, groups side by side. It
// starts nothing and changes nothing. What could not be told in time is a finding
// that says Unsure.
func (s *Services) Check(ctx context.Context, groups []spec.Group, opts CheckOptions) []Lack {
	ctx, cancel := context.WithTimeout(ctx, opts.Limit)
	defer cancel()
	all := make([][]Lack, len(groups))
	var wg sync.WaitGroup
	room := make(chan struct{}, maxMonitors)
	for i, g := range groups {
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			var mounts []string
			for k, r := range g.Resources {
				found := s.checkOne(ctx, g.Name, r, mounts, opts.Fresh)
				if !slices.ContainsFunc(g.Resources[:k], makesDevices) {
					found = append(found, missingDevice(r)...)
				}
				for _, f := range found {
					f.Text = fmt.Sprintf("%s %q: %s", r.Type, r.Name, f.Text)
					all[i] = append(all[i], Lack{g.Name, f})
				}
				mounts = append(mounts, mountPoints(r)...)
			}
			for _, c := range g.Checks {
				r := spec.Resource{Type: "check", Name: c.Type + " " + c.Target, Start: c.Command}
				if c.Type != "exec" || len(c.Command) == 0 || slices.ContainsFunc(mounts, func(m string) bool { return runsBelow(r, m) }) {
					continue
				}
				if why := command(c.Command[0]); why != "" {
					all[i] = append(all[i], Lack{g.Name, Finding{Meaning: NotHere, Text: fmt.Sprintf("check %s: %s", c, why)}})
				}
			}
		})
	}
	wg.Wait()
	return slices.Concat(all...)
}

// validator is a driver that can ask the service itself, which takes a program.
type validator interface {
	Validate(ctx context.Context, r spec.Resource, env Env) []Finding
}

// checkOne judges r, which starts after something is mounted on mounts: what lies
// there cannot be seen before, and is not looked for.
func (s *Services) checkOne(ctx context.Context, group string, r spec.Resource, mounts []string, fresh bool) []Finding {
	d, err := s.drivers.of(r)
	if err != nil {
		return lacks("%v; upgrade this node", err)
	}
	if r.Type == "exec" && slices.ContainsFunc(mounts, func(m string) bool { return runsBelow(r, m) }) {
		return nil
	}
	out := d.Check(ctx, r)
	if v, ok := d.(validator); ok && len(out) == 0 && len(mounts) == 0 {
		out = s.validate(ctx, v, group, r, fresh)
	}
	return out
}

// validated is a service's own word.
type validated struct {
	at   time.Time
	said []Finding
}

func (s *Services) validate(ctx context.Context, v validator, group string, r spec.Resource, fresh bool) []Finding {
	k := fmt.Sprintf("%s %+v", group, r)
	s.mu.Lock()
	was, ok := s.validated[k]
	maps.DeleteFunc(s.validated, func(_ string, v validated) bool { return time.Since(v.at) > 2*validAgain })
	s.mu.Unlock()
	if ok && !fresh && time.Since(was.at) < validAgain {
		return was.said
	}
	said := v.Validate(ctx, r, Env{Group: group, Reason: "preflight"})
	if !slices.ContainsFunc(said, func(f Finding) bool { return f.Unsure }) {
		s.mu.Lock()
		s.validated[k] = validated{time.Now(), said}
		s.mu.Unlock()
	}
	return said
}

// mountPoints are where r mounts something, if it does.
func mountPoints(r spec.Resource) []string {
	_, dir := fileSystem(r)
	switch {
	case r.Type == "ocf" && strings.HasSuffix(r.Agent, ":ZFS"):
		dir = "/"
	case r.Type == "systemd" && strings.HasSuffix(r.Name, ".mount"):
		dir = "/" + strings.ReplaceAll(strings.TrimSuffix(r.Name, ".mount"), "-", "/")
	}
	if dir == "" {
		return nil
	}
	return []string{filepath.Clean(dir)}
}

// fileSystem are the device and the mount point of a resource that mounts something.
func fileSystem(r spec.Resource) (device, dir string) {
	switch {
	case r.Type == "heartbeat":
		if script, args := heartbeatWords(r.Name); script == "Filesystem" && len(args) > 1 {
			return args[0], args[1]
		}
	case r.Type == "ocf" && strings.HasSuffix(r.Agent, ":Filesystem"):
		return r.Params["device"], r.Params["directory"]
	}
	return "", ""
}

// makesDevices: devices of what comes after r may not be there before r runs, as an
// LVM volume is not.
func makesDevices(r spec.Resource) bool {
	device, _ := fileSystem(r)
	return r.Type != "ip" && device == ""
}

// missingDevice: the device of r is not there. Its agent would wait for it, and fail.
func missingDevice(r spec.Resource) []Finding {
	device, _ := fileSystem(r)
	if !strings.HasPrefix(device, "/dev/") {
		return nil
	}
	if _, err := os.Stat(device); errors.Is(err, os.ErrNotExist) {
		return lacks("there is no device %s", device)
	}
	return nil
}

// runsBelow: one of the programs of an exec resource is below dir.
func runsBelow(r spec.Resource, dir string) bool {
	return slices.ContainsFunc([][]string{r.Start, r.Stop, r.Monitor}, func(argv []string) bool {
		return len(argv) > 0 && (dir == "/" || strings.HasPrefix(filepath.Clean(argv[0])+"/", dir+"/"))
	})
}
