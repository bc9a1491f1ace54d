package agent

import (
	"sync/atomic"
	"testing"
	"time"

	"hanode/vip"
)

// After a partition, and after a stall that was too short to lose the lease, the holder
// announces again without being asked to hold anew.
func TestAnnouncesAgain(t *testing.T) {
	story(t, func(t *testing.T, l *lab) {
		var count atomic.Int64
		l.hosts["primary"].kernel.OnAnnounce(func(vip.Address) { count.Add(1) })
		wait := func(what string, atLeast int64) {
			t.Helper()
			if _, ok := l.within(2*time.Second, func() bool { return count.Load() >= atLeast }); !ok {
				t.Errorf("%s: announced %d times, want %d", what, count.Load(), atLeast)
			}
		}
		time.Sleep(5 * time.Second)
		if n := count.Load(); n != 0 {
			t.Errorf("announced again %d times although nothing happened", n)
		}
		for _, o := range []string{"primary", "arbiter"} {
			for _, link := range []string{"eth0", "eth1"} {
				l.net.Cut("secondary", o, link, true)
				l.net.Cut(o, "secondary", link, true)
			}
		}
		time.Sleep(2 * time.Second)
		before := count.Load()
		l.net.Heal()
		wait("the partition healed", before+1)
		time.Sleep(5 * time.Second)
		before = count.Load()
		l.hosts["primary"].stall(100 * time.Millisecond) // well within the lease
		wait("the host stood still", before+1)
		if !l.held("primary")() {
			t.Error("primary lost it")
		}
	})
}
