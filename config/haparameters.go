package config

import (
	"fmt"
	"strconv"

	"hanode/internal/spec"
)

// haParameters are the directives of ha.cf that cl_status asked for by name.
var haParameters = []string{
	"auto_failback", "baud", "debug", "debugfile", "deadping", "deadtime", "hopfudge", "initdead", "keepalive", "logfacility", "logfile", "msgfmt",
	"nice_failback", "udpport", "warntime", "watchdog",
}

// HeartbeatParameters are the values of ha.cf's directives as `cl_status hbparameter`
// gives them: as they are written there, else what they are, times in ms. timing is the
// cluster's. What is not set and has no default is left out.
func (n *Node) HeartbeatParameters(timing spec.Timing) map[string]string {
	ms := func(v int64) string { return fmt.Sprintf("%dms", v) }
	deadping := n.Deadping
	if deadping == 0 {
		deadping = timing.Deadtime
	}
	out := map[string]string{
		"baud": "19200", "debug": "0", "hopfudge": "1", "udpport": strconv.Itoa(n.Port),
		"keepalive": ms(timing.Keepalive.Milliseconds()), "deadtime": ms(timing.Deadtime.Milliseconds()), "warntime": ms(timing.Warntime.Milliseconds()),
		"initdead": ms(timing.Initdead.Milliseconds()), "deadping": ms(deadping.Milliseconds()),
	}
	for name, v := range map[string]string{"logfile": n.LogFile, "debugfile": n.DebugFile, "logfacility": n.Syslog, "watchdog": n.Watchdog} {
		if v != "" {
			out[name] = v
		}
	}
	for _, name := range haParameters {
		if v, ok := n.written[name]; ok {
			out[name] = v
		}
	}
	return out
}
