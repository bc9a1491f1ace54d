package hosts

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"hanode/internal/netlab/watch"
	"hanode/internal/trust"
)

// TestPowerOn is how long it takes from three hosts that are switched on for the first
// time (the package installed, the files written, nothing ever started) to a cluster
// that has formed, and to the page that it serves.
func TestPowerOn(t *testing.T) {
	s := newStory(t)
	boot(t, s.Hosts...)
	key := trust.Generate() + "\n"
	for _, h := range s.all() {
		h.furnishStory()
		h.write("/etc/hanode/hanode.hcl", "groups = \"/etc/hanode/web.hcl\"\n"+nodeFile, 0o644)
		h.write("/etc/hanode/key", key, 0o600)
		h.write("/etc/hanode/web.hcl", clusterFile, 0o644)
	}
	var formed, served []time.Duration
	for range *flagRuns {
		for _, h := range s.all() {
			s.do(h.PowerCut())
			s.do(os.RemoveAll(filepath.Join(h.root, "var/lib/hanode")))
		}
		w, err := watch.StartHTTP(s.Client.Host, page, 5*time.Millisecond, 200*time.Millisecond)
		s.do(err)
		begin := time.Now()
		for _, h := range s.all() {
			s.do(h.PowerOn())
		}
		eventually(t, time.Minute, "the cluster forms", func() bool {
			st, err := s.status(s.arbiter)
			return err == nil && st.Quorum && st.Leader != nil
		})
		formed = append(formed, time.Since(begin))
		s.serves("primary")
		r := w.Stop()
		served = append(served, longest(r))
		if len(r.Overlaps) > 0 {
			t.Errorf("two hosts answered: %+v", r.Overlaps)
		}
		s.settled()
	}
	for _, x := range []struct {
		what string
		took []time.Duration
	}{{"the cluster has formed", formed}, {"the page is served", served}} {
		slices.Sort(x.took)
		t.Logf("from power on until %-22s median %5d ms, max %5d ms (%d runs)", x.what,
			x.took[len(x.took)/2].Milliseconds(), x.took[len(x.took)-1].Milliseconds(), len(x.took))
	}
}
