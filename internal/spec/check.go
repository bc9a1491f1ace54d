package spec

import (
	"cmp"
	"fmt"
	"time"
)

// Check asks a service of a group from outside, again and again, as a client would.
// It fails the resource that it stands behind, see [Group.Checked].
type Check struct {
	Type string `json:"type"` // http, tcp, exec
	// Target is a URL, an ADDRESS:PORT, or the name of an exec check.
	Target  string   `json:"target"`
	Command []string `json:"command,omitempty"` // of exec: an argument list; no shell
	// After is how many of the group's resources stand before it.
	After int `json:"after,omitempty"`
	// Interval is the time between two tries, Timeout the longest that one may take.
	// 0 = DefaultInterval, DefaultCheckTimeout.
	Interval time.Duration `json:"interval,omitempty"`
	Timeout  time.Duration `json:"timeout,omitempty"`
	// Grace is how long the service may take to succeed Rise times in a row after its
	// start; failures before that do not count. 0 = DefaultGrace.
	Grace time.Duration `json:"grace,omitempty"`
	// Rise is how many successes in a row make it good, Fall how many failures in a row
	// make it bad after that. 0 = DefaultRise, DefaultFall.
	Rise int `json:"rise,omitempty"`
	Fall int `json:"fall,omitempty"`
}

// What a check means where it is silent.
const (
	DefaultInterval     = 5 * time.Second
	DefaultCheckTimeout = 3 * time.Second
	DefaultGrace        = 30 * time.Second
	DefaultRise         = 2
	DefaultFall         = 3
)

// WithDefaults is c with every zero replaced by what it means.
func (c Check) WithDefaults() Check {
	c.Interval = cmp.Or(c.Interval, DefaultInterval)
	c.Timeout = cmp.Or(c.Timeout, DefaultCheckTimeout)
	c.Grace = cmp.Or(c.Grace, DefaultGrace)
	c.Rise = cmp.Or(c.Rise, DefaultRise)
	c.Fall = cmp.Or(c.Fall, DefaultFall)
	return c
}

// String names the check for people: http "http://127.0.0.1/".
func (c Check) String() string { return fmt.Sprintf("%s %q", c.Type, c.Target) }

// Checked is the index in Resources of what c fails: the nearest resource before it
// that is no address, else the first that is none, else the first. Without
// resources it is 0.
func (g Group) Checked(c Check) int {
	for i := min(c.After, len(g.Resources)) - 1; i >= 0; i-- {
		if g.Resources[i].Type != "ip" {
			return i
		}
	}
	for i, r := range g.Resources {
		if r.Type != "ip" {
			return i
		}
	}
	return 0
}
