package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"strconv"

	"hanode/internal/spec"
)

// MaxBody is the longest request body, in bytes.
const MaxBody = 1 << 20

// Handler serves every call of b. It asks nobody who he is: mount it only where
// that is settled, such as the mutual TLS between agents. Socket.Serve does so
// for the unix socket.
func Handler(b Backend) http.Handler { return every(b) }

// every returns all calls.
func every(b Backend) *calls {
	mux := reads(b)
	mux.HandleFunc("POST /v1/plan", post(decodePlan, func(ctx context.Context, q ApplyRequest) (any, error) {
		return nonNil(b.Plan(ctx, q.Groups))
	}))
	mux.HandleFunc("POST /v1/apply", post(decodeApply, func(ctx context.Context, q ApplyRequest) (any, error) {
		return nonNil(b.Apply(ctx, q))
	}))
	mux.HandleFunc("POST /v1/move", post(decodeMove, func(ctx context.Context, q MoveRequest) (any, error) {
		return nonNil(b.Move(ctx, q))
	}))
	mux.HandleFunc("POST /v1/standby", post(decodeNode, func(ctx context.Context, q nodeRequest) (any, error) {
		return nonNil(b.Standby(ctx, q.node, q.on, q.wait))
	}))
	mux.HandleFunc("POST /v1/maintenance", post(decodeSwitch, func(ctx context.Context, on bool) (any, error) {
		return switchBody{On: &on}, b.Maintenance(ctx, on)
	}))
	mux.HandleFunc("POST /v1/clear", post(decodeClear, func(ctx context.Context, q ClearRequest) (any, error) {
		return nonNil(b.Clear(ctx, q))
	}))
	mux.HandleFunc("POST /v1/confirm-off", post(decodeConfirmOff, func(ctx context.Context, q ConfirmOffRequest) (any, error) {
		return nonNil(b.ConfirmOff(ctx, q))
	}))
	mux.HandleFunc("POST /v1/tune", post(decodeReset, func(ctx context.Context, reset bool) (any, error) {
		return nonNil(b.Tune(ctx, reset))
	}))
	mux.HandleFunc("POST /v1/remove", post(decodeRemove, func(ctx context.Context, q RemoveRequest) (any, error) {
		return nonNil(b.Remove(ctx, q))
	}))
	mux.HandleFunc("GET /v1/tokens", get(func(ctx context.Context, _ query) (any, error) {
		t, err := b.Tokens(ctx)
		return List[Token](t), err
	}))
	mux.HandleFunc("POST /v1/token", post(decodeToken, func(ctx context.Context, q TokenRequest) (any, error) {
		return nonNil(b.CreateToken(ctx, q.TTL))
	}))
	mux.HandleFunc("POST /v1/token/revoke", post(decodeID, func(ctx context.Context, id string) (any, error) {
		return struct{}{}, b.RevokeToken(ctx, id)
	}))
	mux.HandleFunc("GET /v1/snapshot", get(func(ctx context.Context, _ query) (any, error) {
		return nonNil(b.Snapshot(ctx))
	}))
	mux.HandleFunc("POST /v1/key/rotate", post(decodeRotateKey, func(ctx context.Context, q RotateKeyRequest) (any, error) {
		return nonNil(b.RotateKey(ctx, q))
	}))
	mux.HandleFunc("POST /v1/leave", post(decodeEmpty, func(ctx context.Context, _ struct{}) (any, error) {
		return struct{}{}, b.Leave(ctx)
	}))
	return mux
}

// ReadOnly serves what changes nothing, for a port that asks nobody who he is.
// It answers only requests whose Host is an IP address or localhost, so that a
// web page elsewhere cannot read it through a name it made point here.
func ReadOnly(b Backend) http.Handler {
	mux := reads(b)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !literalHost(r.Host) {
			writeError(w, nil, &Error{
				Code: CodeNotAllowed, Exit: ExitFailed,
				Message: fmt.Sprintf("this port does not answer for the name %q", r.Host),
				Fix:     "ask for it by its IP address or as localhost",
			})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func literalHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	if host == "localhost" {
		return true
	}
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	_, err = netip.ParseAddr(host)
	return err == nil
}

// reads returns the calls that change nothing.
func reads(b Backend) *calls {
	mux := &calls{}
	mux.HandleFunc("GET /v1/members", get(func(ctx context.Context, _ query) (any, error) {
		m, err := b.Members(ctx)
		return List[Member](m), err
	}))
	mux.HandleFunc("GET /v1/status", get(func(ctx context.Context, q query) (any, error) {
		return nonNil(b.Status(ctx, q["group"]))
	}, "group"))
	mux.HandleFunc("GET /v1/export", get(func(ctx context.Context, _ query) (any, error) {
		return exported(b.Export(ctx))
	}))
	mux.HandleFunc("GET /v1/why", get(func(ctx context.Context, q query) (any, error) {
		if err := checkName("group", q["group"]); err != nil {
			return nil, badRequest(err.Error(), "name one group: /v1/why?group=NAME")
		}
		return nonNil(b.Why(ctx, q["group"]))
	}, "group"))
	mux.HandleFunc("GET /v1/key", get(func(ctx context.Context, _ query) (any, error) {
		return nonNil(b.KeyStatus(ctx))
	}))
	mux.HandleFunc("GET /v1/tune", get(func(ctx context.Context, _ query) (any, error) {
		return nonNil(b.Tune(ctx, false))
	}))
	mux.HandleFunc("GET /v1/version", get(func(context.Context, query) (any, error) {
		return b.Version(), nil
	}))
	mux.HandleFunc("GET /v1/heartbeat", get(func(context.Context, query) (any, error) {
		return b.Heartbeat(), nil
	}))
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) { serveEvents(w, r, b) })
	if m, ok := b.(Measured); ok {
		if h := m.Metrics(); h != nil {
			mux.Handle("GET /metrics", h)
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, nil, &Error{
			Code: CodeNoSuchCall, Exit: ExitFailed,
			Message: fmt.Sprintf("there is no call %s %s here", r.Method, r.URL.Path),
			Fix:     "hanode version shows whether command and agent are of different versions",
		})
	})
	return mux
}

// Exported is what GET /v1/export answers: the wanted set as JSON.
type Exported struct {
	Groups List[Group] `json:"groups"`
}

func exported(groups []spec.Group, err error) (any, error) {
	return Exported{Groups: FromSpecs(groups)}, err
}

// nonNil turns a nil *T into a nil any, so that it travels as null.
func nonNil[T any](v *T, err error) (any, error) {
	if v == nil {
		return nil, err
	}
	return v, err
}

// query holds the allowed parameters of a request; one that is absent is "".
type query map[string]string

func parseQuery(r *http.Request, allowed ...string) (query, error) {
	q := query{}
	for k, v := range r.URL.Query() {
		known := false
		for _, a := range allowed {
			known = known || a == k
		}
		if !known || len(v) != 1 {
			return nil, badRequest(fmt.Sprintf("parameter %q is unknown here or given twice", k), "")
		}
		q[k] = v[0]
	}
	return q, nil
}

func get(call func(context.Context, query) (any, error), allowed ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q, err := parseQuery(r, allowed...)
		if err != nil {
			writeError(w, nil, err)
			return
		}
		v, err := call(r.Context(), q)
		answer(w, v, err)
	}
}

func post[Q any](decode func(io.Reader) (Q, error), call func(context.Context, Q) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// A web page can post plain forms anywhere without asking; JSON it cannot.
		if mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mt != "application/json" {
			writeError(w, nil, badRequest("the body is not marked as JSON", "send the header Content-Type: application/json"))
			return
		}
		q, err := decode(http.MaxBytesReader(w, r.Body, MaxBody))
		if err != nil {
			writeError(w, nil, decodeError(err))
			return
		}
		bodyDone(w)
		v, err := call(r.Context(), q)
		answer(w, v, err)
	}
}

func decodeError(err error) *Error {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return badRequest(fmt.Sprintf("the request is longer than %d bytes", MaxBody), "")
	}
	return badRequest("the request is not understood: "+err.Error(),
		"hanode version shows whether command and agent are of different versions")
}

func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		writeError(w, v, err)
		return
	}
	writeBody(w, http.StatusOK, v)
}

// failure is the body of every answer that is not 200. Result is what is known
// nevertheless.
type failure struct {
	Error  *Error `json:"error"`
	Result any    `json:"result"`
}

func writeError(w http.ResponseWriter, v any, err error) {
	e := asError(err)
	writeBody(w, httpStatus(e), failure{Error: e, Result: v})
}

func writeBody(w http.ResponseWriter, status int, v any) {
	var buf bytes.Buffer
	if err := WriteJSON(&buf, v, false); err != nil {
		// Only a number that JSON does not have (NaN) gets here.
		status = http.StatusInternalServerError
		buf.Reset()
		fmt.Fprintf(&buf, `{"error":{"code":%q,"message":%s,"fix":"","exit":%d},"result":null}`+"\n",
			CodeInternal, strconv.Quote("the answer has no JSON form"), ExitFailed)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes()) // the client is gone: there is nobody to tell
}
