package resource

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"hanode/internal/spec"
)

// agent writes an OCF agent that keeps the rules; rest is shell that it runs before
// it looks at the operation.
func (h *host) agent(name, rest string) {
	h.t.Helper()
	h.script("ocf/resource.d/heartbeat/"+name, fmt.Sprintf(`
up=%[1]s.$OCF_RESOURCE_INSTANCE
env | grep ^OCF_ | sort > %[1]s.env
%[2]s
case $1 in
start) touch $up ;;
stop) rm -f $up ;;
monitor) [ -e $up ] || exit 7 ;;
validate-all) [ "$OCF_RESKEY_fstype" != bad ] || { echo 'no such file system'; exit 5; } ;;
meta-data) cat <<END
<?xml version="1.0"?>
<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
<resource-agent name="%[3]s">
<parameters>
<parameter name="device" required="1"><content type="string" /></parameter>
<parameter name="directory" required="1"><content type="string" /></parameter>
<parameter name="fstype" required="1"><content type="string" default="auto"/></parameter>
<parameter name="options"><content type="string" default=""/></parameter>
<parameter name="fast_stop"><content type="boolean" default="yes"/></parameter>
<parameter name="signal_delay"><content type="integer" default="1"/></parameter>
</parameters>
<actions>
<action name="start" timeout="60s" />
<action name="stop" timeout="61" />
<action name="monitor" depth="20" timeout="5s" />
<action name="monitor" depth="0" timeout="41000ms" interval="20s" />
<action name="validate-all" timeout="5s" />
</actions>
</resource-agent>
END
;;
esac`, h.path(name), rest, name))
}

func TestOCFLife(t *testing.T) {
	h := scriptHost(t)
	h.agent("Filesystem", "")
	r := spec.Resource{
		Type: "ocf", Name: "data", Agent: "heartbeat:Filesystem", Every: 5 * time.Second,
		Params: map[string]string{"device": "/dev/sdb1", "directory": "/da ta", "OCF_CHECK_LEVEL": "10"},
	}
	life(t, h.drivers["ocf"], r)
	if err := h.drivers["ocf"].Monitor(t.Context(), r, env); !errors.Is(err, ErrStopped) {
		t.Fatal(err)
	}
	root := h.path("ocf")
	want := "OCF_CHECK_LEVEL=10\nOCF_FUNCTIONS_DIR=" + root + "/lib/heartbeat\nOCF_RA_VERSION_MAJOR=1\nOCF_RA_VERSION_MINOR=1\n" +
		"OCF_RESKEY_CRM_meta_interval=5000\nOCF_RESKEY_CRM_meta_name=monitor\nOCF_RESKEY_CRM_meta_timeout=41000\n" +
		"OCF_RESKEY_device=/dev/sdb1\nOCF_RESKEY_directory=/da ta\n" +
		"OCF_RESOURCE_INSTANCE=web-data\nOCF_RESOURCE_PROVIDER=heartbeat\nOCF_RESOURCE_TYPE=Filesystem\nOCF_ROOT=" + root + "\n"
	if got := string(must[[]byte](t)(os.ReadFile(h.path("Filesystem.env")))); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestOCFExitCodes: what each code means for each operation.
func TestOCFExitCodes(t *testing.T) {
	o := newOCF("/nowhere")
	r := spec.Resource{Type: "ocf", Name: "x", Agent: "heartbeat:x"}
	for code := 1; code < 256; code++ {
		ran := &ended{code, errors.New("exit status")}
		state := o.state(r, ran, "")
		if got := errors.Is(state, ErrStopped); got != (code == 7) {
			t.Errorf("monitor %d: stopped %v", code, got)
		}
		if got := state == nil; got != (code == 190) {
			t.Errorf("monitor %d: %v", code, state)
		}
		// Only 7 proves a stop where two must never run, and promoted is running.
		if got := verify(r, Env{Exclusive: true}, state) == nil; got != (code == 7) {
			t.Errorf("monitor %d proves a stop: %v", code, got)
		}
		if got := verify(r, Env{}, state) == nil; got == (code == 8 || code == 9 || code == 190 || code == 191) {
			t.Errorf("monitor %d is a stop: %v", code, got)
		}
		start := MeaningOf(o.refused(r, "start", ran))
		want := Again
		switch code {
		case 2, 3, 4, 5:
			want = NotHere
		case 6:
			want = Nowhere
		}
		if start != want {
			t.Errorf("start %d: %v, want %v", code, start, want)
		}
		if o.refused(r, "stop", ran) == nil {
			t.Errorf("stop %d is success", code)
		}
	}
}

func TestOCFTimeouts(t *testing.T) {
	h := scriptHost(t)
	h.agent("Filesystem", "")
	d := h.drivers["ocf"]
	r := spec.Resource{Type: "ocf", Name: "x", Agent: "heartbeat:Filesystem"}
	if got, want := limits(d, r), (Timeouts{time.Minute, 61 * time.Second, 41 * time.Second}); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	r.StopTimeout = time.Second // the cluster file goes first
	if got := limits(d, r).Stop; got != time.Second {
		t.Error(got)
	}
	r.Agent = "heartbeat:nobody"
	if got := limits(d, r).Start; got != defaultTimeout {
		t.Error(got)
	}
}

func TestOCFCheck(t *testing.T) {
	h := scriptHost(t)
	h.agent("Filesystem", "")
	h.script("ocf/resource.d/heartbeat/Stateful", `cat <<END
<resource-agent><actions><action name="promote"/><action name="demote"/></actions></resource-agent>
END`)
	h.script("ocf/resource.d/heartbeat/mute", "exit 0")
	h.script("ocf/resource.d/heartbeat/ill", "exit 1")
	good := map[string]string{"device": "d", "directory": "/d"}
	for _, c := range []struct {
		agent  string
		params map[string]string
		want   []string
		means  Meaning
	}{
		{"Filesystem", good, nil, Again},
		{"Filesystem", map[string]string{"device": "d", "directory": "/d", "fast_stop": "off", "signal_delay": "+3", "OCF_CHECK_LEVEL": "20"}, nil, Again},
		{"Filesystem", nil, []string{"ocf:heartbeat:Filesystem: parameter device is missing", "parameter directory is missing"}, Nowhere},
		{"Filesystem", map[string]string{"device": "d", "directory": "/d", "devise": "x"}, []string{`it has no parameter "devise"; it takes device, directory, fast_stop`}, Nowhere},
		{"Filesystem", map[string]string{"device": "d", "directory": "/d", "fast_stop": "perhaps", "signal_delay": "1s"}, []string{`fast_stop is "perhaps"`, `signal_delay is "1s", and takes a whole number`}, Nowhere},
		{"Stateful", nil, []string{"ocf:heartbeat:Stateful is a promotable agent"}, Nowhere},
		{"mute", nil, []string{"it prints no metadata"}, NotHere},
		{"ill", nil, []string{"meta-data: exit status 1"}, NotHere},
		{"nobody", nil, []string{"does not exist"}, NotHere},
	} {
		f := h.drivers["ocf"].Check(t.Context(), spec.Resource{Type: "ocf", Name: "x", Agent: "heartbeat:" + c.agent, Params: c.params})
		if len(f) != len(c.want) {
			t.Errorf("%s %v: %+v", c.agent, c.params, f)
			continue
		}
		for i, w := range c.want {
			if f[i].Meaning != c.means || !strings.Contains(f[i].Text, w) {
				t.Errorf("%s %v: %+v, want %q", c.agent, c.params, f[i], w)
			}
		}
	}
	d := h.drivers["ocf"].(agentDriver)
	bad := spec.Resource{Type: "ocf", Name: "x", Agent: "heartbeat:Filesystem", Params: map[string]string{"fstype": "bad"}}
	if f := d.Validate(t.Context(), bad, env); len(f) != 1 || f[0].Meaning != NotHere || !strings.Contains(f[0].Text, "no such file system") {
		t.Errorf("validate-all: %+v", f)
	}
	bad.Params["fstype"] = "good"
	if f := d.Validate(t.Context(), bad, env); f != nil {
		t.Errorf("validate-all: %+v", f)
	}
}

// TestOCFMetadataOnce: an agent is asked once for each version of its file.
func TestOCFMetadataOnce(t *testing.T) {
	h := scriptHost(t)
	h.agent("Filesystem", "[ $1 != meta-data ] || echo x >> "+h.path("asked"))
	r := spec.Resource{Type: "ocf", Name: "x", Agent: "heartbeat:Filesystem"}
	for range 5 {
		limits(h.drivers["ocf"], r)
	}
	if b := must[[]byte](t)(os.ReadFile(h.path("asked"))); len(b) != 2 {
		t.Errorf("asked %d times", len(b)/2)
	}
	h.agent("Filesystem", "# changed\n[ $1 != meta-data ] || echo x >> "+h.path("asked"))
	limits(h.drivers["ocf"], r)
	if b := must[[]byte](t)(os.ReadFile(h.path("asked"))); len(b) != 4 {
		t.Errorf("asked %d times", len(b)/2)
	}
}

func TestOCFTime(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"20": 20 * time.Second, "20s": 20 * time.Second, " 40sec ": 40 * time.Second, "1500ms": 1500 * time.Millisecond, "2 min": 2 * time.Minute,
		"1h": time.Hour, "24h": 24 * time.Hour, "25h": 0, "": 0, "s": 0, "-5": 0, "5 parsecs": 0, "99999999999999999999": 0, "1.5s": 0, "0": 0,
	} {
		if got := ocfTime(text); got != want {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
	}
}

func FuzzOCFMetadata(f *testing.F) {
	f.Add([]byte(`noise <?xml version="1.0" encoding="iso-8859-1"?><resource-agent name="x"><parameters><parameter name="a" required="1"><content type="integer" default="1"/></parameter></parameters>` +
		`<actions><action name="start" timeout="20s"/><action name="monitor" depth="10" role="Promoted" timeout="1"/></actions></resource-agent> noise`))
	f.Add([]byte(`<resource-agent>&nbsp;&unknown;<longdesc>a < b & c</longdesc></resource-agent>`))
	f.Add([]byte(`<resource-agent></resource-agent>`))
	f.Add([]byte("<resource-agent \xff\xfe></resource-agent>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if (m == nil) != (err != nil) {
			t.Fatalf("%v, %v", m, err)
		}
		if err != nil {
			return
		}
		for _, d := range []time.Duration{m.start, m.stop, m.monitor, m.validate} {
			if d < 0 || d > maxOcfTime {
				t.Errorf("a time of %v", d)
			}
		}
		// Its own defaults are no parameters that it refuses to have.
		given := map[string]string{}
		for name := range m.params {
			given[name] = "1"
		}
		if bad := m.wrong(given); len(bad) > 0 {
			t.Errorf("%q", bad)
		}
		if slices.ContainsFunc(m.wrong(map[string]string{"\x00": ""}), func(s string) bool { return s == "" }) {
			t.Error("an empty sentence")
		}
	})
}
