package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestWhatTheServerRefuses(t *testing.T) {
	for _, c := range []struct {
		method, path, ctype, body string
		status                    int
		code, want                string
	}{
		{"POST", "/v1/apply", "application/json", `{}`, 400, CodeBadRequest, "groups is missing"},
		{"POST", "/v1/apply", "text/plain", `{"groups":[]}`, 400, CodeBadRequest, "not marked as JSON"},
		{"POST", "/v1/apply", "", `{"groups":[]}`, 400, CodeBadRequest, "not marked as JSON"},
		{"POST", "/v1/apply", "application/json", `{"groups":[],"x":"` + strings.Repeat("y", MaxBody) + `"}`, 400, CodeBadRequest, "longer than 1048576"},
		{"GET", "/v1/apply", "", "", 404, CodeNoSuchCall, "no call GET /v1/apply"},
		{"POST", "/v1/members", "application/json", "{}", 404, CodeNoSuchCall, "no call POST /v1/members"},
		{"GET", "/v2/members", "", "", 404, CodeNoSuchCall, "/v2/members"},
		{"GET", "/metrics", "", "", 404, CodeNoSuchCall, "/metrics"},
		{"GET", "/v1/members?x=1", "", "", 400, CodeBadRequest, `"x"`},
		{"GET", "/v1/status?group=a&group=b", "", "", 400, CodeBadRequest, "twice"},
		{"GET", "/v1/why", "", "", 400, CodeBadRequest, "group is missing"},
		{"GET", "/v1/events?after=-1", "", "", 400, CodeBadRequest, "after is"},
		{"GET", "/v1/events?follow=1", "", "", 400, CodeBadRequest, "follow is"},
		{"GET", "/v1/events?from=1", "", "", 400, CodeBadRequest, `"from"`},
	} {
		t.Run(c.method+c.path, func(t *testing.T) {
			b := &countingBackend{}
			w := ask(Handler(b), c.method, c.path, c.ctype, c.body)
			e := errorIn(t, w)
			if w.Code != c.status || e.Code != c.code || e.Exit != ExitFailed || !strings.Contains(e.Message, c.want) {
				t.Errorf("got %d %+v, want %d %s %q", w.Code, e, c.status, c.code, c.want)
			}
			if b.calls != 0 {
				t.Error("the backend was called nevertheless")
			}
		})
	}
}

func TestReadOnlyChangesNothing(t *testing.T) {
	b := &countingBackend{}
	h := ReadOnly(b)
	for _, call := range []string{"apply", "plan", "move", "standby", "maintenance", "confirm-off", "leave"} {
		for _, method := range []string{"GET", "POST", "PUT"} {
			if w := ask(h, method, "/v1/"+call, "application/json", `{"groups":[],"on":true}`); w.Code != 404 && w.Code != 400 {
				t.Errorf("%s %s: status %d", method, call, w.Code)
			}
		}
	}
	if b.calls != 0 {
		t.Error("the backend was called")
	}
	if w := ask(h, "GET", "/v1/members", "", ""); w.Code != 200 || w.Body.String() != "[]\n" {
		t.Errorf("members: %d %s", w.Code, w.Body)
	}
}

// A web page may make its own name point at 127.0.0.1 and read through it.
func TestReadOnlyAnswersOnlyToAddresses(t *testing.T) {
	for host, want := range map[string]int{
		"127.0.0.1:7696": 200, "localhost:7696": 200, "localhost": 200, "[::1]:7696": 200, "[::1]": 200, "10.0.0.1": 200,
		"evil.example": 403, "evil.example:7696": 403, "localhost.evil.example": 403, "": 403, "[]": 403,
	} {
		r := httptest.NewRequest("GET", "/v1/members", nil)
		r.Host = host
		w := httptest.NewRecorder()
		ReadOnly(&countingBackend{}).ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("Host %q: status %d, want %d", host, w.Code, want)
		}
	}
}

type measured struct{ countingBackend }

func (*measured) Metrics() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hanode_up 1\n") })
}

func TestMetricsWhereThereAreAny(t *testing.T) {
	w := ask(Handler(&measured{}), "GET", "/metrics", "", "")
	if w.Code != 200 || w.Body.String() != "hanode_up 1\n" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestStatusFitsTheError(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		exit   int
	}{
		{&Error{Code: "no-quorum", Exit: ExitNoQuorum}, 503, 3},
		{&Error{Code: "not-eligible", Exit: ExitFailed}, 409, 1},
		{fmt.Errorf("move: %w", &Error{Code: CodeNotFound, Exit: ExitFailed}), 404, 1},
		{fmt.Errorf("disk full"), 500, 1},
		{fmt.Errorf("wait: %w", context.Canceled), 503, 4},
	} {
		w := httptest.NewRecorder()
		writeError(w, nil, c.err)
		if e := errorIn(t, w); w.Code != c.status || e.Exit != c.exit {
			t.Errorf("%v: got %d %+v", c.err, w.Code, e)
		}
	}
}

func TestAnAnswerWithoutJSONFormIsAnError(t *testing.T) {
	w := httptest.NewRecorder()
	answer(w, &MoveResult{SilentMS: new(math.NaN())}, nil)
	if e := errorIn(t, w); w.Code != 500 || e.Code != CodeInternal {
		t.Errorf("got %d %+v", w.Code, e)
	}
}

func ask(h http.Handler, method, path, ctype, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "localhost"
	if ctype != "" {
		r.Header.Set("Content-Type", ctype)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func errorIn(t *testing.T, w *httptest.ResponseRecorder) Error {
	t.Helper()
	var f struct {
		Error  *Error
		Result json.RawMessage
	}
	if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil || f.Error == nil {
		t.Fatalf("no error in the answer: %s", w.Body)
	}
	return *f.Error
}

// slowBackend takes its time to move a group.
type slowBackend struct {
	countingBackend
	takes time.Duration
}

func (b *slowBackend) Move(ctx context.Context, r MoveRequest) (*MoveResult, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(b.takes):
		return b.countingBackend.Move(ctx, r)
	}
}

// The bound on a body bounds neither the call nor the answer.
func TestLongCallsAreNotCutOff(t *testing.T) {
	srv := httptest.NewServer(bounded(Handler(&slowBackend{takes: 300 * time.Millisecond}), 50*time.Millisecond))
	defer srv.Close()
	resp, err := srv.Client().Post(srv.URL+"/v1/move", "application/json", strings.NewReader(`{"group":"web"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 {
		t.Errorf("status %d: %s", resp.StatusCode, b)
	}
}

func TestBodiesThatDoNotArrive(t *testing.T) {
	srv := httptest.NewServer(bounded(Handler(&countingBackend{}), 50*time.Millisecond))
	defer srv.Close()
	for _, head := range []string{"POST /v1/move", "GET /v1/members", "GET /v1/events?follow=true"} {
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{", head)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: the connection stays: %v", head, err)
		}
		_ = c.Close()
	}
}
