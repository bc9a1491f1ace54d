package resource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hanode/internal/spec"
)

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// host is a place where services leave traces.
type host struct {
	t        *testing.T
	dir      string
	services *Services
	drivers  Drivers
}

func newHost(t *testing.T) *host {
	h := &host{t: t, dir: t.TempDir()}
	h.boot()
	return h
}

// boot is an agent that starts with what the one before left.
func (h *host) boot() {
	h.services = must[*Services](h.t)(Open(&kernel{up: map[string]bool{}}, h.path("running.json")))
	h.t.Cleanup(h.services.Close)
	h.drivers = h.services.drivers
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

// service logs what is done to it; it runs while a file of its name exists.
func (h *host) service(name string) spec.Resource {
	log, up := h.path("log"), h.path(name+".up")
	return spec.Resource{
		Type: "exec", Name: name, Timeout: time.Minute,
		Start:   sh(fmt.Sprintf("echo start %s >> %s; touch %s", name, log, up)),
		Stop:    sh(fmt.Sprintf("echo stop %s >> %s; rm -f %s", name, log, up)),
		Monitor: sh(fmt.Sprintf("test -e %s || exit 7", up)),
	}
}

func (h *host) log() []string {
	b, err := os.ReadFile(h.path("log"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

func (h *host) wantLog(want ...string) {
	h.t.Helper()
	if got := h.log(); !slices.Equal(got, want) {
		h.t.Errorf("got  %q\nwant %q", got, want)
	}
}

func states(g *Group) (out []State) {
	for _, s := range g.Status() {
		out = append(out, s.State)
	}
	return out
}

var env = Env{Group: "web", Node: "primary", Epoch: 7, Reason: "failover", VIP: "10.0.0.100"}

func TestExecDriver(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	d, r := h.drivers["exec"], h.service("apache")
	if err := d.Monitor(ctx, r, env); !errors.Is(err, ErrStopped) {
		t.Error("before its start:", err)
	}
	for range 2 { // a second start is success
		if err := d.Start(ctx, r, env); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Monitor(ctx, r, env); err != nil {
		t.Error("running:", err)
	}
	for range 2 {
		if err := d.Stop(ctx, r, env); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Monitor(ctx, r, env); !errors.Is(err, ErrStopped) {
		t.Error("stopped:", err)
	}
	r.Monitor = sh("exit 1")
	if err := d.Monitor(ctx, r, env); err == nil || errors.Is(err, ErrStopped) {
		t.Error("broken:", err)
	}
	r.Monitor = nil
	if err := d.Monitor(ctx, r, env); err != nil {
		t.Error("without a monitor it is taken to run:", err)
	}
}

func TestExecErrors(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	d := h.drivers["exec"]
	for _, c := range []struct {
		name string
		r    spec.Resource
		want []string
	}{
		{"no command", spec.Resource{Type: "exec", Name: "x"}, []string{`exec "x"`, "no start command"}},
		{"no such program", spec.Resource{Type: "exec", Name: "x", Start: []string{"/does/not/exist"}}, []string{"start", "no such file"}},
		{"fails without a word", spec.Resource{Type: "exec", Name: "x", Start: sh("exit 3")}, []string{"start", "exit status 3"}},
		{"last line of its output", spec.Resource{Type: "exec", Name: "x", Start: sh("echo first; echo address in use >&2; exit 1")}, []string{"exit status 1: address in use"}},
		{"much output", spec.Resource{Type: "exec", Name: "x", Start: sh("i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i+1)); done; echo the end; exit 1")}, []string{": the end"}},
		{"no shell", spec.Resource{Type: "exec", Name: "x", Start: []string{"/bin/false", "; touch", h.path("injected")}}, []string{"exit status 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := d.Start(ctx, c.r, env)
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v lacks %q", err, w)
				}
			}
			if strings.Contains(err.Error(), "first") {
				t.Error("more than the last line:", err)
			}
		})
	}
	if _, err := os.Stat(h.path("injected")); err == nil {
		t.Error("a shell was there")
	}
	r := h.service("lies")
	r.Stop = []string{"/bin/true"}
	if err := d.Start(ctx, r, env); err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(ctx, r, env); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Error("a stop that stops nothing:", err)
	}
}

func TestExecEnvironment(t *testing.T) {
	h := newHost(t)
	r := spec.Resource{Type: "exec", Name: "x", Start: sh("env | grep ^HANODE_ | grep -v ^HANODE_SERVICE= | sort > " + h.path("env"))}
	if err := h.drivers["exec"].Start(t.Context(), r, env); err != nil {
		t.Fatal(err)
	}
	want := "HANODE_EPOCH=7\nHANODE_GROUP=web\nHANODE_NODE=primary\nHANODE_OPERATION=start\nHANODE_REASON=failover\nHANODE_VIP=10.0.0.100\n"
	if got := must[[]byte](t)(os.ReadFile(h.path("env"))); string(got) != want {
		t.Errorf("got %s", got)
	}
}

// readPid waits for a process to write its number.
func (h *host) readPid(name string) int {
	h.t.Helper()
	for range 3000 {
		if b, err := os.ReadFile(h.path(name)); err == nil && strings.HasSuffix(string(b), "\n") {
			return must[int](h.t)(strconv.Atoi(strings.TrimSpace(string(b))))
		}
		time.Sleep(10 * time.Millisecond)
	}
	h.t.Fatal("no process wrote ", name)
	return 0
}

// gone waits until a process has ended; a zombie has.
func gone(pid int) bool {
	for range 1000 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(b), ") Z ") {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

func TestTimeoutKillsTheProcessGroup(t *testing.T) {
	h := newHost(t)
	script := "sleep 600 & echo $! > " + h.path("child") + "; wait"
	r := spec.Resource{Type: "exec", Name: "hangs", Timeout: 3 * time.Second, Start: sh(script)}
	err := h.services.NewGroup().Start(t.Context(), []spec.Resource{r}, env)
	if err == nil || !strings.Contains(err.Error(), "did not end within 3s and was killed") {
		t.Error(err)
	}
	if pid := h.readPid("child"); !gone(pid) {
		t.Errorf("its child %d lives", pid)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	// The same when the caller gives up.
	if err := os.Remove(h.path("child")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	r.Timeout = 10 * time.Minute
	go func() { ended <- h.drivers["exec"].Start(ctx, r, env) }()
	pid := h.readPid("child")
	cancel()
	if err := <-ended; err == nil {
		t.Error("a start that was given up succeeded")
	}
	if !gone(pid) {
		t.Errorf("its child %d lives", pid)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// TestDaemonKeepsThePipe: a daemon that leaves our pipe open must not hold up its
// own start, and lives on.
func TestDaemonKeepsThePipe(t *testing.T) {
	h := newHost(t)
	r := spec.Resource{Type: "exec", Name: "daemon", Timeout: 5 * time.Minute, Start: sh("setsid sleep 600 & echo $! > " + h.path("pid"))}
	begin := time.Now()
	if err := h.drivers["exec"].Start(t.Context(), r, env); err != nil {
		t.Error(err)
	}
	if time.Since(begin) > 4*time.Minute {
		t.Error("the start waited for the daemon")
	}
	pid := h.readPid("pid")
	if err := syscall.Kill(pid, 0); err != nil {
		t.Error("the daemon is gone:", err)
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

func TestGroupOrder(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	g := h.services.NewGroup()
	res := []spec.Resource{h.service("disk"), h.service("fs"), h.service("web")}
	if err := g.Start(ctx, res, env); err != nil {
		t.Fatal(err)
	}
	if got := states(g); !slices.Equal(got, []State{Running, Running, Running}) {
		t.Error(got)
	}
	if err := g.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if got := states(g); !slices.Equal(got, []State{Stopped, Stopped, Stopped}) {
		t.Error(got)
	}
	h.wantLog("start disk", "start fs", "start web", "stop web", "stop fs", "stop disk")
}

func TestStartFailureUnwinds(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	g := h.services.NewGroup()
	bad := h.service("bad")
	bad.Start = sh("echo start bad >> " + h.path("log") + "; echo no space; exit 1")
	err := g.Start(ctx, []spec.Resource{h.service("disk"), h.service("fs"), bad, h.service("never")}, env)
	if err == nil || !strings.Contains(err.Error(), "no space") {
		t.Fatal(err)
	}
	if got := states(g); !slices.Equal(got, []State{Running, Running, Failed, Stopped}) {
		t.Error(got)
	}
	if s := g.Status()[2]; s.Type != "exec" || s.Name != "bad" || !strings.Contains(s.Err, "no space") {
		t.Errorf("%+v", s)
	}
	if err := g.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	// What was not tried is not stopped either.
	h.wantLog("start disk", "start fs", "start bad", "stop bad", "stop fs", "stop disk")
	if got := states(g); !slices.Equal(got, []State{Stopped, Stopped, Stopped, Stopped}) {
		t.Error(got)
	}
}

func TestStopGoesOn(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	g := h.services.NewGroup()
	stuck := h.service("stuck")
	stuck.Stop = sh("echo stop stuck >> " + h.path("log") + "; echo busy; exit 1")
	if err := g.Start(ctx, []spec.Resource{h.service("disk"), stuck, h.service("web")}, env); err != nil {
		t.Fatal(err)
	}
	err := g.Stop(ctx)
	if err == nil || !strings.Contains(err.Error(), "stuck") || !strings.Contains(err.Error(), "busy") {
		t.Error(err)
	}
	if got := states(g); !slices.Equal(got, []State{Stopped, Failed, Stopped}) {
		t.Error(got)
	}
	h.wantLog("start disk", "start stuck", "start web", "stop web", "stop stuck", "stop stuck", "stop stuck", "stop disk")
}

func TestUnknownType(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	g := h.services.NewGroup()
	err := g.Start(ctx, []spec.Resource{h.service("disk"), {Type: "quantum", Name: "x"}}, env)
	if !errors.Is(err, ErrUnknownType) {
		t.Error(err)
	}
	if err := g.Stop(ctx); err != nil {
		t.Error(err)
	}
	h.wantLog("start disk", "stop disk")
}

// TestJournalSurvivesKill: an agent that is gone without a word; the next one stops
// what it left, the last started first.
func TestJournalSurvivesKill(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	var names []string
	for i := range 9 { // enough that no map gives their order by chance
		names = append(names, fmt.Sprint("s", i))
	}
	var res []spec.Resource
	for _, n := range names {
		res = append(res, h.service(n))
	}
	g := h.services.NewGroup()
	if err := g.Start(ctx, res, env); err != nil {
		t.Fatal(err)
	}
	if err := g.stop(ctx, 4); err != nil { // not running any more
		t.Fatal(err)
	}
	h.boot()
	if err := os.Remove(h.path("log")); err != nil {
		t.Fatal(err)
	}
	stopped, err := h.services.CleanUp(ctx, "primary")
	if err != nil || len(stopped) != 8 || stopped[0] != "web/exec/s8" {
		t.Errorf("%v, %v", stopped, err)
	}
	h.wantLog("stop s8", "stop s7", "stop s6", "stop s5", "stop s3", "stop s2", "stop s1", "stop s0")
	h.boot()
	if stopped, err := h.services.CleanUp(ctx, "primary"); err != nil || len(stopped) != 0 {
		t.Errorf("and again %v, %v", stopped, err)
	}
}

// TestJournalIsWrittenFirst: killed in the middle of a start.
func TestJournalIsWrittenFirst(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	r := h.service("half")
	r.Start = sh("cp " + h.path("running.json") + " " + h.path("seen.json"))
	if err := h.services.NewGroup().Start(ctx, []spec.Resource{r}, env); err != nil {
		t.Fatal(err)
	}
	if b := must[[]byte](t)(os.ReadFile(h.path("seen.json"))); !strings.Contains(string(b), `"half"`) {
		t.Errorf("while it started the journal was %s", b)
	}
}

func TestCleanUpKeepsWhatDoesNotStop(t *testing.T) {
	h, ctx := newHost(t), t.Context()
	stuck := h.service("stuck")
	stuck.Stop = sh("test -e " + h.path("free"))
	if err := h.services.NewGroup().Start(ctx, []spec.Resource{stuck, h.service("fine")}, env); err != nil {
		t.Fatal(err)
	}
	h.boot()
	stopped, err := h.services.CleanUp(ctx, "primary")
	if err == nil || !strings.Contains(err.Error(), "stuck") || !slices.Equal(stopped, []string{"web/exec/fine"}) {
		t.Errorf("%v, %v", stopped, err)
	}
	for _, f := range []string{"free"} {
		if err := os.WriteFile(h.path(f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(h.path("stuck.up")); err != nil {
		t.Fatal(err)
	}
	h.boot()
	if stopped, err := h.services.CleanUp(ctx, "primary"); err != nil || len(stopped) != 1 {
		t.Errorf("%v, %v", stopped, err)
	}
}

func TestDamagedJournal(t *testing.T) {
	for _, text := range []string{"", "{", "null", "[]", `{"web/exec/x": 7}`, "\x00\x00\x00"} {
		path := filepath.Join(t.TempDir(), "running.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(nil, path)
		if err == nil {
			t.Errorf("%q was read", text)
			continue
		}
		for _, want := range []string{path, "damaged", "stop them by hand"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v lacks %q", err, want)
			}
		}
		if b := must[[]byte](t)(os.ReadFile(path)); string(b) != text {
			t.Errorf("%q became %q", text, b)
		}
	}
}

// TestUnwritableJournal: what cannot be remembered is not started.
func TestUnwritableJournal(t *testing.T) {
	h := newHost(t)
	h.services.journal.path = h.path("no/such/folder")
	if err := h.services.NewGroup().Start(t.Context(), []spec.Resource{h.service("x")}, env); err == nil {
		t.Error("started")
	}
	h.wantLog()
}

func TestWatch(t *testing.T) {
	h := newHost(t)
	g := h.services.NewGroup()
	web := h.service("web")
	web.Every, web.Restarts = 20*time.Millisecond, 2
	if err := g.Start(t.Context(), []spec.Resource{h.service("disk"), web, h.service("top")}, env); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- g.Watch(t.Context()) }()
	starts := func() (n int) {
		for _, l := range h.log() {
			if l == "start top" {
				n++
			}
		}
		return n
	}
	for i := range 3 {
		for starts() <= i { // restarted, with all after it
			time.Sleep(5 * time.Millisecond)
		}
		if err := os.Remove(h.path("web.up")); err != nil {
			t.Fatal(err)
		}
	}
	err := <-ended
	if err == nil || !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), `exec "web" failed`) {
		t.Error(err)
	}
	if got := states(g); got[0] != Running || got[1] != Failed {
		t.Error(got)
	}
	again := []string{"stop top", "stop web", "start web", "start top"}
	h.wantLog(slices.Concat([]string{"start disk", "start web", "start top"}, again, again)...)
}

func TestWatchEnds(t *testing.T) {
	h := newHost(t)
	for _, every := range []time.Duration{0, time.Hour, 5 * time.Millisecond} {
		g := h.services.NewGroup()
		r := h.service("web")
		r.Every = every
		if err := g.Start(t.Context(), []spec.Resource{r}, env); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- g.Watch(ctx) }()
		time.Sleep(30 * time.Millisecond)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("every %v: %v", every, err)
		}
	}
}

// kernel is a host's addresses.
type kernel struct {
	up    map[string]bool
	calls []string
	fails map[string]error // "down": only for several at once
}

func (k *kernel) Up(_ context.Context, rs []spec.Resource, _ Env) error {
	k.calls = append(k.calls, fmt.Sprintf("up %d", len(rs)))
	for _, r := range rs {
		k.up[r.Name] = true
	}
	return k.fails["up"]
}

func (k *kernel) Down(_ context.Context, rs []spec.Resource, _ Env) error {
	k.calls = append(k.calls, fmt.Sprintf("down %d", len(rs)))
	if len(rs) > 1 && k.fails["down"] != nil {
		return k.fails["down"]
	}
	for _, r := range rs {
		delete(k.up, r.Name)
	}
	return nil
}

func (k *kernel) Check(_ context.Context, r spec.Resource) error {
	if !k.up[r.Name] {
		return ErrStopped
	}
	return nil
}

func (k *kernel) Device(spec.Resource) error { return nil }

func (k *kernel) Strays([]spec.Resource) map[string]string { return nil }

func (k *kernel) RemoveStray(spec.Resource) error { return nil }

func TestAddresses(t *testing.T) {
	k := &kernel{up: map[string]bool{}}
	d := must[*Services](t)(Open(k, filepath.Join(t.TempDir(), "running.json"))).drivers["ip"]
	r := spec.Resource{Type: "ip", Name: "10.0.0.100/24"}
	ctx := t.Context()
	if err := d.Monitor(ctx, r, env); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
	if err := errors.Join(d.Start(ctx, r, env), d.Monitor(ctx, r, env)); err != nil || !k.up[r.Name] {
		t.Error(err)
	}
	if err := d.Stop(ctx, r, env); err != nil || k.up[r.Name] {
		t.Error(err)
	}
}

// Addresses side by side go in one go, but for those with something to run before them;
// if they do not stop so, they are stopped one by one.
func TestAddressesTogether(t *testing.T) {
	dir := t.TempDir()
	k := &kernel{up: map[string]bool{}, fails: map[string]error{}}
	s := must[*Services](t)(Open(k, filepath.Join(dir, "running.json")))
	t.Cleanup(s.Close)
	ip := func(n int, hook ...string) spec.Resource {
		return spec.Resource{Type: "ip", Name: fmt.Sprintf("10.0.0.%d/24", n), OnAcquire: hook}
	}
	list := []spec.Resource{ip(1), ip(2), ip(3, "/bin/true"), ip(4), {Type: "exec", Name: "x", Start: sh("true"), Stop: sh("true")}, ip(5), ip(6), ip(7)}
	g := s.NewGroup()
	if err := g.Start(t.Context(), list, env); err != nil {
		t.Fatal(err)
	}
	for _, st := range g.Status() {
		if st.State != Running || len(st.Operations) != 1 || st.Operations[0].Name != "start" {
			t.Errorf("%+v", st)
		}
	}
	if err := g.Stop(t.Context()); err != nil || len(k.up) != 0 {
		t.Errorf("%v, %v", err, k.up)
	}
	want := []string{"up 2", "up 1", "up 1", "up 3", "down 3", "down 4"}
	if !slices.Equal(k.calls, want) {
		t.Errorf("%q, want %q", k.calls, want)
	}
	for _, st := range g.Status() {
		if st.State != Stopped || st.Operations[0].Name != "stop" {
			t.Errorf("%+v", st)
		}
	}

	k.calls, k.fails["up"] = nil, errors.New("no such device")
	if err := g.Start(t.Context(), list, env); err == nil {
		t.Error("no error")
	}
	if st := g.Status(); st[0].State != Failed || st[1].State != Failed || st[2].State != Stopped || st[0].Err != "no such device" {
		t.Errorf("%+v", st)
	}
	k.fails["down"] = errors.New("not all of them")
	if err := g.Stop(t.Context()); err != nil || len(k.up) != 0 {
		t.Errorf("%v, %v", err, k.up)
	}
	if want := []string{"up 2", "down 2", "down 1", "down 1"}; !slices.Equal(k.calls, want) {
		t.Errorf("%q, want %q", k.calls, want)
	}
}

// Restarts count within any span of Within: what is older is forgiven.
func TestBudget(t *testing.T) {
	r := spec.Resource{Restarts: 3, Within: 10 * time.Minute}
	at := func(m int) time.Time { return time.Unix(0, 0).Add(time.Duration(m) * time.Minute) }
	var b budget
	for _, c := range []struct {
		minute int
		want   bool
	}{{0, true}, {4, true}, {9, true}, {9, false}, {10, true}, {13, false}, {14, true}, {18, false}, {60, true}} {
		if got := b.spend(r, at(c.minute)); got != c.want {
			t.Errorf("minute %d: %v", c.minute, got)
		}
	}
	if (&budget{}).spend(spec.Resource{}, at(0)) {
		t.Error("none at all is one too many")
	}
	var d budget
	for _, c := range []struct {
		minute int
		want   bool
	}{{0, true}, {9, false}, {10, true}} {
		if got := d.spend(spec.Resource{Restarts: 1}, at(c.minute)); got != c.want {
			t.Errorf("default, minute %d: %v", c.minute, got)
		}
	}
}
