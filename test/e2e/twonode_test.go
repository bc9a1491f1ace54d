package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hanode/api"
	"hanode/internal/netlab"
	"hanode/test/livelab"
)

// pair is two hosts and no third vote. A file stands for each host's boot id, so that a
// host that is switched on again has booted, as its kernel here has not.
type pair struct {
	*world
	boots int
	dir   string
}

func formPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{dir: t.TempDir()}
	through := map[string][]string{}
	for _, n := range []string{"primary", "secondary"} {
		p.boot(t, n)
		through[n] = []string{
			"unshare", "-m", "--propagation", "private", "sh", "-c",
			`mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"`, p.bootFile(n),
		}
	}
	p.world = form(t, livelab.Options{Names: []string{"primary", "secondary"}, Through: through})
	p.holds("primary")
	return p
}

func (p *pair) bootFile(node string) string { return filepath.Join(p.dir, node) }

func (p *pair) boot(t *testing.T, node string) {
	t.Helper()
	p.boots++
	if err := os.WriteFile(p.bootFile(node), fmt.Appendf(nil, "boot-%d\n", p.boots), 0o600); err != nil {
		t.Fatal(err)
	}
}

// powerOn boots a host and starts its agent.
func (p *pair) powerOn(node string) {
	p.t.Helper()
	p.boot(p.t, node)
	p.do(p.Get(node).PowerOn())
	p.do(p.Get(node).StartAgent())
}

// stop is an orderly stop.
func (p *pair) stop(node string) {
	p.t.Helper()
	a := p.Get(node).Agent()
	p.do(a.Signal(os.Interrupt))
	if err := a.Wait(); err != nil {
		p.t.Errorf("the agent of %s ended with %v", node, err)
	}
}

// nobody demands that nobody answers, from soon on, for d.
func (p *pair) nobody(d time.Duration) {
	p.t.Helper()
	p.do(p.w.WaitHolder("", 5*time.Second))
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if mac := p.w.Now(); mac != "" {
			p.t.Fatalf("%s answers", p.Holder(mac))
		}
	}
}

// stays demands that the host goes on to answer, and nobody else does, for d. A moment
// of silence is not told from one of a busy machine.
func (p *pair) stays(node string, d time.Duration) {
	p.t.Helper()
	before := len(p.w.Look().Changes)
	time.Sleep(d)
	p.holds(node)
	if c := p.w.Look().Changes[before:]; len(c) > 0 {
		p.t.Fatalf("the address moved: %+v", c)
	}
}

// confirm says that a host is off, on the other one.
func (p *pair) confirm(on, off string) {
	p.t.Helper()
	p.hanode(on, 0, "confirm-off", off, "--confirm", off+" is off")
}

// problem waits until status lists a code.
func (p *pair) problem(on, code string) {
	p.t.Helper()
	var out string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if out, _, _, _ = p.Get(on).Run("status", "--json"); strings.Contains(out, `"`+code+`"`) {
			return
		}
	}
	p.t.Fatalf("%s does not list %s:\n%s", on, code, out)
}

// Stop the primary, the secondary answers, and decides alone; start it, it gets its
// group back. Then the other way round.
func TestTwoNodesHandOver(t *testing.T) {
	p := formPair(t)
	p.problem("primary", "two-node-manual")
	for range 2 {
		p.w.Mark("stop")
		p.stop("primary")
		p.holds("secondary")
		p.hanode("secondary", 0, "maintenance", "on")
		p.hanode("secondary", 0, "maintenance", "off")
		p.do(p.Get("primary").StartAgent())
		p.holds("primary")
		p.settle()
	}
	p.stop("secondary")
	p.stays("primary", 2*time.Second)
	p.hanode("primary", 0, "maintenance", "on")
	p.hanode("primary", 0, "maintenance", "off")
	p.do(p.Get("secondary").StartAgent())
	p.settle()
	for _, c := range p.w.Look().Changes {
		t.Logf("%s to %s: silent for %v", p.Holder(c.From), p.Holder(c.To), c.Silent)
	}
}

// A crash of the owner waits for a word, and what comes back joins anew.
func TestTwoNodesCrashWaitsForAWord(t *testing.T) {
	p := formPair(t)
	p.do(p.Get("primary").PowerCut())
	p.nobody(3 * time.Second)
	p.problem("secondary", "two-node-alone")
	_, errs := p.hanode("secondary", api.ExitNoQuorum, "maintenance", "on")
	if !strings.Contains(errs, "primary") {
		t.Errorf("the sentence does not name primary: %s", errs)
	}
	begin := time.Now()
	p.confirm("secondary", "primary")
	p.holds("secondary")
	t.Logf("answered %v after the command was started", time.Since(begin))
	p.hanode("secondary", 0, "maintenance", "on")
	p.hanode("secondary", 0, "maintenance", "off")
	p.powerOn("primary")
	p.holds("primary")
	p.settle()
}

// The other one crashes: the owner serves on.
func TestTwoNodesCrashOfTheOther(t *testing.T) {
	p := formPair(t)
	p.do(p.Get("secondary").PowerCut())
	p.stays("primary", 3*time.Second)
	p.hanode("primary", api.ExitNoQuorum, "maintenance", "on")
	p.powerOn("secondary")
	p.settle()
	p.stays("primary", time.Second)
}

// A host that boots alone waits, and says so; both boot, and all is as it was.
func TestTwoNodesBoot(t *testing.T) {
	p := formPair(t)
	p.do(p.Get("secondary").PowerCut())
	p.do(p.Get("primary").PowerCut())
	p.powerOn("primary")
	p.nobody(3 * time.Second)
	p.problem("primary", "two-node-waits")
	p.powerOn("secondary")
	p.holds("primary")
	p.settle()
	p.do(p.Get("secondary").PowerCut())
	p.do(p.Get("primary").PowerCut())
	p.powerOn("primary")
	p.problem("primary", "two-node-waits")
	p.confirm("primary", "secondary")
	p.holds("primary")
	p.powerOn("secondary")
	p.settle()
}

// Parted, each keeps what it has.
func TestTwoNodesParted(t *testing.T) {
	p := formPair(t)
	p.do(p.Lab.Partition([]*netlab.Host{p.Get("primary").Host}, []*netlab.Host{p.Get("secondary").Host}))
	p.stays("primary", 4*time.Second)
	p.do(p.Lab.HealAll())
	p.settle()
	p.stays("primary", time.Second)
}
