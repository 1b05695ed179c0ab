package image

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/brasa-dev/brasa/internal/faas"
)

// hub is a registry of somebody else's.
type hub struct {
	*httptest.Server
	host  string
	asked atomic.Int64                                      // for blobs
	twist func(w http.ResponseWriter, r *http.Request) bool // answers instead; nil: nothing is twisted
}

func newHub(t *testing.T) *hub {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	h := &hub{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			h.asked.Add(1)
		}
		if h.twist == nil || !h.twist(w, r) {
			inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(h.Close)
	h.host = strings.TrimPrefix(h.URL, "http://")
	return h
}

func (h *hub) push(t *testing.T, ref string, img v1.Image) name.Reference {
	t.Helper()
	r, err := name.ParseReference(h.host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, img); err != nil {
		t.Fatal(err)
	}
	return r
}

// asking makes a store that knows registries.
func asking(t *testing.T, hosts ...Host) *Store {
	return newStore(t, Config{Registries: Registries{Hosts: hosts}})
}

func TestFromRegistry(t *testing.T) {
	h := newHub(t)
	img := of(t, []entry{{name: "a", body: strings.Repeat("1", 100_000)}}, []entry{{name: "b", body: "2"}}, []entry{{name: "c", body: "3"}}, []entry{{name: "d", body: "4"}}, []entry{{name: "e", body: "5"}})
	h.push(t, "team/app:1", img)
	s := asking(t, Host{Name: h.host, Plain: true})
	var told []string
	i, err := s.FromReference(t.Context(), h.host+"/team/app:1", Options{Progress: func(p Progress) { told = append(told, fmt.Sprint(p.Step, " ", p.Layer, "/", p.Layers)) }})
	if err != nil {
		t.Fatal(err)
	}
	if got := listing(t, s, i); !strings.HasSuffix(got, "b = 2\nc = 3\nd = 4\ne = 5\n") {
		t.Errorf("the root is\n%s", got)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if string(i.Manifest) != digest.String() || i.Reference != h.host+"/team/app:1" {
		t.Errorf("it is %s of %s", i.Manifest, i.Reference)
	}
	if all := strings.Join(told, ","); !strings.Contains(all, "fetch 0/5") || !strings.Contains(all, "unpack 5/5") || !strings.Contains(all, "store") {
		t.Errorf("the progress was %s", all)
	}
	// By digest, and nothing but the manifest and configuration is asked for.
	before := h.asked.Load()
	again, err := s.FromReference(t.Context(), h.host+"/team/app@"+digest.String(), Options{})
	if err != nil || !again.Cached || again.Root != i.Root {
		t.Errorf("by digest: %v", err)
	}
	if n := h.asked.Load() - before; n != 1 {
		t.Errorf("%d blobs were fetched for an image that is there", n)
	}
	// A tag that moved is another image.
	h.push(t, "team/app:1", of(t, []entry{{name: "moved", body: "1"}}))
	if i, err := s.FromReference(t.Context(), h.host+"/team/app:1", Options{}); err != nil || listing(t, s, i) != "moved = 1\n" {
		t.Errorf("after the tag moved: %v", err)
	}
	for ref, code := range map[string]faas.Code{
		h.host + "/team/app:none": faas.NotFound, h.host + "/none/such:1": faas.NotFound, "UPPER/case:1": faas.Invalid, "": faas.Invalid,
		h.host + "/team/app@sha256:" + strings.Repeat("0", 64): faas.NotFound, "x:" + strings.Repeat("y", 200): faas.Invalid,
	} {
		if _, err := s.FromReference(t.Context(), ref, Options{}); faas.CodeOf(err) != code {
			t.Errorf("%q: %v, want %v", ref, err, code)
		}
	}
}

func TestPlatformsOfARegistry(t *testing.T) {
	h := newHub(t)
	s := asking(t, Host{Name: h.host, Plain: true})
	push := func(tag string, arches ...string) {
		index := v1.ImageIndex(empty.Index)
		for _, a := range arches {
			img := build(t, &v1.ConfigFile{OS: "linux", Architecture: a}, pack(t, layerTar(t, entry{name: a, body: "1"}), "gzip"))
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: a}}})
		}
		ref, err := name.ParseReference(h.host + "/m:" + tag)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(ref, index); err != nil {
			t.Fatal(err)
		}
	}
	push("all", "s390x", runtime.GOARCH, "ppc64le")
	push("others", "s390x", "ppc64le")
	if i, err := s.FromReference(t.Context(), h.host+"/m:all", Options{}); err != nil || listing(t, s, i) != runtime.GOARCH+" = 1\n" {
		t.Errorf("of several: %v", err)
	}
	_, err := s.FromReference(t.Context(), h.host+"/m:others", Options{})
	if want := "for linux/ppc64le, linux/s390x, and this machine is linux/" + runtime.GOARCH; faas.CodeOf(err) != faas.Invalid || !strings.Contains(err.Error(), want) {
		t.Errorf("of none: %v", err)
	}
}

func TestCredentials(t *testing.T) {
	for _, way := range []string{"basic", "token"} {
		t.Run(way, func(t *testing.T) {
			h := newHub(t)
			h.push(t, "private/app:1", of(t, []entry{{name: "a", body: "1"}}))
			h.twist = func(w http.ResponseWriter, r *http.Request) bool {
				user, password, _ := r.BasicAuth()
				right := user == "me" && password == "secret"
				switch {
				case r.URL.Path == "/token":
					if !right || !strings.Contains(r.URL.RawQuery, "pull") {
						w.WriteHeader(http.StatusUnauthorized)
						return true
					}
					_ = json.NewEncoder(w).Encode(map[string]string{"token": "granted"})
					return true
				case way == "basic" && right, way == "token" && r.Header.Get("Authorization") == "Bearer granted":
					return false
				case way == "basic":
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				default:
					w.Header().Set("WWW-Authenticate", `Bearer realm="`+h.URL+`/token",service="hub"`)
				}
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			ref := h.host + "/private/app:1"
			s := asking(t, Host{Name: h.host, Plain: true, User: "me", Password: "secret"})
			if _, err := s.FromReference(t.Context(), ref, Options{}); err != nil {
				t.Errorf("with the right password: %v", err)
			}
			for what, host := range map[string]Host{"without": {Name: h.host, Plain: true}, "with a wrong one": {Name: h.host, Plain: true, User: "me", Password: "guess"}} {
				_, err := asking(t, host).FromReference(t.Context(), ref, Options{})
				if faas.CodeOf(err) != faas.Denied || !strings.Contains(faas.AsError(err).Fix, "images.registries") {
					t.Errorf("%s: %v", what, err)
				}
				if err != nil && strings.Contains(err.Error(), "secret") {
					t.Errorf("the error tells the password: %v", err)
				}
			}
		})
	}
	if got := fmt.Sprint([]Host{{Name: "r.example", User: "u", Password: "hidden"}, {Name: "s.example", Token: "hidden"}}); strings.Contains(got, "hidden") {
		t.Errorf("a host shows as %s", got)
	}
}

// A connection that breaks, or a registry that is busy, is tried again.
func TestRetry(t *testing.T) {
	h := newHub(t)
	h.push(t, "app:1", of(t, []entry{{name: "a", body: strings.Repeat("0123456789", 10_000)}}))
	var broken, busy atomic.Int64
	h.twist = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.Contains(r.URL.Path, "/manifests/") && busy.Add(1) == 1:
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		case strings.Contains(r.URL.Path, "/blobs/") && broken.Add(1) == 2:
			w.Header().Set("Content-Length", "500")
			_, _ = w.Write([]byte("not all"))
			panic(http.ErrAbortHandler)
		}
		return false
	}
	h.Config.ErrorLog = log.New(io.Discard, "", 0)
	s := asking(t, Host{Name: h.host, Plain: true})
	if _, err := s.FromReference(t.Context(), h.host+"/app:1", Options{}); err != nil {
		t.Fatal(err)
	}
	if broken.Load() < 3 || busy.Load() < 2 {
		t.Errorf("blobs were asked for %d times, the manifest %d times", broken.Load(), busy.Load())
	}
}

// What a registry sends is compared with what it was asked for.
func TestRegistryThatLies(t *testing.T) {
	img := of(t, []entry{{name: "a", body: "1"}})
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layer, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	size, err := layers[0].Size()
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ path, body string }{
		"configuration": {"/blobs/" + config.String(), "{}"}, "layer": {"/blobs/" + layer.String(), strings.Repeat("x", int(size))},
		"endless layer": {"/blobs/" + layer.String(), strings.Repeat("x", 5<<20)}, "endless manifest": {"/manifests/1", strings.Repeat("x", 5<<20)},
		"manifest": {"/manifests/1", "<html>"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			h.push(t, "app:1", img)
			h.twist = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, c.path) {
					return false
				}
				_, _ = io.WriteString(w, c.body)
				return true
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := asking(t, Host{Name: h.host, Plain: true})
			i, err := s.FromReference(ctx, h.host+"/app:1", Options{})
			if err == nil || faas.CodeOf(err) == faas.Internal {
				t.Errorf("got %+v, %v", i, err)
			}
		})
	}
}

// The names of images, which tenants say, lead nowhere that they could not go themselves.
func TestPrivateAddressesAreNotAsked(t *testing.T) {
	h := newHub(t)
	h.push(t, "app:1", of(t, []entry{{name: "a", body: "1"}}))
	var asked atomic.Int64
	h.twist = func(http.ResponseWriter, *http.Request) bool { asked.Add(1); return false }
	s := asking(t)
	port := h.host[strings.LastIndex(h.host, ":"):]
	for _, host := range []string{h.host, "localhost" + port, "169.254.169.254", "10.0.0.1:5000", "[::1]" + port, "0.0.0.0" + port} {
		_, err := s.FromReference(t.Context(), host+"/app:1", Options{})
		if faas.CodeOf(err) != faas.Denied {
			t.Errorf("%s: %v", host, err)
		}
	}
	// A registry that is listed, but not as one without encryption.
	_, err := asking(t, Host{Name: h.host}).FromReference(t.Context(), h.host+"/app:1", Options{})
	if err == nil || asked.Load() > 0 && !strings.Contains(err.Error(), "encryption") {
		t.Errorf("without encryption: %v after %d requests", err, asked.Load())
	}
	for address, ok := range map[string]bool{
		"8.8.8.8:443": true, "[2606:4700::1111]:443": true, "127.0.0.1:1": false, "192.168.1.1:1": false, "172.16.0.1:1": false, "100.64.0.1:1": false,
		"169.254.1.1:1": false, "[fe80::1%eth0]:1": false, "[::ffff:10.0.0.1]:1": false, "[fd00::1]:1": false, "[64:ff9b::a00:1]:1": false, "224.0.0.1:1": false, "[2002:a00:1::]:1": false,
	} {
		if err := public(address); (err == nil) != ok {
			t.Errorf("%s: %v, want it let through %t", address, err, ok)
		}
	}
}

// Mirrors are asked first, and the registry itself when they have nothing.
func TestMirrors(t *testing.T) {
	near, far := newHub(t), newHub(t)
	near.push(t, "lib/a:1", of(t, []entry{{name: "near", body: "1"}}))
	far.push(t, "lib/a:1", of(t, []entry{{name: "far", body: "1"}}))
	far.push(t, "lib/b:1", of(t, []entry{{name: "far", body: "1"}}))
	s := asking(t, Host{Name: far.host, Plain: true, Mirrors: []string{"127.0.0.1:1", near.host}}, Host{Name: near.host, Plain: true})
	for ref, want := range map[string]string{"/lib/a:1": "near = 1\n", "/lib/b:1": "far = 1\n"} {
		i, err := s.FromReference(t.Context(), far.host+ref, Options{})
		if err != nil || listing(t, s, i) != want {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestRegistriesAreChecked(t *testing.T) {
	for want, hosts := range map[string][]Host{
		"not the name of a registry": {{Name: "http://x"}}, "is there twice": {{Name: "docker.io"}, {Name: "index.docker.io"}}, "set one": {{Name: "x.example", Token: "a", Password: "b"}},
		"no such file": {{Name: "x.example", CA: "/none"}},
	} {
		if _, err := newClient(Registries{Hosts: hosts}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", hosts, err, want)
		}
	}
	c, err := newClient(Registries{Hosts: []Host{{Name: "docker.io", User: "u", Password: "p"}}})
	if err != nil {
		t.Fatal(err)
	}
	if c.auth("index.docker.io") == authn.Anonymous {
		t.Error("Docker Hub's other name has no credentials")
	}
}

// A registry with a certificate of its own is trusted by the file that is named for it, and by no other.
func TestCertificates(t *testing.T) {
	h := newHub(t)
	h.push(t, "app:1", of(t, []entry{{name: "a", body: "1"}}))
	secure := httptest.NewTLSServer(h.Config.Handler)
	defer secure.Close()
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	host := strings.TrimPrefix(secure.URL, "https://")
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		r  Registries
		ok bool
	}{
		"its own file": {Registries{Hosts: []Host{{Name: host, CA: file}}}, true}, "the file for all": {Registries{Hosts: []Host{{Name: host}}, CA: file}, true},
		"no file": {Registries{Hosts: []Host{{Name: host}}}, false},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := newStore(t, Config{Registries: c.r}).FromReference(ctx, host+"/app:1", Options{})
		cancel()
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", what, err)
		}
		if err != nil && faas.CodeOf(err) == faas.Internal {
			t.Errorf("%s: it is our fault: %v", what, err)
		}
	}
}
