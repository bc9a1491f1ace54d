package config

import (
	"encoding/base64"
	"strings"
)

// checkKey looks over a key file: # comments, and at least one line
// `hanode-key-1 <base64 of 32 bytes>`. What it reports never holds a secret.
func checkKey(path string, text []byte) Diagnostics {
	const (
		form   = "a key line is: hanode-key-1 <base64 of 32 bytes>"
		remedy = "make one with: hanode key generate"
	)
	r := report{file: path}
	if len(text) > maxKeyBytes {
		r.add(0, finding{what: "the key file is too large", allowed: form, remedy: remedy})
		return r.diags
	}
	keys, line := 0, 0
	for l := range strings.Lines(string(text)) {
		line++
		words := strings.Fields(l)
		switch {
		case len(words) == 0 || strings.HasPrefix(words[0], "#"):
			continue
		case words[0] != "hanode-key-1":
			r.add(line, finding{what: "the line is neither a comment nor a key", allowed: form, remedy: remedy})
		case len(words) != 2 || !is32Bytes(words[1]):
			r.add(line, finding{what: "the key is not base64 of 32 bytes", allowed: form, remedy: remedy})
		}
		keys++
	}
	if keys == 0 {
		r.add(0, finding{what: "the key file holds no key", allowed: form, remedy: remedy})
	}
	return r.diags
}

func is32Bytes(text string) bool {
	raw, err := base64.StdEncoding.DecodeString(text)
	return err == nil && len(raw) == 32
}
