package config

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
)

// Imported are the files that mean what Heartbeat's do.
type Imported struct {
	Node    []byte // hanode.hcl, the same on every host unless its hostname is no node
	Cluster []byte // the groups, which the node file names
}

// The names of the files of [Heartbeat.Import].
const (
	ImportedNode    = "hanode.hcl"
	ImportedCluster = "groups.hcl"
	ImportedKey     = "key"
)

// Import writes what hb says as a node file and a cluster file that lie in one folder
// with the key file. hostname is this host's. hb must be without errors.
func (hb *Heartbeat) Import(hostname string) Imported {
	n := *hb.Node
	n.KeyFile, n.GroupsFile = ImportedKey, ImportedCluster
	n.HADir, n.Keys, n.Resources = "", nil, ""
	head := fmt.Sprintf("# From %s, haresources and authkeys of %s.\n", filepath.Base(n.File), hb.Dir)
	return Imported{
		Node:    append([]byte(head+"# The key file is made of authkeys: copy this folder to every host, the key with mode 600.\n\n"), FormatNode(&n, n.Name != hostname)...),
		Cluster: append([]byte(head+hb.unused()+"\n"), FormatCluster(hb.Groups)...),
	}
}

// unused lists, as comments, the lines that became nothing.
func (hb *Heartbeat) unused() string {
	var b strings.Builder
	for _, l := range hb.Lines {
		if l.Answer == AnswerIgnored {
			fmt.Fprintf(&b, "# %s:%d: %s: ignored: %s\n", filepath.Base(l.File), l.Line, l.Text, l.Why)
		}
	}
	return b.String()
}

// Differing returns the lines in which two haresources differ, those of a with "-" in
// front and those of b with "+", at most most of them; comments and blanks do not count.
func Differing(a, b []byte, most int) (out []string) {
	x, y := plainLines(a), plainLines(b)
	count := map[string]int{}
	for _, l := range x {
		count[l]++
	}
	for _, l := range y {
		count[l]--
	}
	for _, side := range []struct {
		lines []string
		sign  int
		mark  string
	}{{x, 1, "-"}, {y, -1, "+"}} {
		for _, l := range side.lines {
			if count[l]*side.sign > 0 {
				count[l] -= side.sign
				out = append(out, side.mark+l)
			}
		}
	}
	if len(out) == 0 && !bytes.Equal([]byte(strings.Join(x, "\n")), []byte(strings.Join(y, "\n"))) {
		out = append(out, "the same lines in another order")
	}
	if len(out) > most {
		out = append(out[:most], fmt.Sprintf("and %d more", len(out)-most))
	}
	return out
}

// plainLines are the logical lines of a haresources, in one form.
func plainLines(src []byte) (out []string) {
	for _, words := range logicalLines(&haReport{}, "", src) {
		words[0].text = lower(words[0].text)
		var line []string
		for _, w := range words {
			line = append(line, w.text)
		}
		out = append(out, strings.Join(line, " "))
	}
	return out
}

// ResourcesText is haresources in one form: the same for files that mean the same.
func ResourcesText(src []byte) string { return strings.Join(plainLines(src), "\n") }
