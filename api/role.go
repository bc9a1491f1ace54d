package api

import (
	"fmt"
	"net/http"
)

// Role is what a caller may do; each includes those before it.
type Role int

// The roles.
const (
	Nobody  Role = iota
	Read         // see
	Operate      // move what runs, and say when it may
	Admin        // say what runs, who is a member, and with which key
)

// String is the role's name.
func (r Role) String() string {
	switch r {
	case Read:
		return "read"
	case Operate:
		return "operate"
	case Admin:
		return "admin"
	case Nobody:
	}
	return "nobody"
}

// roles says for every call which role it takes. What is not here takes Admin; a test
// fails if a call is missing.
var roles = map[string]Role{
	"GET /v1/members":   Read,
	"GET /v1/status":    Read,
	"GET /v1/export":    Read,
	"GET /v1/why":       Read,
	"GET /v1/key":       Read,
	"GET /v1/tune":      Read,
	"GET /v1/version":   Read,
	"GET /v1/heartbeat": Read,
	"GET /v1/events":    Read,
	"GET /metrics":      Read,
	"/":                 Read, // there is no such call

	"POST /v1/plan":        Operate, // asks the networks
	"POST /v1/move":        Operate,
	"POST /v1/standby":     Operate,
	"POST /v1/maintenance": Operate,
	"POST /v1/clear":       Operate,
	"POST /v1/tune":        Operate,
	"GET /v1/tokens":       Operate,

	"POST /v1/apply":        Admin, // runs programs as root
	"POST /v1/confirm-off":  Admin, // a false word may damage data
	"POST /v1/remove":       Admin,
	"POST /v1/leave":        Admin,
	"POST /v1/token":        Admin,
	"POST /v1/token/revoke": Admin,
	"GET /v1/snapshot":      Admin,
	"POST /v1/key/rotate":   Admin,
}

// calls is a mux that knows what it answers.
type calls struct {
	http.ServeMux
	patterns []string
}

// Handle adds a call.
func (c *calls) Handle(pattern string, h http.Handler) {
	c.patterns = append(c.patterns, pattern)
	c.ServeMux.Handle(pattern, h)
}

// HandleFunc adds a call.
func (c *calls) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	c.Handle(pattern, http.HandlerFunc(h))
}

// takes is the role that a request takes.
func (c *calls) takes(r *http.Request) Role {
	_, pattern := c.Handler(r)
	if need, ok := roles[pattern]; ok {
		return need
	}
	return Admin
}

// allow answers a request if who has the role that it takes; else refuse says why not.
func (c *calls) allow(who func(*http.Request) Role, refuse func(r *http.Request, have, need Role) *Error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		need := c.takes(r)
		if have := who(r); have < need {
			writeError(w, nil, refuse(r, have, need))
			return
		}
		c.ServeHTTP(w, r)
	})
}

// lacks is the refusal of a caller that is known and may do less.
func lacks(who string, have, need Role, fix string) *Error {
	return &Error{
		Code: CodeNotAllowed, Exit: ExitFailed, Fix: fix,
		Message: fmt.Sprintf("%s has the role %s here, and this takes %s", who, have, need),
	}
}
