package main

import (
	"bytes"
	"strings"
	"testing"
)

// mineAndTheirs has a group of each host.
const mineAndTheirs = `group "mine" {
  prefer = ["primary"]
  resource "ip" "10.0.0.100/24" { dev = "eth1" }
}
group "theirs" {
  prefer = ["secondary"]
  resource "ip" "10.0.0.101/24" { dev = "eth1" }
}
`

// called runs the binary under another name.
func (h *host) called(name string, args ...string) (code int, out, errs string) {
	h.t.Helper()
	h.t.Setenv("HANODE_SOCKET", h.socket)
	var o, e bytes.Buffer
	code = run("/usr/bin/"+name, args, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

// Answers and exit codes are those of Heartbeat 3.0.6's cl_status, where both know the
// same.
func TestClStatus(t *testing.T) {
	h := newHost(t)
	h.must("apply", h.write("two.hcl", mineAndTheirs))
	for _, c := range []struct {
		args string
		code int
		out  string
	}{
		{"hbstatus", 0, "Heartbeat is running on this machine.\n"},
		{"listnodes", 0, "arbiter\nsecondary\nprimary\n"},
		{"listnodes -p", 0, ""},
		{"listnodes -m -n", 0, "The nodes are as follow:\narbiter\nsecondary\nprimary\n"},
		{"nodestatus primary", 0, "active\n"},
		{"nodestatus -m primary", 0, "The cluster node primary is active\n"},
		{"nodestatus", 11, ""},
		{"nodestatus nobody", 11, ""},
		{"nodetype primary", 0, "normal\n"},
		{"nodetype -m primary", 0, "The node primary's type: normal\n"},
		{"listhblinks nobody", 13, ""},
		{"listhblinks -v secondary", 0, "\teth1\tup\n\teth0\tup\n"},
		{"hbparameter -p deadtime", 0, "1000ms\n"},
		{"hbparameter deadtime", 11, ""},
		{"clientstatus primary ipfail", 1, "offline\n"},
		{"nodesite primary", 0, "\n"},
		{"hblinkstatus primary eth9", 13, ""},
		{"hblinkstatus primary", 11, ""},
		{"rscstatus", 0, "local\n"},
		{"rscstatus -m", 0, "This node is holding local resources.\n"},
		{"rscstatus -q", 11, ""},
		{"nonsense", 11, ""},
	} {
		code, out, errs := h.called("cl_status", strings.Fields(c.args)...)
		if code != c.code || out != c.out {
			t.Errorf("cl_status %s: exit %d, %q (%s); want %d, %q", c.args, code, out, errs, c.code, c.out)
		}
		if code > 1 && errs == "" {
			t.Errorf("cl_status %s: exit %d without a word", c.args, code)
		}
	}
	h.socket = "/nonexistent"
	if code, out, _ := h.called("cl_status", "hbstatus"); code != 1 || out != "Heartbeat is stopped on this machine.\n" {
		t.Errorf("nobody there: exit %d, %q", code, out)
	}
	if code, _, _ := h.called("cl_status", "listnodes"); code != 1 {
		t.Errorf("nobody there: listnodes exits %d", code)
	}
}

func TestStandbyAndTakeover(t *testing.T) {
	h := newHost(t)
	h.must("apply", h.write("two.hcl", mineAndTheirs))
	owner := func() string { _, out, _ := h.called("cl_status", "rscstatus"); return strings.TrimSpace(out) }
	for _, c := range []struct{ command, now string }{
		{"hb_standby foreign", "local"}, // there is none of those here
		{"hb_takeover", "all"},
		{"hb_standby failback", "local"},
		{"hb_standby", "none"},
		{"hb_takeover foreign", "foreign"},
		{"hb_takeover local", "all"},
		{"hb_standby local", "foreign"},
	} {
		words := strings.Fields(c.command)
		if code, _, errs := h.called(words[0], words[1:]...); code != 0 || owner() != c.now {
			t.Errorf("%s: exit %d %s, holds %s, not %s", c.command, code, errs, owner(), c.now)
		}
	}
	for _, bad := range [][]string{{"some"}, {"all", "local"}, {"--help"}} {
		if code, out, errs := h.called("hb_standby", bad...); code != 1 || !strings.Contains(out+errs, "usage:") {
			t.Errorf("%v: exit %d, %s%s", bad, code, out, errs)
		}
	}
	for _, name := range []string{"hb_addnode", "hb_delnode"} {
		if code, _, errs := h.called(name, "x"); code != 1 || !strings.Contains(errs, "fix:") {
			t.Errorf("%s: exit %d, %s", name, code, errs)
		}
	}
}
