package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"hanode/internal/trust"
)

// Each call over the network, with each role that a certificate may have, and with ones
// that it may not.
func TestWhoMayDoWhatRemotely(t *testing.T) {
	for name, role := range map[string]Role{"read": Read, "operate": Operate, "admin": Admin, "nobody": Nobody, "root": Nobody, "": Nobody} {
		for pattern, need := range roles {
			method, path, found := strings.Cut(pattern, " ")
			if !found {
				method, path = "GET", "/nothing"
			}
			b := &measured{}
			r := httptest.NewRequest(method, path, strings.NewReader("{}"))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			remote(every(b), quiet()).ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), clientKey{}, trust.Client{Cluster: "web", Name: "ops", Role: name})))
			if refused := w.Code == http.StatusForbidden; refused != (role < need) || refused && b.calls > 0 {
				t.Errorf("%s, %s: %d, %d calls", name, pattern, w.Code, b.calls)
			}
		}
	}
	w := httptest.NewRecorder()
	remote(every(&measured{}), quiet()).ServeHTTP(w, httptest.NewRequest("GET", "/v1/status", nil))
	if w.Code != http.StatusForbidden {
		t.Errorf("without a certificate: %d", w.Code)
	}
}
