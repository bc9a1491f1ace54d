package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hanode/api"
	"hanode/test/livelab"
)

// nasty are scripts that do what scripts should not, and what `status GROUP` must say.
var nasty = []struct {
	name, script, keys string
	runs               bool     // it is a service all the same
	history            bool     // the history has the last of status
	status             []string // of the group, once it has settled
}{
	{
		name: "ignores-term",
		script: `start) trap '' TERM HUP INT; echo "I do not listen"; while :; do sleep 1; done ;;
monitor) exit 7 ;;`,
		keys: `start_timeout = "1s"`, history: true,
		status: []string{"start", "did not end within 1s and was killed", "| I do not listen"},
	},
	{
		name: "sleeps-for-ever",
		script: `start) exit 0 ;;
monitor) echo "still thinking"; exec sleep 100000 ;;`,
		keys: `monitor_timeout = "1s"`, history: true,
		status: []string{"monitor", "did not end within 1s and was killed", "| still thinking"},
	},
	{
		name: "prints-1-GiB",
		script: `start) head -c 1073741824 /dev/zero | tr '\000' x; echo; echo "that was all"; touch $state ;;
stop) rm -f $state ;;
monitor) [ -e $state ] || exit 7 ;;`,
		keys:   `start_timeout = "60s"`,
		runs:   true,
		status: []string{"start", "done", "| that was all"},
	},
	{
		name: "leaves-children",
		script: `start) for i in 1 2 3; do (setsid sh -c 'echo $$ >>'$state'; exec sleep 31415' </dev/null >/dev/null 2>&1 &) ; done; echo "three of mine" ;;
stop) echo "what children?" ;;
monitor) [ -e $state ] || exit 7; for p in $(cat $state); do [ -e /proc/$p ] && exit 0; done; exit 7 ;;`,
		runs:   true,
		status: []string{"start", "done", "| three of mine"},
	},
	{
		name: "starts-nothing",
		script: `start) echo "started, honestly" ;;
monitor) exit 7 ;;`,
		status: []string{"not running", "| started, honestly"},
	},
}

// TestNastyScripts: what status shows for each, that nothing of it is left, and that
// neither beats nor the group beside it notice.
func TestNastyScripts(t *testing.T) {
	x := form(t, livelab.Options{Profile: "lan"})
	x.holds("primary")
	x.hanode("arbiter", 0, "tune", "--reset")
	file := filepath.Join(x.Get("primary").Dir, "nasty.hcl")
	before := x.epochOf("web")
	for _, n := range nasty {
		script := filepath.Join(x.Get("primary").Dir, n.name)
		src := "#!/bin/sh\nstate=" + script + ".$HANODE_NODE\ncase $1 in\n" + n.script + "\nesac\nexit 0\n"
		x.do(os.WriteFile(script, []byte(src), 0o700))
		group := fmt.Sprintf(`group %q {
  prefer = ["primary"]
  resource "exec" %q {
    start   = [%q, "start"]
    stop    = [%q, "stop"]
    monitor = [%q, "monitor"]
    every   = "100ms"
    %s
  }
}
`, n.name, n.name, script, script, script, n.keys)
		x.do(os.WriteFile(file, []byte(livelab.Groups+group), 0o600))
		code := 1
		if n.runs {
			code = 0
		}
		begin := time.Now()
		_, errs, got, err := x.Get("arbiter").Run("apply", "--yes", "--wait", "90s", file)
		x.do(err)
		if n.runs && got != code {
			t.Errorf("%s: apply exits %d, want %d: %s", n.name, got, code, errs)
		}
		out := x.groupSays(t, n.name, n.status)
		t.Logf("%s, %v after apply:\n%s", n.name, time.Since(begin).Round(time.Millisecond), out)
		if n.history {
			x.history(t, n.status[len(n.status)-1])
		}
		x.do(os.WriteFile(file, []byte(livelab.Groups), 0o600))
		begin = time.Now()
		x.hanode("arbiter", 0, "apply", "--yes", file)
		t.Logf("%s, removed after %v", n.name, time.Since(begin).Round(time.Millisecond))
		x.gone(t, script, "sleep 31415", "sleep 100000")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	tuned, err := x.Get("arbiter").API().Tune(ctx, false)
	x.do(err)
	for _, g := range tuned.Heard {
		longest := -1.0
		if g.LongestMS != nil {
			longest = *g.LongestMS
		}
		t.Logf("beats of %s: %d, the longest pause %.0f ms, outages %d (keepalive 100 ms, warntime 400 ms)", g.Node, g.Beats, longest, g.Outages)
		if g.Outages > 0 || longest >= 400 {
			t.Errorf("%s was late", g.Node)
		}
	}
	if after := x.epochOf("web"); after != before {
		t.Errorf("the group beside it moved: epoch %d, then %d", before, after)
	}
}

// history waits until the events have a text.
func (x *world) history(t *testing.T, want string) {
	t.Helper()
	events := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if events, _ = x.hanode("secondary", 0, "events"); strings.Contains(events, want) {
			return
		}
	}
	t.Errorf("the history does not have %q:\n%s", want, events)
}

func (x *world) epochOf(group string) uint64 {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	st, err := x.Get("arbiter").Status(ctx)
	x.do(err)
	for _, g := range st.Groups {
		if g.Name == group {
			return g.Epoch
		}
	}
	x.t.Fatalf("there is no group %s", group)
	return 0
}

// groupSays waits until `status GROUP` on a witness, which runs nothing, says all of it.
func (x *world) groupSays(t *testing.T, group string, want []string) (out string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		out, _, _, _ = x.Get("arbiter").Run("status", group)
		missing := ""
		for _, w := range want {
			if !strings.Contains(out, w) {
				missing = w
			}
		}
		if missing == "" {
			return out
		}
	}
	t.Fatalf("status %s does not say %q:\n%s", group, want, out)
	return ""
}

// gone waits until no process on the machine has one of the texts in its command line.
func (x *world) gone(t *testing.T, texts ...string) {
	t.Helper()
	left := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if left = running(texts); left == "" {
			return
		}
	}
	t.Errorf("left running: %s", left)
}

func running(texts []string) string {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		b, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		line := strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
		for _, text := range texts {
			if strings.Contains(line, text) && !strings.Contains(line, "e2e.test") {
				return line
			}
		}
	}
	return ""
}

// An output is kept on its node: while that is not heard, status says so, and the rest
// of the answer is there.
func TestOutputOfANodeThatIsGone(t *testing.T) {
	d := newDaemon(t)
	x := form(t, livelab.Options{Groups: d.group("", "")})
	d.x = x
	x.holds("primary")
	d.await("primary", 0)
	out, _ := x.hanode("arbiter", 0, "status", "web", "--json")
	if !strings.Contains(out, `"node": "primary"`) || !strings.Contains(out, `"name": "start"`) {
		t.Errorf("status of the group:\n%s", out)
	}
	if all, _ := x.hanode("arbiter", 0, "status", "--json"); !strings.Contains(all, `"nodes": null`) {
		t.Errorf("status of all:\n%s", all)
	}
	// Without a leader too: the agents ask each other.
	x.do(os.WriteFile(filepath.Join(d.dir, "secondary.broken"), nil, 0o600))
	x.hanode("arbiter", 1, "move", "web", "secondary", "--wait", "10s")
	x.groupSays(t, "web", []string{"web on secondary:", "| its disk is missing"})
	x.do(x.Get("secondary").PowerCut())
	x.groupSays(t, "web", []string{"secondary is not heard by arbiter, so what it ran and printed is not known"})
	x.do(x.Get("arbiter").PowerCut())
	var st *api.Status
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		st, _ = x.Get("primary").API().Status(ctx, "web")
		cancel()
		if st != nil && !st.Quorum || time.Now().After(end) {
			break
		}
	}
	if st == nil || len(st.Groups) != 1 || st.Groups[0].Nodes == nil || len(*st.Groups[0].Nodes) == 0 || len((*st.Groups[0].Nodes)[0].Resources) == 0 {
		t.Errorf("without a quorum: %+v", st)
	}
}
