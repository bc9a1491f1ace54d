package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a decoder accepts must survive being sent again: nothing is read that
// could not be said.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"groups":[]}`,
		`{"groups":[{"name":"web","prefer":["a"],"failback":{"on":true,"after_ms":1.5},"exclusive":true,"resources":[{"type":"ip","name":"10.0.0.1/24","dev":"eth0","every_ms":10}]}],"wait_ms":30000}`,
		`{"group":"web","to":"b","unpin":false,"wait_ms":1}`,
		`{"node":"a","on":true,"wait_ms":0.5}`,
		`{"on":false}`,
		`{"reset":true}`,
		`{"node":"a","confirm":"a is off"}`,
		`{}`,
		`{"groups":null}`,
		`[[[[`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if req, err := decodePlan(bytes.NewReader(body)); err == nil {
			again(t, planBody{Groups: wire(req.Groups)}, req, decodePlanBytes)
		}
		if req, err := decodeApply(bytes.NewReader(body)); err == nil {
			again(t, applyBody{Groups: wire(req.Groups), WaitMS: MS(req.Wait), NoProbe: req.NoProbe, Adopt: req.Adopt}, req, decodeApplyBytes)
		}
		if req, err := decodeMove(bytes.NewReader(body)); err == nil {
			sent := moveBody{Group: req.Group, To: Known(req.To), Unpin: req.Unpin, WaitMS: MS(req.Wait)}
			again(t, sent, req, func(b []byte) (MoveRequest, error) { return decodeMove(bytes.NewReader(b)) })
		}
		if reset, err := decodeReset(bytes.NewReader(body)); err == nil {
			again(t, resetBody{Reset: &reset}, reset, func(b []byte) (bool, error) { return decodeReset(bytes.NewReader(b)) })
		}
		if req, err := decodeNode(bytes.NewReader(body)); err == nil {
			sent := nodeBody{Node: req.node, On: &req.on, WaitMS: MS(req.wait)}
			again(t, sent, req, func(b []byte) (nodeRequest, error) { return decodeNode(bytes.NewReader(b)) })
		}
		if req, err := decodeClear(bytes.NewReader(body)); err == nil {
			sent := clearBody{Group: Known(req.Group), Node: Known(req.Node)}
			again(t, sent, req, func(b []byte) (ClearRequest, error) { return decodeClear(bytes.NewReader(b)) })
		}
		if req, err := decodeConfirmOff(bytes.NewReader(body)); err == nil {
			sent := confirmOffBody(req)
			again(t, sent, req, func(b []byte) (ConfirmOffRequest, error) { return decodeConfirmOff(bytes.NewReader(b)) })
		}
	})
}

func decodePlanBytes(b []byte) (ApplyRequest, error)  { return decodePlan(bytes.NewReader(b)) }
func decodeApplyBytes(b []byte) (ApplyRequest, error) { return decodeApply(bytes.NewReader(b)) }

func again[T any](t *testing.T, sent any, want T, decode func([]byte) (T, error)) {
	t.Helper()
	b, err := json.Marshal(sent)
	if err != nil {
		t.Fatalf("%#v cannot be sent: %v", sent, err)
	}
	got, err := decode(b)
	if err != nil {
		t.Fatalf("%s was accepted once and is refused now: %v", b, err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(nodeRequest{})); diff != "" {
		t.Fatalf("changed (-first +second):\n%s", diff)
	}
}

// Whatever is asked of the server, it answers JSON and a status that fits it,
// and what it refuses never reaches the Backend.
func FuzzServer(f *testing.F) {
	for _, path := range []string{"/v1/apply", "/v1/move", "/v1/standby", "/v1/maintenance", "/v1/confirm-off", "/v1/clear", "/v1/leave", "/v1/tune", "/v1/plan", "/v1/why?group=web", "/v1/events?after=1", "/"} {
		f.Add(path, []byte(`{"group":"web"}`))
	}
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		if len(path) == 0 || path[0] != '/' {
			t.Skip()
		}
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			req, err := http.NewRequest(method, "http://localhost"+path, bytes.NewReader(body))
			if err != nil {
				t.Skip()
			}
			req.Header.Set("Content-Type", "application/json")
			b := &countingBackend{}
			w := httptest.NewRecorder()
			Handler(b).ServeHTTP(w, req)
			if w.Code >= 300 && w.Code < 400 {
				continue // the mux cleans paths such as /v1/../x by a redirect
			}
			if ct := w.Header().Get("Content-Type"); ct == "application/x-ndjson" {
				continue // no events: an empty stream
			}
			if !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%s %s: the answer is not JSON: %q", method, path, w.Body)
			}
			if w.Code != http.StatusOK && b.calls > 0 {
				t.Fatalf("%s %s: status %d after the backend was called", method, path, w.Code)
			}
		}
	})
}
