package lease_test

import (
	"time"

	"hanode/fsm"
	"hanode/internal/id"
)

// chaos makes one fault and comes back for the next.
func (s *sim) chaos() {
	if s.now > simLength-simCalm {
		s.calmDown()
		return
	}
	switch s.bug { // what seldom matters must happen often to be seen
	case bugOneClock:
		s.clockFault()
	case bugSameID:
		s.restartVoter(s.voters[s.IntN(simVoters)], true)
	}
	if s.hot {
		s.hotChaos()
		return
	}
	switch x := s.Float64(); {
	case x < .16:
		s.restartVoter(s.voters[s.IntN(simVoters)], s.p(.2))
	case x < .20:
		s.count["all voters restart at once"]++
		for _, v := range s.voters {
			s.restartVoter(v, false)
		}
	case x < .33:
		s.elect()
	case x < .44:
		s.kill(s.hosts[s.IntN(simNodes)], s.span(10*time.Millisecond, time.Second))
	case x < .47:
		s.reboot(s.hosts[s.IntN(simNodes)])
	case x < .49:
		if h := s.hosts[simNodes]; !h.booted {
			s.count["clone of a machine boots"]++
			s.boot(h)
		} else {
			s.kill(h, -1)
		}
	case x < .59:
		s.suspectFor(300 * time.Millisecond)
	case x < .73:
		s.count["cuts, each way on its own"]++
		for h := range s.hosts {
			s.cutRec[h] = s.p(.3)
			for v := range s.voters {
				s.cutTo[h][v], s.cutFrom[h][v] = s.p(.3), s.p(.3)
			}
		}
		s.suspectFor(400 * time.Millisecond)
	case x < .80:
		s.heal()
	case x < .85:
		s.apply()
	case x < .90:
		s.hang()
	case x < .94:
		s.clockFault()
	default:
		s.loss = []float64{0, .05, .3}[s.IntN(3)]
	}
	s.at(s.span(50*time.Millisecond, 700*time.Millisecond), s.chaos)
}

// hotChaos is after what voters forget: each host reaches all lease voters but
// one, owners are suspected, and at that moment voters restart within
// milliseconds.
func (s *sim) hotChaos() {
	switch x := s.Float64(); {
	case x < .5:
		s.count["cuts, each way on its own"]++
		for h := range s.hosts {
			one := s.IntN(3)
			for v := range s.voters {
				s.cutTo[h][v] = v == one
			}
		}
		s.suspectFor(400 * time.Millisecond)
		for range 2 {
			s.at(s.span(30*time.Millisecond, 500*time.Millisecond), func() { s.restartVoter(s.voters[s.IntN(3)], s.p(.1)) })
		}
	case x < .65:
		s.heal()
	case x < .8:
		s.elect()
	default:
		s.restartVoter(s.voters[s.IntN(3)], false)
	}
	s.at(s.span(100*time.Millisecond, 500*time.Millisecond), s.chaos)
}

// apply deals the addresses out anew, at times again before the last change was
// carried out.
func (s *sim) apply() {
	s.count["apply: addresses move between groups"]++
	s.propose(fsm.Command{SetGroups: &fsm.SetGroups{Groups: s.layout(false)}})
	if s.p(.5) {
		s.at(s.span(10*time.Millisecond, 500*time.Millisecond), s.apply)
	}
}

// calmDown ends all faults: from here on the cluster must come to rest with
// every group held (P2).
func (s *sim) calmDown() {
	s.calm, s.loss, s.suspect = true, 0, false
	s.heal()
	clone := s.hosts[simNodes]
	s.kill(clone, -1)
	clone.proc++ // nor does it end a boot
	clone.booted = false
	s.elect()
}

func (s *sim) heal() {
	s.cutTo, s.cutFrom, s.cutRec = [simHosts][simVoters]bool{}, [simHosts][simVoters]bool{}, [simHosts]bool{}
}

func (s *sim) suspectFor(d time.Duration) {
	s.suspect = true
	s.at(d, func() { s.suspect = false })
}

// reboot is a power cut: the kernel forgets everything, and the host comes back
// under another boot id.
func (s *sim) reboot(h *simHost) {
	if h.agent == nil || !h.agent.up {
		return
	}
	s.count["host reboots"]++
	s.kill(h, s.span(100*time.Millisecond, 2*time.Second))
	s.lightsOut(h)
}

// lightsOut is what a power cut does to a host, whose agent is dead already.
func (s *sim) lightsOut(h *simHost) {
	h.kernel, h.runs = simKernel{guard: true}, [simGroups]bool{}
	s.newHostID(h)
}

// operate is the human: looks after what is blocked, and says which registrations
// ended with a power cut. Draws from a source of its own, so that a schedule of
// faults stays what it is.
func (s *sim) operate() {
	s.at(s.later(100*time.Millisecond, 900*time.Millisecond), s.operate)
	if s.now > simLength-simCalm/2 && s.bug == bugNone && !s.manual {
		return
	}
	for g := range simGroups {
		x := s.state.Groups[groupName(g)]
		if x == nil {
			continue
		}
		for _, w := range x.Stuck() {
			s.lookAfter(w.Node, w.HostID)
		}
	}
}

// lookAfter calls one registration off: its host was switched off since, or is now.
func (s *sim) lookAfter(ref id.NodeRef, host string) {
	hurry := s.calm
	if !hurry && s.human.Float64() < .5 {
		return // later
	}
	for _, h := range s.hosts {
		if s.bug == bugBlindOperator || h.hostID != host {
			continue
		}
		if !hurry && s.human.Float64() < .5 || h.agent != nil && h.agent.ref != ref && h.agent.up {
			return // it has power, and another agent by now that may release it
		}
		if h.booted && (h.agent == nil || !h.agent.up) {
			return // it is just starting: a power cut would have to end that too
		}
		s.count["operator pulls the plug"]++
		s.kill(h, s.later(100*time.Millisecond, 2*time.Second))
		s.lightsOut(h)
	}
	s.count["operator confirms a host off"]++
	s.at(s.later(0, time.Second), func() {
		s.propose(fsm.Command{PowerOff: &fsm.PowerOff{Node: ref, By: "operator"}})
	})
}

// later is span by the operator's own source.
func (s *sim) later(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(s.human.Float64()*float64(hi-lo))
}

// hang stops one process, as SIGSTOP does; its kernel and its datagrams go on.
func (s *sim) hang() {
	until := s.now + s.span(50*time.Millisecond, 1500*time.Millisecond)
	if s.p(.5) {
		s.count["voter hangs"]++
		s.voters[s.IntN(simVoters)].hung = until
		return
	}
	if a := s.hosts[s.IntN(simHosts)].agent; a != nil {
		s.count["agent hangs"]++
		a.hung = until
	}
}

// clockFault makes one of a host's two clocks jump ahead, stand still for a
// while (as MONOTONIC_RAW does in suspend), or run at another rate.
func (s *sim) clockFault() {
	c := &s.hosts[s.IntN(simHosts)].clock
	if s.p(.5) {
		c = &s.voters[s.IntN(simVoters)].clock
	}
	switch x := s.Float64(); {
	case x < .35:
		s.count["one clock jumps ahead"]++
		c.set(s.IntN(2), s.now, s.span(0, time.Second), 1+(2*s.Float64()-1)*simRate)
	case x < .6:
		s.count["RAW stands still"]++
		rate := c.rate[1]
		c.set(1, s.now, 0, 0)
		s.at(s.span(10*time.Millisecond, time.Second), func() { c.set(1, s.now, 0, max(rate, 1-simRate)) })
	default:
		s.count["clock rates change"]++
		for i := range 2 {
			c.set(i, s.now, 0, 1+(2*s.Float64()-1)*simRate)
		}
	}
}
