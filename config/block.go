package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// shape says what a body may hold.
type shape struct {
	keys   []string
	blocks map[string]string // type -> how to write it
	// hints answer keys and block types that are known from elsewhere: what is
	// wrong with them here, and what to do.
	hints map[string]finding
}

func (s shape) blockTypes() []string { return slices.Sorted(maps.Keys(s.blocks)) }

// block is one body being read.
type block struct {
	*report
	src   []byte
	body  *hclsyntax.Body
	where string // `node "primary"`; "" = the file itself
	// label is the first of labels, which there are as many of as the type takes.
	label  string
	labels []string
	line   int
}

// in renders " in node "primary"", or nothing for the file itself.
func (b *block) in() string {
	if b.where == "" {
		return ""
	}
	return " in " + b.where
}

// check reports what shape does not know, in the order of the file.
func (b *block) check(s shape) {
	attrs := slices.SortedFunc(maps.Values(b.body.Attributes), func(x, y *hclsyntax.Attribute) int {
		return cmp.Compare(x.NameRange.Start.Byte, y.NameRange.Start.Byte)
	})
	for _, a := range attrs {
		if !slices.Contains(s.keys, a.Name) {
			b.add(a.NameRange.Start.Line, b.unknownKey(a.Name, s))
		}
	}
	for _, k := range b.body.Blocks {
		if _, ok := s.blocks[k.Type]; !ok {
			b.add(k.TypeRange.Start.Line, b.unknownBlock(k.Type, s))
		}
	}
}

func (b *block) unknownKey(key string, s shape) finding {
	if f, ok := s.hints[key]; ok {
		return f
	}
	if form, ok := s.blocks[key]; ok {
		return finding{what: fmt.Sprintf("%s is a block, not a key", key), remedy: "write " + form}
	}
	f := finding{what: fmt.Sprintf("unknown key %s%s", quote(key), b.in()), allowed: takes("keys", s.keys)}
	f.remedy = didYouMean(key, slices.Concat(s.keys, s.blockTypes()))
	return f
}

func (b *block) unknownBlock(typ string, s shape) finding {
	if f, ok := s.hints[typ]; ok {
		return f
	}
	if slices.Contains(s.keys, typ) {
		return finding{
			what:   fmt.Sprintf("%s is a key, not a block", typ),
			remedy: fmt.Sprintf("write %s = VALUE", typ),
		}
	}
	f := finding{what: fmt.Sprintf("unknown block %s%s", quote(typ), b.in()), allowed: takes("blocks", s.blockTypes())}
	f.remedy = didYouMean(typ, slices.Concat(s.blockTypes(), s.keys))
	return f
}

// children returns the blocks of one type in the order of the file, those with
// the wrong number of labels reported and left out. form shows how it is
// written, `node "NAME" { ... }`.
func (b *block) children(typ string, labels int, form string) []*block {
	var out []*block
	for _, k := range b.body.Blocks {
		if k.Type != typ {
			continue
		}
		line := k.TypeRange.Start.Line
		if len(k.Labels) != labels {
			b.add(line, finding{
				what:    fmt.Sprintf("%s block%s has %s", typ, b.in(), count(len(k.Labels), "label")),
				allowed: fmt.Sprintf("it takes %d", labels), remedy: "write " + form,
			})
			continue
		}
		where := typ
		for _, l := range k.Labels {
			where += " " + quote(l)
		}
		child := &block{report: b.report, src: b.src, body: k.Body, line: line, where: where, labels: k.Labels}
		if labels > 0 {
			child.label = k.Labels[0]
		}
		out = append(out, child)
	}
	return out
}

// takes lists the words of a kind that a body takes.
func takes(kind string, words []string) string {
	if len(words) == 0 {
		return "it takes no " + kind
	}
	return kind + " are " + orNone(words)
}

// count renders "1 label", "2 labels".
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
