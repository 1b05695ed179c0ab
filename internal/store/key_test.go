package store

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var tokens = regexp.MustCompile(`^[-_=a-zA-Z0-9]+(\.[-_=a-zA-Z0-9]+)*$`)

func checkKey(t interface{ Errorf(string, ...any) }, key string) {
	if ValidateKey(key) != nil {
		return
	}
	subject := EncodeKey(key)
	if !tokens.MatchString(subject) || strings.Count(subject, ".") != strings.Count(key, "/") {
		t.Errorf("key %q becomes subject %q", key, subject)
	}
	if back, err := DecodeKey(subject); err != nil || back != key {
		t.Errorf("key %q becomes %q and comes back as %q, %v", key, subject, back, err)
	}
	for part := range strings.SplitSeq(key+"/", "/") {
		if token := EncodePart(part); !tokens.MatchString(token) || strings.Contains(token, ".") {
			t.Errorf("part %q becomes %q", part, token)
		}
	}
}

func FuzzKey(f *testing.F) {
	for _, s := range []string{"a", "a/b.c", "*", ">", "=2e", "a b", "ä", "$KV", "a//b", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		checkKey(t, s)
		if key, err := DecodeKey(s); err == nil && EncodeKey(key) == s {
			checkKey(t, key)
		}
	})
}

// A prefix's filter covers every key with that prefix.
func TestFilterCoversItsPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringMatching(`[ab.*é]{1,3}(/[ab.*é]{1,3}){0,3}`).Draw(t, "key")
		prefix := key[:rapid.IntRange(0, len(key)).Draw(t, "length")]
		filter := filterFor(prefix)
		if base, ok := strings.CutSuffix(filter, ">"); !ok || !strings.HasPrefix(EncodeKey(key), base) {
			t.Errorf("prefix %q has filter %q, which misses %q", prefix, filter, EncodeKey(key))
		}
		checkKey(t, key)
	})
}
