package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

var testKey = bytes.Repeat([]byte{7}, keyBytes)

func openCatalog(t testing.TB, docs, secs store.Store, change ...func(*Config)) *Catalog {
	t.Helper()
	config := Config{Store: docs, Secrets: secs, Key: testKey}
	for _, f := range change {
		f(&config)
	}
	c, err := Open(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, change ...func(*Config)) *Catalog {
	t.Helper()
	return openCatalog(t, store.Memory(), store.Memory(), change...)
}

// run runs the catalog until the test ends.
func run(t testing.TB, c *Catalog) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func name(s string) faas.Name {
	n, err := faas.ParseName(s, DefaultNamespace)
	if err != nil {
		panic(err)
	}
	return n
}

// revision makes the nth revision of a function.
func revision(fn string, n int) *faas.Revision {
	return &faas.Revision{
		Name: name(fn), Runtime: "python", Entry: "main.py", Code: faas.Digest(fmt.Sprintf("sha256:%064x", n)),
		Env: map[string]string{"N": fmt.Sprint(n)}, Limits: faas.DefaultLimits(), Network: faas.NetworkNone,
	}
}

func publish(t testing.TB, c *Catalog, fn string, n int) *faas.Revision {
	t.Helper()
	rev := revision(fn, n)
	if _, err := c.Publish(t.Context(), rev, PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	return rev
}

func wantCode(t testing.TB, err error, code faas.Code, words ...string) {
	t.Helper()
	e, ok := errors.AsType[*faas.Error](err)
	if !ok || e.Code != code {
		t.Errorf("got %v, want %s", err, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(e.Error()+" | "+e.Fix+" | "+e.Limit, w) {
			t.Errorf("%q, fix %q, limit %q do not say %q", e, e.Fix, e.Limit, w)
		}
	}
}

func TestPublishAndResolve(t *testing.T) {
	c := open(t)
	_, _, err := c.Resolve(faas.Ref{Name: name("pay")})
	wantCode(t, err, faas.NotFound, `function "pay" does not exist`, "brasa deploy PATH --name pay")
	first := publish(t, c, "pay", 1)
	second := publish(t, c, "pay", 2)
	fn, rev, err := c.Resolve(faas.Ref{Name: name("pay")})
	if err != nil || rev.ID != second.ID || fn.Active != second.ID || fn.UID == "" || fn.Public {
		t.Errorf("Resolve = %+v, %v, %v", fn, rev, err)
	}
	if want := []faas.RevisionID{second.ID, first.ID}; !slices.Equal(fn.Revisions, want) {
		t.Errorf("revisions %v, want %v", fn.Revisions, want)
	}
	if _, rev, err := c.Resolve(faas.Ref{Name: name("pay"), Revision: first.ID}); err != nil || rev.Env["N"] != "1" {
		t.Errorf("Resolve of a pinned revision = %+v, %v", rev, err)
	}
	_, _, err = c.Resolve(faas.Ref{Name: name("pay"), Revision: "beef"})
	wantCode(t, err, faas.NotFound, "no revision", "brasa versions pay")
	_, _, err = c.Resolve(faas.Ref{Name: name("apy")})
	wantCode(t, err, faas.NotFound, `did you mean "pay"?`)

	again := publish(t, c, "pay", 1)
	if fn, _ := c.Function(name("pay")); fn.Active != again.ID || len(fn.Revisions) != 2 {
		t.Errorf("the same revision again: %+v", fn)
	}
	if fn, err := c.Activate(t.Context(), name("pay"), second.ID[:8]); err != nil || fn.Active != second.ID {
		t.Errorf("Activate = %+v, %v", fn, err)
	}
	_, err = c.Activate(t.Context(), name("pay"), "ffff0000")
	wantCode(t, err, faas.NotFound)
	_, err = c.Activate(t.Context(), name("nobody"), second.ID)
	wantCode(t, err, faas.NotFound)
	if revs, err := c.Revisions(name("pay")); err != nil || len(revs) != 2 {
		t.Errorf("Revisions = %v, %v", revs, err)
	}
	if _, err := c.Revision(name("pay"), first.ID[:3]); err == nil {
		t.Error("three digits are enough for a revision")
	}
}

func TestPublishOptions(t *testing.T) {
	c := open(t)
	yes, no, none := true, false, faas.RevisionID("")
	rev := revision("f", 1)
	fn, err := c.Publish(t.Context(), rev, PublishOptions{Public: &yes, Expect: &none})
	if err != nil || !fn.Public {
		t.Fatalf("Publish = %+v, %v", fn, err)
	}
	_, err = c.Publish(t.Context(), revision("f", 2), PublishOptions{Expect: &none})
	wantCode(t, err, faas.Conflict, "brasa versions f")
	if fn, err := c.Publish(t.Context(), revision("f", 2), PublishOptions{Expect: &rev.ID}); err != nil || !fn.Public {
		t.Errorf("Publish = %+v, %v; want it to stay public", fn, err)
	}
	if fn, err := c.Publish(t.Context(), revision("f", 2), PublishOptions{Public: &no}); err != nil || fn.Public {
		t.Errorf("Publish = %+v, %v; want it not public any more", fn, err)
	}
	_, err = c.Publish(t.Context(), revision("g", 1), PublishOptions{Expect: &rev.ID})
	wantCode(t, err, faas.Conflict)
	forged := revision("f", 3)
	forged.ID = rev.ID
	_, err = c.Publish(t.Context(), forged, PublishOptions{})
	wantCode(t, err, faas.Internal)
	evil := revision("f", 3)
	evil.Name.Function = "../f"
	_, err = c.Publish(t.Context(), evil, PublishOptions{})
	wantCode(t, err, faas.Invalid)
	lost := revision("f", 3)
	lost.Name.Namespace = "nowhere"
	_, err = c.Publish(t.Context(), lost, PublishOptions{})
	wantCode(t, err, faas.NotFound, "nowhere")
}

// Functions a, a/b and namespaces that look alike do not meet in the store's keys.
func TestNamesDoNotMeet(t *testing.T) {
	c := open(t)
	names := []string{"a", "a/b", "b/a", "a.b", "A", "a-b", "a_b"}
	for i, n := range names {
		publish(t, c, n, i)
	}
	c2 := openCatalog(t, c.config.Store, c.config.Secrets)
	for i, n := range names {
		if _, rev, err := c2.Resolve(faas.Ref{Name: name(n)}); err != nil || rev.Env["N"] != fmt.Sprint(i) {
			t.Errorf("%s: %v, %v", n, rev, err)
		}
	}
	if err := c.Delete(t.Context(), name("a")); err != nil {
		t.Fatal(err)
	}
	if got := len(c.Functions(DefaultNamespace)); got != len(names)-1 {
		t.Errorf("%d functions after deleting one of %d", got, len(names))
	}
	if _, _, err := c.Resolve(faas.Ref{Name: name("a/b")}); err != nil {
		t.Errorf("a/b went with a: %v", err)
	}
}

func revisionsStored(t *testing.T, c *Catalog) int {
	t.Helper()
	records, err := c.config.Store.List(t.Context(), kindRevision, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return len(records)
}

func TestHistoryIsLimited(t *testing.T) {
	c := open(t)
	var ids []faas.RevisionID
	for i := range 15 {
		ids = append(ids, publish(t, c, "f", i).ID)
	}
	fn, err := c.Function(name("f"))
	if err != nil || len(fn.Revisions) != 10 || fn.Revisions[0] != ids[14] || fn.Revisions[9] != ids[5] {
		t.Errorf("%+v, %v", fn, err)
	}
	if n := revisionsStored(t, c); n != 10 {
		t.Errorf("%d revisions stored, want 10", n)
	}
	if got := len(c.Digests()); got != 10 {
		t.Errorf("%d digests in use, want 10", got)
	}
	_, _, err = c.Resolve(faas.Ref{Name: name("f"), Revision: ids[0]})
	wantCode(t, err, faas.NotFound)
}

func TestDeleteAndMakeAgain(t *testing.T) {
	c := open(t)
	publish(t, c, "f", 1)
	first, _ := c.Function(name("f"))
	if err := c.Delete(t.Context(), name("f")); err != nil {
		t.Fatal(err)
	}
	_, _, err := c.Resolve(faas.Ref{Name: name("f")})
	wantCode(t, err, faas.NotFound)
	wantCode(t, c.Delete(t.Context(), name("f")), faas.NotFound)
	if n := revisionsStored(t, c); n != 0 {
		t.Errorf("%d revisions left", n)
	}
	if got := c.Functions(DefaultNamespace); len(got) != 0 {
		t.Errorf("functions left: %v", got)
	}
	publish(t, c, "f", 1)
	if second, _ := c.Function(name("f")); second.UID == first.UID || second.UID == "" || len(second.Revisions) != 1 {
		t.Errorf("made again: %+v, before %+v", second, first)
	}
}

func TestTombstonesAndOrphansAreCollected(t *testing.T) {
	c := open(t)
	publish(t, c, "gone", 1)
	if err := c.Delete(t.Context(), name("gone")); err != nil {
		t.Fatal(err)
	}
	publish(t, c, "kept", 1)
	orphan := revision("kept", 2)
	orphan.ID = orphan.Digest()
	if err := c.write(t.Context(), revisionKey(orphan.Name, orphan.ID), revisionDocument{Stored: time.Now(), Revision: orphan}, store.Any); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		records, err := c.config.Store.List(t.Context(), "", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		return len(records)
	}
	before := count()
	if err := c.Collect(t.Context()); err != nil || count() != before {
		t.Errorf("what is young was collected: %d of %d left, %v", count(), before, err)
	}
	if err := c.collect(t.Context(), time.Now().Add(2*tombstoneAge)); err != nil || count() != before-2 {
		t.Errorf("%d of %d left, %v; want the orphan and the tombstone gone", count(), before, err)
	}
	if _, _, err := c.Resolve(faas.Ref{Name: name("kept")}); err != nil {
		t.Error(err)
	}
	if c.packed(name("gone")) != nothing {
		t.Error("the deleted function is still in memory")
	}
}

func TestQuotas(t *testing.T) {
	c := open(t, func(c *Config) { c.MaxFunctions, c.MaxSecrets, c.MaxNamespaces = 2, 2, 2 })
	publish(t, c, "a", 1)
	publish(t, c, "b", 1)
	_, err := c.Publish(t.Context(), revision("c", 1), PublishOptions{})
	wantCode(t, err, faas.Overloaded, "functions_per_namespace", "no more than 2")
	publish(t, c, "b", 2) // not a new one
	if n := c.countFunctions(DefaultNamespace); n != 2 {
		t.Errorf("two functions are counted as %d", n)
	}
	if err := c.Delete(t.Context(), name("a")); err != nil {
		t.Fatal(err)
	}
	publish(t, c, "c", 1)
	for _, n := range []string{"A", "B", "A"} {
		if _, err := c.PutSecret(t.Context(), DefaultNamespace, n, []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.PutSecret(t.Context(), DefaultNamespace, "C", []byte("v"))
	wantCode(t, err, faas.Overloaded, "secrets_per_namespace")
	if _, err := c.CreateNamespace(t.Context(), "two"); err != nil {
		t.Fatal(err)
	}
	_, err = c.CreateNamespace(t.Context(), "three")
	wantCode(t, err, faas.Overloaded, "namespaces")
	// At once, too: as many win as there is room for.
	c = open(t, func(c *Config) { c.MaxFunctions = 3 })
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			if _, err := c.Publish(t.Context(), revision(fmt.Sprintf("f%d", i), 1), PublishOptions{}); err == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if n := won.Load(); n != 3 || len(c.Functions(DefaultNamespace)) != 3 {
		t.Errorf("%d of 20 were published at once, most is 3", n)
	}
}

func TestNamespaces(t *testing.T) {
	c := open(t)
	ns, err := c.CreateNamespace(t.Context(), "team")
	if err != nil || ns.UID == "" {
		t.Fatal(ns, err)
	}
	_, err = c.CreateNamespace(t.Context(), "team")
	wantCode(t, err, faas.Conflict)
	for _, bad := range []string{"", "a/b", "..", "a b", strings.Repeat("x", 64)} {
		_, err := c.CreateNamespace(t.Context(), bad)
		wantCode(t, err, faas.Invalid)
	}
	rev := revision("f", 1)
	rev.Name.Namespace = "team"
	if _, err := c.Publish(t.Context(), rev, PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutSecret(t.Context(), "team", "S", []byte("v")); err != nil {
		t.Fatal(err)
	}
	wantCode(t, c.DeleteNamespace(t.Context(), "team"), faas.Conflict, "brasa rm -n team")
	wantCode(t, c.DeleteNamespace(t.Context(), DefaultNamespace), faas.Conflict)
	wantCode(t, c.DeleteNamespace(t.Context(), "nowhere"), faas.NotFound)
	if err := c.Delete(t.Context(), rev.Name); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteNamespace(t.Context(), "team"); err != nil {
		t.Fatal(err)
	}
	if left, err := c.config.Secrets.List(t.Context(), "", "", 0); err != nil || len(left) != 1 || left[0].Key != checkDocument {
		t.Errorf("secrets left: %v, %v", left, err)
	}
	again, err := c.CreateNamespace(t.Context(), "team")
	if err != nil || again.UID == ns.UID {
		t.Errorf("made again: %+v, %v; before %+v", again, err, ns)
	}
	if got := c.Namespaces(); len(got) != 2 || got[0].Name != DefaultNamespace || got[1].Name != "team" {
		t.Errorf("Namespaces = %v", got)
	}
}

func TestSecrets(t *testing.T) {
	c := open(t)
	var events []Event
	c.OnChange(func(e Event) { events = append(events, e) })
	const canary = "canary-5d1f"
	a, err := c.PutSecret(t.Context(), DefaultNamespace, "API_KEY", []byte(canary))
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.PutSecret(t.Context(), DefaultNamespace, "OTHER", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	values, epoch, err := c.OpenSecrets(t.Context(), DefaultNamespace, []string{"API_KEY", "OTHER"})
	if err != nil || values["API_KEY"] != canary || values["OTHER"] != "x" || epoch != b.Epoch || epoch <= a.Epoch {
		t.Errorf("OpenSecrets = %v, %d, %v", values, epoch, err)
	}
	// F4, F5: the value is in no store, in no list and in no event.
	for _, s := range []store.Store{c.config.Store, c.config.Secrets} {
		records, err := s.List(t.Context(), "", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if bytes.Contains(r.Value, []byte(canary)) {
				t.Errorf("the value of the secret is in %q", r.Key)
			}
		}
	}
	if s := fmt.Sprintf("%+v %+v", c.Secrets(DefaultNamespace), events); strings.Contains(s, canary) || len(events) != 2 {
		t.Errorf("%s", s)
	}
	rotated, err := c.PutSecret(t.Context(), DefaultNamespace, "API_KEY", []byte("new"))
	if err != nil || rotated.Epoch <= epoch {
		t.Errorf("rotated: %+v, %v", rotated, err)
	}
	if last := events[len(events)-1]; last.Kind != SecretChanged || last.Secret != "API_KEY" || last.Epoch != rotated.Epoch {
		t.Errorf("rotation told as %+v", last)
	}
	if v, e, err := c.OpenSecrets(t.Context(), DefaultNamespace, []string{"API_KEY"}); err != nil || v["API_KEY"] != "new" || e != rotated.Epoch {
		t.Errorf("OpenSecrets after rotation = %v, %d, %v", v, e, err)
	}
	_, _, err = c.OpenSecrets(t.Context(), DefaultNamespace, []string{"NONE"})
	wantCode(t, err, faas.Failed, "brasa secret put NONE")
	if _, err := c.CreateNamespace(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	_, _, err = c.OpenSecrets(t.Context(), "other", []string{"API_KEY"})
	wantCode(t, err, faas.Failed) // F2
	for _, bad := range []struct{ name, value string }{{"a b", "x"}, {"", "x"}, {"../x", "x"}, {"NUL", "a\x00b"}} {
		_, err := c.PutSecret(t.Context(), DefaultNamespace, bad.name, []byte(bad.value))
		wantCode(t, err, faas.Invalid)
	}
	_, err = c.PutSecret(t.Context(), DefaultNamespace, "BIG", make([]byte, MaxSecretBytes+1))
	wantCode(t, err, faas.TooLarge, "secret_bytes")
	_, err = c.PutSecret(t.Context(), "nowhere", "S", nil)
	wantCode(t, err, faas.NotFound)
	if err := c.DeleteSecret(t.Context(), DefaultNamespace, "OTHER"); err != nil {
		t.Fatal(err)
	}
	if last := events[len(events)-1]; last.Kind != SecretDeleted || last.Secret != "OTHER" {
		t.Errorf("deletion told as %+v", last)
	}
	wantCode(t, c.DeleteSecret(t.Context(), DefaultNamespace, "OTHER"), faas.NotFound)
	if got := c.Secrets(DefaultNamespace); len(got) != 1 || got[0].Name != "API_KEY" {
		t.Errorf("Secrets = %v", got)
	}
}

// A sealed secret that is moved to another name or namespace, or changed, does not open.
func TestSecretsAreBoundToTheirPlace(t *testing.T) {
	c := open(t)
	if _, err := c.CreateNamespace(t.Context(), "evil"); err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct{ ns, name string }{{DefaultNamespace, "A"}, {DefaultNamespace, "B"}, {"evil", "A"}} {
		if _, err := c.PutSecret(t.Context(), s.ns, s.name, []byte("value of "+s.ns+s.name)); err != nil {
			t.Fatal(err)
		}
	}
	move := func(from, to string) {
		t.Helper()
		r, err := c.config.Secrets.Get(t.Context(), from)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.config.Secrets.Put(t.Context(), to, r.Value, store.Any); err != nil {
			t.Fatal(err)
		}
	}
	move(secretKey(DefaultNamespace, "A"), secretKey(DefaultNamespace, "B"))
	move(kindKey+DefaultNamespace, kindKey+"evil")
	move(secretKey(DefaultNamespace, "A"), secretKey("evil", "A"))
	c = openCatalog(t, c.config.Store, c.config.Secrets)
	for _, s := range []struct{ ns, name string }{{DefaultNamespace, "B"}, {"evil", "A"}} {
		v, _, err := c.OpenSecrets(t.Context(), s.ns, []string{s.name})
		if err == nil {
			t.Errorf("%s/%s opened to %q", s.ns, s.name, v)
		}
	}
	if v, _, err := c.OpenSecrets(t.Context(), DefaultNamespace, []string{"A"}); err != nil || v["A"] == "" {
		t.Errorf("the one that was not moved: %v, %v", v, err)
	}
}

func TestMasterKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret.key")
	key, err := LoadKey(path)
	if err != nil || len(key) != keyBytes || bytes.Equal(key, make([]byte, keyBytes)) {
		t.Fatalf("LoadKey = %x, %v", key, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if again, err := LoadKey(path); err != nil || !bytes.Equal(again, key) {
		t.Errorf("LoadKey again = %x, %v", again, err)
	}
	for why, damage := range map[string]func() error{
		"chmod 600":        func() error { return os.Chmod(path, 0o640) },
		"has 31 bytes":     func() error { return errors.Join(os.Chmod(path, 0o600), os.Truncate(path, 31)) },
		"has 0 bytes":      func() error { return os.Truncate(path, 0) },
		"not a plain file": func() error { return errors.Join(os.Rename(path, path+"2"), os.Symlink(path+"2", path)) },
	} {
		_ = os.Remove(path)
		if err := store.WriteFile(path, key, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(path); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
	}
	// Another key, or none, does not open the store.
	docs, secs := store.Memory(), store.Memory()
	openCatalog(t, docs, secs)
	for _, key := range [][]byte{nil, {}, testKey[1:], bytes.Repeat([]byte{8}, keyBytes)} {
		if _, err := Open(t.Context(), Config{Store: docs, Secrets: secs, Key: key}); err == nil {
			t.Errorf("opened with key %x", key)
		}
	}
}

// Two catalogs on one store are two nodes.
func TestNodesFollowEachOther(t *testing.T) {
	docs, secs := store.Memory(), store.Memory()
	a, b := openCatalog(t, docs, secs), openCatalog(t, docs, secs)
	told, back := make(chan Event, 100), make(chan Event, 100)
	b.OnChange(func(e Event) { told <- e })
	a.OnChange(func(e Event) { back <- e })
	run(t, a)
	run(t, b)
	rev := publish(t, a, "f", 1)
	e := <-told
	if e.Kind != FunctionChanged || e.Function.Active != rev.ID {
		t.Errorf("told %+v", e)
	}
	if _, got, err := b.Resolve(faas.Ref{Name: name("f")}); err != nil || got.ID != rev.ID {
		t.Errorf("Resolve on the other node = %v, %v", got, err)
	}
	info, err := a.PutSecret(t.Context(), DefaultNamespace, "S", []byte("v"))
	if err != nil {
		t.Fatal(err)
	}
	if e := <-told; e.Kind != SecretChanged || e.Epoch != info.Epoch {
		t.Errorf("told %+v", e)
	}
	if v, _, err := b.OpenSecrets(t.Context(), DefaultNamespace, []string{"S"}); err != nil || v["S"] != "v" {
		t.Errorf("OpenSecrets on the other node = %v, %v", v, err)
	}
	if err := a.Delete(t.Context(), name("f")); err != nil {
		t.Fatal(err)
	}
	if e := <-told; e.Kind != FunctionDeleted || e.Function.Active != rev.ID {
		t.Errorf("told %+v", e)
	}
	if _, err := a.CreateNamespace(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	for _, err := b.Namespace("gone"); err != nil; _, err = b.Namespace("gone") { // one that never was is not told of
		time.Sleep(time.Millisecond)
	}
	if err := a.DeleteNamespace(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	if e := <-told; e.Kind != NamespaceDeleted || e.Namespace != "gone" {
		t.Errorf("told %+v", e)
	}
	// Both publish at once; in the end both show the same, and every publication had its turn.
	var wg sync.WaitGroup
	for i, c := range []*Catalog{a, b} {
		wg.Go(func() {
			for n := range 20 {
				if _, err := c.Publish(t.Context(), revision("g", 100*i+n), PublishOptions{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	// Each has seen all that came before once it has seen the other's last.
	for _, last := range []struct {
		by   *Catalog
		name string
		told chan Event
	}{{a, "end-of-a", told}, {b, "end-of-b", back}} {
		end := publish(t, last.by, last.name, 1)
		for e := range last.told {
			if e.Function != nil && e.Function.Active == end.ID {
				break
			}
		}
	}
	ga, _ := a.Function(name("g"))
	gb, _ := b.Function(name("g"))
	if ga.Active != gb.Active || len(ga.Revisions) != 10 {
		t.Errorf("the nodes show %s and %s", ga.Active.Short(), gb.Active.Short())
	}
	for _, c := range []*Catalog{a, b} {
		if revs, err := c.Revisions(name("g")); err != nil || len(revs) != 10 {
			t.Errorf("%d revisions, %v; want 10", len(revs), err)
		}
	}
}

// Readers at full speed while functions come, change and go: each look-up sees one whole state.
func TestResolveWhileWriting(t *testing.T) {
	c := open(t)
	run(t, c)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				for _, n := range []string{"f0", "f1", "f2"} {
					fn, rev, err := c.Resolve(faas.Ref{Name: name(n)})
					if err == nil && (fn.Active != rev.ID || rev.Name.Function != n || fn.Name != rev.Name) {
						t.Errorf("function at %s with revision %s of %s", fn.Active.Short(), rev.ID.Short(), rev.Name)
						return
					}
				}
			}
		})
	}
	var writers sync.WaitGroup
	for w := range 3 {
		writers.Go(func() {
			for i := range 100 {
				rev := revision(fmt.Sprintf("f%d", w), i)
				if _, err := c.Publish(t.Context(), rev, PublishOptions{}); err != nil {
					t.Error(err)
				}
				if _, got, err := c.Resolve(faas.Ref{Name: rev.Name}); err != nil || got.ID != rev.ID {
					t.Errorf("whoever published does not read it: %v, %v", got, err)
				}
				if i%10 == 9 {
					if err := c.Delete(t.Context(), rev.Name); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	stop()
	wg.Wait()
}

func TestDamagedDocumentDoesNotStopTheNode(t *testing.T) {
	docs, secs := store.Memory(), store.Memory()
	c := openCatalog(t, docs, secs)
	publish(t, c, "good", 1)
	for _, key := range []string{"function/default/bad", "revision/default/bad/00", "revision/x", "function/a/b/c/d", "namespace/bad"} {
		if _, err := docs.Put(t.Context(), key, []byte(`{"name":`), store.Any); err != nil {
			t.Fatal(err)
		}
	}
	c = openCatalog(t, docs, secs)
	if _, _, err := c.Resolve(faas.Ref{Name: name("good")}); err != nil {
		t.Error(err)
	}
	_, _, err := c.Resolve(faas.Ref{Name: name("bad")})
	wantCode(t, err, faas.NotFound)
	rev := revision("good", 1)
	if err := docs.Delete(t.Context(), revisionKey(rev.Name, rev.Digest()), store.Any); err != nil {
		t.Fatal(err)
	}
	c = openCatalog(t, docs, secs)
	_, _, err = c.Resolve(faas.Ref{Name: name("good")})
	wantCode(t, err, faas.Unavailable, "brasa deploy good")
}

func TestResolveAllocatesNothing(t *testing.T) {
	c := open(t)
	rev := publish(t, c, "f", 1)
	refs := []faas.Ref{{Name: name("f")}, {Name: name("f"), Revision: rev.ID}}
	if n := testing.AllocsPerRun(1000, func() {
		for _, ref := range refs {
			if _, _, err := c.Resolve(ref); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkResolve puts a look-up beside one in a plain map of the same size. With many functions
// called in turn it is the memory that counts: Resolve reads two lines of it more.
func BenchmarkResolve(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		c := open(b, func(c *Config) { c.MaxFunctions = n })
		refs, plain := make([]faas.Ref, n), map[faas.Name]*faas.Function{}
		for i := range refs {
			rev := revision(fmt.Sprintf("f%d", i), i)
			refs[i].Name = rev.Name
			plain[rev.Name] = &faas.Function{Name: rev.Name}
			publish(b, c, rev.Name.Path(), i)
		}
		b.Run(fmt.Sprintf("catalog/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if _, _, err := c.Resolve(refs[i%n]); err != nil {
						b.Error(err)
					}
				}
			})
		})
		b.Run(fmt.Sprintf("map/%d", n), func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					if plain[refs[i%n].Name] == nil {
						b.Error("missing")
					}
				}
			})
		})
	}
}
