package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

// eventLine is one line of the stream: an event, or the error that ends it.
type eventLine struct {
	Event
	Error *Error `json:"error"`
}

// serveEvents streams JSON lines. Each is an Event; when the stream ends with an
// error the last line is {"error": {...}} instead, because the status of the
// answer has long been sent.
func serveEvents(w http.ResponseWriter, r *http.Request, b Backend) {
	q, err := parseQuery(r, "after", "follow")
	if err != nil {
		writeError(w, nil, err)
		return
	}
	after, follow, err := eventsQuery(q)
	if err != nil {
		writeError(w, nil, badRequest(err.Error(), "/v1/events?after=INDEX&follow=true"))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/x-ndjson")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	if follow {
		_ = rc.Flush() // the client learns at once that it is connected
	}
	gone := false
	err = b.Events(r.Context(), after, follow, func(e Event) error {
		if err := WriteJSON(w, e, false); err != nil {
			gone = true
			return fmt.Errorf("write event %d: %w", e.Index, err)
		}
		if !follow {
			return nil
		}
		if err := rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			gone = true
			return fmt.Errorf("write event %d: %w", e.Index, err)
		}
		return nil
	})
	if err != nil && !gone {
		_ = WriteJSON(w, struct {
			Error *Error `json:"error"`
		}{asError(err)}, false)
	}
}

func eventsQuery(q query) (after uint64, follow bool, err error) {
	if s, ok := q["after"]; ok {
		if after, err = strconv.ParseUint(s, 10, 64); err != nil {
			return 0, false, fmt.Errorf("after is %q; it must be the index of an event", s)
		}
	}
	switch s, ok := q["follow"]; {
	case !ok || s == "false":
	case s == "true":
		follow = true
	default:
		return 0, false, fmt.Errorf("follow is %q; it must be true or false", s)
	}
	return after, follow, nil
}
