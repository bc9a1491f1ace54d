package e2e

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hanode/test/livelab"
)

// byHand runs the daemon's script on a node as an administrator would.
func (d *daemon) byHand(node, op string) {
	d.x.t.Helper()
	cmd := exec.Command(d.script, op)
	cmd.Env = append(os.Environ(), "HANODE_NODE="+node)
	if out, err := cmd.CombinedOutput(); err != nil {
		d.x.t.Fatalf("%s %s: %v: %s", d.script, op, err, out)
	}
}

// What runs by hand is refused, told by every node, and taken over only when an
// operator says so: where the group is to run it goes on, elsewhere it is stopped. Later
// it is refused again, and the owner is left alone.
func TestAdopt(t *testing.T) {
	d := newDaemon(t)
	x := form(t, livelab.Options{})
	d.x = x
	x.holds("primary")
	file := filepath.Join(x.Get("primary").Dir, "adopt.hcl")
	address := netip.MustParsePrefix("10.77.0.150/24")
	groups := d.group("", "") + `group "more" {
  prefer = ["primary"]
  resource "ip" "10.77.0.150/24" { dev = "eth1" }
}
`
	x.do(os.WriteFile(file, []byte(groups), 0o600))
	d.byHand("primary", "start")
	d.byHand("secondary", "start")
	x.do(x.Get("primary").AddAddr("eth1", address))
	first := d.pid("primary")

	_, errs := x.hanode("arbiter", 1, "apply", "--yes", file)
	for _, want := range []string{`exec "svc" on primary (of web)`, `exec "svc" on secondary (of web)`, `ip "10.77.0.150/24" (on eth1) on primary (of more)`, "--adopt"} {
		if !strings.Contains(errs, want) {
			t.Errorf("apply does not say %q: %s", want, errs)
		}
	}
	if out, _ := x.hanode("arbiter", 0, "export"); strings.Contains(out, "svc") || strings.Contains(out, "more") {
		t.Errorf("it was applied all the same:\n%s", out)
	}
	if !d.runs("primary") || !d.runs("secondary") {
		t.Error("something was stopped by an apply that changed nothing")
	}

	out, _ := x.hanode("secondary", 0, "apply", "--yes", "--adopt", file)
	for _, want := range []string{`web: taken over on primary: exec "svc"`, `web: stopped on secondary: exec "svc"`, `more: taken over on primary: ip "10.77.0.150/24"`} {
		if !strings.Contains(out, want) {
			t.Errorf("apply --adopt does not say %q: %s", want, out)
		}
	}
	if d.pid("primary") != first || !d.runs("primary") {
		t.Error("what was taken over was started anew")
	}
	if d.runs("secondary") {
		t.Error("it runs on both")
	}
	x.saysNot("arbiter", "foreign-service")
	if events, _ := x.hanode("arbiter", 0, "events"); strings.Count(events, "takes over what was on primary already") != 2 {
		t.Errorf("events:\n%s", events)
	}
	addrs, err := x.Get("primary").Addrs("eth1")
	x.do(err)
	for _, a := range addrs {
		if a == address {
			t.Errorf("the address that was put on by hand is still there beside ours: %v", addrs)
		}
	}

	// The permission is used up: by hand it is foreign again, and no owner moves for it.
	x.hanode("arbiter", 0, "move", "web", "secondary")
	d.await("secondary", 0)
	d.byHand("primary", "start")
	x.hanode("arbiter", 0, "plan", file) // asks every node anew; scripts are asked once a minute else
	for _, node := range []string{"primary", "secondary", "arbiter"} {
		x.says(node, "foreign-service", 0)
	}
	if n := strings.Count(statusOf(x, "primary"), "foreign-service"); n != 1 {
		t.Errorf("primary itself says it %d times:\n%s", n, statusOf(x, "primary"))
	}
	why, _ := x.hanode("arbiter", 0, "why", "web")
	if !strings.Contains(why, `the cluster did not start what is there: exec "svc"`) {
		t.Errorf("why:\n%s", why)
	}
	x.hanode("arbiter", 1, "move", "web", "primary")
	if !d.runs("secondary") {
		t.Error("the owner was moved for what is foreign elsewhere")
	}
	d.byHand("primary", "stop")
	x.saysNot("arbiter", "foreign-service")
	x.hanode("arbiter", 0, "move", "web", "primary")
	d.await("primary", 0)

	// An agent that was killed finds its own services again: they are not foreign.
	a := x.Get("primary")
	x.do(a.Agent().Kill())
	x.holds("secondary")
	x.do(a.StartAgent())
	x.saysNot("primary", "foreign-service")
	if events, _ := x.hanode("arbiter", 0, "events"); strings.Count(events, "takes over what was on") != 2 || strings.Contains(events, "did not start") {
		t.Errorf("events:\n%s", events)
	}
}

// An agent that starts on a host where its group's service runs already, with nobody to
// ask before: it does not start the group there, which goes elsewhere.
func TestForeignAtBoot(t *testing.T) {
	d := newDaemon(t)
	x := build(t, livelab.Options{Groups: d.group("", "")})
	d.x = x
	d.byHand("primary", "start")
	first := d.pid("primary")
	x.do(x.StartAll())
	x.observe()
	x.holds("secondary")
	d.await("secondary", 0)
	x.says("arbiter", "foreign-service", 0)
	if d.pid("primary") != first || !d.runs("primary") {
		t.Error("what runs by hand was touched")
	}
	file := filepath.Join(x.Get("primary").Dir, "groups.hcl")
	x.do(os.WriteFile(file, []byte(d.group("", "")), 0o600))
	x.hanode("arbiter", 0, "apply", "--yes", file) // as it was: nothing to refuse
	out, _ := x.hanode("arbiter", 0, "apply", "--yes", "--adopt", file)
	if !strings.Contains(out, `web: stopped on primary: exec "svc"`) || d.runs("primary") {
		t.Errorf("apply --adopt: %s", out)
	}
	x.saysNot("arbiter", "foreign-service")
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if st, err := x.Get("arbiter").Status(ctx); err != nil || *st.Groups[0].Owner != "secondary" {
		t.Errorf("the owner was moved: %+v, %v", st, err)
	}
}

// saysNot waits until status on a node does not say something any more.
func (x *world) saysNot(node, what string) {
	x.t.Helper()
	out := ""
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if out = statusOf(x, node); !strings.Contains(out, what) {
			return
		}
	}
	x.t.Fatalf("status on %s still says %q:\n%s", node, what, out)
}

func statusOf(x *world, node string) string {
	out, _, _, err := x.Get(node).Run("status")
	x.do(err)
	return out
}
