package hosts

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"hanode/internal/netlab"
)

var (
	flagCache  = flag.String("hosts.cache", os.Getenv("HANODE_HOSTS_CACHE"), "where the base system is kept; empty = hanode/hosts in the user's cache")
	flagMirror = flag.String("hosts.mirror", os.Getenv("HANODE_HOSTS_MIRROR"), "Debian mirror to build it from; empty = what this machine's apt uses")
	flagDir    = flag.String("hosts.dir", "", "where the hosts' disks are while they run; empty = a folder of the cache")
	flagPlay   = flag.String("hosts.play", "", "only chapters of the story whose name matches this regular expression")
	flagRuns   = flag.Int("hosts.runs", 1, "times that each chapter of the story is played")
)

// What the outer stage of TestMain made for the inner one.
const (
	envBase  = "HANODE_HOSTS_BASE"  // the base system
	envBuilt = "HANODE_HOSTS_BUILT" // a folder with packages and test programs
	envWhy   = "HANODE_HOSTS_WHY"   // why no host can be booted
)

// TestMain builds what takes this machine's network and tools, then runs the tests in
// namespaces of their own, so that all they leave behind ends with them.
//
// That takes root, minutes and a Debian mirror, so `go test ./...` alone does not do
// it: HANODE_HOSTS=1 says yes, as make e2e-hosts does. Then only what no package can
// give is a reason to skip: root, and a kernel that can.
func TestMain(m *testing.M) {
	flag.Parse()
	if netlab.Isolated() {
		os.Exit(m.Run())
	}
	os.Exit(outside(m))
}

func outside(m *testing.M) int {
	env, done, err := prepare()
	defer done()
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/hosts:", err)
		return 1
	}
	for _, e := range env {
		if strings.HasPrefix(e, envWhy+"=") { // what needs no hosts runs where it is
			os.Setenv(envWhy, strings.TrimPrefix(e, envWhy+"="))
			return m.Run()
		}
	}
	code, err := netlab.Reexec(os.Args[1:], append(os.Environ(), env...))
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/hosts:", err)
		return 1
	}
	return code
}

func prepare() (env []string, done func(), err error) {
	done = func() {}
	if os.Getenv(envBase) != "" {
		return nil, done, nil // a stage of Reexec in between: all is there
	}
	if os.Getenv("HANODE_HOSTS") == "" {
		return []string{envWhy + "=it boots Debian hosts: make e2e-hosts, or HANODE_HOSTS=1 as root"}, done, nil
	}
	if why := Unable(); why != "" {
		return []string{envWhy + "=" + why}, done, nil
	}
	if err := missingTools(); err != nil {
		return nil, done, err
	}
	cache, err := Cache(*flagCache)
	if err != nil {
		return nil, done, err
	}
	base, err := EnsureBase(cache, *flagMirror, os.Stderr)
	if err != nil {
		return nil, done, err
	}
	built, err := os.MkdirTemp("", "hanode-hosts-")
	if err != nil {
		return nil, done, err
	}
	done = func() { _ = os.RemoveAll(built) }
	if err := build(built); err != nil {
		return nil, done, err
	}
	return []string{envBase + "=" + base, envBuilt + "=" + built}, done, nil
}

// build makes the packages, of two versions, and the test program of the resource
// package. The newer one is as it is for users; compressing the other as well would take
// a quarter of a minute.
func build(dir string) error {
	for version, compression := range map[string]string{versionOld: "gzip", versionNew: "xz"} {
		cmd := exec.Command("go", "run", ".", "-version", version, "-compression", compression, "-arch", runtime.GOARCH, "-formats", "deb,rpm", "-out", dir)
		cmd.Dir = filepath.Join("..", "..", "deploy", "pack")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("make the package: %w: %s", err, out)
		}
	}
	cmd := exec.Command("go", "test", "-c", "-o", filepath.Join(dir, "resource.test"), "hanode/resource")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the tests of resource: %w: %s", err, out)
	}
	return nil
}

// lab is a new one for the test.
func lab(t *testing.T, names ...string) *Lab {
	t.Helper()
	needHosts(t)
	parent := *flagDir
	if parent == "" {
		parent = filepath.Dir(os.Getenv(envBase))
	}
	dir, err := os.MkdirTemp(parent, "run-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(Options{Base: os.Getenv(envBase), Dir: dir, Names: names})
	if err != nil {
		_ = os.RemoveAll(dir)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	return l
}

// needHosts skips, with a line that says why, where no host can be booted.
func needHosts(t *testing.T) {
	t.Helper()
	if why := os.Getenv(envWhy); why != "" {
		t.Skip(why)
	}
}

// built is a file that the outer stage made.
func built(name string) string { return filepath.Join(os.Getenv(envBuilt), name) }
