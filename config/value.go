package config

import (
	"fmt"
	"math/big"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// field is one key as it was read.
type field[T any] struct {
	v    T
	line int  // 0 = the key is not in the file
	bad  bool // the value was refused, and reported
}

func (f field[T]) set() bool { return f.line > 0 && !f.bad }

// or returns the value, or def where there is none.
func (f field[T]) or(def T) T {
	if f.set() {
		return f.v
	}
	return def
}

// plain returns the value of an expression that needs no working out. ok is
// false for lists, objects, bare words and everything computed.
func plain(e hclsyntax.Expression) (v cty.Value, ok bool) {
	switch e := e.(type) {
	case *hclsyntax.LiteralValueExpr:
		return e.Val, true
	case *hclsyntax.TemplateExpr:
		for _, p := range e.Parts {
			if _, lit := p.(*hclsyntax.LiteralValueExpr); !lit {
				return cty.NilVal, false
			}
		}
		v, diags := e.Value(nil)
		return v, !diags.HasErrors()
	case *hclsyntax.UnaryOpExpr:
		n, lit := e.Val.(*hclsyntax.LiteralValueExpr)
		if !lit || e.Op != hclsyntax.OpNegate || !isA(n.Val, cty.Number) {
			return cty.NilVal, false
		}
		return cty.NumberVal(new(big.Float).Neg(n.Val.AsBigFloat())), true
	}
	return cty.NilVal, false
}

func isA(v cty.Value, t cty.Type) bool { return v.Type() == t && !v.IsNull() && v.IsKnown() }

// wrong says what stands at e, the value of key, where want should: "a string".
func (b *block) wrong(key string, e hclsyntax.Expression, want string) finding {
	text := string(e.Range().SliceBytes(b.src))
	f := finding{allowed: "it takes " + want}
	switch e := e.(type) {
	case *hclsyntax.TemplateExpr:
		if v, ok := plain(e); ok {
			f.what = fmt.Sprintf("%s%s is the string %s", key, b.in(), quote(v.AsString()))
		} else {
			f.what = fmt.Sprintf("%s%s holds an expression", key, b.in())
			f.remedy = `for the text itself write $${ for ${, and %%{ for %{`
		}
	case *hclsyntax.TemplateWrapExpr:
		f.what = fmt.Sprintf("%s%s holds an expression", key, b.in())
		f.remedy = `for the text itself write $${ for ${`
	case *hclsyntax.LiteralValueExpr, *hclsyntax.UnaryOpExpr:
		v, ok := plain(e)
		switch {
		case ok && v.IsNull():
			f.what, f.remedy = fmt.Sprintf("%s%s is null", key, b.in()), "remove the line for the default"
		case ok && v.Type() == cty.Number:
			f.what = fmt.Sprintf("%s%s is the number %s", key, b.in(), short(text))
		case ok:
			f.what = fmt.Sprintf("%s%s is %s", key, b.in(), short(text))
		default:
			f.what = fmt.Sprintf("%s%s is an expression", key, b.in())
		}
	case *hclsyntax.TupleConsExpr:
		f.what = fmt.Sprintf("%s%s is a list", key, b.in())
	case *hclsyntax.ObjectConsExpr:
		f.what = fmt.Sprintf("%s%s is an object", key, b.in())
	case *hclsyntax.ScopeTraversalExpr:
		f.what = fmt.Sprintf("%s%s is the bare word %s", key, b.in(), short(text))
		f.remedy = "put text in quotes"
	default:
		f.what = fmt.Sprintf("%s%s is an expression", key, b.in())
		f.remedy = "write the value itself"
	}
	return f
}

// short cuts source text for a diagnostic, and keeps it on one line.
func short(text string) string {
	q := quote(text)
	return q[1 : len(q)-1]
}

// str reads a key that takes a string.
func (b *block) str(key string) field[string] {
	a := b.body.Attributes[key]
	if a == nil {
		return field[string]{}
	}
	f := field[string]{line: a.NameRange.Start.Line}
	v, ok := plain(a.Expr)
	if !ok || !isA(v, cty.String) {
		f.bad = true
		bad := b.wrong(key, a.Expr, "a string")
		if ok && !v.IsNull() {
			bad.remedy = fmt.Sprintf("put it in quotes: %s = %s", key, quote(string(a.Expr.Range().SliceBytes(b.src))))
		}
		b.add(f.line, bad)
		return f
	}
	f.v = v.AsString()
	return f
}

// whole reads a key that takes a whole number from least to most.
func (b *block) whole(key string, least, most int) field[int] {
	a := b.body.Attributes[key]
	if a == nil {
		return field[int]{}
	}
	f := field[int]{line: a.NameRange.Start.Line}
	want := fmt.Sprintf("a whole number from %d to %d", least, most)
	v, ok := plain(a.Expr)
	if !ok || !isA(v, cty.Number) {
		f.bad = true
		bad := b.wrong(key, a.Expr, want)
		if ok && isA(v, cty.String) && bareNumber(v.AsString()) {
			bad.remedy = "remove the quotes"
		}
		b.add(f.line, bad)
		return f
	}
	n, acc := v.AsBigFloat().Int64()
	if acc != big.Exact || n < int64(least) || n > int64(most) {
		f.bad = true
		b.add(f.line, finding{
			what:    fmt.Sprintf("%s%s is %s", key, b.in(), short(string(a.Expr.Range().SliceBytes(b.src)))),
			allowed: "it takes " + want,
		})
		return f
	}
	f.v = int(n)
	return f
}

// flag reads a key that takes true or false.
func (b *block) flag(key string) field[bool] {
	a := b.body.Attributes[key]
	if a == nil {
		return field[bool]{}
	}
	f := field[bool]{line: a.NameRange.Start.Line}
	v, ok := plain(a.Expr)
	if !ok || !isA(v, cty.Bool) {
		f.bad = true
		bad := b.wrong(key, a.Expr, "true or false, without quotes")
		if _, word := a.Expr.(*hclsyntax.ScopeTraversalExpr); word {
			bad.remedy = "" // quotes would not help
		}
		b.add(f.line, bad)
		return f
	}
	f.v = v.True()
	return f
}

// list reads a key that takes a list of strings; lines has the line of each.
// An empty list reads as nil.
func (b *block) list(key string) (f field[[]string], lines []int) {
	a := b.body.Attributes[key]
	if a == nil {
		return f, nil
	}
	f.line = a.NameRange.Start.Line
	tuple, ok := a.Expr.(*hclsyntax.TupleConsExpr)
	if !ok {
		f.bad = true
		bad := b.wrong(key, a.Expr, "a list of strings")
		if v, lit := plain(a.Expr); lit && isA(v, cty.String) {
			bad.remedy = fmt.Sprintf("write %s = [%s]", key, quote(v.AsString()))
		}
		b.add(f.line, bad)
		return f, nil
	}
	for i, e := range tuple.Exprs {
		v, ok := plain(e)
		line := e.Range().Start.Line
		if !ok || !isA(v, cty.String) {
			f.bad = true
			b.add(line, b.wrong(fmt.Sprintf("%s[%d]", key, i), e, "a string"))
			continue
		}
		f.v = append(f.v, v.AsString())
		lines = append(lines, line)
	}
	return f, lines
}

// durations shows what a duration looks like.
const durations = `a duration such as "250ms", "1s", "2m"`

// duration reads a key that takes a duration >= 0.
func (b *block) duration(key string) field[time.Duration] {
	a := b.body.Attributes[key]
	if a == nil {
		return field[time.Duration]{}
	}
	f := field[time.Duration]{line: a.NameRange.Start.Line}
	v, ok := plain(a.Expr)
	if !ok || !isA(v, cty.String) {
		f.bad = true
		bad := b.wrong(key, a.Expr, durations)
		if ok && isA(v, cty.Number) {
			text := short(string(a.Expr.Range().SliceBytes(b.src)))
			bad.remedy = fmt.Sprintf(`give the unit: %s = "%ss" or %s = "%sms"`, key, text, key, text)
		}
		b.add(f.line, bad)
		return f
	}
	d, bad := parseDuration(key+b.in(), v.AsString())
	if bad.what != "" {
		f.bad = true
		b.add(f.line, bad)
		return f
	}
	f.v = d
	return f
}

// parseDuration reads text as a duration >= 0 with a unit. A finding that says
// something is a refusal.
func parseDuration(what, text string) (time.Duration, finding) {
	d, err := time.ParseDuration(text)
	switch {
	case bareNumber(text):
		return 0, finding{
			what: fmt.Sprintf("%s is %s, without a unit", what, quote(text)), allowed: "it takes " + durations,
			remedy: fmt.Sprintf(`write "%ss" or "%sms"`, text, text),
		}
	case err != nil:
		return 0, finding{what: fmt.Sprintf("%s is %s, not a duration", what, quote(text)), allowed: "it takes " + durations}
	case d < 0:
		return 0, finding{what: fmt.Sprintf("%s is %s, below zero", what, quote(text)), allowed: "it takes " + durations}
	}
	return d, finding{}
}

// bareNumber reports whether text is digits with at most one point; "0" too,
// which time.ParseDuration would take.
func bareNumber(text string) bool {
	points := 0
	for _, c := range text {
		switch {
		case c == '.':
			points++
		case c < '0' || c > '9':
			return false
		}
	}
	return len(text) > points && points <= 1
}
