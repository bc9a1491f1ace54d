package spec

import "testing"

func TestWhyExclusive(t *testing.T) {
	ip := Resource{Type: "ip", Name: "10.0.0.100/24"}
	for _, c := range []struct {
		r    Resource
		want bool
	}{
		{Resource{Type: "heartbeat", Name: "Filesystem::/dev/sdb1::/data::ext4"}, true},
		{Resource{Type: "heartbeat", Name: "Filesystem::-Ldata::/data"}, true},
		{Resource{Type: "heartbeat", Name: "Filesystem::UUID=6f::/data"}, true},
		{Resource{Type: "heartbeat", Name: "Filesystem"}, true},
		{Resource{Type: "heartbeat", Name: "Filesystem::nas:/export::/data::nfs"}, false},
		{Resource{Type: "heartbeat", Name: "Filesystem:://nas/share::/data::cifs"}, false},
		{Resource{Type: "heartbeat", Name: "Filesystem::tmpfs::/run/x::tmpfs"}, false},
		{Resource{Type: "heartbeat", Name: "drbddisk::r0"}, true},
		{Resource{Type: "heartbeat", Name: "LVM::vg0"}, true},
		{Resource{Type: "heartbeat", Name: "Raid1::/etc/mdadm.conf::/dev/md0"}, true},
		{Resource{Type: "heartbeat", Name: "MailTo::root"}, false},
		{Resource{Type: "ocf", Name: "x", Agent: "heartbeat:LVM-activate"}, true},
		{Resource{Type: "ocf", Name: "x", Agent: "heartbeat:Raid1"}, true},
		{Resource{Type: "ocf", Name: "x", Agent: "heartbeat:apache"}, false},
		{Resource{Type: "ocf", Name: "x", Agent: "heartbeat:Filesystem", Params: map[string]string{"device": "/dev/sdb1"}}, true},
		{Resource{Type: "ocf", Name: "x", Agent: "heartbeat:Filesystem", Params: map[string]string{"device": "tmpfs"}}, false},
		{Resource{Type: "exec", Name: "LVM"}, false},
		{Resource{Type: "systemd", Name: "drbd"}, false},
		{ip, false},
	} {
		g := Group{Name: "data", Resources: []Resource{ip, c.r}}
		if got := g.IsExclusive(); got != c.want {
			t.Errorf("%s %s: exclusive %v (%s)", c.r.Type, c.r.Name, got, g.WhyExclusive())
		}
	}
	if why := (Group{Exclusive: true}).WhyExclusive(); why != "exclusive = true" {
		t.Error(why)
	}
}
