package trust

import (
	"fmt"
	"strings"
	"testing"
)

func TestTokenComesBackWhole(t *testing.T) {
	k := keysOf(t)
	tok := k.NewToken("web")
	got, err := ParseToken(" " + tok.Text() + "\n")
	if err != nil || got != tok || got.Fingerprint != k.Fingerprint() {
		t.Fatalf("%+v, %v; want %+v", got, err, tok)
	}
	if other := k.NewToken("web"); other.ID == tok.ID || other.Secret == tok.Secret || other.Hash() == tok.Hash() {
		t.Error("two tokens have something in common")
	}
	if s := fmt.Sprint(tok); strings.Contains(s, tok.Secret) {
		t.Errorf("printed, it shows its secret: %s", s)
	}
}

func TestDamagedTokenIsRefused(t *testing.T) {
	text := keysOf(t).NewToken("web").Text()
	for _, bad := range []string{"", "x", "hanode-join-1.", "hanode-join-1.x", text[:len(text)-1], text + "A", strings.Replace(text, ".", "-", 1), "hanode-join-1." + strings.Repeat("A", 3000)} {
		if tok, err := ParseToken(bad); err == nil {
			t.Errorf("%q was taken for %+v", bad, tok)
		}
	}
	for i := len(tokenWord) + 1; i < len(text); i++ {
		b := []byte(text)
		b[i] = map[bool]byte{true: 'B', false: 'A'}[b[i] == 'A']
		if _, err := ParseToken(string(b)); err == nil {
			t.Errorf("a token that is wrong at %d was taken", i)
		} else if strings.Contains(err.Error(), string(b)) {
			t.Errorf("the error shows the token: %v", err)
		}
	}
}

// A node that joined has the same file, so that a rotation of keys finds it alike.
func TestKeyFileTextIsReadAgain(t *testing.T) {
	k := keysOf(t)
	again, err := Parse("key", k.Text())
	if err != nil || again.Fingerprint() != k.Fingerprint() || len(again.secrets) != len(k.secrets) {
		t.Fatalf("%v, %v", again, err)
	}
	phrases, err := FromPassphrases("Hi!", "old")
	if err != nil {
		t.Fatal(err)
	}
	if again, err = Parse("key", phrases.Text()); err != nil || again.secrets[1] != phrases.secrets[1] {
		t.Errorf("%v, %v", again, err)
	}
}

func keysOf(t *testing.T) *Keys {
	t.Helper()
	k, err := Parse("key", []byte(Generate()+"\n"+Generate()+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Whatever is pasted makes a token or an error, and what is a token has one text.
func FuzzParseToken(f *testing.F) {
	k, err := Parse("key", []byte(Generate()+"\n"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(k.NewToken("web").Text())
	f.Add("hanode-join-1.e30")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := ParseToken(text)
		if err != nil {
			return
		}
		if again, err := ParseToken(tok.Text()); err != nil || again != tok {
			t.Fatalf("%+v, %v", again, err)
		}
	})
}
