package spec

import "testing"

func TestChecked(t *testing.T) {
	ip, svc := Resource{Type: "ip"}, Resource{Type: "systemd"}
	for _, c := range []struct {
		rs    []Resource
		after int
		want  int
	}{
		{nil, 0, 0},
		{[]Resource{ip}, 1, 0},
		{[]Resource{ip, ip}, 2, 0},
		{[]Resource{ip, svc}, 2, 1},
		{[]Resource{ip, svc, svc}, 2, 1},
		{[]Resource{ip, svc, svc}, 3, 2},
		{[]Resource{ip, svc, svc, ip}, 4, 2},
		{[]Resource{ip, svc, svc}, 0, 1},
		{[]Resource{ip, svc, svc}, 99, 2},
	} {
		if got := (Group{Resources: c.rs}).Checked(Check{After: c.after}); got != c.want {
			t.Errorf("%d after %v: %d, want %d", c.after, c.rs, got, c.want)
		}
	}
	if c := (Check{Fall: 7}).WithDefaults(); c.Fall != 7 || c.Rise != DefaultRise || c.Interval != DefaultInterval || c.Timeout != DefaultCheckTimeout || c.Grace != DefaultGrace {
		t.Errorf("%+v", c)
	}
}
