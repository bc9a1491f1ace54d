package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hanode/internal/spec"
)

func TestIPOptions(t *testing.T) {
	got, err := ParseCluster("x", []byte(`group "a" {
  resource "ip" "10.0.0.100/24" {
    prefix = "network"
    source = true
    label  = "eth1:a"
    route "0.0.0.0/0" {
      via   = "10.0.0.254"
      table = 200
    }
    rule { table = 200 }
    rule {
      table    = 201
      to       = "10.9.0.0/16"
      priority = 7
    }
  }
}`))
	if err != nil {
		t.Fatal(err)
	}
	want := spec.Resource{
		Type: "ip", Name: "10.0.0.100/24", Network: true, Source: true, Label: "eth1:a",
		Routes: []spec.Route{{To: "0.0.0.0/0", Via: "10.0.0.254", Table: 200}},
		Rules:  []spec.Rule{{Table: 200, Priority: spec.RulePriority}, {To: "10.9.0.0/16", Table: 201, Priority: 7}},
	}
	if diff := cmp.Diff(want, got[0].Resources[0]); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct{ body, want string }{
		{`prefix = "24"`, `it takes "host" (/32 or /128, the default) or "network"`},
		{`prefix = true`, "prefix"},
		{`label = "one two"`, "no blanks"},
		{`route "10.9.0.1/16" {}`, "write 10.9.0.0/16"},
		{`route { via = "10.0.0.254" }`, "has 0 labels"},
		{`route "10.9.0.0/16" { gateway = "10.0.0.254" }`, `unknown key "gateway"`},
		{`route "10.9.0.0/16" { via = "here" }`, "address of a gateway"},
		{`rule {}`, "has no table"},
		{`rule { table = "main" }`, "whole number"},
		{"rule {\n table = 1\n priority = 0\n}", "from 1 to 32765"},
	} {
		_, err := ParseCluster("x", []byte("group \"a\" {\n resource \"ip\" \"10.0.0.100/24\" {\n"+c.body+"\n}\n}"))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.body, err, c.want)
		}
	}
}
