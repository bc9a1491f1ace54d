package config

import (
	"fmt"
	"io/fs"
	"strings"
)

// Secret is text that must not be shown.
type Secret string

// String hides it.
func (Secret) String() string { return "(secret)" }

// GoString hides it from %#v.
func (Secret) GoString() string { return "(secret)" }

// haAuth is what authkeys says.
type haAuth struct {
	keys []Secret // the active one first, each once
	crc  bool     // the active method is crc, which is no key
}

// haMethod is a line of authkeys.
type haMethod struct {
	method string
	key    Secret
	line   int
}

// maxAuth is the highest index plus one, and maxKeys what the cluster can hold.
const (
	maxAuth = 16
	maxKeys = 8
)

// parseHaAuth reads src, an authkeys called file. Its diagnostics never show a key.
func parseHaAuth(r *haReport, file string, src []byte, crcToo bool) haAuth {
	var out haAuth
	if len(src) > maxKeyBytes {
		r.put(file, 0, finding{what: fmt.Sprintf("the file has %d bytes", len(src)), allowed: fmt.Sprintf("the most is %d", maxKeyBytes)}, SeverityError)
		return out
	}
	auth, authLine := -1, 0
	methods := map[int]haMethod{}
	var order []int
	n, known := 0, false // the active key is there, the wrong way round
	for text := range strings.Lines(string(src)) {
		n++
		text = strings.Trim(text, haBlanks)
		if text == "" || text[0] == '#' {
			continue
		}
		words := strings.Fields(text)
		// What is in no place of its own may be a key: it is not shown.
		r.lines = append(r.lines, HeartbeatLine{File: file, Line: n, Text: "...", Answer: AnswerTranslated})
		row := len(r.lines) - 1
		bad := func(f finding) { r.put(file, n, f, SeverityError) }
		index, isIndex := wholeNumber(words[0])
		switch {
		case words[0] == "auth":
			next, ok := 0, false
			if len(words) > 1 {
				next, ok = wholeNumber(words[1])
			}
			r.lines[row].Text = "auth ..."
			if ok {
				r.lines[row].Text = "auth " + words[1]
			}
			switch {
			case !ok || next >= maxAuth:
				bad(finding{what: "auth names no index", allowed: fmt.Sprintf("it takes a number from 0 to %d", maxAuth-1), remedy: "write: auth 1"})
			case auth >= 0:
				bad(finding{what: fmt.Sprintf("auth is given on line %d already", authLine), remedy: "remove one of them"})
			case len(order) > 0:
				bad(finding{what: "auth stands behind a key", allowed: "Heartbeat does not find the key then", remedy: "make it the first line"})
			default:
				auth, authLine = next, n
			}
			r.lines[row].Answer, r.lines[row].To = keepUnless(r.lines[row], AnswerKept), "the first key is the active one"
		case !isIndex || index >= maxAuth:
			if knownMethod(words[0]) {
				r.lines[row].Text = words[0] + " ..."
			}
			f, turned := swapped(words)
			bad(f)
			known = known || turned >= 0 && turned == auth
		default:
			m, f := authMethod(words, text, n)
			r.lines[row].Text = words[0]
			if len(words) > 1 && goodName(words[1]) && knownMethod(words[1]) {
				r.lines[row].Text += " " + words[1]
			}
			if f.what != "" {
				bad(f)
				continue
			}
			if first, dup := methods[index]; dup {
				bad(finding{what: fmt.Sprintf("index %d is given on line %d already", index, first.line), allowed: "of two Heartbeat takes the last one, and old packets fail", remedy: "give each key an index of its own"})
				continue
			}
			methods[index] = m
			order = append(order, index)
			r.authRow(file, n, row, m, index == auth)
		}
	}
	if known { // and refused: which key it is was said
		return out
	}
	r.chooseKeys(&out, file, auth, authLine, methods, order, crcToo)
	return out
}

// keepUnless is a unless the line is refused already.
func keepUnless(l HeartbeatLine, a Answer) Answer {
	if l.Answer == AnswerRefused {
		return AnswerRefused
	}
	return a
}

func knownMethod(word string) bool { return word == "crc" || word == "md5" || word == "sha1" }

// authMethod reads INDEX METHOD [KEY].
func authMethod(words []string, text string, n int) (haMethod, finding) {
	form := "it takes INDEX crc, INDEX md5 KEY or INDEX sha1 KEY"
	if len(words) < 2 {
		return haMethod{}, finding{what: "there is an index and no method", allowed: form}
	}
	m := haMethod{method: words[1], line: n}
	rest := strings.TrimLeft(strings.TrimLeft(text, haBlanks)[len(words[0]):], haBlanks)[len(words[1]):]
	m.key = Secret(strings.Trim(rest, haBlanks))
	switch {
	case !knownMethod(m.method):
		f := finding{what: "the method is not known", allowed: "methods are crc, md5, sha1"}
		if knownMethod(lower(m.method)) {
			f.remedy = "write it in small letters"
		} else {
			f.remedy = didYouMean(m.method, []string{"sha1", "md5", "crc"})
		}
		return m, f
	case m.method == "crc" && m.key != "":
		return m, finding{what: "auth method crc does not use a key", remedy: fmt.Sprintf("write: %s crc", words[0])}
	case m.method != "crc" && m.key == "":
		return m, finding{what: fmt.Sprintf("auth method %s requires a key", m.method), remedy: fmt.Sprintf("write: %s %s KEY", words[0], m.method)}
	}
	return m, finding{}
}

// swapped answers a line that begins with no index; "crc 2" is one the wrong way round,
// whose index is returned, or -1.
func swapped(words []string) (f finding, index int) {
	f = finding{what: "the line begins with no index", allowed: fmt.Sprintf("it takes INDEX METHOD KEY, an index being 0 to %d", maxAuth-1)}
	if len(words) > 1 && knownMethod(words[0]) {
		if n, ok := wholeNumber(words[1]); ok && n < maxAuth {
			f.what = fmt.Sprintf("index and method of %s %d are the wrong way round", words[0], n)
			f.remedy = fmt.Sprintf("write: %d %s", n, words[0])
			if words[0] != "crc" {
				f.remedy += " KEY"
			}
			return f, n
		}
	}
	return f, -1
}

// authRow is the answer to a key.
func (r *haReport) authRow(file string, n, row int, m haMethod, active bool) {
	l := &r.lines[row]
	l.To = "a key, accepted"
	if active {
		l.To = "the active key"
	}
	switch {
	case m.method == "crc" && !active:
		l.Answer, l.To, l.Why = AnswerIgnored, "", "crc is no key, so it opens nothing"
	case m.method == "crc":
		l.Answer, l.Why = AnswerReplaced, "crc is no key"
	default:
		l.Why = "stronger than it asks: all is encrypted (AES-256-GCM) and authenticated with what argon2id makes of the key"
		if len(m.key) < 8 {
			r.put(file, n, finding{what: fmt.Sprintf("the key has %s", count(len(m.key), "character")), allowed: "argon2id makes guessing slow, not impossible", remedy: "use a longer one, on every host: hanode key generate"}, SeverityWarning)
		}
	}
}

// chooseKeys puts the active key first and drops repetitions.
func (r *haReport) chooseKeys(out *haAuth, file string, auth, authLine int, methods map[int]haMethod, order []int, crcToo bool) {
	if auth < 0 {
		r.put(file, 0, finding{what: "missing auth directive", allowed: "the first line says which key signs", remedy: "write: auth 1"}, SeverityError)
		return
	}
	active, ok := methods[auth]
	if !ok {
		r.put(file, authLine, finding{what: fmt.Sprintf("auth key %d not found", auth), allowed: "the index after auth must be found below", remedy: fmt.Sprintf("add a line: %d sha1 KEY", auth)}, SeverityError)
		return
	}
	if active.method == "crc" {
		out.crc = true
		f := finding{
			what:    "auth method crc protects from nothing but noise: whoever reaches the network can command the cluster",
			allowed: "it is refused unless --insecure-crc is given",
			remedy:  fmt.Sprintf("write: %d sha1 KEY, the same on every host", auth),
		}
		if !crcToo {
			r.put(file, active.line, f, SeverityError)
			return
		}
		f.allowed = "it is used because --insecure-crc is given"
		r.put(file, active.line, f, SeverityWarning)
	}
	have := map[Secret]bool{}
	take := func(m haMethod) {
		key := m.key
		if m.method == "crc" {
			if !crcToo {
				return
			}
			key = crcKey
		}
		if !have[key] {
			have[key] = true
			out.keys = append(out.keys, key)
		}
	}
	take(active)
	for _, i := range order {
		take(methods[i])
	}
	if len(out.keys) > maxKeys {
		r.put(file, 0, finding{what: fmt.Sprintf("%d keys", len(out.keys)), allowed: fmt.Sprintf("the most is %d", maxKeys), remedy: "remove those that no host uses any more"}, SeverityError)
	}
}

// crcKey stands for crc, which has no key: everybody knows it.
const crcKey Secret = "hanode: crc is no key"

// checkAuthMode refuses an authkeys that others may read or write, by Heartbeat's rule.
func checkAuthMode(r *haReport, file string, mode fs.FileMode) {
	if mode.Perm()&0o077 != 0 {
		r.put(file, 0, finding{
			what:    fmt.Sprintf("Bad permissions on keyfile [%s], 600 recommended", file),
			allowed: fmt.Sprintf("its mode is %03o", mode.Perm()), remedy: "run: chmod 600 " + file,
		}, SeverityError)
	}
}
