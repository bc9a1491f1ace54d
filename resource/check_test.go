package resource

import (
	"strings"
	"testing"
	"time"

	"hanode/internal/spec"
)

// TestCheckBehindAMount: what lies on a file system that the group mounts first is not
// missed before.
func TestCheckBehindAMount(t *testing.T) {
	h := scriptHost(t)
	h.agent("Filesystem", "")
	h.script("ocf/resource.d/heartbeat/web", `case $1 in
validate-all) echo 'no /data/web.conf'; exit 5 ;;
meta-data) echo '<resource-agent><actions><action name="validate-all" timeout="5"/></actions></resource-agent>' ;;
esac`)
	mount := spec.Resource{Type: "ocf", Name: "data", Agent: "heartbeat:Filesystem", Params: map[string]string{"device": "d", "directory": "/data/"}}
	exec := spec.Resource{Type: "exec", Name: "x", Start: []string{"/data/bin/start"}, Stop: []string{"/data/bin/stop"}}
	other := spec.Resource{Type: "exec", Name: "y", Start: []string{"/database/start"}, Stop: []string{"/bin/true"}}
	web := spec.Resource{Type: "ocf", Name: "web", Agent: "heartbeat:web"}
	for _, c := range []struct {
		name string
		rs   []spec.Resource
		want []string
	}{
		{"alone", []spec.Resource{exec, web}, []string{"/data/bin/start does not exist", "no /data/web.conf"}},
		{"behind it", []spec.Resource{mount, exec, web}, nil},
		{"elsewhere", []spec.Resource{mount, other}, []string{"/database/start does not exist"}},
		{"too early", []spec.Resource{exec, mount}, []string{"/data/bin/start does not exist"}},
		{"a type of tomorrow", []spec.Resource{{Type: "quantum", Name: "x"}}, []string{"upgrade this node"}},
	} {
		got := h.services.Check(t.Context(), []spec.Group{{Name: "web", Resources: c.rs}}, CheckOptions{Limit: time.Minute})
		if len(got) != len(c.want) {
			t.Errorf("%s: %+v", c.name, got)
			continue
		}
		for i, w := range c.want {
			if got[i].Group != "web" || got[i].Meaning != NotHere || !strings.Contains(got[i].Text, w) {
				t.Errorf("%s: %+v, want %s", c.name, got[i], w)
			}
		}
	}
}

func TestMountPoints(t *testing.T) {
	for want, r := range map[string]spec.Resource{
		"/data":     {Type: "heartbeat", Name: "Filesystem::/dev/sdb1::/data/::ext4"},
		"/srv/data": {Type: "systemd", Name: "srv-data.mount"},
		"/":         {Type: "ocf", Name: "x", Agent: "heartbeat:ZFS"},
		"/x":        {Type: "ocf", Name: "x", Agent: "heartbeat:Filesystem", Params: map[string]string{"directory": "/x"}},
	} {
		if got := mountPoints(r); len(got) != 1 || got[0] != want {
			t.Errorf("%+v: %v", r, got)
		}
	}
	for _, r := range []spec.Resource{{Type: "heartbeat", Name: "Filesystem"}, {Type: "systemd", Name: "x"}, {Type: "ocf", Agent: "heartbeat:apache"}} {
		if got := mountPoints(r); got != nil {
			t.Errorf("%+v: %v", r, got)
		}
	}
}
