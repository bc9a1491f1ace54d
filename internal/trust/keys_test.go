package trust

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fixed is the n-th key of the tests.
func fixed(n byte) string {
	return keyWord + " " + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{n}, keySize))
}

// keys parses the given fixed keys, the first active.
func keys(t testing.TB, ns ...byte) *Keys {
	t.Helper()
	var src []byte
	for _, n := range ns {
		src = append(src, fixed(n)+"\n"...)
	}
	k, err := Parse("key", src)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A changed derivation would split a cluster during an upgrade.
func TestDerivedKeysNeverChange(t *testing.T) {
	k := keys(t, 1)
	phrase, err := FromPassphrases("secret")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{
		"gossip":      hex.EncodeToString(k.Gossip()[0]),
		"keepalive":   hex.EncodeToString(k.secrets[0].derive(bytes.Repeat([]byte{2}, saltSize), labelKeepalive)),
		"ca":          hex.EncodeToString(k.cas[0].public()),
		"fingerprint": k.Fingerprint(),
		"hint":        hint(k.cas[0].public(), "web"),
		"passphrase":  hex.EncodeToString(phrase.secrets[0][:]),
	}
	want := map[string]string{
		"gossip":      "7afded44f974b7e69445af22bcea03146e5e12f952249e89a17dff5309e4449e",
		"keepalive":   "e6c066e6cb4b5bb6d4efb83ac7c87e0ba72454a01d19b27b2b20e5fcf7ea6a8f",
		"ca":          "2c087a5b511359b9666ac44b0c9eb4fba98dc73f21d21efb84b85fe2e1e6273e",
		"fingerprint": "73960c75ae40e092a68c5526e174567f8a75c481c7f7876c42c522493b6e532e",
		"hint":        "e743b15bdeee6268.47353818fd0facbf",
		"passphrase":  "addcc49b3645d256687511a89c67c3ff106f7b11614162abb9b387c0e5559fbc",
	}
	for what, w := range want {
		if got[what] != w {
			t.Errorf("%s: %s, want %s", what, got[what], w)
		}
	}
}

func TestGenerateAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	a, b := Generate(), Generate()
	if a == b || strings.Contains(a, "\n") {
		t.Fatal("generated", a, b)
	}
	text := "# ours\n\n" + a + "\n  " + b + "\r\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	ring := k.Gossip()
	if len(ring) != 2 || len(ring[0]) != 32 || bytes.Equal(ring[0], ring[1]) {
		t.Fatal("keyring", ring)
	}
	first, err := Parse("first", []byte(a))
	if err != nil || !bytes.Equal(first.Gossip()[0], ring[0]) {
		t.Fatal("the first key is not the active one", err)
	}
	if s := fmt.Sprintf("%v %+v %s", k, k, k); strings.Contains(s, hex.EncodeToString(k.secrets[0][:4])) || s != "2 keys 2 keys 2 keys" {
		t.Fatal("a log would show", s)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o611} {
		os.Chmod(path, mode)
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if _, err := Load(path + "-not"); err == nil || !strings.Contains(err.Error(), "hanode key generate") {
		t.Error("missing file:", err)
	}
	dir := t.TempDir()
	os.Chmod(dir, 0o700)
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "regular file") {
		t.Error("a folder:", err)
	}
}

func TestParseRefuses(t *testing.T) {
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, n)) }
	many := ""
	for i := range byte(maxKeys + 1) {
		many += fixed(i+1) + "\n"
	}
	for what, c := range map[string]struct{ src, want string }{
		"empty":       {"", "k:1: no key"},
		"comments":    {"# nothing\n\n", "k:1: no key"},
		"another":     {"# x\nauth 1\n", "k:2: a line of an unknown kind"},
		"version":     {"hanode-key-2 " + b64(32), "k:1: a line of an unknown kind"},
		"no key":      {keyWord, "k:1: 0 words after"},
		"two":         {fixed(1) + " " + b64(32), "k:1: 2 words after"},
		"short":       {"\n" + keyWord + " " + b64(31), "k:2: the key has 31 bytes; allowed: 32"},
		"long":        {keyWord + " " + b64(33), "k:1: the key has 33 bytes"},
		"not base64":  {keyWord + " !!!", "k:1: the key is no base64"},
		"loose bits":  {keyWord + " " + strings.Repeat("A", 42) + "B=", "k:1: the key is no base64"},
		"zero":        {fixed(0), "k:1: the key is all zero"},
		"duplicate":   {fixed(1) + "\n#\n" + fixed(2) + "\n" + fixed(1), "k:4: the same key as in line 1"},
		"too many":    {many, "k:9: more than 8 keys"},
		"huge":        {strings.Repeat("#", maxFile+1), "k: longer than"},
		"binary junk": {"\x00\xff\xfe", "k:1: a line of an unknown kind"},
	} {
		k, err := Parse("k", []byte(c.src))
		if k != nil || err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", what, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), b64(30)[:20]) {
			t.Errorf("%s: the error shows a key: %v", what, err)
		}
	}
}

func TestFromPassphrases(t *testing.T) {
	a, err := FromPassphrases("one", "two")
	if err != nil {
		t.Fatal(err)
	}
	if a.secrets[0] == a.secrets[1] || len(a.Gossip()) != 2 {
		t.Fatal("keys", a)
	}
	again, err := Parse("written", a.Text())
	if err != nil || len(again.secrets) != 2 || again.secrets[0] != a.secrets[0] || again.secrets[1] != a.secrets[1] {
		t.Fatal("the key file that they make:", again, err)
	}
	for _, bad := range [][]string{nil, {""}, {"x", "x"}, {"a", ""}} {
		if _, err := FromPassphrases(bad...); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(fixed(1) + "\n# x\n" + fixed(2)))
	f.Add([]byte(keyWord + " AAAA"))
	f.Fuzz(func(t *testing.T, src []byte) {
		k, err := Parse("f", src)
		if (k == nil) == (err == nil) {
			t.Fatal("neither keys nor an error")
		}
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f:") {
				t.Fatal("an error without a place:", err)
			}
			return
		}
		seen := map[secret]bool{}
		for _, s := range k.secrets {
			if s == (secret{}) || seen[s] {
				t.Fatal("a zero or repeated key was accepted")
			}
			seen[s] = true
		}
	})
}
