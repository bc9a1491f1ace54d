package api

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// Every call that is answered has a role, and nothing else is in the table.
func TestEveryCallHasARole(t *testing.T) {
	have := every(&measured{}).patterns
	slices.Sort(have)
	if want := slices.Sorted(maps.Keys(roles)); !slices.Equal(have, want) {
		t.Errorf("answered are %q, in the table %q", have, want)
	}
}

// Each call, asked by each kind of local user: who may not is refused before anything of
// it is done.
func TestWhoMayDoWhat(t *testing.T) {
	p := policy{uid: 100, gid: 50, read: true}
	for name, who := range map[string]struct {
		peer
		role Role
	}{
		"root": {peer{uid: 0}, Admin}, "the agent's user": {peer{uid: 100}, Admin}, "an operator": {peer{uid: 7, groups: []int{50}}, Admin},
		"anybody": {peer{uid: 7, gid: 7}, Read},
	} {
		for pattern, need := range roles {
			method, path, found := strings.Cut(pattern, " ")
			if !found {
				method, path = "GET", "/nothing"
			}
			b := &measured{}
			r := httptest.NewRequest(method, path, strings.NewReader("{}"))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			p.guard(every(b)).ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, who.peer)))
			refused := w.Code == http.StatusForbidden
			if refused != (who.role < need) || refused && b.calls > 0 {
				t.Errorf("%s, %s: %d, %d calls", name, pattern, w.Code, b.calls)
			}
			if refused && !strings.Contains(w.Body.String(), "has the role read here, and this takes "+need.String()) {
				t.Errorf("%s, %s: %s", name, pattern, w.Body)
			}
		}
	}
	p.read = false
	if p.role(peer{uid: 7}) != Nobody {
		t.Error("somebody may read who may not")
	}
	if (&calls{}).takes(httptest.NewRequest("POST", "/v1/new", nil)) != Admin {
		t.Error("a call that is in no table may be made by anybody")
	}
}
