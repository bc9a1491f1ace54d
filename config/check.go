package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"hanode/internal/spec"
)

const checkForm = `check "TYPE" "TARGET" { ... }`

var (
	checkTypes    = []string{"http", "tcp", "exec"}
	checkKeys     = []string{"interval", "timeout", "grace", "rise", "fall"}
	execCheckKeys = append([]string{"command"}, checkKeys...)
)

// maxInRow is the most successes or failures in a row that a check can want.
const maxInRow = 100

// checks reads the check blocks of a group. Where one stands among the resources
// says what it fails.
func (b *block) checks() (out []spec.Check, parts []place) {
	good := b.children("check", 2, checkForm)
	before := 0
	for _, k := range b.body.Blocks {
		switch {
		case k.Type == "resource" && len(k.Labels) == 2:
			before++
		case k.Type == "check" && len(k.Labels) == 2:
			i := slices.IndexFunc(good, func(g *block) bool { return g.body == k.Body })
			c, where := good[i].checkBlock()
			c.After = before
			out, parts = append(out, c), append(parts, where)
		}
	}
	return out, parts
}

// checkBlock reads one.
func (b *block) checkBlock() (spec.Check, place) {
	p := b.place()
	c := spec.Check{Type: b.labels[0], Target: b.labels[1]}
	b.where = "check " + c.String()
	keys := checkKeys
	if c.Type == "exec" {
		keys = execCheckKeys
	}
	if !slices.Contains(checkTypes, c.Type) {
		return c, p // its type is what is wrong
	}
	b.check(shape{keys: keys, hints: map[string]finding{
		"every":   {what: "unknown key \"every\"" + b.in(), remedy: `the time between two tries is interval = "5s"`},
		"monitor": {what: "unknown key \"monitor\"" + b.in(), remedy: `the time between two tries is interval = "5s"`},
	}})
	if c.Type == "exec" {
		f, _ := b.list("command")
		c.Command = note(&p, "command", f)
	}
	c.Interval = note(&p, "interval", b.duration("interval"))
	c.Timeout = note(&p, "timeout", b.duration("timeout"))
	c.Grace = note(&p, "grace", b.duration("grace"))
	c.Rise = note(&p, "rise", b.whole("rise", 1, maxInRow))
	c.Fall = note(&p, "fall", b.whole("fall", 1, maxInRow))
	return c, p
}

// checkBlocks checks the checks of one group.
func (c *groupCheck) checkBlocks(g spec.Group, p place) {
	seen := map[string]int{}
	for i, k := range g.Checks {
		var at place
		if i < len(p.checks) {
			at = p.checks[i]
		}
		sub := "check " + k.String()
		if line, dup := seen[k.String()]; dup {
			c.add(at.line, finding{
				what: fmt.Sprintf("%s is listed twice in group %s", sub, quote(g.Name)), allowed: firstOn(line), remedy: "remove one of them",
			})
			continue
		}
		seen[k.String()] = at.line
		if c.refused(at.line, checkTarget(sub, k)) {
			continue
		}
		_, written := at.keys["command"]
		switch {
		case k.Type != "exec" && k.Command != nil:
			c.add(at.at("command"), finding{what: sub + " has command", allowed: "only an exec check takes it"})
		case k.Type == "exec" && !at.bad["command"]:
			c.refused(at.at("command"), command("command", sub, k.Command, written))
		}
		c.span(at, "interval", sub, k.Interval)
		c.span(at, "timeout", sub, k.Timeout)
		c.span(at, "grace", sub, k.Grace)
		for _, n := range []struct {
			key string
			n   int
		}{{"rise", k.Rise}, {"fall", k.Fall}, {"after", k.After}} {
			most := maxInRow
			if n.key == "after" {
				most = len(g.Resources)
			}
			if n.n < 0 || n.n > most {
				c.add(at.at(n.key), finding{
					what: fmt.Sprintf("%s in %s is %d", n.key, sub, n.n), allowed: fmt.Sprintf("it takes a whole number up to %d", most),
				})
			}
		}
	}
}

// checkTarget says why a check could ask nobody.
func checkTarget(sub string, k spec.Check) finding {
	switch k.Type {
	case "http":
		return checkURL(sub, k.Target)
	case "tcp":
		bad := finding{what: sub + " is not ADDRESS:PORT", allowed: `it takes an address and a port, such as "10.0.0.100:445"`}
		host, port, err := net.SplitHostPort(k.Target)
		n, numeric := strconv.ParseUint(port, 10, 16)
		if err != nil || host == "" || !clean(host) || numeric != nil || n == 0 {
			return bad
		}
		return finding{}
	case "exec":
		return checkName("check exec", k.Target)
	}
	return finding{
		what: fmt.Sprintf("unknown type of check %s", quote(k.Type)), allowed: "types are " + orNone(checkTypes), remedy: didYouMean(k.Type, checkTypes),
	}
}

func checkURL(sub, text string) finding {
	bad := finding{allowed: `it takes a URL such as "http://127.0.0.1/healthz"`}
	u, err := url.Parse(text)
	switch {
	case err != nil || !clean(text) || len(text) > 2000:
		bad.what = sub + " is not a URL"
	case u.Scheme != "http" && u.Scheme != "https":
		bad.what = sub + " is not http or https"
	case u.Host == "" || u.Hostname() == "":
		bad.what = sub + " names no host"
	default:
		return finding{}
	}
	return bad
}

// clean: text holds nothing that cannot be seen.
func clean(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c >= 0x7f })
}
