package config

import (
	"fmt"
	"time"

	"hanode/internal/spec"
)

// Answer says what becomes of a line of Heartbeat's files.
type Answer string

const (
	AnswerKept       Answer = "kept"       // the same word, the same meaning
	AnswerTranslated Answer = "translated" // it has another form here, and does the same
	AnswerReplaced   Answer = "replaced"   // something else does its work
	AnswerIgnored    Answer = "ignored"    // nothing here has a use for it
	AnswerRefused    Answer = "refused"    // the files cannot be used until it is changed
)

// HeartbeatLine is the answer to one line of Heartbeat's files; in haresources to one
// resource.
type HeartbeatLine struct {
	File   string `json:"file"`
	Line   int    `json:"line"` // from 1
	Text   string `json:"text"` // as it is written, without the key of authkeys
	Answer Answer `json:"answer"`
	To     string `json:"to"`  // what it became, in the words of hanode.hcl; "" = nothing
	Why    string `json:"why"` // "" = nothing to add
}

// Heartbeat is what ha.cf, haresources and authkeys say.
type Heartbeat struct {
	Dir string
	// Node is the node that they describe, the same as a node file would. Its
	// addresses are those that this host knows.
	Node *Node
	// Groups are those of haresources, on the founders of Node.
	Groups []spec.Group
	// Resources is the text of haresources, for a comparison between hosts.
	Resources []byte
	// Lines are the answers, in the order of the files.
	Lines []HeartbeatLine
	// Warnings are what an operator should know.
	Warnings Diagnostics
	// OnHost is what is wrong on this host only: its name, devices, services. An agent
	// refuses them.
	OnHost Diagnostics
}

// haReport collects what is said of Heartbeat's files: diagnostics, and an answer to
// each line.
type haReport struct {
	lines  []HeartbeatLine
	diags  Diagnostics
	onHost Diagnostics
}

// put files a diagnostic of one file. An error makes the newest answer to its line a
// refusal.
func (r *haReport) put(file string, line int, f finding, s Severity) {
	one := report{file: file}
	one.put(line, f, s)
	r.diags = append(r.diags, one.diags...)
	if s != SeverityError || line == 0 {
		return
	}
	for i := len(r.lines) - 1; i >= 0; i-- {
		l := &r.lines[i]
		if l.File == file && l.Line == line {
			if l.Answer != AnswerRefused || l.Why == "" {
				l.Answer, l.To, l.Why = AnswerRefused, "", joinParts(one.diags[0])
			}
			return
		}
	}
}

// refuse files an error of one answer, where a line has several.
func (r *haReport) refuse(row int, f finding) {
	l := &r.lines[row]
	one := report{file: l.File}
	one.add(l.Line, f)
	r.diags = append(r.diags, one.diags...)
	if l.Answer != AnswerRefused {
		l.Answer, l.To, l.Why = AnswerRefused, "", joinParts(one.diags[0])
	}
}

// here files what is wrong on this host only.
func (r *haReport) here(file string, line int, f finding) {
	one := report{file: file}
	one.put(line, f, SeverityError)
	r.onHost = append(r.onHost, one.diags...)
}

// joinParts is a diagnostic without its place.
func joinParts(d Diagnostic) string {
	d.File, d.Line, d.Severity = "", 0, SeverityError
	return d.String()
}

// haTime is a time of ha.cf; line 0 = it is not written.
type haTime struct {
	d    time.Duration
	line int
}

func (t haTime) or(def time.Duration) time.Duration {
	if t.line == 0 {
		return def
	}
	return t.d
}

// parseHaTime reads a time as Heartbeat does: seconds, with decimals if wanted, or with
// ms or us behind. It is rounded to milliseconds.
func parseHaTime(what, text string) (time.Duration, finding) {
	bad := finding{
		what:    fmt.Sprintf("%s is %s, not a time", what, quote(text)),
		allowed: `it takes seconds such as 10 or 0.5, or milliseconds such as 1500ms`,
	}
	digits := 0
	for digits < len(text) && (text[digits] >= '0' && text[digits] <= '9' || text[digits] == '.') {
		digits++
	}
	number, unit := text[:digits], text[digits:]
	if !bareNumber(number) || len(number) > 15 {
		return 0, bad
	}
	scale, ok := map[string]float64{
		"": 1e3, "ms": 1, "msec": 1, "us": 1e-3, "usec": 1e-3,
	}[lower(unit)]
	if !ok {
		if _, err := time.ParseDuration(text); err == nil {
			bad.remedy = "a bare number is in seconds: leave the unit out, or write milliseconds with ms"
		}
		return 0, bad
	}
	var n float64
	if _, err := fmt.Sscanf(number, "%g", &n); err != nil {
		return 0, bad
	}
	ms := n*scale + 0.5
	if ms > float64(maxHaTime/time.Millisecond) {
		return 0, finding{what: fmt.Sprintf("%s is %s", what, quote(text)), allowed: "the most is " + duration(maxHaTime)}
	}
	return time.Duration(int64(ms)) * time.Millisecond, finding{}
}

// maxHaTime is the longest time that ha.cf may give, so that sums of them fit.
const maxHaTime = 365 * 24 * time.Hour

// haTimes renders a time as ha.cf takes it.
func haTimes(d time.Duration) string {
	if d%time.Second == 0 {
		return fmt.Sprint(int64(d / time.Second))
	}
	return fmt.Sprintf("%dms", d.Milliseconds())
}

// haBool reads one of Heartbeat's words for yes and no.
func haBool(text string) (v, ok bool) {
	switch lower(text) {
	case "true", "on", "yes", "y", "1":
		return true, true
	case "false", "off", "no", "n", "0":
		return false, true
	}
	return false, false
}

// lower is strings.ToLower for ASCII: the only letters that Heartbeat folds.
func lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
