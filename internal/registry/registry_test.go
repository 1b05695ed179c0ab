package registry

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/brasa-dev/brasa/internal/faas"
)

// What is pushed is pulled again, also after a restart.
func TestPushAndPull(t *testing.T) {
	w := newWorld(t, Limits{})
	img := image(t, 1000, 3_000_000, 0)
	if err := crane.Push(img, w.host+"/team/app/web:v1", as("team")...); err != nil {
		t.Fatal(err)
	}
	index, err := random.Index(500, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := crane.Tag(w.host+"/team/app/web:v1", "v2", as("team")...); err != nil {
		t.Fatal(err)
	}
	many, err := name.ParseReference(w.host+"/team/many:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	who := remote.WithAuth(&authn.Basic{Username: "x", Password: "team"})
	if err := remote.WriteIndex(many, index, who); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"at once", "after a restart"} {
		got, err := crane.Pull(w.host+"/team/app/web:v1", as("team")...)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if err := validate.Image(got); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		want, _ := img.Digest()
		if d, err := got.Digest(); err != nil || d != want {
			t.Errorf("%s: the digest is %v, want %v, %v", when, d, want, err)
		}
		if d, err := crane.Digest(w.host+"/team/app/web@"+want.String(), as("admin")...); err != nil || d != want.String() {
			t.Errorf("%s: by digest: %v", when, err)
		}
		if many, err = name.ParseReference(w.host+"/team/many:1", name.Insecure); err != nil {
			t.Fatal(err)
		}
		if got, err := remote.Index(many, who); err != nil {
			t.Errorf("%s: the index: %v", when, err)
		} else if err := validate.Index(got); err != nil {
			t.Errorf("%s: the index: %v", when, err)
		}
		tags, err := crane.ListTags(w.host+"/team/app/web", as("team")...)
		if err != nil || !cmp.Equal(tags, []string{"v1", "v2"}) {
			t.Errorf("%s: the tags are %v, %v", when, tags, err)
		}
		w.srv.Close()
		_ = w.depot.Close()
		w.start()
	}
	body, _, digest, err := w.Manifest(t.Context(), "team/app/web", "v1")
	if want, _ := img.Digest(); err != nil || string(digest) != want.String() || sum(string(body)) != want.String() {
		t.Errorf("for this server itself: %s, %v", digest, err)
	}
	if !w.Serves("registry.example:5000") || w.Serves("ghcr.io") {
		t.Error("it does not know its own name")
	}
}

// Whoever has no key is asked for one as clients expect, and a key opens its namespace alone.
func TestWhoMay(t *testing.T) {
	w := newWorld(t, Limits{})
	if err := crane.Push(image(t, 100), w.host+"/team/app:1", as("team")...); err != nil {
		t.Fatal(err)
	}
	a := w.expect(w.do("", "GET", "/v2/", ""), 401, "UNAUTHORIZED")
	if got := a.header.Get("WWW-Authenticate"); got != `Basic realm="Brasa"` {
		t.Errorf("it asks with %q", got)
	}
	w.expect(w.do("wrong", "GET", "/v2/", ""), 401, "UNAUTHORIZED")
	a = w.expect(w.do("team", "GET", "/v2/", ""), 200, "")
	if a.header.Get("Docker-Distribution-API-Version") != "registry/2.0" || a.body != "{}" {
		t.Errorf("the ping is %q with %v", a.body, a.header)
	}
	w.expect(w.do("", "GET", "/v2/team/app/manifests/1", ""), 401, "UNAUTHORIZED")
	w.expect(w.do("other", "GET", "/v2/team/app/manifests/1", ""), 404, "NAME_UNKNOWN")
	w.expect(w.do("other", "GET", "/v2/team/app/tags/list", ""), 404, "NAME_UNKNOWN")
	w.expect(w.do("other", "POST", "/v2/team/app/blobs/uploads/", ""), 404, "NAME_UNKNOWN")
	w.expect(w.do("other", "DELETE", "/v2/team/app/manifests/1", ""), 404, "NAME_UNKNOWN")
	w.expect(w.do("admin", "GET", "/v2/none/app/manifests/1", ""), 404, "NAME_UNKNOWN")
	if _, err := crane.Pull(w.host+"/team/app:1", as("other")...); err == nil {
		t.Error("another namespace's key pulled the image")
	}
	for who, want := range map[string]string{"team": `{"repositories":["team/app"]}`, "other": `{"repositories":[]}`, "admin": `{"repositories":["team/app"]}`} {
		if a := w.do(who, "GET", "/v2/_catalog", ""); a.body != want {
			t.Errorf("%s sees %s, want %s", who, a.body, want)
		}
	}
	// A blob's digest is no way to it.
	secret := "of the team alone"
	w.expect(w.upload("team", "team/app", secret), 201, "")
	w.expect(w.do("other", "GET", "/v2/other/x/blobs/"+sum(secret), ""), 404, "BLOB_UNKNOWN")
	w.expect(w.do("other", "POST", "/v2/other/x/blobs/uploads/?from=team/app&mount="+sum(secret), ""), 202, "")
	w.expect(w.do("other", "GET", "/v2/other/x/blobs/"+sum(secret), ""), 404, "BLOB_UNKNOWN")
	// A manifest does not bring it either.
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":17,"digest":%q},"layers":[]}`, sum(secret))
	w.expect(w.do("other", "PUT", "/v2/other/x/manifests/1", m, "Content-Type", "application/vnd.oci.image.manifest.v1+json"), 404, "MANIFEST_BLOB_UNKNOWN")
	// A namespace that is made again under its name is another.
	w.mu.Lock()
	w.namespaces = []Namespace{{"team", "uid-new"}, {"other", "uid-other"}}
	w.mu.Unlock()
	w.expect(w.do("team", "GET", "/v2/team/app/manifests/1", ""), 404, "NAME_UNKNOWN")
}

// Names, methods and paths that are none.
func TestRefusals(t *testing.T) {
	w := newWorld(t, Limits{})
	const index = "application/vnd.oci.image.index.v1+json"
	for _, c := range []struct {
		method, path, body, kind string
		status                   int
		code                     string
	}{
		{"GET", "/v2/team/app/manifests/none", "", "", 404, "NAME_UNKNOWN"},
		{"GET", "/v2/team/app/manifests/" + sum("x"), "", "", 404, "NAME_UNKNOWN"},
		{"GET", "/v2/team/app/tags/list", "", "", 404, "NAME_UNKNOWN"},
		{"GET", "/v2/team/app/blobs/" + sum("x"), "", "", 404, "BLOB_UNKNOWN"},
		{"GET", "/v2/team/app/blobs/junk", "", "", 400, "DIGEST_INVALID"},
		{"GET", "/v2/team/app/blobs/sha256:..%2f..%2fetc", "", "", 404, "UNSUPPORTED"},
		{"GET", "/v2/app/tags/list", "", "", 404, "NAME_UNKNOWN"},
		{"GET", "/v2/team/UPPER/tags/list", "", "", 400, "NAME_INVALID"},
		{"GET", "/v2/team/../other/x/tags/list", "", "", 400, "NAME_INVALID"},
		{"GET", "/v2/team/%2e%2e/tags/list", "", "", 400, "NAME_INVALID"},
		{"GET", "/v2/team/" + strings.Repeat("a", 300) + "/tags/list", "", "", 400, "NAME_INVALID"},
		{"GET", "/v2/team/app", "", "", 404, "UNSUPPORTED"},
		{"POST", "/v2/team/app/tags/list", "", "", 405, "UNSUPPORTED"},
		{"PUT", "/v2/", "", "", 405, "UNSUPPORTED"},
		{"PUT", "/v2/team/app/manifests/1", "no json", index, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/team/app/manifests/1", `{"schemaVersion":1}`, index, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/team/app/manifests/1", `{"schemaVersion":2,"mediaType":"application/x"}`, index, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/team/app/manifests/1", `{"schemaVersion":2,"manifests":[],"layers":[]}`, index, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/team/app/manifests/1", `{"schemaVersion":2,"manifests":[{"digest":"` + sum("x") + `"}]}`, index, 404, "MANIFEST_UNKNOWN"},
		{"PUT", "/v2/team/app/manifests/1", `{"schemaVersion":2}`, "text/plain", 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/team/app/manifests/" + sum("x"), `{"schemaVersion":2,"manifests":[]}`, index, 400, "DIGEST_INVALID"},
		{"PUT", "/v2/team/app/manifests/-bad-", `{"schemaVersion":2,"manifests":[]}`, index, 400, "MANIFEST_INVALID"},
		{"PUT", "/v2/team/app/manifests/1", strings.Repeat(" ", 4<<20+1), index, 413, "SIZE_INVALID"},
		{"DELETE", "/v2/team/app/manifests/1", "", "", 404, "NAME_UNKNOWN"},
		{"GET", "/v2/_catalog?n=x", "", "", 400, "PAGINATION_NUMBER_INVALID"},
	} {
		var header []string
		if c.kind != "" {
			header = []string{"Content-Type", c.kind}
		}
		a := w.do("team", c.method, c.path, c.body, header...)
		if a.status != c.status || a.code() != c.code {
			t.Errorf("%s %.80s: %d %q, want %d %q: %.200s", c.method, c.path, a.status, a.code(), c.status, c.code, a.body)
		}
	}
}

// Tags move, are listed page by page and go; images go with their tags; what says something about an
// image is found by it.
func TestTagsAndReferrers(t *testing.T) {
	w := newWorld(t, Limits{})
	const repo, path = "team/app", "/v2/team/app"
	const kind = "application/vnd.oci.image.manifest.v1+json"
	w.expect(w.upload("team", repo, "{}"), 201, "")
	manifest := func(note, subject, typ string) string {
		s := ""
		if subject != "" {
			s = fmt.Sprintf(`,"subject":{"mediaType":%q,"size":1,"digest":%q}`, kind, subject)
		}
		if typ != "" {
			s += fmt.Sprintf(`,"artifactType":%q`, typ)
		}
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","size":2,"digest":%q},"layers":[],"annotations":{"note":%q}%s}`, kind, sum("{}"), note, s)
	}
	put := func(ref, m string) answer {
		t.Helper()
		return w.expect(w.do("team", "PUT", path+"/manifests/"+ref, m, "Content-Type", kind), 201, "")
	}
	one, two := manifest("one", "", ""), manifest("two", "", "")
	for _, tag := range []string{"c", "a", "b", "latest"} {
		put(tag, one)
	}
	put("latest", two)
	a := w.expect(w.do("team", "GET", path+"/manifests/latest", ""), 200, "")
	if a.body != two || a.header.Get("Docker-Content-Digest") != sum(two) || a.header.Get("Content-Type") != kind {
		t.Errorf("latest is %q with %v", a.body, a.header)
	}
	h := w.expect(w.do("team", "HEAD", path+"/manifests/a", ""), 200, "")
	if h.header.Get("Content-Length") != fmt.Sprint(len(one)) || h.header.Get("Docker-Content-Digest") != sum(one) || h.body != "" {
		t.Errorf("HEAD answers %v", h.header)
	}
	a = w.do("team", "GET", path+"/tags/list?n=2", "")
	if a.body != `{"name":"team/app","tags":["a","b"]}` || !strings.Contains(a.header.Get("Link"), "last=b") {
		t.Errorf("the first page is %s with %q", a.body, a.header.Get("Link"))
	}
	if a = w.do("team", "GET", path+"/tags/list?n=5&last=b", ""); a.body != `{"name":"team/app","tags":["c","latest"]}` || a.header.Get("Link") != "" {
		t.Errorf("the second page is %s", a.body)
	}
	// Referrers, of an image that is there and of one that comes later.
	sig := manifest("sig", sum(one), "application/x-sig")
	if a := put(sum(sig), sig); a.header.Get("OCI-Subject") != sum(one) {
		t.Errorf("the subject is said to be %q", a.header.Get("OCI-Subject"))
	}
	later := manifest("later", sum("later"), "")
	put(sum(later), later)
	a = w.expect(w.do("team", "GET", path+"/referrers/"+sum(one), ""), 200, "")
	if !strings.Contains(a.body, sum(sig)) || !strings.Contains(a.body, "application/x-sig") || a.header.Get("Content-Type") != "application/vnd.oci.image.index.v1+json" {
		t.Errorf("the referrers are %s", a.body)
	}
	a = w.expect(w.do("team", "GET", path+"/referrers/"+sum(one)+"?artifactType=other", ""), 200, "")
	if strings.Contains(a.body, sum(sig)) || a.header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("filtered they are %s", a.body)
	}
	w.expect(w.do("team", "GET", path+"/referrers/"+sum("nobody"), ""), 200, "")
	// Blobs of images stay.
	w.expect(w.do("team", "DELETE", path+"/blobs/"+sum("{}"), ""), 403, "DENIED")
	w.expect(w.do("team", "DELETE", path+"/manifests/a", ""), 202, "")
	w.expect(w.do("team", "GET", path+"/manifests/a", ""), 404, "MANIFEST_UNKNOWN")
	w.expect(w.do("team", "GET", path+"/manifests/"+sum(one), ""), 200, "")
	w.expect(w.do("team", "DELETE", path+"/manifests/"+sum(one), ""), 202, "")
	if a := w.do("team", "GET", path+"/tags/list", ""); a.body != `{"name":"team/app","tags":["latest"]}` {
		t.Errorf("after the image went the tags are %s", a.body)
	}
	for _, m := range []string{two, sig, later} {
		w.expect(w.do("team", "DELETE", path+"/manifests/"+sum(m), ""), 202, "")
	}
	w.expect(w.do("team", "DELETE", path+"/blobs/"+sum("{}"), ""), 202, "")
	w.expect(w.do("team", "GET", path+"/tags/list", ""), 404, "NAME_UNKNOWN")
}

// A namespace has so much room and no more.
func TestLimits(t *testing.T) {
	w := newWorld(t, Limits{Bytes: 10 << 10, Manifests: 1, Tags: 1, Uploads: 2})
	w.expect(w.upload("team", "team/a", strings.Repeat("1", 6<<10)), 201, "")
	a := w.upload("team", "team/b", strings.Repeat("2", 6<<10))
	w.expect(a, 403, "DENIED")
	if !strings.Contains(a.body, "registry_bytes") {
		t.Errorf("the refusal does not name the limit: %s", a.body)
	}
	w.expect(w.upload("other", "other/b", strings.Repeat("2", 6<<10)), 201, "")
	w.expect(w.do("team", "POST", "/v2/team/a/blobs/uploads/", ""), 202, "")
	w.expect(w.do("team", "POST", "/v2/team/a/blobs/uploads/", ""), 202, "")
	w.expect(w.do("team", "POST", "/v2/team/a/blobs/uploads/", ""), 429, "TOOMANYREQUESTS")
	if err := w.collect(t.Context(), time.Now().Add(2*time.Hour)); err != nil { // both are stale by then
		t.Fatal(err)
	}
	const kind = "application/vnd.oci.image.index.v1+json"
	put := func(repo, tag, body string) answer {
		return w.do("team", "PUT", "/v2/"+repo+"/manifests/"+tag, body, "Content-Type", kind)
	}
	w.expect(put("team/a", "1", `{"schemaVersion":2,"manifests":[]}`), 201, "")
	w.expect(put("team/a", "1", `{"schemaVersion":2,"manifests":[]}`), 201, "")
	w.expect(put("team/a", "2", `{"schemaVersion":2,"manifests":[]}`), 403, "DENIED")
	w.expect(put("team/a", "1", `{"schemaVersion":2,"manifests":[ ]}`), 403, "DENIED")
}

// Blobs of a byte take up no bytes to speak of; that there are many of them counts by itself.
func TestManySmallBlobs(t *testing.T) {
	w := newWorld(t, Limits{Blobs: 2})
	w.expect(w.upload("team", "team/a", "1"), 201, "")
	w.expect(w.upload("team", "team/b", "2"), 201, "")
	a := w.upload("team", "team/a", "3")
	w.expect(a, 403, "DENIED")
	if !strings.Contains(a.body, "registry_blobs") {
		t.Errorf("the refusal does not name the limit: %s", a.body)
	}
	one := sum("1")
	w.expect(w.do("team", "POST", "/v2/team/c/blobs/uploads/?mount="+one+"&from=team/a", ""), 403, "DENIED")
	w.expect(w.upload("team", "team/a", "1"), 201, "") // it has that one
	w.expect(w.upload("other", "other/a", "3"), 201, "")
	if n := w.used("uid-team").uploads; n != 0 {
		t.Errorf("%d uploads are left of what was refused", n)
	}
	w.expect(w.do("team", "DELETE", "/v2/team/a/blobs/"+one, ""), 202, "")
	w.expect(w.upload("team", "team/a", "3"), 201, "")
}

// What nothing names goes, and nothing else.
func TestCollect(t *testing.T) {
	w := newWorld(t, Limits{Untagged: 24 * time.Hour})
	kept, moved := image(t, 1000), image(t, 1000)
	for tag, img := range map[string]v1.Image{"kept": kept, "moved": moved} {
		if err := crane.Push(img, w.host+"/team/app:"+tag, as("team")...); err != nil {
			t.Fatal(err)
		}
	}
	if err := crane.Tag(w.host+"/team/app:kept", "moved", as("team")...); err != nil {
		t.Fatal(err)
	}
	w.expect(w.upload("team", "team/app", "never named"), 201, "")
	at := w.expect(w.do("team", "POST", "/v2/team/app/blobs/uploads/", ""), 202, "").header.Get("Location")
	digest, err := moved.Digest()
	if err != nil {
		t.Fatal(err)
	}
	look := func(after time.Duration) (loose, untagged, upload int) {
		t.Helper()
		if err := w.collect(t.Context(), time.Now().Add(after)); err != nil {
			t.Fatal(err)
		}
		live := map[faas.Digest]bool{}
		w.Live(live)
		loose, untagged, upload = 404, 404, w.do("team", "GET", at, "").status
		if live[faas.Digest(sum("never named"))] {
			loose = 200
		}
		if live[faas.Digest(digest.String())] {
			untagged = 200
		}
		return
	}
	for _, c := range []struct {
		after                   time.Duration
		loose, untagged, upload int
	}{{30 * time.Minute, 200, 200, 204}, {2 * time.Hour, 404, 200, 404}, {25 * time.Hour, 404, 404, 404}} {
		if a, b, u := look(c.after); a != c.loose || b != c.untagged || u != c.upload {
			t.Errorf("after %v: blob %d, untagged image %d, upload %d; want %d, %d, %d", c.after, a, b, u, c.loose, c.untagged, c.upload)
		}
	}
	if _, _, u := look(26 * time.Hour); u != 404 {
		t.Error("the upload is back")
	}
	got, err := crane.Pull(w.host+"/team/app:kept", as("team")...)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(got); err != nil {
		t.Errorf("what is tagged is not whole any more: %v", err)
	}
	w.mu.Lock()
	w.namespaces = w.namespaces[1:]
	w.mu.Unlock()
	if err := w.collect(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	live := map[faas.Digest]bool{}
	if w.Live(live); len(live) != 0 {
		t.Errorf("of a namespace that is gone there is %v", live)
	}
	if left, err := w.records.List(t.Context(), "", "", 0); err != nil || len(left) != 0 {
		t.Errorf("of a namespace that is gone there are %d records, %v", len(left), err)
	}
}

// What is kept in memory of a manifest is bounded, however large the manifest.
func TestLargeManifests(t *testing.T) {
	w := newWorld(t, Limits{})
	const kind = "application/vnd.oci.image.manifest.v1+json"
	w.expect(w.upload("team", "team/a", "{}"), 201, "")
	layer := fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","size":2,"digest":%q}`, sum("{}"))
	put := func(layers int, more string) answer {
		m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]%s}`, kind, layer, strings.TrimSuffix(strings.Repeat(layer+",", layers), ","), more)
		return w.do("team", "PUT", "/v2/team/a/manifests/1", m, "Content-Type", kind)
	}
	w.expect(put(100, ""), 201, "")
	w.expect(put(2000, ""), 413, "SIZE_INVALID")
	note := fmt.Sprintf(`,"annotations":{"a":%q}`, strings.Repeat("x", 100_000))
	w.expect(put(1, note), 201, "")
	w.expect(put(1, note+`,"subject":`+layer), 413, "SIZE_INVALID")
}
