package agent

import (
	"testing"
	"time"
)

// What memberlist thinks of a node decides nothing while its beats arrive: its
// probes of the owner are lost for two minutes, so that the others hold the owner
// for dead, and nothing moves.
func TestGossipsDeathNoticesDecideNothing(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		const lane = 0xFA // how our datagrams begin; memberlist's do not (gossip/transport.go)
		l.leadBy("arbiter")
		_, term := l.on("arbiter").node.Load().Leader()
		epoch, done := l.epoch("web"), l.silence(vipA)
		l.net.SetDrop(func(from, to string, p []byte) bool { return (from == "primary" || to == "primary") && p[0] != lane })
		l.net.CutStreams("primary", true) // it probes by stream too
		l.until("gossip holds the owner for dead", 2*time.Minute, func() bool { return !l.on("secondary").gossip.Seen()["primary"] })
		time.Sleep(soak(2 * time.Minute))
		if seen := l.on("arbiter").gossip.Seen(); seen["primary"] {
			t.Errorf("gossip sees %v: the fault did not take hold", seen)
		}
		if longest, moves := done(); longest > time.Millisecond || moves > 0 || l.epoch("web") != epoch {
			t.Errorf("the address was silent for %v and moved %d times, epoch %d, was %d", longest, moves, l.epoch("web"), epoch)
		}
		if _, now := l.on("secondary").node.Load().Leader(); l.leader() != "arbiter" || now != term {
			t.Errorf("%s leads in term %d, it was the arbiter in %d", l.leader(), now, term)
		}
		l.net.CutStreams("primary", false)
		l.net.SetDrop(nil)
		l.well(30 * time.Second)
	})
}

// raft's AddVoter does not wait until a server has the log: a voter that lags would
// count for a majority that it cannot be part of. Here one with an emptied disk
// that takes no writes stays without a vote until it has caught up.
func TestNoVoteBeforeCatchUp(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		l.leadBy("arbiter")
		h := l.hosts["secondary"]
		h.powerCut()
		h.loseDisk()
		h.disk.hangs.Store(true)
		h.start()
		has := func(voter bool) func() bool {
			return func() bool {
				ms, err := l.on("arbiter").node.Load().Members()
				if err != nil {
					return false
				}
				for _, m := range ms {
					if m.ID == "secondary.2" {
						return m.Voter == voter
					}
				}
				return false
			}
		}
		l.until("it gets the log", 20*time.Second, has(false))
		if d, got := l.within(time.Minute, has(true)); got {
			t.Errorf("it got a vote after %v, with nothing on its disk", d)
		}
		h.disk.hangs.Store(false)
		l.until("it has its vote", 20*time.Second, has(true))
		l.well(20 * time.Second)
	})
}
