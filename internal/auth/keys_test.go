package auth

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

func open(t *testing.T, cfg Config) *Keys {
	t.Helper()
	if cfg.Store == nil {
		cfg.Store = store.Memory()
	}
	k, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func create(t *testing.T, k *Keys, subject, namespace string, admin bool) (string, Info) {
	t.Helper()
	key, info, err := k.Create(t.Context(), subject, namespace, admin)
	if err != nil {
		t.Fatal(err)
	}
	return key, info
}

func TestAKeyOpensItsNamespaceAndNoOther(t *testing.T) {
	k := open(t, Config{})
	key, info := create(t, k, "ci", "green", false)
	id, err := k.Authenticate(t.Context(), "bearer  "+key, "192.0.2.1:9")
	if err != nil {
		t.Fatal(err)
	}
	if id.KeyID != info.ID || id.Subject != "ci" || id.Admin {
		t.Errorf("identity is %+v", id)
	}
	if err := id.May("green"); err != nil {
		t.Errorf("its own namespace: %v", err)
	}
	for _, ns := range []string{"blue", "", "gree", "green2"} {
		if err := id.May(ns); faas.CodeOf(err) != faas.NotFound {
			t.Errorf("May(%q) = %v, want not found", ns, err)
		}
	}
	if (Identity{}).May("") == nil || (Identity{Namespaces: []string{"x"}}).May("x") == nil {
		t.Error("nobody may do something")
	}
	admin, _ := create(t, k, "", "", true)
	if id, err = k.Authenticate(t.Context(), "Bearer "+admin, ""); err != nil || id.May("blue") != nil {
		t.Errorf("admin: %+v, %v", id, err)
	}
}

func TestRefusalsDoNotTellKeysApart(t *testing.T) {
	k := open(t, Config{Attempts: 1000})
	key, info := create(t, k, "", "green", false)
	other, gone := create(t, k, "", "green", false)
	if err := k.Revoke(t.Context(), "green", gone.ID); err != nil {
		t.Fatal(err)
	}
	var first string
	for _, header := range []string{
		"Bearer " + key[:len(key)-1] + "x",
		"Bearer " + key[:len(key)-1],
		"Bearer " + key + "0",
		"Bearer " + strings.ToUpper(key),
		"Bearer " + other,
		"Bearer brasa_000000000000_" + strings.Repeat("0", 64),
		"Bearer brasa_" + info.ID + "_" + strings.Repeat("0", 64),
		"Bearer", "Bearer ", "Basic " + key, key, "Bearer \x00", strings.Repeat("a", 10_000),
	} {
		_, err := k.Authenticate(t.Context(), header, "192.0.2.1:9")
		if faas.CodeOf(err) != faas.Unauthenticated {
			t.Errorf("%.60q: %v, want unauthenticated", header, err)
			continue
		}
		if first == "" {
			first = err.Error()
		}
		if err.Error() != first {
			t.Errorf("%.60q: %q, want the same as the others: %q", header, err, first)
		}
	}
}

func TestOnlyTheDigestIsStored(t *testing.T) {
	s := store.Memory()
	k := open(t, Config{Store: s})
	key, _ := create(t, k, "", "green", false)
	records, err := s.List(t.Context(), "", "", 0)
	if err != nil || len(records) != 1 {
		t.Fatal(len(records), err)
	}
	if strings.Contains(string(records[0].Value), key[len(key)-secretLen:]) {
		t.Errorf("the record holds the key's secret part: %s", records[0].Value)
	}
	// It is enough for another process to know the key.
	if _, err := open(t, Config{Store: s}).Authenticate(t.Context(), "Bearer "+key, ""); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

func TestAGuesserWaitsAndHisNeighbourDoesNot(t *testing.T) {
	k := open(t, Config{Attempts: 3})
	right, _ := create(t, k, "", "green", false)
	fresh, _ := create(t, k, "", "green", false)
	ask := func(key, remote string) faas.Code {
		_, err := k.Authenticate(t.Context(), "Bearer "+key, remote)
		return faas.CodeOf(err)
	}
	if c := ask(right, "192.0.2.1:1"); c != faas.OK {
		t.Fatal(c)
	}
	for range 3 {
		if c := ask("wrong", "192.0.2.1:2"); c != faas.Unauthenticated {
			t.Fatalf("got %v, want unauthenticated", c)
		}
	}
	if c := ask("wrong", "192.0.2.1:3"); c != faas.Overloaded {
		t.Errorf("fourth guess: %v, want overloaded", c)
	}
	if c := ask(fresh, "192.0.2.1:3"); c != faas.Overloaded {
		t.Errorf("a right guess meanwhile: %v, want overloaded, else waiting would not slow guessing", c)
	}
	if c := ask(right, "192.0.2.1:4"); c != faas.OK {
		t.Errorf("a key known from that address: %v", c)
	}
	if c := ask(fresh, "192.0.2.2:1"); c != faas.OK {
		t.Errorf("another address: %v", c)
	}
}

func TestTheNetworkOfIPv6IsOneRemote(t *testing.T) {
	for a, want := range map[string]string{
		"[2001:db8::1]:80": "2001:db8::/64", "[2001:db8::2:1]:9": "2001:db8::/64", "[::ffff:192.0.2.1]:5": "192.0.2.1",
		"192.0.2.1:5": "192.0.2.1", "[fe80::1%eth0]:5": "fe80::/64", "": "", "@": "@",
	} {
		if got := network(a); got != want {
			t.Errorf("network(%q) = %q, want %q", a, got, want)
		}
	}
}

func TestRememberedRemotesAreBounded(t *testing.T) {
	g := newGuesses(3)
	for i := range mostRemotes + 500 {
		g.wrong(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255))
	}
	if n := len(g.from); n > mostRemotes {
		t.Errorf("%d remotes are remembered, want at most %d", n, mostRemotes)
	}
}

func TestKeysOfOthersCannotBeSeenOrRevoked(t *testing.T) {
	k := open(t, Config{})
	_, mine := create(t, k, "", "green", false)
	_, theirs := create(t, k, "", "blue", false)
	_, admin := create(t, k, "", "", true)
	for _, id := range []string{theirs.ID, admin.ID, "nosuchkey", ""} {
		if err := k.Revoke(t.Context(), "green", id); faas.CodeOf(err) != faas.NotFound {
			t.Errorf("revoke %q: %v, want not found", id, err)
		}
	}
	if l := k.List("green"); len(l) != 1 || l[0].ID != mine.ID {
		t.Errorf("list is %+v", l)
	}
}

func TestANamespacesKeysEndWithIt(t *testing.T) {
	k := open(t, Config{})
	key, _ := create(t, k, "", "green", false)
	kept, _ := create(t, k, "", "blue", false)
	if err := k.RevokeAll(t.Context(), "green"); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Authenticate(t.Context(), "Bearer "+key, ""); err == nil {
		t.Error("a key of the deleted namespace still works")
	}
	if _, err := k.Authenticate(t.Context(), "Bearer "+kept, ""); err != nil {
		t.Errorf("a key of another namespace: %v", err)
	}
}

func TestKeysPerNamespaceAreBounded(t *testing.T) {
	k := open(t, Config{MaxKeys: 2})
	create(t, k, "", "green", false)
	create(t, k, "", "green", false)
	if _, _, err := k.Create(t.Context(), "", "green", false); faas.CodeOf(err) != faas.Overloaded {
		t.Errorf("third key: %v, want overloaded", err)
	}
	create(t, k, "", "blue", false)
}

// A key that another node made or revoked works or fails here once the watch has brought it.
func TestChangesOfOtherNodesArrive(t *testing.T) {
	s := store.Memory()
	here, there := open(t, Config{Store: s}), open(t, Config{Store: s})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- here.Run(ctx) }()
	key, info := create(t, there, "", "green", false)
	for {
		if _, err := here.Authenticate(ctx, "Bearer "+key, ""); err == nil {
			break
		}
		here.guesses = newGuesses(20)
	}
	if err := there.Revoke(ctx, "green", info.ID); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := here.Authenticate(ctx, "Bearer "+key, ""); err != nil {
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWithoutAStoreNothingOpens(t *testing.T) {
	if _, err := Open(t.Context(), Config{}); err == nil {
		t.Error("keys were opened without a store")
	}
}

func TestTheAdminsKeyIsMadeOnceAndKeptFromOthers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "admin.key")
	s := store.Memory()
	k := open(t, Config{Store: s, File: file})
	key, created, err := k.EnsureAdmin(t.Context())
	if err != nil || !created || key == "" {
		t.Fatal(key, created, err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode is %v, %v, want 0600", info.Mode(), err)
	}
	if got, err := ReadFile(file); got != key || err != nil {
		t.Errorf("ReadFile = %q, %v", got, err)
	}
	k = open(t, Config{Store: s, File: file})
	again, created, err := k.EnsureAdmin(t.Context())
	if again != key || created || err != nil {
		t.Errorf("second start: %q, %v, %v, want the same key", again, created, err)
	}

	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(file); faas.CodeOf(err) != faas.Denied {
		t.Errorf("a file that the group can read: %v, want denied", err)
	}
	if _, _, err := k.EnsureAdmin(t.Context()); faas.CodeOf(err) != faas.Denied {
		t.Errorf("start with such a file: %v, want denied", err)
	}

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if key, created, err := k.EnsureAdmin(t.Context()); key != "" || created || err != nil {
		t.Errorf("start without the file: %q, %v, %v, want nothing", key, created, err)
	}
	if err := os.Symlink("/etc/hostname", file); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(file); err == nil {
		t.Error("a link was followed")
	}
}

func TestAFileOfAnotherStoreIsReplaced(t *testing.T) {
	file := filepath.Join(t.TempDir(), "admin.key")
	old, _, err := open(t, Config{File: file}).EnsureAdmin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k := open(t, Config{File: file})
	key, created, err := k.EnsureAdmin(t.Context())
	if err != nil || !created || key == old {
		t.Fatalf("%q, %v, %v: want a new key", key, created, err)
	}
	if got, _ := ReadFile(file); got != key {
		t.Errorf("the file holds %q, want the new key", got)
	}
}

// A key as a password counts where it is asked for as one, and reaches no function.
func TestKeysAsPasswords(t *testing.T) {
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, c := range []struct {
		header, want string
		holds        bool
	}{
		{basic("me:brasa_abc"), "Bearer brasa_abc", true}, {basic(":brasa_a:b"), "Bearer brasa_a:b", true}, {basic("brasa_abc:x"), "Bearer x", false},
		{"bAsIc " + base64.StdEncoding.EncodeToString([]byte("u:p")), "Bearer p", false}, {"Basic !!!", "Basic !!!", false}, {"Basic", "Basic", false},
		{"Bearer brasa_abc", "Bearer brasa_abc", true}, {"", "", false},
	} {
		if got := FromBasic(c.header); got != c.want {
			t.Errorf("%q becomes %q, want %q", c.header, got, c.want)
		}
		if got := Holds(c.header); got != c.holds {
			t.Errorf("%q holds a key: %t, want %t", c.header, got, c.holds)
		}
	}
}
