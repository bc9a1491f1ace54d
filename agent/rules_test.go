package agent

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hanode/api"
	"hanode/fsm"
	"hanode/internal/spec"
)

// A group that must be with another follows it through a death and a move, and comes
// up after it; one that must be apart from it gives way to nobody.
func TestGroupsThatBelongTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, web, other := groupOf("db", vipA, "primary"), groupOf("web", "10.77.0.101", "secondary"), groupOf("other", "10.77.0.102", "third")
		web.With, web.After = "db", "db"
		other.Apart = "web"
		l := newLabOf(t, fast, 1, []string{"primary", "secondary", "third", "arbiter"}, []spec.Group{db, web, other})
		defer l.close()
		l.startAll()
		where := func(want string) func() bool {
			return func() bool {
				ok := true
				l.view(func(s *fsm.State) {
					for _, n := range []string{"db", "web"} {
						g := s.Groups[n]
						ok = ok && g != nil && g.Started && g.Owner.Name == want
					}
					g := s.Groups["other"]
					ok = ok && g != nil && g.Started && g.Owner.Name != want
				})
				return ok
			}
		}
		l.until("together", 20*time.Second, where("primary"))
		time.Sleep(5 * time.Second)
		l.hosts["primary"].powerCut()
		l.until("together elsewhere", 10*time.Second, where("secondary"))
		l.hosts["primary"].start()
		l.until("together again, by failback", 20*time.Second, where("primary"))
		_, err := l.on("arbiter").Move(t.Context(), api.MoveRequest{Group: "web", To: "secondary", Wait: time.Second})
		if err == nil || !strings.Contains(err.Error(), "must be with db") {
			t.Errorf("moved alone: %v", err)
		}
		if _, err := l.on("arbiter").Move(t.Context(), api.MoveRequest{Group: "db", To: "third", Wait: time.Second}); err == nil || !strings.Contains(err.Error(), "must be apart from other") {
			t.Errorf("moved to where it must not be: %v", err)
		}
		if _, err := l.on("arbiter").Move(t.Context(), api.MoveRequest{Group: "db", To: "secondary", Wait: time.Second}); err != nil {
			t.Error(err)
		}
		l.until("it follows", 5*time.Second, where("secondary"))
	})
}
