package config

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// verdict is what Heartbeat's own parser says of one line, or a few, in a file that is
// sound otherwise.
type verdict struct {
	said    string // accepted, refused; "?" = not asked yet
	file    string // ha.cf, haresources, authkeys
	mode    os.FileMode
	text    string
	message string // the newest of Heartbeat's errors, or warnings
}

const verdictFile = "testdata/oracle/verdicts.txt"

// readVerdicts returns the verdicts and the lines before them.
func readVerdicts(t *testing.T) (head string, out []verdict) {
	t.Helper()
	src, err := os.ReadFile(verdictFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(src)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " | ", 3)
		if len(f) < 3 {
			head += line
			continue
		}
		text, message, _ := strings.Cut(f[2], " |")
		v := verdict{said: f[0], text: text, message: strings.TrimSpace(message), mode: 0o600}
		file, mode, _ := strings.Cut(f[1], ":")
		v.file = file
		if mode != "" {
			if _, err := fmt.Sscanf(mode, "%o", &v.mode); err != nil {
				t.Fatal(err)
			}
		}
		out = append(out, v)
	}
	return head, out
}

func (v verdict) String() string {
	file := v.file
	if v.mode != 0o600 {
		file += fmt.Sprintf(":%o", v.mode)
	}
	return fmt.Sprintf("%s | %s | %s | %s", v.said, file, v.text, v.message)
}

// files are the three files of the case.
func (v verdict) files() map[string]string {
	text := strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\r`, "\r", `\\`, `\`).Replace(v.text) + "\n"
	out := map[string]string{
		"ha.cf":       "logfacility local0\nauto_failback on\nnode ken3 kathy just.linux-ha.org node1\nbcast eth0\n",
		"haresources": "ken3 10.0.0.100\n",
		"authkeys":    "auth 1\n1 sha1 HI!\n",
	}
	switch v.file {
	case "ha.cf":
		word := strings.Fields(text)
		out["ha.cf"] = strings.Replace(out["ha.cf"], "bcast eth0\n", text+"bcast eth0\n", 1)
		if len(word) > 0 && (word[0] == "logfacility" || word[0] == "auto_failback") {
			out["ha.cf"] = strings.Replace(out["ha.cf"], map[string]string{"logfacility": "logfacility local0\n", "auto_failback": "auto_failback on\n"}[word[0]], "", 1)
		}
		if strings.Contains(text, "udpport") || strings.Contains(text, "baud") {
			out["ha.cf"] = strings.Replace(out["ha.cf"], "bcast eth0\n", "", 1) + "bcast eth0\n"
		}
	default:
		out[v.file] = text
	}
	return out
}

// oracleHost is the host in which Heartbeat was asked.
func oracleHost() *haFake {
	h := newHAFake("ken3")
	h.names["just.linux-ha.org"], h.names["node1"] = []string{"10.0.0.7"}, []string{"10.0.0.8"}
	for i, name := range strings.Fields("a b c d e f g") {
		h.names[name] = []string{fmt.Sprintf("10.0.0.%d", 20+i)}
	}
	h.names["10.0.0.7"] = []string{"10.0.0.7"}
	h.scripts = append(h.scripts, "/etc/ha.d/resource.d/apache")
	return h
}

// ours is what hanode says of a case.
func ours(t *testing.T, v verdict) (said string, hb *Heartbeat, dir string, err error) {
	t.Helper()
	dir = haDir(t, v.files())
	if err := os.Chmod(filepath.Join(dir, "authkeys"), v.mode); err != nil {
		t.Fatal(err)
	}
	hb, err = LoadHeartbeat(dir, oracleHost(), HAOptions{})
	said = "accepted"
	if err != nil || len(hb.OnHost) > 0 {
		said = "refused"
	}
	return said, hb, dir, err
}

// disagreements say where hanode judges otherwise than Heartbeat, and why. Each pattern
// stands for cases of one file.
var disagreements = []struct{ file, pattern, heartbeat, why string }{
	{"ha.cf", `witness .*`, "refused", "hanode's own directive"},
	{"ha.cf", `respawn hacluster /usr/lib/heartbeat/ipfail`, "refused", "ipfail is built in; where its program is does not matter"},
	{"ha.cf", `serial /dev/cua.*`, "refused", "a serial line is not used, so its device need not be there"},
	{"ha.cf", `stonith .*|stonith_host .*`, "refused", "power fencing is not available yet, so no device is asked; the line is read and said to do nothing"},
	{"ha.cf", `apiauth .*`, "refused", "there is no such API, so its users need not be there"},
	{"ha.cf", `crm_daemon_dir .*`, "refused", "Pacemaker's programs are not used, so they need not be there"},
	{"ha.cf", `ucast eth9 .*`, "accepted", "the device does not exist; Heartbeat does not look"},
	{"ha.cf", `ping_group g nosuchhost`, "accepted", "the name is not known; Heartbeat says so and goes on with a group of nobody"},
	{"ha.cf", `udpport (65535|65536|70000)`, "accepted", "there is no such port, or none above it"},
	{"ha.cf", `keepalive 1\.2\.3`, "accepted", "it is no number; Heartbeat reads 1.2"},
	{"ha.cf", `watchdog nodevice|logfile relative`, "accepted", "a path must begin with /, since the agent starts in a folder of systemd's choice"},
	{"ha.cf", `cluster a/b`, "accepted", "the name is part of file names and of the wire format"},
	{"ha.cf", `node ken3 a b c d e f g`, "accepted", "a cluster is founded by at most 7 hosts; others join it"},
	{"haresources", `ken3 (nosuch|10\.0\.0\.100 .*bill)|just.* 135\.9\.215\.111 .*|ken3 IPv6addr::fd00::1`, "accepted", "this host has no such service, or no network for the address; Heartbeat finds that out at the takeover"},
	{"haresources", `ken3 (10\.0\.0\.300/99|::x|10\.0\.0\.1)`, "accepted", "it can never work: no address, no script, or a host's own address; Heartbeat finds that out at the takeover"},
	{"haresources", `ken3 10\.0\.0\.100(\\nkathy| ).*10\.0\.0\.100`, "accepted", "a group is known by its first resource, and an address belongs to one group; Heartbeat's documentation says so and its parser does not look"},
	{"haresources", `ken3#x .*`, "refused", "Heartbeat has two readers of this file; the one that starts resources takes # for a comment anywhere, and so does hanode"},
	{"authkeys", `auth 1\\n1 sha1 HI!`, "accepted", "others may run the file (mode 610), which means nothing; hanode wants 600 or 400, as for its own key"},
	{"authkeys", `auth 1\\nauth 2.*`, "accepted", "two auth lines: which one counts is a guess"},
	{"authkeys", `auth 1\\n1 crc`, "accepted", "crc is no authentication; say --insecure-crc if the network is trusted"},
	{"authkeys", `auth 1\\n1 sha1 HI!\\n1 md5 HI!`, "accepted", "one index for two keys; Heartbeat takes the last and drops the other without a word"},
	{"authkeys", `auth 1\\n1sha1 HI!|auth1\\n.*`, "accepted", "a blank is missing, most likely elsewhere too"},
}

// hanode says of every line what Heartbeat said, or it is written why not.
func TestAgreesWithHeartbeat(t *testing.T) {
	_, verdicts := readVerdicts(t)
	used := make([]bool, len(disagreements))
	agree, differ := 0, 0
	for _, v := range verdicts {
		said, _, _, err := ours(t, v)
		if said == v.said {
			agree++
			continue
		}
		differ++
		justified := false
		for i, d := range disagreements {
			if d.file == v.file && d.heartbeat == v.said && regexp.MustCompile("^(?:"+d.pattern+")$").MatchString(v.text) {
				used[i], justified = true, true
			}
		}
		if !justified {
			t.Errorf("Heartbeat: %s; here %s: %v", v, said, err)
		}
	}
	for i, d := range disagreements {
		if !used[i] {
			t.Errorf("no case of %s differs by %q", d.file, d.pattern)
		}
	}
	t.Logf("%d lines: %d judged alike, %d otherwise", len(verdicts), agree, differ)
}

// The page lists the disagreements. Run `go test ./config -run TestDisagreementsPage
// -update` after a change.
func TestDisagreementsPage(t *testing.T) {
	const page, begin, end = "../docs/heartbeat.md", "<!-- disagreements -->\n", "<!-- end -->\n"
	src, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, verdicts := readVerdicts(t)
	var b strings.Builder
	b.WriteString("| file | such as | Heartbeat | why hanode does not |\n|---|---|---|---|\n")
	for _, d := range disagreements {
		for _, v := range verdicts {
			if d.file != v.file || d.heartbeat != v.said || !regexp.MustCompile("^(?:"+d.pattern+")$").MatchString(v.text) {
				continue
			}
			if said, _, _, _ := ours(t, v); said != v.said {
				fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", d.file, strings.ReplaceAll(v.text, "|", "\\|"), v.said, d.why)
				break
			}
		}
	}
	head, rest, ok := strings.Cut(string(src), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no lines %q and %q", page, begin, end)
	}
	text := head + begin + b.String() + end + tail
	if *update {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(text, string(src)); diff != "" {
		t.Errorf("%s is not what is judged otherwise:\n%s", page, diff)
	}
}

// How each line of the samples, and each other one, is answered.
func TestHeartbeatAnswers(t *testing.T) {
	const path = "testdata/oracle/answers.txt"
	_, verdicts := readVerdicts(t)
	var b strings.Builder
	for _, v := range verdicts {
		_, hb, dir, err := ours(t, v)
		fmt.Fprintf(&b, "== %s | %s\n", v.file, v.text)
		plain, perr := LoadHeartbeat(haDir(t, verdict{file: v.file, text: map[string]string{"haresources": "", "authkeys": "#", "ha.cf": ""}[v.file]}.files()), oracleHost(), HAOptions{})
		b.WriteString(strings.ReplaceAll(news(hb, err, plain, perr), dir+"/", ""))
	}
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("answers differ (-want +got):\n%s", diff)
	}
}

// news renders what hb says that plain does not.
func news(hb *Heartbeat, err error, plain *Heartbeat, perr error) string {
	old := map[string]bool{}
	text := func(hb *Heartbeat, err error) (out []string) {
		for _, l := range hb.Lines {
			out = append(out, fmt.Sprintf("   %s: %s | %s | %s", l.Text, l.Answer, l.To, l.Why))
		}
		var all Diagnostics
		if err != nil {
			all = append(all, err.(Diagnostics)...)
		}
		all = append(all, hb.Warnings...)
		for _, d := range all {
			if d.Line == 0 || d.Severity == SeverityWarning {
				d.File, d.Line = "", 0
				out = append(out, "   "+strings.ReplaceAll(fmt.Sprintf("%s: %s", d.Severity, d), "warning: warning: ", "warning: "))
			}
		}
		for _, d := range hb.OnHost {
			d.File, d.Line = "", 0
			out = append(out, "   here: "+d.String())
		}
		return out
	}
	for _, l := range text(plain, perr) {
		old[l] = true
	}
	var b strings.Builder
	for _, l := range text(hb, err) {
		if !old[l] {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}

// TestOracle asks the real Heartbeat, whose packages are unpacked in the folder that
// HANODE_HEARTBEAT names: heartbeat, libheartbeat2, libpils2, libplumb2, libplumbgpl2,
// libstonith1, libltdl7 and libglib2.0-0, with lib moved into usr/lib. It needs root,
// for a mount namespace of its own.
func TestOracle(t *testing.T) {
	root := os.Getenv("HANODE_HEARTBEAT")
	if root == "" {
		t.Skip("HANODE_HEARTBEAT is not set; the verdicts in " + verdictFile + " are those of an earlier run")
	}
	head, verdicts := readVerdicts(t)
	work := t.TempDir()
	for i, v := range verdicts {
		dir := filepath.Join(work, "cases", fmt.Sprintf("%03d", i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range v.files() {
			mode := os.FileMode(0o644)
			if name == "authkeys" {
				mode = v.mode
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	script, err := filepath.Abs("testdata/oracle/ask.sh")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--uts", "--net", "--pid", "--ipc", "--fork", "sh", script, root, work)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := strings.Split(string(out), "== ")[1:]
	if len(answers) != len(verdicts) {
		t.Fatalf("%d answers to %d cases", len(answers), len(verdicts))
	}
	text := head
	for i, v := range verdicts {
		got := judgeAnswer(v, answers[i])
		text += got.String() + "\n"
		if got.said != v.said && !*update {
			t.Errorf("Heartbeat says %s; written is %s", got, v.said)
		}
	}
	if *update {
		if err := os.WriteFile(verdictFile, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// judgeAnswer reads what Heartbeat printed.
func judgeAnswer(v verdict, printed string) verdict {
	v.said, v.message = "refused", ""
	if strings.Contains(printed, "Configuration validated") && !strings.Contains(printed, "Bad nodename") {
		v.said = "accepted"
	}
	stamp := regexp.MustCompile(`^\S+ +\d+ [\d:]+ ken3 heartbeat: \[\d+\]: `)
	usual := regexp.MustCompile(`Core dumps could|Consider setting|Heartbeat not started|Configuration error, heart|Authentication configuration error|Logging daemon is disabled|Initializing connection|Table size|^\] is invalid|must precede media`)
	for line := range strings.Lines(printed) {
		line = strings.TrimSpace(stamp.ReplaceAllString(strings.TrimSpace(line), ""))
		line = strings.TrimSpace(regexp.MustCompile(`\w+ +\d+ [\d:]+ ken3 heartbeat: .*`).ReplaceAllString(line, ""))
		serious := strings.HasPrefix(line, "ERROR:") || strings.HasPrefix(line, "WARN:") || strings.HasPrefix(line, "heartbeat:") || strings.HasPrefix(line, "Warn time")
		if serious && !usual.MatchString(line) && (v.message == "" || strings.HasPrefix(v.message, "WARN") && strings.HasPrefix(line, "ERROR")) {
			v.message = line
		}
	}
	return v
}
