package agent

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hanode/api"
	"hanode/internal/clock"
	"hanode/vip"
)

// bad is a kernel that does not keep its word.
type bad struct {
	vip.Kernel
	closeNot  bool // Close and Del say "done" and do nothing
	tier      vip.Tier
	clk       clock.Clock
	relative  time.Duration // renews by this much from when the write is made, whatever it was told
	removeNot bool          // RemoveOurs removes nothing
	addNot    error         // Add fails
}

func (b bad) Add(as ...vip.Address) error {
	if b.addNot != nil {
		return b.addNot
	}
	return b.Kernel.Add(as...)
}

func (b bad) Close(as ...vip.Address) error {
	if b.closeNot {
		return nil
	}
	return b.Kernel.Close(as...)
}

func (b bad) Del(as ...vip.Address) error {
	if b.closeNot {
		return nil
	}
	return b.Kernel.Del(as...)
}

func (b bad) Renew(end clock.Instant) error {
	if b.relative > 0 {
		end = b.clk.Now().Add(b.relative)
	}
	return b.Kernel.Renew(end)
}

func (b bad) RemoveOurs() ([]vip.Address, error) {
	if b.removeNot {
		return nil, nil
	}
	return b.Kernel.RemoveOurs()
}

func (b bad) Tier() vip.Tier { return b.tier }

// TestBrokenRules breaks, one at a time, what the promise of one holder rests on.
// Each break must be caught: if one is not, the checker is blind to it. Each
// must also show in the history, by which porcupine judges.
func TestBrokenRules(t *testing.T) {
	cut := func(l *lab) {
		l.net.Cut("primary", "", "", true)
		l.net.Cut("", "primary", "", true)
		time.Sleep(2 * time.Second)
	}
	for _, c := range []struct {
		name   string
		broken func(l *lab) // before the agents start
		then   func(l *lab)
		caught string
		keeps  bool // within what the rules allow: nothing may be caught
	}{
		{
			name:   "a holder's clocks 5 % slow and the voters' 5 % fast are within the bound",
			broken: func(l *lab) { slow(l, 0.95, 1.05) }, then: cut, keeps: true,
		},
		{
			name:   "a holder's clocks 20 % slow",
			broken: func(l *lab) { slow(l, 0.80, 1) }, then: cut, caught: "I3",
		},
		{
			name:   "the voters' clocks 20 % fast",
			broken: func(l *lab) { slow(l, 1, 1.20) }, then: cut, caught: "I3",
		},
		{
			name: "no guard where one is declared",
			broken: func(l *lab) {
				h := l.hosts["primary"]
				h.kernel.SetTier(vip.TierNone)
				h.gear = func(k vip.Kernel) vip.Kernel { return bad{Kernel: k, tier: vip.TierEBPF} }
			},
			then: cut, caught: "I3",
		},
		{
			name: "a guard that says it closed and did not",
			broken: func(l *lab) {
				l.hosts["primary"].gear = func(k vip.Kernel) vip.Kernel {
					return bad{Kernel: k, tier: vip.TierEBPF, closeNot: true}
				}
			},
			then: func(l *lab) {
				_, err := l.on("primary").Move(l.t.Context(), api.MoveRequest{Group: "web", To: "secondary", Wait: time.Second})
				l.note("moved: %v", err)
			},
			caught: "I3",
		},
		{
			name: "a renewal counted from its write",
			broken: func(l *lab) {
				h := l.hosts["primary"]
				h.gear = func(k vip.Kernel) vip.Kernel {
					return bad{Kernel: k, tier: vip.TierEBPF, clk: h.clk, relative: l.tm.LeaseLength()}
				}
			},
			then: func(l *lab) {
				// The write of the newest renewal is made long after its decision, and the
				// process is dead to the others meanwhile.
				_, sys := l.hosts["primary"].running()
				sys.hang("renew", 600*time.Millisecond)
				time.Sleep(60 * time.Millisecond)
				cut(l)
			},
			caught: "I3",
		},
		{
			name: "an agent that starts beside what its predecessor left",
			broken: func(l *lab) {
				h := l.hosts["primary"]
				h.gear = func(k vip.Kernel) vip.Kernel { return bad{Kernel: k, tier: vip.TierNone, removeNot: true} }
				h.kernel.SetTier(vip.TierNone)
			},
			then: func(l *lab) {
				l.hosts["primary"].kill()
				l.hosts["primary"].start()
				time.Sleep(2 * time.Second)
			},
			caught: "I2",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var hist *history
			defer func() {
				v := hist.check(time.Minute)
				if (v.bad != "") == c.keeps || v.unknown > 0 {
					t.Errorf("porcupine calls the history broken: %v, want %v\n%s", v.bad != "", !c.keeps, v.bad)
				}
			}()
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, fast, "primary", "secondary", "arbiter")
				hist = l.hist
				c.broken(l)
				l.startAll()
				l.until("first hold", 20*time.Second, l.held("primary"))
				time.Sleep(3 * time.Second)
				c.then(l)
				found := strings.Join(l.violations(), "\n")
				l.forgive()
				l.close()
				switch {
				case c.keeps && found != "":
					t.Errorf("caught %s", found)
				case !c.keeps && !strings.Contains(found, c.caught):
					t.Errorf("%s was not caught; found: %q\n%s", c.caught, found, l.log.buf.String())
				case !c.keeps:
					first, _, _ := strings.Cut(found, "\n")
					t.Logf("caught %s", first)
				}
			})
		})
	}
}

// slow sets the rate of the owner's clocks, and of everybody else's.
func slow(l *lab, owner, rest float64) {
	for name, h := range l.hosts {
		h.clk.setRates(rest, rest)
		if name == "primary" {
			h.clk.setRates(owner, owner)
		}
	}
}

// forgive forgets violations that a test meant to cause.
func (l *lab) forgive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad = nil
}
