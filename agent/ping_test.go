package agent

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// reach is which ping hosts a host of the lab reaches.
type reach struct {
	mu   sync.Mutex
	lost map[string]bool
}

func (r *reach) set(host string, lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost[host] = lost
}

func (r *reach) answers(host string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.lost[host]
}

// The node that reaches more ping nodes gets the group, after a while and once; a group
// of hosts counts while one answers; and where all reach as little nothing moves.
func TestPingNodes(t *testing.T) {
	for _, names := range [][]string{{"primary", "secondary", "arbiter"}, {"primary", "secondary"}} {
		t.Run(strings.Join(names, " "), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, fast, names...)
				defer l.close()
				p, s := &reach{lost: map[string]bool{}}, &reach{lost: map[string]bool{}}
				l.hosts["primary"].pings, l.hosts["secondary"].pings = p.answers, s.answers
				l.startAll()
				l.until("first hold", 20*time.Second, l.held("primary"))
				time.Sleep(5 * time.Second)
				p.set("uplink1", true) // the other one of that group answers
				l.stays("primary", 5*time.Second)
				p.set("router", true) // a moment of it is nothing
				time.Sleep(fast.Deadtime + 300*time.Millisecond)
				p.set("router", false)
				l.stays("primary", 5*time.Second)
				p.set("router", true)
				begin := time.Now()
				l.until("it moves", 8*time.Second, l.held("secondary"))
				if d := time.Since(begin); d < pingDelay {
					t.Errorf("moved after %v", d)
				}
				if text, _ := l.listed("secondary", "ping-lost"); text != "primary does not reach router" {
					t.Errorf("status says %q", text)
				}
				s.set("router", true) // as bad, so prefer counts again
				l.until("failback", 8*time.Second, l.held("primary"))
				s.set("router", false)
				l.until("it moves again", 20*time.Second, l.held("secondary"))
				for range 5 { // it flaps: the group does not follow
					p.set("router", false)
					l.stays("secondary", 2*time.Second)
					p.set("router", true)
					l.stays("secondary", 2*time.Second)
				}
				p.set("router", false)
				l.stays("secondary", pingSettle-2*time.Second)
				l.until("failback", 10*time.Second, l.held("primary"))
				l.well(5 * time.Second)
			})
		})
	}
}

// Ping nodes break no tie: parted from the others, who reaches all of them holds nothing.
func TestPingBreaksNoTie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, "primary", "secondary", "arbiter")
		defer l.close()
		all, none := &reach{lost: map[string]bool{}}, &reach{lost: map[string]bool{"router": true, "uplink1": true, "uplink2": true}}
		l.hosts["primary"].pings, l.hosts["secondary"].pings = all.answers, none.answers
		l.startAll()
		l.until("first hold", 20*time.Second, l.held("primary"))
		time.Sleep(5 * time.Second)
		l.net.Cut("primary", "", "", true)
		l.net.Cut("", "primary", "", true)
		l.until("takeover", 5*time.Second, l.held("secondary"))
		l.stays("secondary", 5*time.Second)
	})
}

// An echo as the standard has it, and its answer told from others.
func TestEcho(t *testing.T) {
	b := echo(echo4, 0x12345678)
	if checksum(b) != 0 {
		t.Errorf("checksum of %x", b)
	}
	from := netip.MustParseAddr("127.0.0.1")
	reply := append([]byte{reply4, 0, 0, 0}, b[4:]...)
	if !answers(reply, from, reply4, b[4:8]) || answers(b, from, reply4, b[4:8]) || answers(reply[:7], from, reply4, b[4:8]) ||
		answers(append([]byte{reply4, 0, 0, 0}, 1, 2, 3, 4), from, reply4, b[4:8]) {
		t.Error("an answer is not told from what is none")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	switch err := icmpEcho(ctx, "127.0.0.1"); {
	case err != nil && strings.Contains(err.Error(), "not permitted"):
		t.Skip("raw sockets are refused here")
	case err != nil:
		t.Error(err)
	}
	gone, end := context.WithCancel(t.Context())
	end()
	if err := icmpEcho(gone, "127.0.0.1"); err == nil {
		t.Error("answered after its time")
	}
}
