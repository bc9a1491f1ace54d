package clock

import (
	"strings"
	"testing"
	"time"
)

func TestBootOffset(t *testing.T) {
	const zero = "monotonic           0         0\nboottime            0         0\n"
	for _, c := range []struct {
		offsets, children string
		want              time.Duration
		err               string
	}{
		{offsets: zero},
		{offsets: "monotonic 5 6\nboottime 86400 0\n", want: 24 * time.Hour},
		{offsets: "boottime -10 250000000", want: -9750 * time.Millisecond},
		{offsets: zero, children: "time:[2]", err: "start the agent as such a child"},
		{offsets: "monotonic 0 0\n", err: "no offset of the boot clock"},
		{offsets: "", err: "no offset of the boot clock"},
		{offsets: "boottime x 0", err: "cannot read"},
		{offsets: "boottime 0 1000000000", err: "cannot read"},
		{offsets: "boottime 99999999999999 0", err: "cannot read"},
	} {
		n := timens{own: "time:[1]", children: "time:[1]", offsets: c.offsets}
		if c.children != "" {
			n.children = c.children
		}
		got, err := n.boot()
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v, want an error with %q", c.offsets, err, c.err)
			}
		case err != nil || got != c.want:
			t.Errorf("%q: %v, %v, want %v", c.offsets, got, err, c.want)
		}
	}
}

func FuzzBootOffset(f *testing.F) {
	f.Add("monotonic 0 0\nboottime 7 8\n")
	f.Add("boottime -1 999999999")
	f.Fuzz(func(t *testing.T, offsets string) {
		d, err := timens{offsets: offsets}.boot()
		if err != nil && d != 0 {
			t.Errorf("%q: %v with %v", offsets, d, err)
		}
	})
}
