package peer

import (
	"context"
	"net/http"
	"net/url"
)

// KeyReport is what a node says of its keys, by their fingerprints.
type KeyReport struct {
	Have []string `json:"have"` // in its file and in use; the first is active
	Err  string   `json:"err"`  // why it cannot change them; "" = it can
}

// KeyKeeper answers about keys.
type KeyKeeper interface {
	// Keys says which this node has.
	Keys() KeyReport
	// Key gives asker the text of the key that the cluster changes to. A secret.
	Key(asker, fingerprint string) ([]byte, error)
}

// keys adds the two calls about keys.
func keys(mux *http.ServeMux, k KeyKeeper) {
	mux.HandleFunc("GET /peer/keys", func(w http.ResponseWriter, _ *http.Request) { answer(w, k.Keys(), nil) })
	mux.HandleFunc("GET /peer/key", func(w http.ResponseWriter, r *http.Request) {
		text, err := k.Key(asker(r), r.URL.Query().Get("fingerprint"))
		answer(w, text, err)
	})
}

// Keys asks node which keys it has.
func (c *Client) Keys(ctx context.Context, node string) (rep KeyReport, err error) {
	err = c.call(ctx, node, http.MethodGet, "/peer/keys", nil, &rep)
	return rep, err
}

// Key asks node for the text of the key that the cluster changes to.
func (c *Client) Key(ctx context.Context, node, fingerprint string) (text []byte, err error) {
	err = c.call(ctx, node, http.MethodGet, "/peer/key?fingerprint="+url.QueryEscape(fingerprint), nil, &text)
	return text, err
}
