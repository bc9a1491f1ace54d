package id

import "testing"

func TestStrings(t *testing.T) {
	a := NodeRef{Name: "primary", Inc: 3}
	for want, got := range map[string]string{
		"primary/3":          a.String(),
		"nobody":             NodeRef{}.String(),
		"web@7 by primary/3": Claim{Group: "web", Node: a, Epoch: 7}.String(),
		"new/0":              NodeRef{Name: "new"}.String(),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if !(NodeRef{}).Zero() || a.Zero() || (NodeRef{Name: "new"}).Zero() {
		t.Error("only the zero reference is nobody")
	}
}
