package agent

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaysMissing(t *testing.T) {
	for _, c := range []struct {
		w    ways
		want string
	}{
		{ways{due: true, heard: true, answered: true}, ""},
		{ways{due: true, refused: true}, ""}, // it is off
		{ways{due: true, heard: true}, "TCP 7695 on it"},
		{ways{heard: true, refused: true}, "TCP 7695 on it"},
		{ways{due: true, answered: true}, "UDP 7694 on both"},
		{ways{answered: true}, ""}, // no beats are due between them
		{ways{due: true, heard: true, answered: true, refused: true}, "TCP 7694 on both"},
	} {
		text, looks := c.w.missing("b", 7694)
		if c.want == "" && text != "" || !strings.HasSuffix(text, c.want) || (text != "") != (looks > 0) {
			t.Errorf("%+v: %q, %d", c.w, text, looks)
		}
	}
}

// A port that is blocked is named while it is, in a cluster that runs and in one that
// does not form for it.
func TestBlockedPortIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, "primary", "secondary", "arbiter")
		defer l.close()
		const port = 7694 // of the lab
		says := func(on, want string) func() bool {
			return func() bool {
				a, _ := l.hosts[on].running()
				for _, p := range a.local() {
					if p.Code == "port-blocked" {
						return want != "" && strings.Contains(p.Text, want)
					}
				}
				return want == ""
			}
		}
		l.startAll()
		l.until("first hold", 20*time.Second, l.held("primary"))
		time.Sleep(25 * time.Second) // each looked at each
		for _, n := range []string{"primary", "secondary", "arbiter"} {
			if !says(n, "")() {
				t.Errorf("%s names a port", n)
			}
		}
		l.net.CutStreams("secondary", true)
		l.until("TCP is named", 30*time.Second, says("primary", "secondary is unreachable by TCP port"))
		l.net.CutStreams("secondary", false)
		l.until("and forgotten", 20*time.Second, says("primary", ""))

		// One host's firewall: the others are dialled by it, so gossip sees all of them.
		l.net.ShutPort("secondary", port, true)
		l.until("the stream of gossip is named", time.Minute, says("primary", "secondary is unreachable by TCP port 7694 though its beats arrive: open TCP 7694"))
		l.net.ShutPort("secondary", port, false)
		l.until("and forgotten", 20*time.Second, says("primary", ""))

		l.net.SetDrop(func(from, to string, _ []byte) bool { return from == "arbiter" && to == "primary" })
		l.until("UDP is named", 30*time.Second, says("primary", "arbiter is not heard by UDP port"))
		l.net.SetDrop(nil)
		l.until("and forgotten", 20*time.Second, says("primary", ""))
	})
}
