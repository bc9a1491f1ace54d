package e2e

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hanode/test/livelab"
)

// cl_status of Heartbeat 3.0.6 and ours, on two hosts with the same files.

var recordOld = flag.Bool("record", false, "ask the real cl_status anew, which takes root and the heartbeat package")

const clStatusFile = "testdata/cl_status.txt"

const clStatusCf = `logfacility none
debugfile %s
keepalive 200ms
warntime 1
deadtime 2
initdead 10
udpport 694
bcast eth0 eth1
auto_failback on
node primary secondary
ping 10.77.0.200
ping 10.77.0.201
`

const clStatusResources = "primary IPaddr::10.77.0.100/24/eth1\nsecondary IPaddr::10.77.0.101/24/eth1\n"

// clStatusAsked are the questions: while both hosts are up, while only primary is, and
// where nothing runs.
var clStatusAsked = map[string][]string{
	"both": {
		"hbstatus", "hbstatus -m", "hbstatus -v", "hbstatus -v -m",
		"listnodes", "listnodes -m", "listnodes -n", "listnodes -p", "listnodes -n -p", "listnodes -v", "listnodes -v -m",
		"nodestatus primary", "nodestatus secondary", "nodestatus -m secondary", "nodestatus 10.77.0.200", "nodestatus 10.77.0.201", "nodestatus nobody", "nodestatus",
		"nodetype primary", "nodetype -m primary", "nodetype 10.77.0.200", "nodetype -m 10.77.0.200", "nodetype nobody", "nodetype",
		"nodeweight primary", "nodesite primary",
		"listhblinks secondary", "listhblinks -m secondary", "listhblinks -v secondary", "listhblinks 10.77.0.200", "listhblinks -v 10.77.0.201", "listhblinks nobody", "listhblinks",
		"hblinkstatus secondary eth0", "hblinkstatus -m secondary eth0", "hblinkstatus 10.77.0.200 10.77.0.200", "hblinkstatus 10.77.0.201 10.77.0.201",
		"hblinkstatus secondary eth9", "hblinkstatus nobody eth0", "hblinkstatus secondary", "hblinkstatus",
		"rscstatus", "rscstatus -m", "rscstatus -q",
		"hbparameter -p deadtime", "hbparameter -m -p deadtime", "hbparameter -p keepalive", "hbparameter -p warntime", "hbparameter -p initdead", "hbparameter -p deadping",
		"hbparameter -p udpport", "hbparameter -p auto_failback", "hbparameter -p node", "hbparameter -p hbversion", "hbparameter -p logfacility", "hbparameter -p debug",
		"hbparameter -p baud", "hbparameter -p watchdog", "hbparameter -p nosuch", "hbparameter -m -p nosuch", "hbparameter", "hbparameter deadtime", "hbparameter -p",
		"clientstatus primary ipfail", "clientstatus -m primary ipfail", "clientstatus primary nosuch 50", "clientstatus nobody ipfail", "clientstatus primary", "clientstatus",
		"parameter -p deadtime", "nonsense", "-h",
	},
	"alone": {"listnodes", "listnodes -v", "nodestatus secondary", "nodestatus -m secondary", "listhblinks -v secondary", "hblinkstatus secondary eth0", "rscstatus", "rscstatus -m"},
	"none":  {"hbstatus", "hbstatus -m", "hbstatus -v", "listnodes", "nodestatus primary", "nodetype primary", "rscstatus", "hbparameter -p deadtime", "clientstatus primary ipfail"},
}

// asker answers one call of cl_status.
type asker func(args ...string) (stdout, stderr string, code int, err error)

// clStatusText asks everything of one state and writes the answers down. What it said on
// stderr is not compared: it is for people, and names the program's own functions.
func clStatusText(t *testing.T, state string, ask asker) string {
	t.Helper()
	var b strings.Builder
	for _, q := range clStatusAsked[state] {
		out, errs, code, err := ask(strings.Fields(q)...)
		if err != nil {
			t.Fatalf("cl_status %s: %v", q, err)
		}
		said := ""
		if errs != "" {
			said = ", and says why"
		}
		fmt.Fprintf(&b, "== %s: cl_status %s\nexit %d%s\n%s", state, q, code, said, out)
		if out != "" && !strings.HasSuffix(out, "\n") {
			b.WriteString("(no end of line)\n")
		}
	}
	return b.String()
}

func clStatusFiles(t *testing.T, log string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"ha.cf": fmt.Sprintf(clStatusCf, log), "haresources": clStatusResources, "authkeys": "auth 1\n1 sha1 an old secret\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// answer is what a program says.
func answer(cmd *exec.Cmd) (stdout, stderr string, code int, err error) {
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), errs.String(), exit.ExitCode(), nil
	}
	return out.String(), errs.String(), 0, err
}

// TestClStatusRecord asks the real one, and writes down what it says.
func TestClStatusRecord(t *testing.T) {
	if !*recordOld {
		t.Skip("the answers in " + clStatusFile + " are those of an earlier run; -args -record asks anew")
	}
	dir, err := os.MkdirTemp("", "hanode-old-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { // Heartbeat's children are not root
		t.Fatal(err)
	}
	o, err := livelab.NewOld(livelab.OldOptions{Dir: dir, HADir: clStatusFiles(t, filepath.Join(dir, "ha-log"))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = o.Close() }()
	for _, n := range o.Nodes {
		if err := n.StartHeartbeat(); err != nil {
			t.Fatal(err)
		}
	}
	p := o.Get("primary")
	ask := func(args ...string) (string, string, int, error) {
		return p.Run(append([]string{"cl_status"}, args...)...)
	}
	if err := o.Settled(map[string]string{"primary": "local", "secondary": "local"}, 60*time.Second); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
	text := clStatusText(t, "both", ask)
	if err := o.Get("secondary").PowerCut(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if out, _, _, _ := ask("rscstatus"); strings.TrimSpace(out) == "all" {
			break
		}
	}
	text += clStatusText(t, "alone", ask)
	if err := errors.Join(p.StopHeartbeat(), p.Process().Wait()); err != nil {
		t.Log(err)
	}
	text += clStatusText(t, "none", func(args ...string) (string, string, int, error) {
		return answer(exec.Command("cl_status", args...))
	})
	if err := os.WriteFile(clStatusFile, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// clStatusDiffers are the answers that are others, each with its reason. What is said
// instead is checked where it is the same at each run.
var clStatusDiffers = map[string]string{
	"both: cl_status hbstatus -v":              "the version is hanode's",
	"both: cl_status hbstatus -v -m":           "the version is hanode's",
	"both: cl_status hbparameter -p hbversion": "the version is hanode's",
	"both: cl_status parameter -p deadtime":    "the manual page calls it so, the program does not know it",
}

// answersOf takes a text of clStatusText apart, by question.
func answersOf(text string) map[string]string {
	out := map[string]string{}
	for _, part := range strings.Split(text, "== ")[1:] {
		q, a, _ := strings.Cut(part, "\n")
		out[q] = a
	}
	return out
}

// withoutVersion puts a word in the place of each line with a version.
func withoutVersion(answer string) string {
	var out []string
	for line := range strings.Lines(answer) {
		if strings.Contains(line, "3.0.6") || strings.Contains(line, "hanode ") {
			line = "VERSION\n"
		}
		out = append(out, line)
	}
	return strings.Join(out, "")
}

// Our cl_status answers as the real one did, or it is written why not.
func TestClStatusAlike(t *testing.T) {
	src, err := os.ReadFile(clStatusFile)
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "ha-log")
	groups := haGroups + strings.ReplaceAll(strings.ReplaceAll(haGroups, "10.77.0.100", "10.77.0.101"), "primary", "secondary")
	x := form(t, livelab.Options{HADir: clStatusFiles(t, log), Groups: groups, Names: []string{"primary", "secondary"}, Unnamed: true})
	p := x.Get("primary")
	ask := func(args ...string) (string, string, int, error) {
		cmd := exec.Command(binary)
		cmd.Args = append([]string{"cl_status"}, args...)
		cmd.Env = append(os.Environ(), "HANODE_SOCKET="+p.Socket)
		return answer(cmd)
	}
	until := func(want string, args ...string) {
		t.Helper()
		var out string
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if out, _, _, _ = ask(args...); strings.TrimSpace(out) == want {
				return
			}
		}
		t.Fatalf("cl_status %v says %q, not %q", args, out, want)
	}
	until("ping", "nodestatus", "10.77.0.200")
	text := clStatusText(t, "both", ask)
	x.do(x.Get("secondary").PowerCut())
	until("dead", "nodestatus", "secondary")
	x.hanode("primary", 0, "confirm-off", "secondary", "--confirm", "secondary is off")
	until("all", "rscstatus")
	text += clStatusText(t, "alone", ask)
	x.do(p.Agent().Kill())
	<-p.Agent().Done
	text += clStatusText(t, "none", ask)

	theirs, ours := answersOf(string(src)), answersOf(text)
	if len(theirs) != len(ours) {
		t.Errorf("%d questions are recorded, %d were asked: record anew", len(theirs), len(ours))
	}
	alike := 0
	for q, want := range theirs {
		why, differs := clStatusDiffers[q]
		switch got := ours[q]; {
		case got == want && differs:
			t.Errorf("%s: the answers are alike, though %s", q, why)
		case got == want:
			alike++
		case !differs, strings.HasPrefix(why, "the version") && withoutVersion(got) != withoutVersion(want):
			t.Errorf("%s\n--- Heartbeat\n%s--- hanode\n%s", q, want, got)
		}
	}
	t.Logf("%d questions, %d answered alike, %d otherwise for a reason", len(theirs), alike, len(clStatusDiffers))
}
