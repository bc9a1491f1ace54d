package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestWhoMayOperate(t *testing.T) {
	for _, c := range []struct {
		name string
		p    policy
		who  peer
		want bool
	}{
		{"root", policy{uid: 100, gid: -1}, peer{uid: 0}, true},
		{"the agent's own user", policy{uid: 100, gid: -1}, peer{uid: 100, gid: 7}, true},
		{"a stranger", policy{uid: 100, gid: 50}, peer{uid: 101, gid: 101, groups: []int{102}}, false},
		{"the group as primary", policy{uid: 100, gid: 50}, peer{uid: 101, gid: 50}, true},
		{"the group as one of many", policy{uid: 100, gid: 50}, peer{uid: 101, gid: 101, groups: []int{4, 50}}, true},
		{"no such group here", policy{uid: 100, gid: -1}, peer{uid: 101, gid: -1, groups: []int{-1}}, false},
	} {
		if got := c.p.role(c.who) == Admin; got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// A listener that is no unix socket has no peer credentials, so it lets nobody in.
func TestGuardWithoutCredentials(t *testing.T) {
	b := &countingBackend{}
	w := httptest.NewRecorder()
	policy{uid: os.Getuid(), gid: -1}.guard(every(b)).ServeHTTP(w, httptest.NewRequest("GET", "/v1/members", nil))
	if e := errorIn(t, w); w.Code != 403 || e.Code != CodeNotAllowed || b.calls != 0 {
		t.Errorf("got %d %+v", w.Code, e)
	}
}

func TestKernelNamesThePeer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	who, err := readPeer(s.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(groups)
	slices.Sort(who.groups)
	if who.uid != os.Geteuid() || who.gid != os.Getegid() || !slices.Equal(who.groups, groups) {
		t.Errorf("got %+v, want %d %d %v", who, os.Geteuid(), os.Getegid(), groups)
	}
}

const strangerSocket = "API_TEST_SOCKET"

func TestMain(m *testing.M) {
	if path := os.Getenv(strangerSocket); path != "" {
		os.Exit(stranger(path))
	}
	os.Exit(m.Run())
}

// stranger is the other process of TestOtherUsers: it sees, and then changes something.
func stranger(path string) (exit int) {
	c := Dial(path)
	_, err := c.Version(context.Background())
	if err == nil {
		fmt.Println("it sees")
		err = c.Maintenance(context.Background(), true)
	}
	if e, ok := errors.AsType[*Error](err); ok {
		fmt.Printf("refused %s: %s; %s\n", e.Code, e.Message, e.Fix)
	} else if err != nil {
		fmt.Println(err)
	}
	if err != nil {
		return 1
	}
	return 0
}

// Real processes of other users ask: the mode of the socket is widened, so that
// only the peer credentials stand between them and the agent.
func TestOtherUsers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become other users")
	}
	dir, err := os.MkdirTemp("", "hanode-api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	exe := filepath.Join(dir, "test")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(exe, self, 0o755)); err != nil {
		t.Fatal(err)
	}
	const uid, gid = 54321, 54322
	path, open := filepath.Join(dir, "s"), filepath.Join(dir, "open")
	for name, read := range map[string]bool{path: false, open: true} {
		s, err := Listen(name, read, quiet())
		if err != nil {
			t.Fatal(err)
		}
		s.policy.gid = gid
		run(t, func(ctx context.Context) error { return s.Serve(ctx, &countingBackend{}, quiet()) })
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		socket string
		cred   syscall.Credential
		want   string // in the output; "" = let in
	}{
		{"stranger", path, syscall.Credential{Uid: uid, Gid: uid}, "may not operate this node"},
		{"primary group", path, syscall.Credential{Uid: uid, Gid: gid}, ""},
		{"supplementary group", path, syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{1, gid}}, ""},
		{"root", path, syscall.Credential{}, ""},
		{"stranger, where all may see", open, syscall.Credential{Uid: uid, Gid: uid}, "has the role read here, and this takes operate"},
		{"group, where all may see", open, syscall.Credential{Uid: uid, Gid: gid}, ""},
	} {
		cmd := exec.CommandContext(t.Context(), exe)
		cmd.Env = append(os.Environ(), strangerSocket+"="+c.socket, "GOCOVERDIR=")
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &c.cred}
		out, err := cmd.CombinedOutput()
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v\n%s", c.name, err, out)
		case c.want != "" && (err == nil || !strings.Contains(string(out), c.want) || !strings.Contains(string(out), "group hanode")):
			t.Errorf("%s: %v\n%s", c.name, err, out)
		}
		if sees := c.want == "" || c.socket == open; strings.Contains(string(out), "it sees") != sees {
			t.Errorf("%s: sees %v\n%s", c.name, !sees, out)
		}
	}
	if err := os.Chmod(path, 0o660); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env, cmd.Dir = append(os.Environ(), strangerSocket+"="+path), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "permission denied") {
		t.Errorf("closed by mode: %v\n%s", err, out)
	}
}
