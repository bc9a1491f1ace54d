package resource

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"hanode/internal/spec"
)

// heartbeatDir is where Heartbeat's own scripts are.
const heartbeatDir = "/etc/ha.d/resource.d"

// heartbeat speaks to the scripts of Heartbeat's haresources, SCRIPT::ARG::ARG:
// they are called as SCRIPT ARG ARG OPERATION. A script is looked for where
// Heartbeat did: among its own first, then among the init scripts, which are read
// by their exit codes.
//
// Most of Heartbeat's own scripts did no more than call the OCF agent of their name.
// They went with its package; where one is missing its agent is called directly.
type heartbeat struct {
	own, init string
	agents    *ocf
}

// positions are the parameters that the arguments of Heartbeat's scripts became.
var positions = map[string][]string{
	"Filesystem": {"device", "directory", "fstype", "options"},
	"MailTo":     {"email", "subject"},
	"LVM":        {"volgrpname"},
	"Raid1":      {"raidconf", "raiddev"},
	"apache":     {"configfile"},
	"Xinetd":     {"service"},
	"IPsrcaddr":  {"ipaddress"},
	"Delay":      {"startdelay", "stopdelay"},
	"portblock":  {"protocol", "portno", "action"},
	"db2":        {"instance"},
}

// heartbeatWords splits SCRIPT::ARG::ARG. As in Heartbeat an empty argument is none.
func heartbeatWords(name string) (script string, args []string) {
	words := strings.Split(name, "::")
	for _, w := range words[1:] {
		if w != "" {
			args = append(args, w)
		}
	}
	return words[0], args
}

// found is what runs a resource: one of Heartbeat's scripts, an init script, or an
// OCF agent.
type found struct {
	path  string
	args  []string
	init  bool
	agent *spec.Resource // the same as a resource of the agent; nil = it is a script
}

func (h heartbeat) find(r spec.Resource) (found, error) {
	script, args := heartbeatWords(r.Name)
	if script == "" || script == "." || script == ".." || strings.ContainsRune(script, '/') {
		return found{}, fmt.Errorf("%q is not the name of a script", script)
	}
	own, init := filepath.Join(h.own, script), filepath.Join(h.init, script)
	why := executable(own)
	if why == "" {
		return found{path: own, args: args}, nil
	}
	if executable(init) == "" {
		return found{path: init, args: args, init: true}, nil
	}
	agent := r
	agent.Agent = "heartbeat:" + script
	path := h.agents.path(agent.Agent)
	names, ok := positions[script]
	if ok && executable(path) == "" {
		if len(args) > len(names) {
			return found{}, fmt.Errorf("%s takes at most %d arguments: %s", script, len(names), strings.Join(names, ", "))
		}
		agent.Params = map[string]string{}
		for i, a := range args {
			agent.Params[names[i]] = a
		}
		return found{path: path, agent: &agent}, nil
	}
	if strings.HasSuffix(why, " does not exist") {
		why = fmt.Sprintf("there is no script %s, neither in %s nor in %s", script, h.own, h.init)
		if ok {
			why += "; nor an OCF agent of that name: install resource-agents"
		}
	}
	return found{}, errors.New(why)
}

func (h heartbeat) call(ctx context.Context, r spec.Resource, env Env, op string, every time.Duration) (call, error) {
	f, err := h.find(r)
	if err != nil {
		return call{}, err
	}
	if f.agent != nil {
		return h.agents.call(ctx, *f.agent, env, op, every)
	}
	c := lsbCall(f.path, f.args, op)
	// Heartbeat reads words: they must be the ones it knows.
	c.env = []string{"LC_ALL=C", "HA_DIR=" + filepath.Dir(h.own), "HA_FUNCS=" + filepath.Join(filepath.Dir(h.own), "shellfuncs")}
	return c, nil
}

func (heartbeat) forgives() bool  { return true }
func (heartbeat) asksFirst() bool { return true } // Heartbeat did

func (h heartbeat) refused(r spec.Resource, op string, err error) error {
	if f, _ := h.find(r); f.agent != nil {
		return h.agents.refused(*f.agent, op, err)
	}
	return lsbRefused(op, err)
}

func (h heartbeat) state(r spec.Resource, err error, printed string) error {
	switch f, _ := h.find(r); {
	case f.agent != nil:
		return h.agents.state(*f.agent, err, printed)
	case f.init:
		return lsbState(r, err)
	}
	return heartbeatState(r, err, printed)
}

var (
	saysNotRunning = regexp.MustCompile(`(?i)not running|\bstopped\b`)
	saysRunning    = regexp.MustCompile(`[Rr]unning|OK`)
)

// heartbeatState reads what status printed, by Heartbeat's rule: "running" or "OK"
// is running, everything else is not. One thing is added: a script that failed
// without saying either has not said that nothing runs.
func heartbeatState(r spec.Resource, err error, printed string) error {
	code := exitCode(err)
	switch {
	case code < 0:
		return err
	case saysNotRunning.MatchString(printed):
		return stopped(r, lastLine(printed))
	case saysRunning.MatchString(printed):
		return nil
	case code == 0, code == lsbNotRunning, code == ocfNotRunning:
		return stopped(r, "its status does not say that it runs")
	}
	return err
}

func (h heartbeat) Timeouts(r spec.Resource) Timeouts {
	if f, _ := h.find(r); f.agent != nil {
		return h.agents.Timeouts(*f.agent)
	}
	return Timeouts{}
}

func (h heartbeat) Check(ctx context.Context, r spec.Resource) []Finding {
	f, err := h.find(r)
	switch {
	case err != nil:
		return lacks("%v", err)
	case f.agent != nil:
		return h.agents.Check(ctx, *f.agent)
	case f.init && !knowsStatus(f.path):
		return lacks("%s has no status operation, so nobody could tell whether it runs", f.path)
	}
	return nil
}

func (h heartbeat) validates(r spec.Resource) (*ocf, spec.Resource) {
	if f, _ := h.find(r); f.agent != nil {
		return h.agents, *f.agent
	}
	return nil, r
}
