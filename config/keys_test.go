package config

import (
	"strings"
	"testing"
)

// A key that everybody knows is no key, the active one or not; nor is it shown.
func TestSampleKeysAreRefused(t *testing.T) {
	for _, keys := range [][]Secret{{"HI!"}, {"a real secret", "Hello!"}} {
		_, err := (&Node{Keys: keys}).LoadKeys()
		if err == nil || !strings.Contains(err.Error(), "sample") || strings.Contains(err.Error(), "real") {
			t.Errorf("%v", err)
		}
	}
	if _, err := (&Node{Keys: []Secret{"a real secret"}}).LoadKeys(); err != nil {
		t.Error(err)
	}
}
