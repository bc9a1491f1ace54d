package agent

import (
	"hanode/internal/spec"
	"hanode/vip"
)

// expect has the host make ready what the addresses of the group need, once for each epoch
// at which it comes here, while the holder before lets go: then only the addresses
// themselves are left. ours: the group is this node's and waits. When it is not, nothing
// is expected any more; see vip.Kernel.
func (w *worker) expect(ours bool) {
	if !ours {
		w.dismiss()
		return
	}
	w.mu.Lock()
	rec := w.rec
	w.mu.Unlock()
	if rec.Epoch == w.expectedAt {
		return
	}
	g, ok := w.a.specOf(rec)
	if !ok {
		return // the record came before its spec
	}
	w.dismiss()
	w.a.fit.digest(g) // what is asked for when it starts
	w.expected, w.expectedAt = addressesIn(g), rec.Epoch
	if len(w.expected) > 0 {
		w.a.kernel.Expect(w.expected...)
	}
}

// dismiss takes back what expect said. What was put on meanwhile stays.
func (w *worker) dismiss() {
	if len(w.expected) > 0 {
		w.a.kernel.Dismiss(w.expected...)
	}
	w.expected, w.expectedAt = nil, 0
}

// addressesIn are the addresses of a group; what is wrong with the others Start says.
func addressesIn(g spec.Group) (out []vip.Address) {
	for _, r := range g.Resources {
		if r.Type != "ip" {
			continue
		}
		if ad, err := vip.Of(r); err == nil {
			out = append(out, ad)
		}
	}
	return out
}
