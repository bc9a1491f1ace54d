package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// haFake is a host of two, ken3 and kathy, with eth0 and a crossover cable on eth1.
type haFake struct {
	name    string
	nets    map[string][]netip.Prefix
	names   map[string][]string
	units   []string
	scripts []string
	users   []string
}

func newHAFake(name string) *haFake {
	n := map[string]string{"ken3": "1", "kathy": "2"}[name]
	if n == "" {
		n = "9"
	}
	return &haFake{
		name: name,
		nets: map[string][]netip.Prefix{
			"lo":   {netip.MustParsePrefix("127.0.0.1/8")},
			"eth0": {netip.MustParsePrefix("10.0.0." + n + "/24"), netip.MustParsePrefix("135.9.216.1" + n + "/22")},
			"eth1": {netip.MustParsePrefix("192.168.1." + n + "/24")},
		},
		names: map[string][]string{
			"ken3": {"10.0.0.1"}, "kathy": {"10.0.0.2"}, "third": {"10.0.0.3"}, "bill": {"10.0.0.4"}, name: {"127.0.1.1"},
		},
		units:   []string{"apache2", "smbd", "postgresql"},
		scripts: []string{"/etc/ha.d/resource.d/ids", "/etc/init.d/oldies", "/usr/libexec/heartbeat/ipfail", "/bin/true"},
		users:   []string{"root", "hacluster"},
	}
}

func (h *haFake) Hostname() (string, error)  { return h.name, nil }
func (h *haFake) Devices() ([]string, error) { return sortedKeys(h.nets), nil }
func (h *haFake) Addresses(dev string) (out []netip.Addr, err error) {
	for _, p := range h.nets[dev] {
		out = append(out, p.Addr())
	}
	return out, nil
}

func (h *haFake) ReadKey(string) ([]byte, fs.FileMode, error) { return nil, 0, fs.ErrNotExist }
func (h *haFake) Networks(dev string) ([]netip.Prefix, error) { return h.nets[dev], nil }
func (h *haFake) HasUnit(name string) bool                    { return slices.Contains(h.units, name) }

func (h *haFake) HasScript(path string) bool { return slices.Contains(h.scripts, path) }

func (h *haFake) HasUser(name string) bool { return slices.Contains(h.users, name) }

func (h *haFake) Resolve(name string) (out []netip.Addr, err error) {
	for _, a := range h.names[name] {
		out = append(out, netip.MustParseAddr(a))
	}
	if out == nil {
		return nil, errors.New("no such host")
	}
	return out, nil
}

// haDir writes Heartbeat's files to a folder. A file that is not given is a plain one.
func haDir(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ha.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{
		"ha.cf":       "logfacility local0\nkeepalive 2\ndeadtime 30\nbcast eth0 eth1\nauto_failback on\nnode ken3 kathy\n",
		"haresources": "ken3 10.0.0.100\n",
		"authkeys":    "auth 1\n1 sha1 HI! there\n",
	}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		if strings.TrimSpace(text) == "absent" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// haText renders all that was found, without the folder.
func haText(dir string, hb *Heartbeat, err error) string {
	var b strings.Builder
	for _, l := range hb.Lines {
		fmt.Fprintf(&b, "%s:%d: %s | %s | %s | %s\n", l.File, l.Line, l.Text, l.Answer, l.To, l.Why)
	}
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	if len(hb.Warnings) > 0 {
		fmt.Fprintln(&b, hb.Warnings)
	}
	for _, d := range hb.OnHost {
		fmt.Fprintln(&b, "here:", d)
	}
	if err == nil {
		n := hb.Node
		fmt.Fprintf(&b, "node %s of %s, port %d, links %v, two_node %q\n", n.Name, n.Cluster, n.Port, n.Links, n.TwoNode)
		fmt.Fprintf(&b, "timing %v\n", n.Timing)
		for _, f := range n.Nodes {
			fmt.Fprintf(&b, "  %s %s %s\n", f.Name, f.Address, f.Role)
		}
		fmt.Fprintf(&b, "%d keys\n", len(n.Keys))
		b.Write(FormatCluster(hb.Groups))
	}
	text := strings.ReplaceAll(b.String(), filepath.Dir(dir)+"/", "")
	return strings.ReplaceAll(text, "ha.d/", "")
}

// Each script holds up to three files, and what is said of them.
func TestHeartbeatDiagnostics(t *testing.T) {
	golden(t, "heartbeat", "\x00", func(t *testing.T, src, _ string) string {
		files := map[string]string{}
		name, host, o := "", newHAFake("ken3"), HAOptions{}
		for line := range strings.Lines(src) {
			if file, ok := strings.CutPrefix(line, "---- "); ok {
				name = strings.TrimSuffix(strings.TrimSpace(file), " ----")
				continue
			}
			if name == "host" {
				haHostLine(t, host, &o, line)
				continue
			}
			files[name] += line
		}
		for name, text := range files {
			files[name] = strings.ReplaceAll(text, "~\n", "\n") // a blank at the end of a line
		}
		dir := haDir(t, files)
		hb, err := LoadHeartbeat(dir, host, o)
		return haText(dir, hb, err)
	})
}

func haHostLine(t *testing.T, h *haFake, o *HAOptions, line string) {
	t.Helper()
	w := strings.Fields(line)
	switch w[0] {
	case "name":
		h.name = w[1]
	case "net":
		h.nets[w[1]] = nil
		for _, p := range w[2:] {
			h.nets[w[1]] = append(h.nets[w[1]], netip.MustParsePrefix(p))
		}
	case "drop":
		delete(h.nets, w[1])
	case "hosts":
		h.names[w[1]] = w[2:]
	case "unit":
		h.units = w[1:]
	case "insecure-crc":
		o.InsecureCRC = true
	default:
		t.Fatalf("host line %q", line)
	}
}

// The rule of the third field, in all its forms.
func TestHeartbeatAddresses(t *testing.T) {
	nets := haNetworks{"eth0": {netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("135.9.216.1/22")}, "eth1": {netip.MustParsePrefix("10.0.1.1/24")}, "eth2": {netip.MustParsePrefix("fd00::1/64")}}
	for word, want := range map[string]string{
		"10.0.0.100":                                   `resource "ip" "10.0.0.100/24" prefix = "network"`,
		"IPaddr::10.0.0.100":                           `resource "ip" "10.0.0.100/24" prefix = "network"`,
		"IPaddr::10.0.0.100/24":                        `resource "ip" "10.0.0.100/24" prefix = "network"`,
		"IPaddr::10.0.0.100/24/eth0":                   `resource "ip" "10.0.0.100/24" dev = "eth0", prefix = "network"`,
		"IPaddr::10.0.0.100/24/eth0/10.0.0.255":        `resource "ip" "10.0.0.100/24" dev = "eth0", prefix = "network"`,
		"IPaddr::10.0.0.100/24/10.0.0.255":             `resource "ip" "10.0.0.100/24" prefix = "network"`,
		"IPaddr::10.0.0.100/24/eth0:0/10.0.0.255":      `resource "ip" "10.0.0.100/24" dev = "eth0", prefix = "network", label = "eth0:0"`,
		"IPaddr::10.0.0.100/24/eth0:0":                 `resource "ip" "10.0.0.100/24" dev = "eth0", prefix = "network", label = "eth0:0"`,
		"IPaddr::10.0.0.100/255.255.255.0/eth0":        `resource "ip" "10.0.0.100/24" dev = "eth0", prefix = "network"`,
		"IPaddr2::10.0.1.100/32/eth1":                  `resource "ip" "10.0.1.100/32" dev = "eth1"`,
		"135.9.216.3/28/eth0/135.9.216.12":             `resource "ip" "135.9.216.3/28" dev = "eth0", prefix = "network", broadcast = "135.9.216.12"`,
		"135.9.216.3/28/135.9.216.12":                  `resource "ip" "135.9.216.3/28" prefix = "network", broadcast = "135.9.216.12"`,
		"10.0.0.100//eth0/10.0.0.12":                   `resource "ip" "10.0.0.100/24" dev = "eth0", prefix = "network", broadcast = "10.0.0.12"`,
		"10.0.0.100/24/10.0.255.255":                   `resource "ip" "10.0.0.100/24" prefix = "network", broadcast = "10.0.255.255"`,
		"10.0.0.100/24/eth0/10.0.2.255":                `"10.0.0.100/24" has the broadcast address "10.0.2.255"`,
		"IPaddr2::10.0.1.100/32/eth1/10.0.1.255":       `"10.0.1.100/32" has the broadcast address "10.0.1.255"`,
		"135.9.216.110":                                `resource "ip" "135.9.216.110/22" prefix = "network"`,
		"IPaddr::10.0.0.100//eth0":                     `resource "ip" "10.0.0.100/24" dev = "eth0", prefix = "network"`,
		"IPaddr::10.0.0.100/24/":                       `resource "ip" "10.0.0.100/24" prefix = "network"`,
		"IPv6addr::fd00::100":                          `resource "ip" "fd00::100/64" prefix = "network"`,
		"IPv6addr::fd00::100/64/eth2":                  `resource "ip" "fd00::100/64" dev = "eth2", prefix = "network"`,
		"fd00::100":                                    `resource "ip" "fd00::100/64" prefix = "network"`,
		"IPaddr::10.0.0.300":                           `"10.0.0.300" is not an address`,
		"IPaddr::10.0.0.100/33":                        `"33" is no netmask`,
		"IPaddr::10.0.0.100/x":                         `"x" is no netmask`,
		"IPaddr::10.0.0.100/255.0.255.0":               `"255.0.255.0" is no netmask`,
		"IPaddr::10.0.0.100/24/eth0/10.0.0.x":          `"10.0.0.x" is no broadcast address`,
		"IPaddr::10.0.0.100/24/10.0.0.255/eth0":        `there is "eth0" behind the address`,
		"IPaddr::10.0.0.100/24/eth0/10.0.0.255/x":      `there is "x" behind the address`,
		"IPaddr::10.0.0.100::x":                        `there is "x" behind the address`,
		"IPaddr::fd00::1":                              `"fd00" is not an address`,
		"IPv6addr::10.0.0.1":                           `IPv6addr has the address 10.0.0.1`,
		"10.0.0.255/24":                                `address "10.0.0.255" is the broadcast address of 10.0.0.0/24`,
		"224.0.0.1":                                    `address "224.0.0.1" is a multicast address`,
		"127.0.0.1":                                    `address "127.0.0.1" is a loopback address, which no other host can reach`,
		"IPaddr::10.0.0.100/24/eth0eth0eth0eth0eth0":   `"eth0eth0eth0eth0eth0" is not a device`,
		"IPaddr::10.0.0.100/24/eth0:toolonglabeltext1": `address 10.0.0.100/24 has the label "eth0:toolonglabeltext1"`,
	} {
		a, ok := splitHaAddress(word)
		if !ok {
			t.Errorf("%s is not taken for an address", word)
			continue
		}
		var got string
		if res, bad := a.resource(); bad.what != "" {
			got = bad.what
		} else {
			nets.complete(&haReport{}, "haresources", 1, &res)
			if _, bad := a.putBroadcast(&res); bad.what != "" {
				got = quote(res.Name) + " " + bad.what
			} else {
				got = ipText(res)
			}
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", word, got, want)
		}
	}
	for _, word := range []string{"apache2", "Filesystem::/dev/sda1::/data", "IPsrcaddr::10.0.0.1", "MailTo::root@x", "10.0.0", "1.2"} {
		if _, ok := splitHaAddress(word); ok {
			t.Errorf("%s is taken for an address", word)
		}
	}
}

// Heartbeat's rules for times.
func TestHeartbeatTimes(t *testing.T) {
	for text, want := range map[string]string{
		"1": "1s", "1000ms": "1s", "1000000us": "1s", "0.1": "100ms", ".5": "500ms", "100MS": "100ms", "499us": "0s", "501us": "1ms", "2msec": "2ms",
		"1.5": "1.5s", "30": "30s", "0": "0s",
		"": "", "2s": "", "x": "", "1 ms": "", "-1": "", "1.2.3": "", ".": "", "1e3": "", "99999999999999999999": "", "1m": "",
	} {
		d, bad := parseHaTime("keepalive", text)
		if bad.what != "" && want != "" || bad.what == "" && d.String() != want {
			t.Errorf("%q is %v %q, want %q", text, d, bad.what, want)
		}
	}
	for deadtime, want := range map[string]string{"3": "12s", "5.9": "12s", "6": "12s", "8": "16s", "10": "20s", "10.1": "10.1s", "30": "30s"} {
		dir := haDir(t, map[string]string{"ha.cf": "logfacility local0\nauto_failback on\nbcast eth0\nnode ken3 kathy\ndeadtime " + deadtime + "\n"})
		hb, err := LoadHeartbeat(dir, newHAFake("ken3"), HAOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := hb.Node.Timing.Initdead.String(); got != want {
			t.Errorf("deadtime %s gives initdead %s, want %s", deadtime, got, want)
		}
		if got := hb.Node.Timing; got.Warntime != got.Deadtime/2 || got.Keepalive.String() != "1s" || got.Validate() != nil {
			t.Errorf("deadtime %s gives %v: %v", deadtime, got, got.Validate())
		}
	}
}

// A medium that speaks to everybody takes no addresses.
func TestHeartbeatDiscovers(t *testing.T) {
	for cf, want := range map[string]string{
		"bcast eth0\nnode ken3 kermit\n":                              "[eth0] [{ken3 10.0.0.1 node } {kermit  node }]", // nobody knows kermit
		"mcast eth1 225.0.0.1 694 1 0\nbcast eth0\nnode ken3 kathy\n": "[eth1 eth0] [{ken3 192.168.1.1 node } {kathy  node }]",
		"bcast eth0\nucast eth1 192.168.1.2\nnode ken3 kathy\n":       "[eth0] [{ken3 10.0.0.1 node } {kathy 10.0.0.2 node }]",
	} {
		dir := haDir(t, map[string]string{"ha.cf": cf, "haresources": ""})
		hb, err := LoadHeartbeat(dir, newHAFake("ken3"), HAOptions{})
		if err != nil || len(hb.OnHost) > 0 {
			t.Fatal(cf, err, hb.OnHost)
		}
		if got := fmt.Sprint(hb.Node.Discover, " ", hb.Node.Nodes); got != want {
			t.Errorf("%s: %s, want %s", cf, got, want)
		}
	}
	// An address that is on no network is a mistake all the same.
	dir := haDir(t, map[string]string{"ha.cf": "bcast eth0\nnode ken3 172.16.0.9\n", "haresources": ""})
	if hb, _ := LoadHeartbeat(dir, newHAFake("ken3"), HAOptions{}); len(hb.OnHost) != 1 {
		t.Errorf("on this host: %v", hb.OnHost)
	}
}

// Both hosts come to the same founders, and so to the same digest.
func TestHeartbeatHostsAgree(t *testing.T) {
	for _, cf := range []string{
		"bcast eth0\nnode ken3 kathy\n",
		"bcast eth1\nnode ken3 kathy\n", // the names lead to eth0
		"ucast eth1 192.168.1.1\nucast eth1 192.168.1.2\nnode ken3 kathy\n",
		"bcast eth1\nnode 192.168.1.1 192.168.1.2\n",
		"mcast eth0 225.0.0.1 694 1 0\nnode Ken3\nnode KATHY\nwitness w 10.0.0.3\n",
	} {
		dir := haDir(t, map[string]string{"ha.cf": cf, "haresources": ""})
		var digests []string
		for _, host := range []string{"ken3", "kathy"} {
			h := newHAFake(host)
			hb, err := LoadHeartbeat(dir, h, HAOptions{})
			if err != nil || len(hb.OnHost) > 0 {
				t.Fatal(cf, host, err, hb.OnHost)
			}
			if err := hb.Node.CheckHost(h); err != nil {
				t.Errorf("%s on %s: %v", cf, host, err)
			}
			if _, ok := hb.Node.Self(); !ok {
				t.Errorf("%s: %s does not know itself", cf, host)
			}
			for i := range hb.Node.Nodes {
				if len(hb.Node.Discover) > 0 { // each host knows others of them; the rest is found
					hb.Node.Nodes[i].Address = ""
				}
			}
			digests = append(digests, fmt.Sprint(hb.Node.Digest(), hb.Node.Links, hb.Node.Nodes))
		}
		if diff := cmp.Diff(digests[0], digests[1]); diff != "" {
			t.Errorf("%s: the hosts differ:\n%s", cf, diff)
		}
	}
}
