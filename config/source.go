package config

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// readLimited reads the file at path, at most most bytes of it.
func readLimited(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	src, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(src)) > most {
		return nil, fmt.Errorf("read %s: larger than %d bytes", path, most)
	}
	return src, nil
}

// parse turns src into a body. nil means that r says why it could not; a body
// may come with duplicate keys reported, of which it keeps the first.
func (r *report) parse(src []byte) *hclsyntax.Body {
	if len(src) > maxFileBytes {
		r.add(0, finding{
			what:    fmt.Sprintf("the file has %d bytes", len(src)),
			allowed: fmt.Sprintf("the most is %d", maxFileBytes),
		})
		return nil
	}
	if !r.scan(src) {
		return nil
	}
	file, diags := hclsyntax.ParseConfig(src, r.file, hcl.InitialPos)
	body, _ := file.Body.(*hclsyntax.Body)
	usable := body != nil
	for i, d := range diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		if i >= maxSyntax {
			usable = false
			break
		}
		if d.Summary == "Attribute redefined" && d.Subject != nil && body != nil {
			r.redefined(body, src, *d.Subject)
			continue
		}
		usable = false
		line := 0
		if d.Subject != nil {
			line = d.Subject.Start.Line
		}
		r.add(line, finding{what: oneLine(d.Summary), allowed: oneLine(d.Detail)})
	}
	if !usable {
		return nil
	}
	return body
}

// scan refuses, before the recursive parser sees them, sources that nest
// deeper than any file of ours and so could exhaust its stack.
func (r *report) scan(src []byte) bool {
	tokens, _ := hclsyntax.LexConfig(src, r.file, hcl.InitialPos)
	depth, directives := 0, 0
	for i, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenOQuote,
			hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenCQuote,
			hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
			depth--
		case hclsyntax.TokenQuestion, hclsyntax.TokenBang:
			r.add(t.Range.Start.Line, computed(fmt.Sprintf("%q", t.Bytes)))
			return false
		case hclsyntax.TokenMinus:
			if i+1 < len(tokens) && tokens[i+1].Type == hclsyntax.TokenMinus {
				r.add(t.Range.Start.Line, computed(`"--"`))
				return false
			}
		}
		if t.Type == hclsyntax.TokenTemplateControl {
			if directives++; directives > maxDirectives {
				r.add(t.Range.Start.Line, computed(`"%{"`))
				return false
			}
		}
		if depth > maxDepth {
			r.add(t.Range.Start.Line, finding{
				what:    fmt.Sprintf("brackets are nested more than %d deep", maxDepth),
				allowed: "no valid file nests deeper than blocks and one list",
			})
			return false
		}
	}
	return true
}

// computed refuses something that would have to be worked out.
func computed(what string) finding {
	return finding{
		what:    what + " makes an expression",
		allowed: "values are plain: strings in quotes, numbers, true, false, and lists of strings",
		remedy:  "write the value itself",
	}
}

// redefined reports the second setting of a key, and where the first is.
func (r *report) redefined(body *hclsyntax.Body, src []byte, at hcl.Range) {
	key := string(at.SliceBytes(src))
	first := ""
	if a := innermost(body, at.Start.Byte).Attributes[key]; a != nil {
		first = fmt.Sprintf("the first is on line %d", a.NameRange.Start.Line)
	}
	r.add(at.Start.Line, finding{
		what: fmt.Sprintf("%s is set twice", key), allowed: first, remedy: "remove one of them",
	})
}

// innermost returns the body of the smallest block around the byte at pos.
func innermost(body *hclsyntax.Body, pos int) *hclsyntax.Body {
	for _, b := range body.Blocks {
		if b.OpenBraceRange.Start.Byte <= pos && pos < b.CloseBraceRange.End.Byte {
			return innermost(b.Body, pos)
		}
	}
	return body
}

// oneLine joins the lines of s, and drops a final full stop.
func oneLine(s string) string {
	return strings.TrimSuffix(strings.Join(strings.Fields(s), " "), ".")
}
