package resource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hanode/internal/spec"
)

// TestUnitState: what the properties of a unit mean.
func TestUnitState(t *testing.T) {
	for _, c := range []struct {
		active, sub string
		job         bool
		want        error
		dead        bool
	}{
		{"active", "running", false, nil, false},
		{"active", "exited", false, nil, false},
		{"reloading", "reload", false, nil, false},
		{"activating", "auto-restart", false, ErrRecovering, false},
		{"activating", "start", true, ErrRecovering, false},
		{"deactivating", "stop-sigterm", false, ErrRecovering, false},
		{"inactive", "dead", true, ErrRecovering, false}, // in the middle of a restart by hand
		{"inactive", "dead", false, ErrStopped, true},
		{"failed", "failed", false, errors.New("the unit failed (signal)"), true},
		{"maintenance", "maintenance", false, errors.New("the unit is maintenance (maintenance)"), false},
		{"", "", false, errors.New("the unit is  ()"), false},
	} {
		u := unitOf(map[string]any{"ActiveState": c.active, "SubState": c.sub, "Job": []any{map[bool]uint32{true: 7}[c.job], "/"}})
		got := u.state("signal")
		if !errors.Is(got, c.want) && (got == nil || c.want == nil || got.Error() != c.want.Error()) {
			t.Errorf("%+v: %v", c, got)
		}
		if u.dead() != c.dead {
			t.Errorf("%+v: dead %v", c, u.dead())
		}
	}
}

func TestUnitName(t *testing.T) {
	for name, want := range map[string]string{
		"apache2": "apache2.service", "apache2.service": "apache2.service", "srv-data.mount": "srv-data.mount", "openvpn@lan": "openvpn@lan.service",
		"php8.2-fpm": "php8.2-fpm.service", "x.slice.service": "x.slice.service", ".mount": ".mount.service",
	} {
		if got := unitName(spec.Resource{Name: name}); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// The rest needs a systemd to talk to, and starts, kills and masks units of it. The
// tests of test/hosts (make e2e-hosts) boot a host for it and run it there, with
// HANODE_SYSTEMD=1; elsewhere it is not part of the run, and says so.
func booted(t *testing.T) *host {
	t.Helper()
	if os.Getenv("HANODE_SYSTEMD") == "" {
		t.Skip("starts and kills units of this machine: make e2e-hosts runs it on one made for it")
	}
	return newHost(t)
}

// unit writes a unit file and removes it at the end of the test.
func (h *host) unit(name, text string) spec.Resource {
	h.t.Helper()
	path := filepath.Join("/run/systemd/system", name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
	h.systemctl("daemon-reload")
	h.t.Cleanup(func() {
		_ = exec.Command("systemctl", "kill", "-s", "KILL", name).Run()
		_ = exec.Command("systemctl", "stop", name).Run()
		_ = os.Remove(path)
		h.systemctl("daemon-reload")
		_ = exec.Command("systemctl", "reset-failed", name).Run()
	})
	return spec.Resource{Type: "systemd", Name: strings.TrimSuffix(name, ".service"), Every: 10 * time.Minute}
}

func (h *host) systemctl(args ...string) string {
	h.t.Helper()
	out, err := exec.Command("systemctl", args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("systemctl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (h *host) mainPid(unit string) int {
	h.t.Helper()
	return must[int](h.t)(strconv.Atoi(h.systemctl("show", "-P", "MainPID", unit)))
}

func service(lines ...string) string {
	return "[Service]\n" + strings.Join(lines, "\n") + "\n"
}

func TestSystemdLife(t *testing.T) {
	h := booted(t)
	r := h.unit("hat-life.service", service("ExecStart=/bin/sleep 1000"))
	d, ctx := h.drivers["systemd"], t.Context()
	if err := d.Monitor(ctx, r, env); !errors.Is(err, ErrStopped) {
		t.Error("before its start:", err)
	}
	for range 2 {
		if err := d.Start(ctx, r, env); err != nil {
			t.Fatal(err)
		}
		if err := d.Monitor(ctx, r, env); err != nil {
			t.Error("running:", err)
		}
	}
	for range 2 {
		if err := d.Stop(ctx, r, env); err != nil {
			t.Fatal(err)
		}
		if err := d.Monitor(ctx, r, env); !errors.Is(err, ErrStopped) {
			t.Error("stopped:", err)
		}
	}
	if s := h.systemctl("show", "-P", "ActiveState", "hat-life"); s != "inactive" {
		t.Error(s)
	}
}

func TestSystemdStartFailures(t *testing.T) {
	h := booted(t)
	d, ctx := h.drivers["systemd"], t.Context()
	h.unit("hat-dep.service", service("Type=oneshot", "ExecStart=/bin/false"))
	for _, c := range []struct {
		unit    string
		meaning Meaning
		want    string
	}{
		{service("Type=oneshot", "RemainAfterExit=yes", "ExecStart=/bin/sh -c 'exit 7'"), Again, "exit-code, status 7"},
		{service("Type=forking", "TimeoutStartSec=300ms", "ExecStart=/bin/sleep 100"), Again, "timeout"},
		{"[Unit]\nConditionPathExists=/does/not/exist\n" + service("ExecStart=/bin/sleep 100"), Again, "Condition"},
		{"[Unit]\nRequires=hat-dep.service\nAfter=hat-dep.service\n" + service("ExecStart=/bin/sleep 100"), Again, "depends on"},
		{service("Type=simple"), NotHere, "bad-setting"},
		{service("Type=notify", "ExecStart=/bin/true"), Again, "protocol"},
		{service("Type=oneshot", "ExecStart=/bin/true"), Again, "oneshot without RemainAfterExit"},
	} {
		r := h.unit("hat-bad.service", c.unit)
		err := d.Start(ctx, r, env)
		if err == nil || MeaningOf(err) != c.meaning || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.want, err)
		}
		if err := d.Stop(ctx, r, env); err != nil {
			t.Errorf("%s: stop: %v", c.want, err)
		}
	}
}

func TestSystemdCheck(t *testing.T) {
	h := booted(t)
	d, ctx := h.drivers["systemd"], t.Context()
	h.systemctl("mask", "--runtime", "hat-masked")
	t.Cleanup(func() { h.systemctl("unmask", "--runtime", "hat-masked") })
	h.unit("hat-tmpl@.service", service("ExecStart=/bin/sleep 1000"))
	h.unit("hat-once.service", service("Type=oneshot", "ExecStart=/bin/true"))
	h.unit("hat-boot.service", service("ExecStart=/bin/sleep 1")+"[Install]\nWantedBy=multi-user.target\nAlias=hat-alias.service\n")
	h.systemctl("enable", "--runtime", "hat-boot")
	t.Cleanup(func() { h.systemctl("disable", "--runtime", "hat-boot") })
	for _, c := range []struct {
		name    string
		meaning Meaning
		want    string
	}{
		{"hat-none", NotHere, "there is no unit hat-none.service"},
		{"hat-masked", NotHere, "systemctl unmask"},
		{"hat-tmpl@", Nowhere, "hat-tmpl@1.service"},
		{"hat-once", Nowhere, "RemainAfterExit"},
		{"hat-boot", Again, "systemctl disable hat-boot.service"},
		{"hat-alias", Again, "systemctl disable hat-boot.service"},
		{"hat-tmpl@x", Again, ""},
	} {
		got := d.Check(ctx, spec.Resource{Type: "systemd", Name: c.name})
		switch {
		case c.want == "" && len(got) == 0:
		case c.want != "" && len(got) == 1 && got[0].Meaning == c.meaning && strings.Contains(got[0].Text, c.want):
		default:
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	// An alias and an instance of a template live like others; signals come under
	// the unit's own name.
	for _, name := range []string{"hat-alias", "hat-tmpl@x"} {
		r := spec.Resource{Type: "systemd", Name: name, Every: 10 * time.Minute}
		if name == "hat-alias" {
			h.unit("hat-boot.service", service("ExecStart=/bin/sleep 1000")+"[Install]\nAlias=hat-alias.service\n")
		}
		h.dies(r, func() { h.systemctl("kill", "-s", "KILL", name) }, "the unit failed (signal, status 9)")
	}
}

// dies starts r, watches it, does harm and returns the time until Watch knew. The
// monitor's own interval is far away: what is known is known by signal.
func (h *host) dies(r spec.Resource, harm func(), want string) time.Duration {
	h.t.Helper()
	g := h.services.NewGroup()
	if err := g.Start(h.t.Context(), []spec.Resource{r}, env); err != nil {
		h.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- g.Watch(h.t.Context()) }()
	h.watched(g)
	begin := time.Now()
	harm()
	var took time.Duration
	select {
	case err := <-ended:
		took = time.Since(begin)
		if err == nil || !strings.Contains(err.Error(), want) {
			h.t.Errorf("%v, want %q", err, want)
		}
	case <-time.After(time.Minute):
		h.t.Fatal("its death was not seen")
	}
	if err := g.Stop(h.t.Context()); err != nil {
		h.t.Error(err)
	}
	return took
}

// watched waits until the group's first look is done: signals come from then on.
func (h *host) watched(g *Group) {
	h.t.Helper()
	for range 1000 {
		if output(g, 0, "monitor").Name != "" {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.t.Fatal("no monitor ran")
}

// TestSystemdDetection measures how soon a kill -9 of the main process is known,
// where systemd does not restart it.
func TestSystemdDetection(t *testing.T) {
	h := booted(t)
	r := h.unit("hat-dies.service", service("ExecStart=/bin/sleep 1000"))
	var ms []float64
	for range 20 {
		pid := 0
		d := h.dies(r, func() {
			pid = h.mainPid("hat-dies")
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}, "signal, status 9")
		ms = append(ms, float64(d.Microseconds())/1000)
	}
	slices.Sort(ms)
	t.Logf("with one systemctl show in it: %.1f ms; median %.1f", ms, ms[len(ms)/2])
}

// TestSystemdOwnRestart: a unit that systemd restarts has not failed; what it does
// is counted where restarts are limited; when systemd gives up it has failed.
func TestSystemdOwnRestart(t *testing.T) {
	h := booted(t)
	text := "[Unit]\nStartLimitBurst=3\nStartLimitIntervalSec=60\n" + service("ExecStart=/bin/sleep 1000", "Restart=on-failure", "RestartSec=100ms")
	r := h.unit("hat-again.service", text)
	kill := func(g *Group) {
		old := h.mainPid("hat-again")
		_ = syscall.Kill(old, syscall.SIGKILL)
		for range 400 {
			if pid := h.mainPid("hat-again"); pid != 0 && pid != old || h.systemctl("show", "-P", "ActiveState", "hat-again") == "failed" {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatal("systemd did nothing")
	}
	for _, restarts := range []int{0, 1} {
		_ = exec.Command("systemctl", "reset-failed", "hat-again").Run() // not loaded is fine
		r.Restarts = restarts
		g := h.services.NewGroup()
		if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- g.Watch(t.Context()) }()
		h.watched(g)
		kill(g)
		select {
		case err := <-ended:
			t.Fatalf("restarts = %d: a unit in auto-restart counts as failed: %v", restarts, err)
		case <-time.After(500 * time.Millisecond):
		}
		if s := g.Status()[0].State; s != Running {
			t.Error("after its own restart it is", s)
		}
		kill(g)
		if restarts == 0 {
			kill(g) // the start limit
		}
		select {
		case err := <-ended:
			want := map[int]string{0: "the unit failed", 1: "its own supervisor"}[restarts]
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("restarts = %d: %v", restarts, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("restarts = %d: a permanent failure was not seen", restarts)
		}
		if err := g.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestSystemdDeaf: a unit that ignores SIGTERM and whose own time-out is long is
// killed after the cluster's, with its children, and verified.
func TestSystemdDeaf(t *testing.T) {
	h := booted(t)
	r := h.unit("hat-deaf.service", service("ExecStart=/bin/sh -c 'trap \"\" TERM; sleep 1000 & while :; do sleep 1; done'", "TimeoutStopSec=10min", "Restart=always", "RestartSec=50ms"))
	r.StopTimeout = 500 * time.Millisecond
	g := h.services.NewGroup()
	if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // the trap
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if o := output(g, 0, "kill"); o.Err != "" || !strings.Contains(o.Output, "SIGKILL") {
		t.Errorf("%+v", g.Status())
	}
	left, err := h.services.bus.processes(t.Context(), "hat-deaf.service")
	if err != nil || len(left) != 0 {
		t.Error(left, err)
	}
	time.Sleep(300 * time.Millisecond)
	if s := h.systemctl("show", "-P", "ActiveState", "hat-deaf"); s == "active" || s == "activating" {
		t.Error("Restart= brought it back:", s)
	}
}

// TestSystemdBusRestart: dbus-daemon goes and comes back. The service is not taken
// for dead, and its death is still seen afterwards.
func TestSystemdBusRestart(t *testing.T) {
	h := booted(t)
	r := h.unit("hat-bus.service", service("ExecStart=/bin/sleep 1000"))
	g := h.services.NewGroup()
	if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- g.Watch(t.Context()) }()
	h.watched(g)
	for range 3 {
		h.systemctl("restart", "dbus")
		h.systemctl("daemon-reexec")
		select {
		case err := <-ended:
			t.Fatal("a bus that restarts is not a failure:", err)
		case <-time.After(time.Second):
		}
	}
	begin := time.Now()
	_ = syscall.Kill(h.mainPid("hat-bus"), syscall.SIGKILL)
	select {
	case err := <-ended:
		t.Logf("seen %v later, over the new connection: %v", time.Since(begin).Round(time.Millisecond), err)
	case <-time.After(10 * time.Second):
		t.Error("its death was not seen")
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestSystemdNobodyHome: no bus at all is "cannot be told", never "stopped".
func TestSystemdNobodyHome(t *testing.T) {
	h := newHost(t)
	h.services.bus.dial = dialNothing
	d, r := h.drivers["systemd"], spec.Resource{Type: "systemd", Name: "apache2"}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := d.Monitor(ctx, r, env); !errors.Is(err, ErrUnknown) || errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	if err := d.Stop(ctx, r, env); err == nil {
		t.Error("an unreachable unit counts as stopped")
	}
	if err := d.Kill(ctx, r, env); err == nil {
		t.Error("an unreachable unit counts as killed")
	}
	// A systemd that is there may answer yet; one that never ran here will not.
	_, err := os.Stat("/run/systemd/system")
	if f := d.Check(ctx, r); len(f) != 1 || f[0].Unsure != (err == nil) || !strings.Contains(f[0].Text, "systemd does not answer") {
		t.Errorf("%+v", f)
	}
	ended, looks := make(chan struct{}), 0
	watch, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	go func() { defer close(ended); d.Watch(watch, r, func() { looks++ }) }()
	<-ended
	if looks != 0 {
		t.Error("told of changes by nobody")
	}
}

func TestSystemdApache(t *testing.T) {
	h := booted(t)
	if _, err := os.Stat("/lib/systemd/system/apache2.service"); err != nil {
		t.Fatal("apache2 is not installed on this host")
	}
	// Debian's unit says Restart=on-abort, so systemd itself restarts it after a kill
	// -9; the crash is known all the same.
	g := h.services.NewGroup()
	r := spec.Resource{Type: "systemd", Name: "apache2", Every: 10 * time.Minute}
	if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Watch(ctx) }()
	h.watched(g)
	var seen, back []float64
	for range 15 {
		h.systemctl("reset-failed", "apache2") // or the start limit would end it
		pid := h.mainPid("apache2")
		begin := time.Now()
		_ = syscall.Kill(pid, syscall.SIGKILL)
		until := func(what string, ok func(Status) bool) float64 {
			for time.Since(begin) < 30*time.Second {
				if ok(g.Status()[0]) {
					return float64(time.Since(begin).Microseconds()) / 1000
				}
				time.Sleep(200 * time.Microsecond)
			}
			t.Fatal(what)
			return 0
		}
		seen = append(seen, until("the crash was not seen", func(s Status) bool { return s.State != Running }))
		back = append(back, until("it did not come back", func(s Status) bool { return s.State == Running }))
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	t.Logf("kill -9 to known, ms: %s", row(seen))
	t.Logf("kill -9 to running again by systemd, ms: %s", row(back))
}

// row prints figures in the order taken, and their median.
func row(ms []float64) string {
	text := fmt.Sprintf("%.1f", ms)
	slices.Sort(ms)
	return fmt.Sprintf("%s median %.1f", text, ms[len(ms)/2])
}
