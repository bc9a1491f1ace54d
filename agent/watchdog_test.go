package agent

import (
	"bytes"
	"io"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hanode/config"
)

// device stands for a watchdog: it counts what is written to it.
type device struct {
	mu     sync.Mutex
	b      bytes.Buffer
	closed bool
}

func (d *device) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.b.Write(b)
}

func (d *device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

func (d *device) has() (text string, closed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.b.String(), d.closed
}

// The watchdog is tickled while nothing is held or the lease runs, not while something
// is held without one, and its leave is taken only by an agent that holds nothing.
func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, "primary", "secondary", "arbiter")
		defer l.close()
		d := &device{}
		l.hosts["primary"].dog = func(path string) (io.WriteCloser, error) {
			if path != "/dev/watchdog" {
				t.Errorf("opened %s", path)
			}
			return d, nil
		}
		l.startAll()
		l.until("first hold", 20*time.Second, l.held("primary"))
		time.Sleep(5 * time.Second)
		rate := func(over time.Duration) int {
			before, _ := d.has()
			time.Sleep(over)
			after, _ := d.has()
			return len(after) - len(before)
		}
		if n := rate(10 * time.Second); n < 9 {
			t.Errorf("tickled %d times in 10 s by a healthy holder", n)
		}
		// Cut off it holds on behind its closed guard, up to initdead, and stops then.
		l.net.Cut("primary", "", "", true)
		l.net.Cut("", "primary", "", true)
		time.Sleep(2 * time.Second)
		if n := rate(2 * time.Second); n > 0 && l.on("primary").groups.running() > 0 {
			t.Errorf("tickled %d times by a holder without a lease", n)
		}
		l.net.Heal()
		l.until("failback", 20*time.Second, l.held("primary"))
		if n := rate(10 * time.Second); n < 9 {
			t.Errorf("tickled %d times in 10 s after it", n)
		}
		l.hosts["primary"].halt()
		if text, closed := d.has(); !closed || !strings.HasSuffix(text, "V") {
			t.Errorf("after an orderly stop: closed %v, %q", closed, text[max(0, len(text)-3):])
		}
		l.hosts["primary"].start()
		l.until("failback", 20*time.Second, l.held("primary"))
		l.hosts["primary"].kill()
		if text, _ := d.has(); strings.HasSuffix(text, "V") {
			t.Error("an agent that was killed took its leave")
		}
	})
}

// A program is started again, one that exits with 100 is left, and one that must not end
// ends the node.
func TestRespawn(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	lines := func() int {
		b, _ := os.ReadFile(log)
		return strings.Count(string(b), "\n")
	}
	run := func(script string, failFast bool) config.Respawn {
		return config.Respawn{User: me.Username, Command: []string{"/bin/sh", "-c", script}, FailFast: failFast}
	}
	said := run("echo $HA_X >> "+log+"; exit 100", false)
	said.Env = []string{"HA_X=said"}
	err = runAs(t.Context(), said)
	if err == nil || lines() != 1 {
		t.Fatalf("%v, %d lines", err, lines())
	}
	if b, _ := os.ReadFile(log); string(b) != "said\n" {
		t.Errorf("its environment: %q", b)
	}
	if err := runAs(t.Context(), config.Respawn{User: "nobody-of-that-name", Command: []string{"/bin/true"}}); err == nil || !strings.Contains(err.Error(), "nobody-of-that-name") {
		t.Errorf("an unknown user: %v", err)
	}
	a := &Agent{cfg: &config.Node{}, fatal: make(chan error, 1)}
	a.log = slog.New(slog.DiscardHandler)
	a.respawnLoop(t.Context(), run("exit 100", true)) // even there
	select {
	case err := <-a.fatal:
		t.Errorf("exit 100 ended the node: %v", err)
	default:
	}
	a.respawnLoop(t.Context(), run("exit 0", true))
	if err := <-a.fatal; err == nil || !strings.Contains(err.Error(), "failfast") {
		t.Errorf("failfast: %v", err)
	}
	a.respawnLoop(t.Context(), run("echo x >> "+log+"; [ $(wc -l < "+log+") -lt 3 ] && exit 1; exit 100", false))
	if lines() != 3 {
		t.Errorf("%d lines: it was not started again", lines())
	}
}
