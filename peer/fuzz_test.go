package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"hanode/fsm"
	"hanode/internal/spec"
)

// anyone answers whatever it is asked.
type anyone struct {
	*agent
	joins []JoinRequest
}

func (*anyone) InUse(context.Context, []spec.Resource) (map[string]string, error) { return nil, nil }
func (*anyone) Fit(string, Fitness)                                               {}
func (*anyone) StopForeign(context.Context, []spec.Group) error                   { return nil }

func (a *anyone) Join(_ context.Context, q JoinRequest) (Admission, error) {
	a.joins = append(a.joins, q)
	return Admission{Key: []byte("secret")}, nil
}

// FuzzServer: whatever a member sends is answered in one form or refused, and what is
// proposed is a command that can be written and read.
func FuzzServer(f *testing.F) {
	paths := []string{"/peer/propose", "/peer/check", "/peer/fit", "/peer/in-use", "/peer/stop-foreign", "/peer/join", "/peer/rejoin?request=", "/peer/report?group=", "/peer/hello", "/peer/mark"}
	cmd, err := fsm.Encode(fsm.Command{Maintenance: &fsm.Maintenance{On: true}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(0), cmd)
	f.Add(byte(0), []byte("\x01{}"))
	f.Add(byte(1), []byte(`[{"name":"web","resources":[{"type":"ip","name":"10.0.0.1"}]}]`))
	f.Add(byte(2), []byte(`{"groups":[{"group":"web","findings":[{"kind":"lacks"}]}]}`))
	f.Add(byte(3), []byte(`[{}] x`))
	f.Add(byte(5), []byte(`{"protocol":1}`))
	f.Fuzz(func(t *testing.T, which byte, body []byte) {
		svc := &anyone{agent: &agent{}}
		h := NewServer(svc, nil, slog.New(slog.DiscardHandler)).http.Handler
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, "http://b"+paths[int(which)%len(paths)], bytes.NewReader(body)))
			var r reply
			if w.Code == http.StatusOK && json.Unmarshal(w.Body.Bytes(), &r) != nil {
				t.Errorf("%s %q: %q", method, body, w.Body)
			}
		}
		for _, c := range svc.commands {
			if _, err := fsm.Encode(c); err != nil {
				t.Errorf("%q was proposed, and cannot be written: %v", body, err)
			}
		}
	})
}

// FuzzDoor: who has no key is let in only by a whole request.
func FuzzDoor(f *testing.F) {
	f.Add([]byte(`{"protocol":2,"oldest":1,"cluster":"web","node":{"name":"d","address":"10.0.0.4"},"token":"t","secret":"s","request":"r"}`))
	f.Add([]byte(`{"protocol":2,"more":1}`))
	f.Add([]byte(`{"node":{}}{"node":{}}`))
	f.Add([]byte(`{"secret":"` + strings.Repeat("a", maxJoin) + `"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		svc := &anyone{agent: &agent{}}
		w := httptest.NewRecorder()
		NewDoor(svc, slog.New(slog.DiscardHandler)).http.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "http://b/join", bytes.NewReader(body)))
		var q JoinRequest
		whole := len(body) <= maxJoin && json.Unmarshal(body, &q) == nil
		if len(svc.joins) > 0 && !whole {
			t.Errorf("asked because of %q", body)
		}
		if len(svc.joins) == 0 && bytes.Contains(w.Body.Bytes(), []byte(`"key"`)) {
			t.Errorf("%q was answered with %s", body, w.Body)
		}
	})
}

type answers []byte

func (a answers) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(a)), Request: r}, nil
}

// FuzzAnswer: whatever another node answers, the call ends with a value or an error.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"value":{"name":"b","state":"member","voters":["a"]}}`))
	f.Add([]byte(`{"not_leader":true}`))
	f.Add([]byte(`{"err":"no","value":3}`))
	f.Add([]byte(`{"value":{"by":"b","disk":3,"nodes":[{"name":"d"}],"key":"a2V5"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &Client{nodes: map[string]*http.Client{"b": {Transport: answers(b)}}}
		ctx := context.Background()
		_, _ = c.Hello(ctx, "b")
		_, _ = c.Propose(ctx, "b", fsm.Command{Maintenance: &fsm.Maintenance{}})
		_, _ = c.Mark(ctx, "b")
		_, _ = c.Rejoin(ctx, "b", "r")
		_, _ = c.Check(ctx, "b", nil)
		_, _ = c.Report(ctx, "b", "web")
		_, _ = c.Join(ctx, "b", JoinRequest{})
		_, _ = c.InUse(ctx, "b", nil)
	})
}
