package config

import (
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hanode/internal/spec"
)

var update = flag.Bool("update", false, "write what is printed into the testdata files")

const (
	hostMark   = "---- host ----\n"
	nodesMark  = "---- nodes ----\n"
	outputMark = "---- output ----\n"
)

// golden runs print over every script in testdata/dir: a source, then an
// optional section that begins with mark, then the output. The source is the
// top of the file, so that its lines count alike.
func golden(t *testing.T, dir, mark string, print func(t *testing.T, src, extra string) string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in testdata/%s: %v", dir, err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			input, want, ok := strings.Cut(string(text), outputMark)
			if !ok && !*update {
				t.Fatalf("%s lacks the line %q", path, outputMark)
			}
			src, extra, _ := strings.Cut(input, mark)
			got := print(t, src, extra)
			if *update {
				if err := os.WriteFile(path, []byte(input+outputMark+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("output differs (-want +got):\n%s", diff)
			}
		})
	}
}

// outcome renders an error and warnings, or "ok".
func outcome(err error, warnings Diagnostics) string {
	var b strings.Builder
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	if len(warnings) > 0 {
		fmt.Fprintln(&b, warnings)
	}
	if err == nil {
		fmt.Fprintln(&b, "ok")
	}
	return b.String()
}

func hostname() (string, error) { return "primary", nil }

func TestNodeDiagnostics(t *testing.T) {
	golden(t, "node", hostMark, func(_ *testing.T, src, _ string) string {
		n, err := parseNode("hanode.hcl", []byte(src), "/etc/hanode", hostname)
		if err != nil {
			return outcome(err, nil)
		}
		return outcome(nil, n.Warnings())
	})
}

func TestHostDiagnostics(t *testing.T) {
	golden(t, "host", hostMark, func(t *testing.T, src, extra string) string {
		h := newFakeHost(t, extra)
		n, err := parseNode("hanode.hcl", []byte(src), "/etc/hanode", h.Hostname)
		if err != nil {
			t.Fatalf("the file itself is bad: %v", err)
		}
		return outcome(n.CheckHost(h), nil)
	})
}

func TestClusterDiagnostics(t *testing.T) {
	golden(t, "cluster", nodesMark, func(t *testing.T, src, extra string) string {
		if extra == "" {
			_, err := ParseCluster("cluster.hcl", []byte(src))
			return outcome(err, ClusterWarnings("cluster.hcl", []byte(src)))
		}
		nodes := scriptNodes(t, extra)
		_, err := ParseClusterFor("cluster.hcl", []byte(src), nodes)
		groups, parseErr := ParseCluster("cluster.hcl", []byte(src))
		if parseErr == nil { // the same verdict from the values alone, without lines
			sameVerdict(t, err, CheckGroups(groups, nodes))
		}
		return outcome(err, ClusterWarnings("cluster.hcl", []byte(src)))
	})
}

// sameVerdict checks that CheckGroups finds what ParseClusterFor finds.
func sameVerdict(t *testing.T, withLines, without error) {
	t.Helper()
	var a, b Diagnostics
	if errors.As(withLines, &a) != errors.As(without, &b) || len(a) != len(b) {
		t.Fatalf("ParseClusterFor found\n%v\nCheckGroups found\n%v", withLines, without)
	}
	found := map[string]bool{}
	for _, d := range a {
		found[d.What] = true
	}
	for _, d := range b {
		if d.File != "" || d.Line != 0 || !found[d.What] {
			t.Errorf("CheckGroups alone says: %+v", d)
		}
	}
}

// scriptNodes reads lines "NAME ADDRESS ROLE".
func scriptNodes(t *testing.T, text string) []spec.Node {
	t.Helper()
	nodes := []spec.Node{}
	for l := range strings.Lines(text) {
		f := strings.Fields(l)
		if len(f) != 3 {
			t.Fatalf("bad node line %q", l)
		}
		nodes = append(nodes, spec.Node{Name: f[0], Address: f[1], Role: spec.Role(f[2])})
	}
	return nodes
}

// fakeHost is a small machine: devices with addresses, and one key file.
type fakeHost struct {
	hostname string
	devices  []string
	addrs    map[string][]netip.Addr
	keys     map[string]fakeKey
	deaf     error // what Devices answers
}

type fakeKey struct {
	text string
	mode fs.FileMode
	err  error
}

// newFakeHost reads lines "hostname NAME", "dev NAME ADDRESS...", "deaf" and
// "key PATH MODE WORD...", where each WORD is a line of the file, "good" is a
// good key and "denied" a file that cannot be opened.
func newFakeHost(t *testing.T, text string) *fakeHost {
	t.Helper()
	h := &fakeHost{addrs: map[string][]netip.Addr{}, keys: map[string]fakeKey{}}
	for l := range strings.Lines(text) {
		f := strings.Fields(l)
		switch f[0] {
		case "hostname":
			h.hostname = f[1]
		case "dev":
			h.devices = append(h.devices, f[1])
			for _, a := range f[2:] {
				h.addrs[f[1]] = append(h.addrs[f[1]], netip.MustParseAddr(a))
			}
		case "deaf":
			h.deaf = errors.New("netlink: no buffer space available")
		case "key":
			mode, err := strconv.ParseUint(f[2], 8, 32)
			if err != nil {
				t.Fatal(err)
			}
			h.keys[f[1]] = scriptKey(fs.FileMode(mode), f[1], f[3:])
		default:
			t.Fatalf("bad host line %q", l)
		}
	}
	return h
}

func scriptKey(mode fs.FileMode, path string, words []string) fakeKey {
	k := fakeKey{mode: mode}
	for _, w := range words {
		switch w {
		case "good":
			w = "hanode-key-1 " + base64.StdEncoding.EncodeToString(make([]byte, 32))
		case "short":
			w = "hanode-key-1 " + base64.StdEncoding.EncodeToString(make([]byte, 16))
		case "huge":
			w = strings.Repeat("#\n", maxKeyBytes)
		case "denied":
			k.err = &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
		case "folder":
			k.mode |= fs.ModeDir
		}
		k.text += w + "\n"
	}
	return k
}

func (h *fakeHost) Hostname() (string, error)                  { return h.hostname, nil }
func (h *fakeHost) Devices() ([]string, error)                 { return h.devices, h.deaf }
func (h *fakeHost) Addresses(dev string) ([]netip.Addr, error) { return h.addrs[dev], nil }
func (h *fakeHost) ReadKey(path string) ([]byte, fs.FileMode, error) {
	k, ok := h.keys[path]
	if !ok {
		return nil, 0, &fs.PathError{Op: "stat", Path: path, Err: fs.ErrNotExist}
	}
	return []byte(k.text), k.mode, k.err
}
