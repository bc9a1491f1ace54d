package agent

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"hanode/fsm"
	"hanode/internal/linkstate"
	"hanode/lease"
)

// The owner's cable is pulled: its group moves long before deadtime, as a switchover
// that fences nobody, and comes back when the device has settled.
func TestCarrierLost(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		seen := l.silence(vipA)
		begin := time.Now()
		l.hosts["primary"].kernel.SetLink("eth1", "has no carrier")
		l.until("move", 5*time.Second, l.held("secondary"))
		if d := time.Since(begin); d > 50*time.Millisecond {
			t.Errorf("it moved after %v", d)
		}
		time.Sleep(3 * time.Second)
		if longest, moves := seen(); longest > 20*time.Millisecond || moves != 1 {
			t.Errorf("silent for %v, %d moves", longest, moves)
		}
		l.view(func(s *fsm.State) {
			if s.Nodes["primary"].Fenced || s.Groups["web"].Cause != "link" {
				t.Errorf("fenced %v, cause %q", s.Nodes["primary"].Fenced, s.Groups["web"].Cause)
			}
		})
		if p := l.leaderSays("vip-link-down"); !strings.Contains(p, "eth1 of primary has no carrier") {
			t.Errorf("status says %q", p)
		}
		begin = time.Now()
		l.hosts["primary"].kernel.SetLink("eth1", "")
		l.until("failback", 10*time.Second, l.held("primary"))
		if d := time.Since(begin); d < 900*time.Millisecond {
			t.Errorf("it went back after %v: a device has to settle", d)
		}
		l.well(5 * time.Second)
	})
}

// leaderSays is what the leader's status says under a code.
func (l *lab) leaderSays(code string) string {
	var out []string
	for _, h := range l.order {
		a, _ := h.running()
		if a == nil {
			continue
		}
		if n := a.node.Load(); n == nil || !n.IsLeader() {
			continue
		}
		s, err := a.statusHere("")
		if err != nil {
			l.t.Fatal(err)
		}
		for _, p := range s.Problems {
			if p.Code == code {
				out = append(out, p.Text)
			}
		}
	}
	return strings.Join(out, "\n")
}

// No node has a carrier: the group stays where it is, and status says why. The first to
// get one back has it.
func TestCarrierLostEverywhere(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		epoch := l.epoch("web")
		l.hosts["secondary"].kernel.SetLink("eth1", "has no carrier")
		time.Sleep(time.Second)
		l.hosts["primary"].kernel.SetLink("eth1", "has no carrier")
		time.Sleep(5 * time.Second)
		if e := l.epoch("web"); e != epoch {
			t.Errorf("it moved, to epoch %d", e)
		}
		if p := l.leaderSays("group-unreachable"); !strings.Contains(p, "web stays on primary") {
			t.Errorf("status says %q", p)
		}
		l.hosts["secondary"].kernel.SetLink("eth1", "")
		l.until("move", 200*time.Millisecond, l.held("secondary"))
		l.hosts["primary"].kernel.SetLink("eth1", "")
		l.well(10 * time.Second)
	})
}

// A plug that falls out again and again moves the group away once each time it was
// trusted, and that less and less often.
func TestCarrierFlaps(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		epoch := l.epoch("web")
		for range 30 { // out for 0.5 s, in for 1.5 s
			l.hosts["primary"].kernel.SetLink("eth1", "has no carrier")
			time.Sleep(500 * time.Millisecond)
			l.hosts["primary"].kernel.SetLink("eth1", "")
			time.Sleep(1500 * time.Millisecond)
		}
		// Away, back after the first second, away again; then 2 s are never reached.
		if e := l.epoch("web"); e > epoch+3 {
			t.Errorf("30 losses of the carrier took %d moves", e-epoch)
		}
		l.well(2 * time.Minute)
	})
}

// A leader that dies takes no knowledge of devices with it, and a node that comes up
// with its cable out is not given back what it prefers.
func TestCarrierOutAtBoot(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.hosts["primary"].powerCut()
		l.until("takeover", 5*time.Second, l.held("secondary"))
		l.hosts["primary"].kernel.SetLink("eth1", "has no carrier")
		l.hosts["primary"].start()
		time.Sleep(5 * time.Second)
		leader := ""
		for _, h := range l.order {
			if a, _ := h.running(); a != nil && a.node.Load() != nil && a.node.Load().IsLeader() {
				leader = h.name
			}
		}
		if leader != "arbiter" {
			t.Fatalf("%s leads", leader)
		}
		epoch := l.epoch("web")
		l.hosts["arbiter"].powerCut()
		time.Sleep(5 * time.Second)
		if e := l.epoch("web"); e != epoch {
			t.Errorf("it moved to a node without a carrier: epoch %d -> %d", epoch, e)
		}
		l.hosts["arbiter"].start()
		l.hosts["primary"].kernel.SetLink("eth1", "")
		l.until("failback", 20*time.Second, l.held("primary"))
		l.well(10 * time.Second)
	})
}

func TestLinkReport(t *testing.T) {
	r := linkReport{Session: 7, Seq: 9}
	for range 200 {
		r.Links = append(r.Links, linkstate.Link{Dev: "eth1", State: linkstate.Down, Why: "has no carrier", For: time.Second})
	}
	b := r.append([]byte{byte(lease.KindLinks)})
	if len(b) > lease.MaxMessage {
		t.Errorf("%d bytes do not fit a datagram", len(b))
	}
	got, err := parseLinks(b[1:])
	if err != nil || got.Session != 7 || got.Seq != 9 || len(got.Links) < 8 || !reflect.DeepEqual(got.Links, r.Links[:len(got.Links)]) {
		t.Errorf("%v %+v", err, got)
	}
	for i := range 1000 {
		r.Claims = append(r.Claims, claimReport{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Dev: "e"})
	}
	r.Links = nil
	if got, err := parseLinks(r.append(nil)); err != nil || len(got.Claims) < 8 || len(got.Claims) > maxClaims-1 {
		t.Errorf("%v: %d claims", err, len(got.Claims)) // fewer than are encoded at first, or some that fit are left out
	}
	told := worthTelling([]linkstate.Link{{Dev: "a", State: linkstate.Up, For: 10000 * time.Hour}, {Dev: "b", State: linkstate.Up}, {Dev: "c", State: linkstate.Down}})
	if len(told) != 2 || told[0].Dev != "c" || told[1].Dev != "b" {
		t.Errorf("told: %+v", told)
	}
}

// FuzzLinkReport: what is not a report changes nothing, and what is one survives being
// told again.
func FuzzLinkReport(f *testing.F) {
	f.Add(linkReport{Session: 1, Seq: 2, Links: []linkstate.Link{{Dev: "eth1", State: linkstate.Down, Why: "has no carrier"}}}.append(nil))
	f.Add([]byte(`{"session":1,"links":[{"dev":"x","state":"up","for":-1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseLinks(b)
		if err != nil {
			return
		}
		if slices.ContainsFunc(r.Links, func(l linkstate.Link) bool { return l.State.Rank() == 0 || l.For < 0 }) {
			t.Errorf("accepted %+v", r)
		}
		again, err := parseLinks(r.append(nil))
		if err != nil || again.Session != r.Session || len(again.Links) > len(r.Links) {
			t.Errorf("%v: %+v, then %+v", err, r, again)
		}
		if _, err := json.Marshal(again); err != nil {
			t.Error(err)
		}
	})
}
