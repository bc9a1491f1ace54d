package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"hanode/internal/spec"
)

// The main story in virtual time: formed from three files, the owner loses power,
// the other takes over at deadtime, the owner returns and gets its group back.
func TestPowerCutAndReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, spec.Profiles["fast"], "primary", "secondary", "arbiter")
		defer l.close()
		l.startAll()
		t.Logf("held after %v", l.until("first hold", 20*time.Second, l.held("primary")))
		time.Sleep(5 * time.Second)
		l.hosts["primary"].powerCut()
		d := l.until("takeover", 5*time.Second, l.held("secondary"))
		t.Logf("taken over after %v", d)
		if d > 2*l.tm.Deadtime {
			t.Errorf("takeover took %v, deadtime is %v", d, l.tm.Deadtime)
		}
		time.Sleep(2 * time.Second)
		l.hosts["primary"].start()
		t.Logf("back after %v", l.until("failback", 10*time.Second, l.held("primary")))
	})
}
