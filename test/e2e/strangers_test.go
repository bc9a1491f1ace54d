package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hanode/api"
	"hanode/internal/netlab"
	"hanode/internal/trust"
	"hanode/test/livelab"
)

// edit changes the node file of a host whose agent does not run yet.
func (x *world) edit(n *livelab.Node, old, with string) {
	x.t.Helper()
	b, err := os.ReadFile(n.Config())
	x.do(err)
	if !bytes.Contains(b, []byte(old)) {
		x.t.Fatalf("%s does not say %q", n.Config(), old)
	}
	x.do(os.WriteFile(n.Config(), bytes.ReplaceAll(b, []byte(old), []byte(with)), 0o600))
}

// says waits until status on a node names what it should, and exits as it should.
func (x *world) says(node, want string, exit int) {
	x.t.Helper()
	end := time.Now().Add(30 * time.Second)
	for {
		out, _, code, err := x.Get(node).Run("status")
		x.do(err)
		if strings.Contains(out, want) && code == exit {
			return
		}
		if time.Now().After(end) {
			x.t.Fatalf("status on %s does not say %q with exit %d, but with exit %d:\n%s", node, want, exit, code, out)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// well waits until status on a node knows of no problem, apart from what is the
// matter with this machine: that it did not run an agent in time is shown for minutes.
func (x *world) well(node string) {
	x.t.Helper()
	x.until("no problem on "+node, func() bool {
		ctx, cancel := context.WithTimeout(x.t.Context(), time.Second)
		defer cancel()
		st, err := x.Get(node).Status(ctx)
		return err == nil && st.Quorum && !slices.ContainsFunc(st.Problems, func(p api.StatusProblem) bool { return p.Code != "stalled" })
	})
}

// Three ways not to belong: each is counted and named, and keeps nobody else from
// forming the cluster.
func TestStrangersAreNamed(t *testing.T) {
	t.Run("another key", func(t *testing.T) {
		x := build(t, livelab.Options{})
		p := x.Get("primary")
		key := filepath.Join(p.Dir, "otherkey")
		x.do(os.WriteFile(key, []byte(trust.Generate()+"\n"), 0o600))
		x.edit(p, p.KeyFile(), key)
		x.do(x.StartAll())
		x.says("secondary", "another key", 0)
	})
	t.Run("another cluster name", func(t *testing.T) {
		x := build(t, livelab.Options{})
		x.edit(x.Get("primary"), `cluster = "web"`, `cluster = "mail"`)
		x.do(x.StartAll())
		x.says("secondary", "stranger-cluster", 0)
		x.says("primary", "stranger-cluster", 3) // alone in its own: no quorum there
	})
	t.Run("another founder list", func(t *testing.T) {
		x := build(t, livelab.Options{})
		x.edit(x.Get("primary"), "  role = \"witness\"\n", "")
		x.do(x.StartAll())
		// The list counts at the founding: once there is a cluster, it is let in as its member.
		x.await("", time.Now(), 20*time.Second, x.shows("primary", "founders-differ", "equal in the node files"))
	})
}

// A second host under the name of a live one gives up and says so, whether it
// brings an address of its own or uses the other's; the live one loses neither its
// group nor its place in raft.
func TestSecondHostOfOneName(t *testing.T) {
	for _, c := range []struct {
		name, addr string
		want       string
	}{
		{"own address", "10.0.0.9", "another host is alive under the name"},
		{"same address", "10.0.0.1", "uses this node's address 10.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := form(t, livelab.Options{})
			p := x.Get("primary")
			// An agent that starts asks for its own address for some tenths of a second. Here
			// it is the later one that must find the earlier.
			time.Sleep(time.Second)
			before, _ := x.hanode("secondary", 0, "events", "--json")
			seen := strings.Count(before, "\n")
			twin, err := x.Lab.AddHost("twin", 9)
			x.do(err)
			if c.addr == "10.0.0.1" {
				x.do(twin.AddAddr("eth0", netip.PrefixFrom(p.Addr("eth0"), 24)))
			}
			out, code := x.twin(twin, c.addr)
			if code != 1 || !strings.Contains(out, c.want) {
				t.Errorf("exit %d: %s", code, out)
			}
			x.do(twin.PowerCut())
			x.settle()
			x.holds("primary")
			after, _ := x.hanode("secondary", 0, "events", "--json")
			for _, e := range strings.SplitAfter(after, "\n")[seen:] {
				// That the group runs may be told a moment after it does.
				if strings.Contains(e, `"primary`) && !strings.Contains(e, `"kind":"started"`) {
					t.Error("this happened: ", e)
				}
			}
		})
	}
}

// twin runs an agent called primary on another host until it gives up.
func (x *world) twin(h *netlab.Host, addr string) (output string, exit int) {
	x.t.Helper()
	dir := x.t.TempDir()
	b, err := os.ReadFile(x.Get("primary").Config())
	x.do(err)
	src := strings.ReplaceAll(string(b), x.Get("primary").Dir+"/", dir+"/")
	src = strings.ReplaceAll(src, `"10.0.0.1"`, fmt.Sprintf("%q", addr))
	file := filepath.Join(dir, "hanode.hcl")
	x.do(os.WriteFile(file, []byte(src), 0o600))
	key, err := os.ReadFile(filepath.Join(x.Get("primary").Dir, "key"))
	x.do(err)
	x.do(os.WriteFile(filepath.Join(dir, "key"), key, 0o600))
	var out bytes.Buffer
	cmd := exec.Command(binary, "agent", "--config", file)
	cmd.Stdout, cmd.Stderr = &out, &out
	proc, err := h.Start(cmd)
	x.do(err)
	select {
	case <-proc.Done:
	case <-time.After(30 * time.Second):
		x.t.Error("the second host did not give up")
		x.do(proc.Kill())
		<-proc.Done
	}
	_ = proc.Wait()
	return out.String(), cmd.ProcessState.ExitCode()
}
