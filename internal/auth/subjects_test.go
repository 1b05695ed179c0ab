package auth

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

func TestSubjects(t *testing.T) {
	docs, ctx := store.Memory(), t.Context()
	open := func() *Subjects {
		t.Helper()
		s, err := OpenSubjects(ctx, Config{Store: docs, Attempts: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s, other := open(), open()
	watching, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- other.Run(watching) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	made, err := s.Put(ctx, "ada@example.com", "shop", "", "", false)
	if err != nil || len(made.Key) != 64 || !isUUID(made.UUID) {
		t.Fatalf("made %+v, %v", made, err)
	}
	check := func(s *Subjects, uuid, key string, want faas.Code) {
		t.Helper()
		who, err := s.Authenticate(uuid, key, "10.0.0.1:1")
		if faas.CodeOf(err) != want {
			t.Errorf("%.20q: %v, want %v", uuid, err, want)
		}
		if err == nil && (who.Name != "ada@example.com" || who.Namespace != "shop") {
			t.Errorf("authenticated %+v", who)
		}
	}
	check(s, made.UUID, made.Key, faas.OK)
	for _, x := range []struct{ uuid, key string }{
		{made.UUID, made.Key[:63]}, {made.UUID, made.Key + "x"}, {made.UUID, strings.Repeat("0", 64)}, {made.UUID, ""}, {newUUID(), made.Key}, {"", ""},
	} {
		check(s, x.uuid, x.key, faas.Unauthenticated)
	}
	check(open(), made.UUID, made.Key, faas.OK) // another start
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); {
			if time.Now().After(end) {
				t.Fatalf("it did not come to be: %s", what)
			}
			time.Sleep(time.Millisecond)
		}
	}
	until("another server knows it", func() bool { _, err := other.Get("ada@example.com"); return err == nil })
	check(other, made.UUID, made.Key, faas.OK)
	if err := s.Block(ctx, "ada@example.com", true); err != nil {
		t.Fatal(err)
	}
	check(s, made.UUID, made.Key, faas.Unauthenticated)
	until("another server knows that it is blocked", func() bool { i, _ := other.Get("ada@example.com"); return i.Blocked })
	check(other, made.UUID, made.Key, faas.Unauthenticated)
	if err := s.Block(ctx, "ada@example.com", false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(ctx, "ada@example.com", "shop", "", "", false); faas.CodeOf(err) != faas.Conflict {
		t.Errorf("a second key of a namespace: %v", err)
	}
	if _, err := s.Put(ctx, "somebody", "x", made.UUID, made.Key, true); faas.CodeOf(err) != faas.Conflict {
		t.Errorf("somebody else's UUID: %v", err)
	}
	anew, err := s.Put(ctx, "ada@example.com", "shop", "", "", true)
	if err != nil {
		t.Fatal(err)
	}
	check(s, made.UUID, made.Key, faas.Unauthenticated)
	check(s, anew.UUID, anew.Key, faas.OK)
	if _, err := s.Put(ctx, "ada@example.com", "cellar", anew.UUID, anew.Key, true); faas.CodeOf(err) != faas.Conflict {
		t.Errorf("a UUID for two namespaces: %v", err)
	}
	if err := s.Delete(ctx, "ada@example.com", "nowhere"); faas.CodeOf(err) != faas.NotFound {
		t.Errorf("a key of a namespace that it has none of: %v", err)
	}
	if err := s.Delete(ctx, "ada@example.com", ""); err != nil {
		t.Fatal(err)
	}
	check(s, anew.UUID, anew.Key, faas.Unauthenticated)
	until("another server knows that it is gone", func() bool { return len(other.List()) == 0 })
}

// A namespace has the name that clients call it by as long as anybody has a key of it.
func TestNamesOfNamespaces(t *testing.T) {
	s, err := OpenSubjects(t.Context(), Config{Store: store.Memory()})
	if err != nil {
		t.Fatal(err)
	}
	const name = "ada@example.com"
	native := faas.NativeName(name)
	check := func(when, want string) {
		t.Helper()
		if got := s.NamespaceName(native); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	put := func(subject string, replace bool) {
		t.Helper()
		if _, err := s.Put(t.Context(), subject, name, "", "", replace); err != nil {
			t.Fatal(err)
		}
	}
	rm := func(subject string) {
		t.Helper()
		if err := s.Delete(t.Context(), subject, name); err != nil {
			t.Fatal(err)
		}
	}
	check("nobody has a key", native)
	put("first", false)
	put("second", false)
	put("second", true)
	check("two have keys", name)
	rm("first")
	check("one has a key", name)
	rm("second")
	check("nobody has a key again", native)
	if got := s.NamespaceName("shop"); got != "shop" {
		t.Errorf("a name that is not encoded: %s", got)
	}
}

func TestGuessingSubjectsIsSlowedDown(t *testing.T) {
	s, err := OpenSubjects(t.Context(), Config{Store: store.Memory(), Attempts: 3})
	if err != nil {
		t.Fatal(err)
	}
	var last error
	for range 5 {
		_, last = s.Authenticate(newUUID(), strings.Repeat("x", 64), "10.0.0.1:1")
	}
	if faas.CodeOf(last) != faas.Overloaded {
		t.Errorf("the fifth wrong key: %v", last)
	}
	if _, err := s.Authenticate(newUUID(), strings.Repeat("x", 64), "10.0.0.2:1"); faas.CodeOf(err) != faas.Unauthenticated {
		t.Errorf("another address: %v", err)
	}
}
