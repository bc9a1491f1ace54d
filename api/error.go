package api

import (
	"context"
	"errors"
	"net/http"
)

// Error is a refusal or failure as people read it and programs branch on it.
type Error struct {
	Code    string `json:"code"`    // kebab-case
	Message string `json:"message"` // what happened: a sentence without a full stop
	Fix     string `json:"fix"`     // what to do about it; "" = nothing
	Exit    int    `json:"exit"`    // exit code of the command: 1, 3 or 4
}

// Error implements error. The fix is not part of it.
func (e *Error) Error() string { return e.Message }

// Codes that this package gives. The agent adds its own.
const (
	CodeBadRequest = "bad-request"
	CodeNoSuchCall = "no-such-call"
	CodeNotAllowed = "not-allowed"
	CodeNotFound   = "not-found" // an unknown group or node
	// CodeNeedsConfirmation asks for a typed sentence, or for --yes.
	CodeNeedsConfirmation = "needs-confirmation"
	CodeStopping          = "agent-stopping"
	CodeInternal          = "internal"
	CodeUnreachable       = "agent-unreachable"
)

// asError turns any error of a Backend into what goes over the wire.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, context.Canceled) {
		return &Error{
			Code: CodeStopping, Exit: ExitUnreachable,
			Message: "the agent is stopping",
			Fix:     "ask again once it runs, or ask another node",
		}
	}
	return &Error{
		Code: CodeInternal, Exit: ExitFailed, Message: err.Error(),
		Fix: "the agent's log has more: journalctl -u hanode",
	}
}

// httpStatus is the HTTP status that fits e.
func httpStatus(e *Error) int {
	switch e.Code {
	case CodeBadRequest:
		return http.StatusBadRequest
	case CodeNotAllowed:
		return http.StatusForbidden
	case CodeNotFound, CodeNoSuchCall:
		return http.StatusNotFound
	case CodeInternal:
		return http.StatusInternalServerError
	}
	switch e.Exit {
	case ExitNoQuorum, ExitUnreachable:
		return http.StatusServiceUnavailable
	}
	return http.StatusConflict
}

func badRequest(message, fix string) *Error {
	return &Error{Code: CodeBadRequest, Message: message, Fix: fix, Exit: ExitFailed}
}
