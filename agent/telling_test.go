package agent

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
)

// Many groups are taken over at once: what is told of them takes a few entries of the log
// if all nodes can read that, and one each if not.
func TestManyAreToldTogether(t *testing.T) {
	const many = maxVips
	for speaks := 1; speaks <= 2; speaks++ {
		t.Run(fmt.Sprintf("version %d", speaks), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var groups []spec.Group
				for i := range many {
					groups = append(groups, groupOf(fmt.Sprintf("g%03d", i), fmt.Sprintf("10.77.0.%d", firstVIP+i), "primary"))
				}
				l := newLabOf(t, fast, 1, []string{"primary", "secondary", "arbiter"}, groups)
				defer l.close()
				for _, h := range l.order {
					h.speaks = speaks
					h.start()
				}
				index := func() (i uint64) {
					l.view(func(s *fsm.State) { i = s.Index })
					return i
				}
				started := func(on string) func() bool {
					return func() (ok bool) {
						l.view(func(s *fsm.State) {
							ok = len(s.Groups) == many
							for _, g := range s.Groups {
								ok = ok && g.Started && g.Owner.Name == on
							}
						})
						return ok
					}
				}
				l.until("all run", 20*time.Second, started("primary"))
				l.until("the version is spoken", 5*time.Second, l.spoken(speaks))
				time.Sleep(time.Second)
				before := index()
				l.hosts["primary"].powerCut()
				took := l.until("all are taken over", 20*time.Second, started("secondary"))
				n := index() - before
				t.Logf("%d entries for %d groups, all told after %v", n, many, took)
				if together := n < many; together != (speaks > 1) {
					t.Errorf("%d entries", n)
				}
			})
		})
	}
}
