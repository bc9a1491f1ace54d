package agent

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"hanode/api"
	"hanode/fsm"
)

// TestWallClockIsGarbage tells one story twice: with good wall clocks, and with wall
// clocks that say something else each time they are asked, from 1970 to 2100. The
// same must happen in the same order.
func TestWallClockIsGarbage(t *testing.T) {
	good, bad := wallStory(t, false), wallStory(t, true)
	if len(good) < 10 || !slices.Equal(good, bad) {
		t.Errorf("with good clocks:\n%q\nwith bad ones:\n%q", good, bad)
	}
}

func wallStory(t *testing.T, garbage bool) (happened []string) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, "primary", "secondary", "arbiter")
		defer l.close()
		if garbage {
			for i, h := range l.order {
				rng := rand.New(rand.NewPCG(7, uint64(i)))
				h.clk.lie = func() time.Time { return time.Unix(rng.Int64N(130*365*24*3600), rng.Int64N(1e9)) }
			}
		}
		l.startAll()
		l.until("first hold", 20*time.Second, l.held("primary"))
		time.Sleep(2 * time.Second)
		l.hosts["primary"].powerCut()
		l.until("failover", 2*time.Second, l.held("secondary"))
		time.Sleep(time.Second)
		l.hosts["primary"].start()
		l.until("failback", 20*time.Second, l.held("primary"))
		time.Sleep(2 * time.Second)
		if _, err := l.on("arbiter").Move(t.Context(), api.MoveRequest{Group: "web", To: "secondary", Wait: 2 * time.Second}); err != nil {
			t.Error(err)
		}
		l.until("moved", time.Second, l.held("secondary"))
		if _, err := l.on("arbiter").Standby(t.Context(), "secondary", true, 2*time.Second); err != nil {
			t.Error(err)
		}
		l.until("standby", time.Second, l.held("primary"))
		time.Sleep(2 * time.Second)
		l.view(func(s *fsm.State) {
			for _, e := range s.Events {
				if e.Group != "" {
					happened = append(happened, fmt.Sprintf("%s %s %s %s", e.Group, e.Kind, e.Node, e.Cause))
				}
			}
		})
	})
	return happened
}
