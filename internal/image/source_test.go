package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// What an image says about itself is told.
func TestConfigurationIsRead(t *testing.T) {
	s := newStore(t, Config{})
	img := build(t, &v1.ConfigFile{Config: v1.Config{
		Entrypoint: []string{"/bin/server"}, Cmd: []string{"--fast"}, WorkingDir: "/srv", User: "1000:1000", Env: []string{"PATH=/bin", "A=b=c"},
		Labels: map[string]string{"l": "v"}, ExposedPorts: map[string]struct{}{"9090/tcp": {}, "3000": {}, "53/udp": {}, "junk": {}},
	}}, pack(t, layerTar(t, entry{name: "a", body: strings.Repeat("1", 100)}), "gzip"), pack(t, layerTar(t, entry{name: "b", body: strings.Repeat("2", 1000)}, entry{name: "c"}), "zstd"),
		pack(t, layerTar(t, entry{name: "d", body: strings.Repeat("3", 500)}), "plain"))
	i, err := s.FromLayout(t.Context(), layoutOf(t, img), Options{})
	if err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	want := &Image{
		Image:    faas.Image{Manifest: faas.Digest(digest.String()), Root: i.Root, Dir: "/srv", Env: []string{"PATH=/bin", "A=b=c"}, Port: 3000},
		Platform: "linux/" + runtime.GOARCH, Entrypoint: []string{"/bin/server"}, Command: []string{"--fast"}, User: "1000:1000", Labels: map[string]string{"l": "v"},
		Ports: []int{3000, 9090}, Bytes: 1600, Packed: i.Packed, Layers: i.Layers,
	}
	if diff := cmp.Diff(want, i); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	var got []string
	for _, l := range i.Heaviest(2) {
		got = append(got, fmt.Sprint(l.Created, " ", l.Bytes, " ", l.Entries))
	}
	if diff := cmp.Diff([]string{"RUN step b 1000B 2", "RUN step c 500B 1"}, got); diff != "" {
		t.Errorf("the heaviest layers (-want +got)\n%s", diff)
	}
}

func TestPort(t *testing.T) {
	for _, c := range []struct {
		env     []string
		exposed []int
		want    int
	}{
		{nil, nil, 8080}, {[]string{"PORT=3000"}, []int{80}, 3000}, {[]string{"PORT=no"}, []int{5000}, 5000}, {nil, []int{80, 443}, 80},
		{nil, []int{80, 8080}, 8080}, {[]string{"PORT=1", "PORT=2"}, nil, 2}, {[]string{"PORT=99999"}, nil, 8080}, {nil, []int{22, 443}, 22},
	} {
		if got := port(c.env, c.exposed); got != c.want {
			t.Errorf("port of %v, %v is %d, want %d", c.env, c.exposed, got, c.want)
		}
	}
}

// The same image comes from whatever it is saved as.
func TestArchiveForms(t *testing.T) {
	img := of(t, []entry{{name: "bin/app", body: "program", mode: 0o755}}, []entry{{name: "etc/conf", body: "1"}})
	layout := layoutOf(t, img)
	gz := func(b []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	zs := func(b []byte) []byte {
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return w.EncodeAll(b, nil)
	}
	for name, b := range map[string][]byte{
		"docker save": saveTar(t, img), "docker save, gzip": gz(saveTar(t, img)), "OCI layout": tarOf(t, layout), "OCI layout, zstd": zs(tarOf(t, layout)),
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, Config{})
			i, err := s.FromArchive(t.Context(), bytes.NewReader(b), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := listing(t, s, i), "bin/\nbin/app* = program\netc/\netc/conf = 1\n"; got != want {
				t.Errorf("the root is\n%s", got)
			}
		})
	}
}

func TestArchivesThatAreNone(t *testing.T) {
	img := of(t, []entry{{name: "a", body: "1"}})
	saved, layout := saveTar(t, img), layoutOf(t, img)
	without := func(match string) fstest.MapFS {
		out := fstest.MapFS{}
		for name, f := range layout {
			if name != match {
				out[name] = f
			}
		}
		return out
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	lowest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	bomb := bytes.Buffer{}
	w := gzip.NewWriter(&bomb)
	if _, err := w.Write(make([]byte, 64<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		b    []byte
		want string
		code faas.Code
	}{
		"nothing":         {nil, "not a tar archive", faas.Invalid},
		"text":            {[]byte(strings.Repeat("hello ", 500)), "not a tar archive", faas.Invalid},
		"zip":             {[]byte("PK\x03\x04 and more"), "zip archive", faas.Invalid},
		"another tar":     {layerTar(t, entry{name: "a", body: "1"}), "neither an index.json nor a manifest.json", faas.Invalid},
		"cut off":         {saved[:len(saved)*2/3], "", faas.Invalid},
		"lost layer":      {tarOf(t, without("blobs/sha256/"+lowest.Hex)), "lacks the blob", faas.Invalid},
		"no JSON":         {tarOf(t, fstest.MapFS{"index.json": {Data: []byte("{")}}), "not JSON", faas.Invalid},
		"empty index":     {tarOf(t, fstest.MapFS{"index.json": {Data: []byte(`{"schemaVersion":2,"manifests":[]}`)}}), "no image in it", faas.Invalid},
		"empty manifest":  {tarOf(t, fstest.MapFS{"manifest.json": {Data: []byte(`[]`)}}), "no image in it", faas.Invalid},
		"escaping config": {tarOf(t, fstest.MapFS{"manifest.json": {Data: []byte(`[{"Config":"../../../../etc/passwd","Layers":[]}]`)}}), "lacks the image's configuration", faas.Invalid},
		"huge document":   {tarOf(t, fstest.MapFS{"index.json": {Data: make([]byte, 5<<20)}}), "larger than 4MiB", faas.TooLarge},
		"bomb":            {bomb.Bytes(), "more than 100 times", faas.TooLarge},
		"over the limit":  {layerTar(t, entry{name: "manifest.json", size: 20 << 20}), "larger than 16MiB", faas.TooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d, err := artifact.Open(artifact.Config{Objects: store.MemoryObjects(), Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			s := newStore(t, Config{Depot: d, Limits: Limits{Packed: 16 << 20}})
			_, err = s.FromArchive(t.Context(), bytes.NewReader(c.b), Options{})
			if faas.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %v with %q", err, c.code, c.want)
			}
			leftovers(t, dir)
		})
	}
}

// Of several images the one for this machine is taken, or the one that is named.
func TestWhichImage(t *testing.T) {
	here := of(t, []entry{{name: "here", body: "1"}})
	strange := build(t, &v1.ConfigFile{OS: "linux", Architecture: "s390x"}, pack(t, layerTar(t, entry{name: "strange", body: "1"}), "gzip"))
	index := func(kinds ...string) fstest.MapFS {
		out := fstest.MapFS{}
		m := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
		for _, k := range kinds {
			img := here
			if k != runtime.GOARCH {
				img = strange
			}
			d := addImage(t, out, img)
			d.Platform = &v1.Platform{OS: "linux", Architecture: k}
			if k == "unknown" {
				d.Platform.OS = k
			}
			m.Manifests = append(m.Manifests, d)
		}
		inner := asJSON(t, m)
		h, n, err := v1.SHA256(bytes.NewReader(inner))
		if err != nil {
			t.Fatal(err)
		}
		out["blobs/sha256/"+h.Hex] = &fstest.MapFile{Data: inner}
		out["index.json"] = &fstest.MapFile{Data: asJSON(t, v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{{MediaType: types.OCIImageIndex, Digest: h, Size: n}}})}
		return out
	}
	for name, c := range map[string]struct {
		layout fstest.MapFS
		name   string
		want   string // in the root, or in the error
		code   faas.Code
	}{
		"this machine's":       {index("s390x", runtime.GOARCH, "unknown"), "", "here = 1", faas.OK},
		"none for it":          {index("s390x", "ppc64le", "unknown"), "", "the image is for linux/ppc64le, linux/s390x, and this machine is linux/" + runtime.GOARCH, faas.Invalid},
		"a single one":         {layoutOf(t, strange), "", "the image is for linux/s390x, and this machine is linux/" + runtime.GOARCH, faas.Invalid},
		"several without name": {layoutOf(t, here, strange), "", "holds 2 images", faas.Invalid},
		"several with name":    {layoutOf(t, strange, here), "v2", "here = 1", faas.OK},
		"several names of one": {layoutOf(t, here, here), "", "here = 1", faas.OK},
		"a name it has not":    {layoutOf(t, strange, here), "v9", "no image", faas.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, Config{})
			i, err := s.FromLayout(t.Context(), c.layout, Options{Name: c.name})
			if faas.CodeOf(err) != c.code {
				t.Fatalf("got %v, want %v", err, c.code)
			}
			got := fmt.Sprint(err)
			if err == nil {
				got = listing(t, s, i)
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got %s, want it to have %q", got, c.want)
			}
		})
	}
	_, err := take(t, newStore(t, Config{}), strange)
	if faas.CodeOf(err) != faas.Invalid || !strings.Contains(err.Error(), "linux/s390x") {
		t.Errorf("saved for another machine: %v", err)
	}
}

// The same image again is not unpacked, but whoever brings it must have all of it.
func TestKnownImages(t *testing.T) {
	s := newStore(t, Config{})
	img := of(t, []entry{{name: "secret", body: "of another tenant"}})
	first, err := s.FromLayout(t.Context(), layoutOf(t, img), Options{})
	if err != nil || first.Cached {
		t.Fatalf("first: %v, cached %t", err, first.Cached)
	}
	again, err := s.FromLayout(t.Context(), layoutOf(t, img), Options{Progress: func(p Progress) { t.Errorf("it was %s again", p.Step) }})
	if err != nil || !again.Cached {
		t.Fatalf("again: %v", err)
	}
	again.Cached = false
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("(-first +again)\n%s", diff)
	}
	// Another builds the manifest from what he knows, and has not the layer.
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	stolen := layoutOf(t, img)
	stolen["blobs/sha256/"+digest.Hex] = &fstest.MapFile{Data: pack(t, layerTar(t, entry{name: "mine", body: "1"}), "gzip").packed}
	if _, err := s.FromLayout(t.Context(), stolen, Options{}); faas.CodeOf(err) != faas.Invalid {
		t.Errorf("an image without its layer: %v", err)
	}
	delete(stolen, "blobs/sha256/"+digest.Hex)
	if _, err := s.FromLayout(t.Context(), stolen, Options{}); faas.CodeOf(err) != faas.Invalid {
		t.Errorf("an image that lacks its layer: %v", err)
	}
	// What the depot has lost is made anew.
	if err := s.config.Depot.Close(); err != nil {
		t.Fatal(err)
	}
	s.config.Depot = newDepot(t)
	if i, err := s.FromLayout(t.Context(), layoutOf(t, img), Options{}); err != nil || i.Cached || i.Root != first.Root {
		t.Errorf("after the depot lost it: %+v, %v", i, err)
	}
}

// The root is kept while a revision names it, and for a day after its last use.
func TestLive(t *testing.T) {
	s := newStore(t, Config{})
	i, err := take(t, s, of(t, []entry{{name: "a", body: "1"}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		live  bool
		after time.Duration
		want  bool
		kept  bool
	}{{false, time.Hour, true, true}, {true, 48 * time.Hour, true, true}, {false, 48 * time.Hour, false, false}} {
		live := map[faas.Digest]bool{}
		if c.live {
			live[i.Root] = true
		}
		if err := s.live(live, time.Now().Add(c.after)); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(s.recordPath(i.Manifest))
		if live[i.Root] != c.want || (err == nil) != c.kept {
			t.Errorf("after %v, named %t: live %t, want %t; record %v, want it kept %t", c.after, c.live, live[i.Root], c.want, err, c.kept)
		}
	}
}

// Many who want the same image at once get one root, unpacked once.
func TestManyAtOnce(t *testing.T) {
	s := newStore(t, Config{})
	var files []entry
	for n := range 300 {
		files = append(files, entry{name: fmt.Sprint("d/", n), body: strings.Repeat("x", n)})
	}
	b := saveTar(t, of(t, files))
	const many = 8
	var wg sync.WaitGroup
	made, roots := make([]bool, many), make([]faas.Digest, many)
	for n := range many {
		wg.Go(func() {
			i, err := s.FromArchive(t.Context(), bytes.NewReader(b), Options{})
			if err != nil {
				t.Error(err)
				return
			}
			made[n], roots[n] = !i.Cached, i.Root
		})
	}
	wg.Wait()
	if n := len(slices.Compact(roots)); n != 1 {
		t.Errorf("there are %d roots", n)
	}
	if count(made) != 1 {
		t.Errorf("it was unpacked %d times", count(made))
	}
}

func count(all []bool) (n int) {
	for _, b := range all {
		if b {
			n++
		}
	}
	return n
}

// One whose caller leaves does not take it from those who wait for the same.
func TestLeavingWhileOthersWait(t *testing.T) {
	s := newStore(t, Config{})
	b := saveTar(t, of(t, []entry{{name: "a", body: "1"}}, []entry{{name: "b", body: "2"}}))
	ctx, leave := context.WithCancel(t.Context())
	var second *Image
	var err error
	var wg sync.WaitGroup
	_, first := s.FromArchive(ctx, bytes.NewReader(b), Options{Progress: func(p Progress) {
		if p.Step == "unpack" && p.Layer == 1 {
			wg.Go(func() { second, err = s.FromArchive(t.Context(), bytes.NewReader(b), Options{}) })
			time.Sleep(20 * time.Millisecond) // that the second comes to wait is likely, and not needed
			leave()
		}
	}})
	wg.Wait()
	if !errors.Is(first, context.Canceled) && faas.CodeOf(first) != faas.Canceled {
		t.Errorf("the first ended with %v", first)
	}
	if err != nil || second == nil {
		t.Errorf("the second got %v", err)
	}
}

const killEnv = "BRASA_IMAGE_KILL"

// A server that is killed while it unpacks leaves nothing that the next one does not put right.
func TestKilledWhileUnpacking(t *testing.T) {
	if dir := os.Getenv(killEnv); dir != "" {
		d, err := artifact.Open(artifact.Config{Objects: store.MemoryObjects(), Dir: filepath.Join(dir, "depot")})
		if err != nil {
			t.Fatal(err)
		}
		s := newStore(t, Config{Depot: d, Dir: filepath.Join(dir, "images")})
		b, err := os.ReadFile(filepath.Join(dir, "archive"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = s.FromArchive(t.Context(), bytes.NewReader(b), Options{Progress: func(p Progress) {
			if fmt.Sprint(p.Step, p.Layer) == os.Getenv(killEnv+"_AT") {
				p, _ := os.FindProcess(os.Getpid())
				_ = p.Kill()
				select {}
			}
		}})
		t.Fatal("it was not killed")
	}
	for _, at := range []string{"unpack1", "unpack2", "store0"} {
		t.Run(at, func(t *testing.T) {
			dir := t.TempDir()
			b := saveTar(t, of(t, []entry{{name: "a", body: "1"}}, []entry{{name: "b", body: "2"}}))
			if err := os.WriteFile(filepath.Join(dir, "archive"), b, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledWhileUnpacking$")
			cmd.Env = append(os.Environ(), killEnv+"="+dir, killEnv+"_AT="+at)
			if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(err.Error(), "killed") {
				t.Fatalf("it ended with %v\n%s", err, out)
			}
			if left, err := os.ReadDir(filepath.Join(dir, "depot", "tmp")); err != nil || len(left) == 0 {
				t.Fatalf("it was killed at another place: %v, %v", left, err)
			}
			d, err := artifact.Open(artifact.Config{Objects: store.MemoryObjects(), Dir: filepath.Join(dir, "depot")})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			s := newStore(t, Config{Depot: d, Dir: filepath.Join(dir, "images")})
			leftovers(t, filepath.Join(dir, "depot"))
			i, err := s.FromArchive(t.Context(), bytes.NewReader(b), Options{})
			if err != nil || i.Cached {
				t.Fatalf("after the start: %v", err)
			}
			if got := listing(t, s, i); got != "a = 1\nb = 2\n" {
				t.Errorf("the root is\n%s", got)
			}
		})
	}
}
