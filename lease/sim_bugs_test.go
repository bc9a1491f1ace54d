package lease_test

import (
	"slices"
	"time"
)

// bug is a rule broken on purpose, from outside the packages under test.
type bug int

const (
	bugNone            bug = iota
	bugReceiveTime         // R1: E from the time an ack came, not from its beat's send time
	bugHalf                // R1: a lease of half the voters
	bugPushCommand         // R1: the command is pushed, not the record after Apply
	bugClockEarly          // R2: a voter reads its clock before the datagram
	bugAnyList             // R2: a voter acks whatever voters' list the beat counts by
	bugOneVoter            // R3: EXPIRED of one voter is enough
	bugLooseToken          // R3: a token counts for every epoch of its node
	bugTokenFirst          // R3: the token is sent before the close
	bugNoQuarantine        // R5: a restarted voter forgets that it may have acked
	bugVotersJump          // R7: no spacing between voters' lists
	bugNoCAS               // R8: Register takes whatever is there
	bugNoCleanUp           // R8: an agent registers before it closed what it finds
	bugOneHostID           // R8: a clone passes for the same host
	bugUnpinned            // section 5: the guard dies with its process
	bugPerAddress          // section 5: a deadline per address, refreshed beside a release
	bugOwnTiming           // bound: each voter waits by its own file
	bugTierIgnored         // bound: the guard's own lateness is left out
	bugOneClock            // clock rule: a waiter has one clock
	bugNoAddressWaits      // R11: a moved address brings no wait
	bugSameID              // R12: an emptied disk votes on under its old id
	bugExpiredIsEnough     // R4: an exclusive group starts on EXPIRED
	bugBlindOperator       // R4: the operator confirms without looking
	bugAloneBounded        // two_node = "manual": a registration that holds alone has a bound
	bugCloneReboots        // two_node = "manual": a clone passes for a reboot
)

func (b bug) aboutE() bool { return b == bugReceiveTime || b == bugHalf }

// ownLease computes E wrongly, beside the Holder.
type ownLease struct {
	sent map[uint64]time.Duration
	at   map[string]time.Duration
	end  time.Duration
}

func (o *ownLease) beat(s *sim, seq uint64, at time.Duration) {
	if s.bug != bugHalf {
		return
	}
	if o.sent == nil {
		o.sent = map[uint64]time.Duration{}
	}
	o.sent[seq] = at
}

func (o *ownLease) acked(s *sim, a *simAgent, voter string, seq uint64) (end time.Duration, grew bool) {
	if o.at == nil {
		o.at = map[string]time.Duration{}
	}
	at := a.host.clock.read(0, s.now)
	if s.bug == bugHalf {
		at = o.sent[seq]
	}
	o.at[voter] = max(o.at[voter], at)
	var times []time.Duration
	_, names := a.holder.Voters()
	for _, v := range names {
		times = append(times, o.at[v])
	}
	slices.SortFunc(times, func(x, y time.Duration) int { return int(y - x) })
	m := len(times)/2 + 1
	if s.bug == bugHalf {
		m = max(len(times)/2, 1)
	}
	if len(times) < m || times[m-1] == 0 {
		return o.end, false
	}
	end = times[m-1] + a.timing.LeaseLength()
	if end <= o.end {
		return o.end, false
	}
	o.end = end
	return end, true
}
