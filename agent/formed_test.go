package agent

import (
	"testing"
	"time"
)

// Both data hosts die, the arbiter lives, one of them returns. The cluster was formed
// in the arbiter's life, so the other one is missed for deadtime, not for initdead:
// also when the one that returns owned the group last, or is the one to lead.
func TestOneReturnsWhileAVoterLived(t *testing.T) {
	for _, owner := range []string{"primary", "secondary"} {
		t.Run("owned by "+owner, func(t *testing.T) {
			story(t, func(t *testing.T, l *lab) {
				if owner == "secondary" { // it takes over; primary's registration is fenced
					l.hosts["primary"].powerCut()
					l.until("takeover", 5*time.Second, l.held("secondary"))
				}
				l.hosts["primary"].powerCut()
				l.hosts["secondary"].powerCut()
				time.Sleep(2 * l.tm.Initdead)
				begin := time.Now()
				l.hosts["secondary"].start()
				l.until("it has the group", l.tm.Initdead/2, l.held("secondary"))
				t.Logf("the one that returned has the group after %v; initdead is %v", time.Since(begin), l.tm.Initdead)
				l.hosts["primary"].start()
				l.until("failback", 10*time.Second, l.held("primary"))
				l.well(5 * time.Second)
			})
		})
	}
}

// A cold start of all: nobody has lived since the cluster was whole, so the group
// waits for the node that it prefers, however long one voter stood there alone, and
// starts once.
func TestColdStartWaitsForThePreferred(t *testing.T) {
	for _, alone := range []time.Duration{0, 3 * fast.Initdead} {
		t.Run("arbiter alone for "+alone.String(), func(t *testing.T) {
			story(t, func(t *testing.T, l *lab) {
				before := l.epoch("web")
				for _, n := range l.nodes {
					l.hosts[n.Name].powerCut()
				}
				time.Sleep(time.Second)
				l.hosts["arbiter"].start()
				time.Sleep(alone)
				l.hosts["secondary"].start()
				time.Sleep(l.tm.Initdead / 2)
				if by := l.answers(vipA); len(by) > 0 {
					t.Errorf("%v answers before primary is there, %v after secondary started", by, l.tm.Initdead/2)
				}
				begin := time.Now()
				l.hosts["primary"].start()
				l.until("it has the group", 2*time.Second, l.held("primary"))
				t.Logf("primary has the group %v after its start", time.Since(begin))
				l.well(5 * time.Second)
				if got := l.epoch("web"); got != before+1 {
					t.Errorf("the group is at epoch %d, it was at %d: it was given away more than once\n%s", got, before, l.dump())
				}
			})
		})
	}
}
