package config

import "testing"

func TestRealtime(t *testing.T) {
	const rest = `
node "a" { address = "10.0.0.1" }
`
	host := func() (string, error) { return "a", nil }
	for src, want := range map[string]*bool{"": nil, "realtime = true": new(true), "realtime = false": new(false)} {
		n, err := parseNode("hanode.hcl", []byte(src+rest), "/", host)
		if err != nil {
			t.Fatal(err)
		}
		if got := n.Realtime; (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%q: %v", src, got)
		}
	}
	if _, err := parseNode("hanode.hcl", []byte(`realtime = "yes"`+rest), "/", host); err == nil {
		t.Error("a word was accepted")
	}
}
