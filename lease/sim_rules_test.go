package lease_test

import (
	"flag"
	"testing"
)

var simHunt = flag.Int("sim.hunt", 0, "TestSimRules: look for breaking seeds in this many schedules per rule")

// TestSimRules breaks one rule at a time, from outside the packages, and demands
// that the checker sees it: a rule that can be left out unseen is not tested. The
// seed of each is a schedule known to show it.
func TestSimRules(t *testing.T) {
	for _, tt := range []struct {
		name string
		bug  bug
		seed uint64
	}{
		{"R1 E from the receipt of the ack", bugReceiveTime, 121},
		{"R1 a lease of half the voters", bugHalf, 35},
		{"R1 the command is pushed instead of the record", bugPushCommand, 13},
		{"R2 the clock is read before the datagram", bugClockEarly, 16},
		{"R2 any voters' list is acked", bugAnyList, 10},
		{"R3 EXPIRED of one voter is enough", bugOneVoter, 4},
		{"R3 a token counts for every epoch of its node", bugLooseToken, 42},
		{"R3 the token before the close", bugTokenFirst, 2},
		{"R4 EXPIRED starts an exclusive group", bugExpiredIsEnough, 133},
		{"R4 confirmed without looking", bugBlindOperator, 83},
		{"two_node: who holds alone has a bound", bugAloneBounded, 1},
		{"two_node: a clone passes for a reboot", bugCloneReboots, 1},
		{"R5 no quarantine at the start of a voter", bugNoQuarantine, 32},
		{"R7 voters' lists that jump", bugVotersJump, 20},
		{"R8 Register without compare-and-swap", bugNoCAS, 24},
		{"R8 no clean-up at boot", bugNoCleanUp, 1},
		{"R8 a clone passes for the same host", bugOneHostID, 22},
		{"guard not pinned", bugUnpinned, 6},
		{"guard with a deadline per address", bugPerAddress, 27},
		{"bound by each voter's own file", bugOwnTiming, 7},
		{"bound without the guard's lateness", bugTierIgnored, 105},
		{"one clock only", bugOneClock, 307},
		{"R11 a moved address brings no wait", bugNoAddressWaits, 11},
		{"R12 an emptied disk votes under its old id", bugSameID, 16},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if *simHunt > 0 {
				hunt(t, tt.bug)
				return
			}
			s := newSim(tt.seed, tt.bug, false)
			s.run()
			if s.viol == "" {
				t.Errorf("seed %d did not show it; find another with -sim.hunt=2000", tt.seed)
			}
		})
	}
}

// hunt reports how often a broken rule shows, and the seed that shows it first.
func hunt(t *testing.T, b bug) {
	bad := 0
	for from, step := 1, 50; from <= *simHunt; from += step {
		for _, s := range simulate(t, uint64(from), step, b, false, newSim(0, b, false).manual) {
			if s.viol != "" {
				if bad++; bad <= 3 {
					t.Logf("seed %d: %s", s.seed, s.viol)
				}
			}
		}
	}
	t.Logf("%d of %d schedules", bad, *simHunt)
}
