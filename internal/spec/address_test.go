package spec

import (
	"strings"
	"testing"
)

func TestCheckIP(t *testing.T) {
	rule := Rule{Table: 200, Priority: 1000}
	for _, c := range []struct {
		r    Resource
		want string // "" = nothing is wrong
	}{
		{Resource{Name: "10.0.0.1"}, ""},
		{Resource{
			Name: "10.0.0.1/24", Network: true, Source: true, Label: "eth0:web",
			Routes: []Route{{To: "0.0.0.0/0", Via: "10.0.0.254", Table: 200}}, Rules: []Rule{rule},
		}, ""},
		{Resource{Name: "fd00::1/64", Routes: []Route{{To: "::/0", Via: "fe80::1"}}, Rules: []Rule{rule}}, ""},
		{Resource{Name: "10.0.0.1", Network: true}, "no network"},
		{Resource{Name: "fd00::1/64", Label: "eth0:1"}, "only an IPv4 address"},
		{Resource{Name: "10.0.0.1/24", Label: "a label that is too long"}, "at most 15"},
		{Resource{Name: "10.0.0.1/24", Routes: []Route{{To: "10.9.0.0"}}}, "such as 10.9.0.0/16"},
		{Resource{Name: "10.0.0.1/24", Routes: []Route{{To: "10.9.0.1/16"}}}, "write 10.9.0.0/16"},
		{Resource{Name: "10.0.0.1/24", Routes: []Route{{To: "fd00::/8"}}}, "same family"},
		{Resource{Name: "10.0.0.1/24", Routes: []Route{{To: "10.9.0.0/16", Via: "fe80::1"}}}, "gateway"},
		{Resource{Name: "10.0.0.1/24", Routes: []Route{{To: "10.9.0.0/16", Table: -1}}}, "table"},
		{Resource{Name: "10.0.0.1/24", Rules: []Rule{{To: "::/0", Table: 7, Priority: 1}}}, "same family"},
		{Resource{Name: "10.0.0.1/24", Rules: []Rule{{Priority: 1}}}, "needs table"},
		{Resource{Name: "10.0.0.1/24", Rules: []Rule{{Table: 7, Priority: 40000}}}, "32765"},
	} {
		what, allowed := c.r.CheckIP()
		if (c.want == "") != (what == "") || !strings.Contains(what+"; "+allowed, c.want) {
			t.Errorf("%+v: %q, %q, want %q", c.r, what, allowed, c.want)
		}
	}
}

func TestCheckBroadcast(t *testing.T) {
	of := func(name, broadcast string) Resource {
		return Resource{Name: name, Network: true, Broadcast: broadcast}
	}
	for _, c := range []struct {
		r    Resource
		want string // "" = nothing is wrong
	}{
		{Resource{Name: "10.0.0.100"}, ""},
		{of("10.0.0.100/24", ""), ""},
		{of("10.0.0.100/24", "10.0.0.255"), ""},
		{of("10.0.0.100/24", "10.0.0.0"), ""}, // as old BSDs had it
		{of("135.9.216.3/28", "135.9.216.12"), ""},
		{of("10.0.0.100/24", "10.0.3.255"), ""}, // of 10.0.0.0/22
		{of("10.0.0.100/24", "255.255.255.255"), ""},
		{of("10.0.0.100/24", "10.0.2.255"), "10.0.0.0/24, such as 10.0.0.255, or the highest of a wider network"},
		{of("10.0.0.100/24", "10.0.1.7"), "10.0.0.255"},
		{of("10.0.0.100/24", "10.0.0.100"), "the address itself"},
		{of("10.0.0.100/24", "10.0.0.x"), "such as"},
		{of("10.0.0.100/24", "fd00::1"), "such as"},
		{of("10.0.0.100/24", "::ffff:10.0.0.255"), "such as"},
		{of("10.0.0.100/31", "10.0.0.101"), "a network of 2 addresses has none"},
		{of("fd00::1/64", "10.0.0.255"), "only an IPv4 address"},
		{Resource{Name: "10.0.0.100/24", Broadcast: "10.0.0.12"}, `prefix = "network"`},
	} {
		what, allowed := c.r.CheckBroadcast()
		if (c.want == "") != (what == "") || !strings.Contains(what+"; "+allowed, c.want) {
			t.Errorf("%+v: %q, %q, want %q", c.r, what, allowed, c.want)
		}
	}
}
