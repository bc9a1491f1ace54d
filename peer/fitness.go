package peer

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"hanode/internal/spec"
)

// Fitness is what a node says of itself: for each group whether it has what that
// takes.
type Fitness struct {
	Groups []Judgement `json:"groups"`
}

// Judgement is about one group, in one form of it.
type Judgement struct {
	Group string `json:"group"`
	// Digest is of the group's resources and checks as they were judged.
	Digest   string    `json:"digest"`
	Findings []Finding `json:"findings"`
}

// Finding is something that was seen. A judgement without one says that all is well.
type Finding struct {
	Kind Kind   `json:"kind"`
	Code string `json:"code"` // of a Note: a problem's code
	Text string `json:"text"`
}

// Kind is what a finding means.
type Kind string

// The kinds.
const (
	Lacks   Kind = "lacks"   // this node cannot run the group
	Nowhere Kind = "nowhere" // no node can: it is configured wrongly
	Note    Kind = "note"    // it can, and an operator should know
	Unsure  Kind = "unsure"  // it could not be told now
	// Foreign: Text names something of the group that is there although the cluster did
	// not bring it.
	Foreign Kind = "foreign"
)

// fit adds the two calls about fitness.
func fit(mux *http.ServeMux, svc Service) {
	mux.HandleFunc("POST /peer/check", func(w http.ResponseWriter, r *http.Request) {
		var groups []spec.Group
		if err := read(w, r, &groups); err != nil {
			answer(w, nil, err)
			return
		}
		answer(w, svc.Check(r.Context(), groups), nil)
	})
	mux.HandleFunc("POST /peer/fit", func(w http.ResponseWriter, r *http.Request) {
		var f Fitness
		err := read(w, r, &f)
		if err == nil {
			svc.Fit(asker(r), f)
		}
		answer(w, true, err)
	})
}

// adopt adds the call that stops what is foreign.
func adopt(mux *http.ServeMux, svc Service) {
	mux.HandleFunc("POST /peer/stop-foreign", func(w http.ResponseWriter, r *http.Request) {
		var groups []spec.Group
		err := read(w, r, &groups)
		if err == nil {
			err = svc.StopForeign(r.Context(), groups)
		}
		answer(w, true, err)
	})
}

// StopForeign has node stop what is foreign of the groups there. nil = verified.
func (c *Client) StopForeign(ctx context.Context, node string, groups []spec.Group) error {
	b, err := json.Marshal(groups)
	if err != nil {
		return err
	}
	var done bool
	return c.call(ctx, node, http.MethodPost, "/peer/stop-foreign", b, &done)
}

// read decodes a request's body, and refuses what follows it.
func read(w http.ResponseWriter, r *http.Request, into any) error {
	return readWhole(json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)), into)
}

func readWhole(dec *json.Decoder, into any) error {
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the end")
	}
	return nil
}

// Check asks node whether it has what the groups take.
func (c *Client) Check(ctx context.Context, node string, groups []spec.Group) (f Fitness, err error) {
	b, err := json.Marshal(groups)
	if err != nil {
		return f, err
	}
	err = c.call(ctx, node, http.MethodPost, "/peer/check", b, &f)
	return f, err
}

// Fit tells node how fit this one is.
func (c *Client) Fit(ctx context.Context, node string, f Fitness) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	var done bool
	return c.call(ctx, node, http.MethodPost, "/peer/fit", b, &done)
}
