// Package robustness breaks real clusters and holds them to their promises: a
// matrix of fault x traffic x checker over the real binary on hosts made of network
// namespaces. README.md says how to run it and how to read a failure.
//
// It judges from outside: who holds an address is what the wire answers, what was
// lost is what a command had acknowledged, and every fault has a proof that it
// took hold.
package robustness

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	_ "hanode/agent" // so that a cached result does not outlive a change of what is tested
	"hanode/internal/netlab"
)

var (
	flagRuns    = flag.Int("robust.runs", 0, "runs of each row of the matrix; 0 = the short form: each fault once, on a drawn target")
	flagSeed    = flag.Uint64("robust.seed", 0, "seed of order, targets, times and traffic; 0 = by the clock, printed")
	flagFault   = flag.String("robust.fault", "", "only rows whose name matches this regular expression")
	flagLabs    = flag.Int("robust.labs", 2, "clusters side by side")
	flagProfile = flag.String("robust.profile", "fast", "timing profile")
	flagDir     = flag.String("robust.dir", "", "where failing runs keep logs and timeline; empty = a folder of the system's temporary one")
	flagKeep    = flag.Bool("robust.keep", false, "keep logs and timeline of passing runs too")
)

// binary is the hanode under test.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	// In namespaces of our own, also as root: what a run leaves behind goes with them.
	if !netlab.Isolated() {
		code, err := netlab.Reexec(os.Args[1:], nil)
		if err != nil {
			fmt.Fprintln(os.Stderr, "robustness:", err)
			code = 1
		}
		os.Exit(code)
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	if *flagSeed == 0 {
		*flagSeed = uint64(time.Now().UnixNano()) % 1_000_000_000
	}
	dir, err := os.MkdirTemp("", "hanode-robust-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if binary = os.Getenv("HANODE_BINARY"); binary == "" {
		binary = filepath.Join(dir, "hanode")
		if out, err := exec.Command("go", "build", "-o", binary, "hanode/cmd/hanode").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build hanode: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}
