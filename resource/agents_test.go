package resource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hanode/internal/spec"
)

// script writes an executable shell script and returns its path.
func (h *host) script(path, text string) string {
	h.t.Helper()
	path = filepath.Join(h.dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	// Renamed into place: a file that another test's fork holds open for writing
	// cannot be executed.
	if err := os.WriteFile(path+".new", []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// scriptHost is a host whose init scripts, Heartbeat scripts and OCF agents are in
// folders of its own.
func scriptHost(t *testing.T) *host {
	h := newHost(t)
	base, agents := scripted{scripts: h.services.scripts}, newOCF(h.path("ocf"))
	h.drivers["lsb"] = agentDriver{base, lsb{h.path("init.d")}}
	h.drivers["heartbeat"] = agentDriver{base, heartbeat{h.path("ha.d/resource.d"), h.path("init.d"), agents}}
	h.drivers["ocf"] = agentDriver{base, agents}
	return h
}

// daemon is an init script that keeps a rule of the LSB with each exit code, given
// the file that says that it runs.
const daemon = `
up=%s
case "$1" in
start) touch $up ;;
stop) rm -f $up ;;
status) if [ -e $up ]; then echo running; else echo not there; exit 3; fi ;;
esac
`

// life starts, monitors and stops r twice over, as every driver must be able to.
func life(t *testing.T, d Driver, r spec.Resource) {
	t.Helper()
	ctx := t.Context()
	if err := d.Monitor(ctx, r, env); !errors.Is(err, ErrStopped) {
		t.Error("before its start:", err)
	}
	for range 2 {
		if err := d.Start(ctx, r, env); err != nil {
			t.Fatal("start:", err)
		}
		if err := d.Monitor(ctx, r, env); err != nil {
			t.Error("running:", err)
		}
	}
	for range 2 {
		if err := d.Stop(ctx, r, env); err != nil {
			t.Error("stop:", err)
		}
		if err := d.Monitor(ctx, r, env); !errors.Is(err, ErrStopped) {
			t.Error("stopped:", err)
		}
	}
	if err := d.Kill(ctx, r, env); err != nil {
		t.Error("kill of what does not run:", err)
	}
}

func TestLSBLife(t *testing.T) {
	h := scriptHost(t)
	h.script("init.d/web", fmt.Sprintf(daemon, h.path("up")))
	life(t, h.drivers["lsb"], spec.Resource{Type: "lsb", Name: "web"})
}

// TestLSBSloppy: many scripts fail a start of what runs and a stop of what does not;
// their status has the last word.
func TestLSBSloppy(t *testing.T) {
	h := scriptHost(t)
	h.script("init.d/web", fmt.Sprintf(`
up=%s
case "$1" in
start) [ ! -e $up ] || { echo already running; exit 1; }; touch $up ;;
stop) [ -e $up ] || { echo not running; exit 1; }; rm $up ;;
status) [ -e $up ] || exit 3 ;;
esac`, h.path("up")))
	life(t, h.drivers["lsb"], spec.Resource{Type: "lsb", Name: "web"})
}

func TestLSBStatusCodes(t *testing.T) {
	r := spec.Resource{Type: "lsb", Name: "web"}
	for code := range 256 {
		var ran error
		if code > 0 {
			ran = &ended{code, errors.New("exit status")}
		}
		err := lsbState(r, ran)
		want := map[int]error{0: nil, 1: ErrStopped, 2: ErrStopped, 3: ErrStopped, 4: ErrUnknown}
		if w, ok := want[code]; ok && !errors.Is(err, w) || !ok && (err == nil || errors.Is(err, ErrStopped) || errors.Is(err, ErrUnknown)) {
			t.Errorf("%d: %v", code, err)
		}
	}
	if err := lsbState(r, errors.New("did not end in time")); err == nil || errors.Is(err, ErrStopped) {
		t.Error("a status that hangs:", err)
	}
}

// TestLSBStartFailures: what the exit code of a start asks for.
func TestLSBStartFailures(t *testing.T) {
	h := scriptHost(t)
	for code, want := range map[int]Meaning{1: Again, 2: NotHere, 3: NotHere, 4: NotHere, 5: NotHere, 6: NotHere, 7: Again, 150: Again} {
		h.script("init.d/web", fmt.Sprintf("case $1 in start) echo no such luck; exit %d;; esac; exit 3", code))
		err := h.drivers["lsb"].Start(t.Context(), spec.Resource{Type: "lsb", Name: "web"}, env)
		if err == nil || MeaningOf(err) != want || !strings.Contains(err.Error(), "no such luck") {
			t.Errorf("%d: %v (%v)", code, err, MeaningOf(err))
		}
	}
	err := h.drivers["lsb"].Start(t.Context(), spec.Resource{Type: "lsb", Name: "gone"}, env)
	if MeaningOf(err) != NotHere {
		t.Error(err)
	}
}

// TestStartsNothingLSB: exit 0 and nothing started is found by the start itself.
func TestStartsNothingLSB(t *testing.T) {
	h := scriptHost(t)
	h.script("init.d/web", "case $1 in status) echo dead as a dodo; exit 3;; esac")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := h.drivers["lsb"].Start(ctx, spec.Resource{Type: "lsb", Name: "web"}, env)
	if err == nil || !strings.Contains(err.Error(), "it said that it succeeded, but") {
		t.Error(err)
	}
	// One that takes a moment to be there is waited for.
	h.script("init.d/slow", fmt.Sprintf(`
up=%s
case "$1" in
start) (sleep 0.4; touch $up) >/dev/null 2>&1 & ;;
stop) rm -f $up ;;
status) [ -e $up ] || exit 3 ;;
esac`, h.path("slow.up")))
	if err := h.drivers["lsb"].Start(t.Context(), spec.Resource{Type: "lsb", Name: "slow"}, env); err != nil {
		t.Error(err)
	}
}

func TestLSBCheck(t *testing.T) {
	h := scriptHost(t)
	h.script("init.d/good", "case $1 in start|stop|status) ;; esac")
	h.script("init.d/old", "case $1 in start|stop) ;; *) echo 'Usage: old {start|stop}'; exit 1 ;; esac")
	if err := os.Chmod(h.script("init.d/off", "status"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.path("init.d/debian"), []byte("#!/usr/bin/env /lib/init/init-d-script\nDAEMON=x\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"good": "", "debian": "", "old": "has no status operation", "off": "is not executable", "gone": "does not exist",
	} {
		f := h.drivers["lsb"].Check(t.Context(), spec.Resource{Type: "lsb", Name: name})
		switch {
		case want == "" && len(f) > 0, want != "" && (len(f) != 1 || f[0].Meaning != NotHere || !strings.Contains(f[0].Text, want)):
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// hbScript is a script as Heartbeat's were: it reads its arguments first, and says
// in words how it is.
const hbScript = `
echo "$@" >> %[1]s.args
eval op=\${$#}
case $op in
start) touch %[1]s ;;
stop) rm -f %[1]s ;;
status) if [ -e %[1]s ]; then echo "INFO: x Running OK"; else echo "INFO: x Resource is stopped"; fi ;;
esac
exit 0
`

func TestHeartbeatLife(t *testing.T) {
	h := scriptHost(t)
	h.script("ha.d/resource.d/thing", fmt.Sprintf(hbScript, h.path("up")))
	r := spec.Resource{Type: "heartbeat", Name: "thing::/dev/sdb1::/data::::ext4"}
	life(t, h.drivers["heartbeat"], r)
	b := string(must[[]byte](t)(os.ReadFile(h.path("up.args"))))
	if !strings.Contains(b, "/dev/sdb1 /data ext4 start\n") || strings.Count(b, " start\n") != 1 {
		t.Errorf("called with %s", b)
	}
}

// TestHeartbeatSearch: its own scripts first, then init scripts, which are read by
// their exit codes, then the OCF agent of that name.
func TestHeartbeatSearch(t *testing.T) {
	h := scriptHost(t)
	d := h.drivers["heartbeat"]
	h.script("init.d/both", "exit 5")
	h.script("ha.d/resource.d/both", fmt.Sprintf(hbScript, h.path("both")))
	life(t, d, spec.Resource{Type: "heartbeat", Name: "both"})
	h.script("init.d/init", fmt.Sprintf(strings.Replace(daemon, "echo running", "echo it is not running, it flies", 1), h.path("init")))
	life(t, d, spec.Resource{Type: "heartbeat", Name: "init"})
	h.agent("Filesystem", "")
	r := spec.Resource{Type: "heartbeat", Name: "Filesystem::/dev/sdb1::/data::ext4::noatime"}
	life(t, d, r)
	if got := must[[]byte](t)(os.ReadFile(h.path("Filesystem.env"))); !strings.Contains(string(got), "OCF_RESKEY_device=/dev/sdb1\nOCF_RESKEY_directory=/data\nOCF_RESKEY_fstype=ext4\nOCF_RESKEY_options=noatime\n") {
		t.Errorf("%s", got)
	}
	for name, want := range map[string]string{
		"Filesystem::a::b::c::d::e": "at most 4 arguments: device, directory, fstype, options",
		"nobody::x":                 "there is no script nobody, neither in",
		"MailTo::root":              "install resource-agents",
	} {
		f := d.Check(t.Context(), spec.Resource{Type: "heartbeat", Name: name})
		if len(f) != 1 || f[0].Meaning != NotHere || !strings.Contains(f[0].Text, want) {
			t.Errorf("%s: %+v", name, f)
		}
		if err := d.Start(t.Context(), spec.Resource{Type: "heartbeat", Name: name}, env); MeaningOf(err) != NotHere {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHeartbeatState(t *testing.T) {
	r := spec.Resource{Type: "heartbeat", Name: "x"}
	for _, c := range []struct {
		code    int
		printed string
		want    error
	}{
		{0, "running (Primary)", nil},
		{0, "OK", nil},
		{0, "INFO: x Running OK", nil},
		{0, "Is Not Running", ErrStopped},
		{3, "stopped (Secondary)", ErrStopped},
		{7, "INFO:  Resource is stopped", ErrStopped},
		{0, "", ErrStopped},
		{3, "", ErrStopped},
		{4, "cannot determine status, may be running (Unknown)", nil}, // drbddisk: taken as running
		{1, "ERROR:  Generic error", errors.New("")},
		{10, "A resource name is required for status inquiries.", errors.New("")},
	} {
		var ran error
		if c.code > 0 {
			ran = &ended{c.code, errors.New("exit status")}
		}
		err := heartbeatState(r, ran, c.printed)
		if !errors.Is(err, c.want) && (c.want == nil || c.want.Error() != "" || err == nil || errors.Is(err, ErrStopped)) {
			t.Errorf("%d %q: %v", c.code, c.printed, err)
		}
	}
	if err := heartbeatState(r, errors.New("killed"), "running"); err == nil {
		t.Error("a status that was killed proves nothing")
	}
}

func FuzzHeartbeatWords(f *testing.F) {
	for _, s := range []string{"", "apache", "Filesystem::/dev/sdb1::/data::ext4", "x::::y", ":::::", "a:b::c", "../x::y", "::"} {
		f.Add(s)
	}
	h := heartbeat{"/nowhere/ha.d", "/nowhere/init.d", newOCF("/nowhere/ocf")}
	f.Fuzz(func(t *testing.T, name string) {
		script, args := heartbeatWords(name)
		if strings.Contains(script, "::") {
			t.Errorf("%q: script %q", name, script)
		}
		for _, a := range args {
			if a == "" || strings.Contains(a, "::") {
				t.Errorf("%q: argument %q", name, a)
			}
		}
		if _, err := h.find(spec.Resource{Type: "heartbeat", Name: name}); err == nil {
			t.Errorf("%q was found", name)
		}
	})
}
