// Package supervise tells systemd how this process lives: ready, alive, what it does,
// about to stop. It decides nothing about any of it. The protocol is one datagram of
// text (sd_notify(3)), so there is no library for it here; those that exist read the
// environment each time, and the programs of groups must not find it there.
package supervise

import (
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Systemd is the supervisor that started this process as a unit of Type=notify. Safe
// for concurrent use. What cannot be told is not: systemd itself then sees to it.
type Systemd struct{ conn net.Conn }

// Open finds the supervisor in the environment and takes it out of there, so that
// programs this process starts cannot speak for it. nil = nobody supervises.
func Open() *Systemd {
	addr := os.Getenv("NOTIFY_SOCKET")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name)
	}
	if addr == "" {
		return nil
	}
	// "@" is an abstract name; Go's net means the same by it.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		return nil
	}
	return &Systemd{conn}
}

// Ready ends the start of the unit.
func (s *Systemd) Ready() { s.tell("READY=1") }

// Alive feeds the unit's watchdog (WatchdogSec=).
func (s *Systemd) Alive() { s.tell("WATCHDOG=1") }

// Status is the line that `systemctl status` shows.
func (s *Systemd) Status(line string) { s.tell("STATUS=" + strings.ReplaceAll(line, "\n", " ")) }

// Stopping says that the end has begun and may take that long from now, whatever
// TimeoutStopSec= says.
func (s *Systemd) Stopping(limit time.Duration) {
	s.tell("STOPPING=1\nEXTEND_TIMEOUT_USEC=" + strconv.FormatInt(limit.Microseconds(), 10))
}

func (s *Systemd) tell(what string) { _, _ = s.conn.Write([]byte(what)) }
