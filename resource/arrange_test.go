package resource

import (
	"os"
	"path/filepath"
	"testing"

	"hanode/internal/spec"
)

func TestWriteOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hanode.service.d", "50-groups.conf")
	unit := func(name string) spec.Resource { return spec.Resource{Type: "systemd", Name: name} }
	for _, c := range []struct {
		units   []spec.Resource
		changed bool
		want    string // "" = no file
	}{
		{nil, false, ""},
		{[]spec.Resource{unit("smbd"), unit("apache2.service"), unit("smbd.service")}, true, "After=apache2.service\nAfter=smbd.service\n"},
		{[]spec.Resource{unit("apache2"), unit("smbd")}, false, "After=apache2.service\nAfter=smbd.service\n"},
		{[]spec.Resource{unit("hanode"), unit("srv.mount")}, true, "After=srv.mount\n"}, // never after itself
		{nil, true, "[Unit]\n"},
		{nil, false, "[Unit]\n"},
	} {
		changed, err := writeOrder(path, "hanode.service", c.units)
		if err != nil || changed != c.changed {
			t.Errorf("%v: changed %v, %v", c.units, changed, err)
		}
		b, err := os.ReadFile(path)
		if c.want == "" {
			if err == nil {
				t.Errorf("%v: it wrote %q", c.units, b)
			}
			continue
		}
		if n := len(b) - len(c.want); err != nil || n < 0 || string(b[n:]) != c.want {
			t.Errorf("%v: %q, %v", c.units, b, err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o644 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
	}
}
