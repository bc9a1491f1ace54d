package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hanode/test/livelab"
)

// An installation without hands: the agent of a host with retry_join starts before its
// token is there, joins when it is, and the next start needs neither.
func TestRetryJoin(t *testing.T) {
	x := build(t, livelab.Options{Names: []string{"primary", "secondary", "arbiter", "third"}, Joins: []string{"third"}})
	x.do(x.StartAll())
	third := x.Get("third")
	token := filepath.Join(third.Dir, "token")
	x.edit(third, "http = \"\"\n", fmt.Sprintf("http = \"\"\nretry_join = [\"10.0.0.9\", \"10.0.0.2\"]\ntoken_file = %q\n", token))
	x.do(third.StartAgent())
	x.await("formed", time.Now(), 30*time.Second, x.alive("primary", 3, "primary", "secondary", "arbiter"))
	x.do(os.WriteFile(token, []byte(x.token("primary")+"\n"), 0o600))
	x.await("joined by itself", time.Now(), 30*time.Second, x.alive("primary", 3, "primary", "secondary", "arbiter", "third"))
	b, err := os.ReadFile(third.LogFile())
	x.do(err)
	if s := string(b); !strings.Contains(s, "cannot join yet; trying again") || !strings.Contains(s, "joined the cluster") {
		t.Errorf("its log: %s", s)
	}
	x.do(os.Remove(token))
	x.do(third.Restart(os.Interrupt, 20*time.Second))
	x.do(x.Back(third, 20*time.Second))
}
