package config

import (
	"strings"
	"testing"

	"hanode/internal/spec"
)

// sound checks what holds of any answer: each line has one of the five, an error has a
// place and a remedy or says what is allowed, and a key is never shown.
func sound(t *testing.T, r *haReport) {
	t.Helper()
	for _, l := range r.lines {
		switch l.Answer {
		case AnswerKept, AnswerTranslated, AnswerReplaced, AnswerIgnored, AnswerRefused:
		default:
			t.Fatalf("line %d has the answer %q", l.Line, l.Answer)
		}
		if l.Line < 1 || strings.ContainsAny(l.Text+l.To+l.Why, "\n") {
			t.Fatalf("an answer of more than a line: %+v", l)
		}
		if l.Answer == AnswerRefused && r.diags.err() == nil {
			t.Fatalf("refused without an error: %+v", l)
		}
	}
	for _, d := range append(r.diags, r.onHost...) {
		if d.What == "" || strings.Contains(d.String(), "\n") || d.File == "" {
			t.Fatalf("diagnostic %q", d)
		}
	}
}

func FuzzHaCf(f *testing.F) {
	f.Add([]byte("logfacility local0\nkeepalive 2\ndeadtime 500ms\nnode ken3 kathy\nbcast eth0\nucast eth1 10.0.0.2\nudpport 694\n"))
	for _, d := range HeartbeatDirectives() {
		f.Add([]byte(d.Name + " on\n" + d.Name + " 1 2\n" + d.Name + "\n"))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		r := &haReport{}
		cf := parseHaCf(r, "ha.cf", src)
		sound(t, r)
		b := &haBuild{haReport: r, cf: cf, h: newHAFake("ken3")}
		b.survey()
		n := b.node("/etc/ha.d")
		sound(t, r)
		if r.diags.err() == nil {
			if bad := n.Timing.Validate(); bad != nil {
				t.Fatal("accepted timing:", bad)
			}
			if n.Port < 1 || n.Port > 65534 || len(n.Nodes) == 0 || len(n.Nodes) > MaxFounders || len(n.Links) == 0 {
				t.Fatalf("accepted: %+v", n)
			}
		}
	})
}

func FuzzHaResources(f *testing.F) {
	f.Add([]byte("ken3 IPaddr::10.0.0.100/24/eth0 \\\n Filesystem::/dev/sda1::/data::ext4 httpd\n# x\nkathy 10.0.0.101\n"))
	f.Add([]byte("ken3 135.9.216.3/28/eth0/135.9.216.12 httpd\nken3 IPv6addr::fd00::1/64\n"))
	f.Add([]byte("ken3 10.0.0.100/24/10.0.0.12 IPaddr::10.0.0.101/24/eth0/10.0.255.255 IPaddr2::10.0.0.102/32/eth0/10.0.0.255\n"))
	f.Add([]byte("ken3 10.0.0.1//A0:0\xe9\xe9\xe9\xe9")) // a label that no file could hold
	f.Fuzz(func(t *testing.T, src []byte) {
		r := &haReport{}
		h := newHAFake("ken3")
		lines := parseHaResources(r, "haresources", src, []string{"ken3", "kathy"})
		groups := r.groups("haresources", lines, "on", h, haNetworks(h.nets))
		sound(t, r)
		if r.diags.err() != nil {
			return
		}
		c := &groupCheck{report: &report{}, groups: groups, places: make([]place, len(groups))}
		c.structure()
		c.nodes([]spec.Node{{Name: "ken3"}, {Name: "kathy"}})
		for _, d := range c.diags {
			if !strings.Contains(d.What, "address") && !strings.Contains(d.What, "ip ") && !strings.Contains(d.What, "twice") {
				t.Fatalf("accepted, and refused as a cluster file: %v", d)
			}
		}
		if c.diags != nil {
			return
		}
		again, err := ParseCluster("x", FormatCluster(groups))
		if err != nil || len(again) != len(groups) {
			t.Fatalf("not read back: %v\n%s", err, FormatCluster(groups))
		}
	})
}

func FuzzHaAuth(f *testing.F) {
	f.Add([]byte("auth 1\n1 sha1 HIDEME\n"), false)
	f.Add([]byte("auth 2\ncrc 2\n1 md5 HIDEME\n"), true)
	f.Fuzz(func(t *testing.T, src []byte, crc bool) {
		r := &haReport{}
		a := parseHaAuth(r, "authkeys", src, crc)
		sound(t, r)
		if r.diags.err() == nil && (len(a.keys) == 0 || len(a.keys) > maxKeys) {
			t.Fatalf("%d keys accepted", len(a.keys))
		}
		words := strings.Join(strings.Fields(string(src)), " ") // as answers have them
		for i, k := range a.keys {
			for _, other := range a.keys[:i] {
				if k == "" || k == other {
					t.Fatal("an empty or repeated key")
				}
			}
			if k == crcKey || len(k) < 6 || strings.Count(words, strings.Join(strings.Fields(string(k)), " ")) > 1 {
				continue // not to be told from a word of an answer, or of another line
			}
			for _, d := range r.diags {
				if strings.Contains(d.String(), string(k)) {
					t.Fatal("a diagnostic shows a key")
				}
			}
			for _, l := range r.lines {
				if strings.Contains(l.Text, string(k)) {
					t.Fatalf("an answer shows a key: %q", l.Text)
				}
			}
		}
	})
}
