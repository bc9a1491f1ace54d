package peer

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Report is what a node knows of a group's resources that it runs, ran or tried to run.
type Report struct {
	Resources []Resource `json:"resources"`
}

// Resource is one of them, or a check.
type Resource struct {
	Type       string      `json:"type"`
	Name       string      `json:"name"`
	State      string      `json:"state"`
	Err        string      `json:"err"`
	Operations []Operation `json:"operations"`
}

// Operation is the newest run of one of its operations.
type Operation struct {
	Name    string        `json:"name"`
	At      time.Time     `json:"at"`
	Took    time.Duration `json:"took"`
	Running bool          `json:"running"`
	Err     string        `json:"err"`
	Output  string        `json:"output"`
}

// report adds the call that asks for one.
func report(mux *http.ServeMux, svc Service) {
	mux.HandleFunc("GET /peer/report", func(w http.ResponseWriter, r *http.Request) {
		answer(w, svc.Report(r.URL.Query().Get("group")), nil)
	})
}

// Report asks node what it knows of a group's resources.
func (c *Client) Report(ctx context.Context, node, group string) (rep Report, err error) {
	err = c.call(ctx, node, http.MethodGet, "/peer/report?group="+url.QueryEscape(group), nil, &rep)
	return rep, err
}
