package daemon

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
)

// door is how a client of registries reaches a server in a process of its own.
type door struct {
	*victim
	host, key string
}

func openDoorTo(t *testing.T, dir string) *door {
	t.Helper()
	d := &door{victim: startVictim(t, dir, "")}
	for _, e := range d.cmd.Env {
		if v, ok := strings.CutPrefix(e, "BRASA_CRASH_LISTEN="); ok {
			d.host = v
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	d.key = strings.TrimSpace(string(b))
	return d
}

func (d *door) auth() []crane.Option {
	return []crane.Option{crane.WithAuth(&authn.Basic{Username: "whoever", Password: d.key}), crane.Insecure}
}

func (d *door) do(t *testing.T, method, path string, body io.Reader, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+d.host+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+d.key)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp
}

// What other clients push to a server lives through its death, and so does half of an upload.
func TestImagesSurviveTheServer(t *testing.T) {
	dir := t.TempDir()
	d := openDoorTo(t, dir)
	img, err := random.Image(200_000, 3)
	if err != nil {
		t.Fatal(err)
	}
	// Several push the same blobs at once.
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			if err := crane.Push(img, fmt.Sprintf("%s/default/app%d:1", d.host, n%2), d.auth()...); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := crane.Push(img, d.host+"/none/app:1", d.auth()...); err == nil {
		t.Error("it was pushed to a namespace that does not exist")
	}
	wrong := []crane.Option{crane.WithAuth(&authn.Basic{Username: "x", Password: strings.Replace(d.key, "brasa_", "brasa_0", 1)}), crane.Insecure}
	if err := crane.Push(img, d.host+"/default/app:2", wrong...); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("with a wrong key: %v", err)
	}

	body := make([]byte, 8<<20)
	for i := range body {
		body[i] = byte(rand.Uint32())
	}
	sum := sha256.Sum256(body)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	begun := d.do(t, "POST", "/v2/default/app0/blobs/uploads/", nil)
	if begun == nil || begun.StatusCode != http.StatusAccepted {
		t.Fatalf("the upload was not begun: %v", begun)
	}
	at := begun.Header.Get("Location")
	pr, pw := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.do(t, "PATCH", at, pr)
	}()
	if _, err := pw.Write(body[:3<<20]); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if r := d.do(t, "GET", at, nil); r != nil && r.Header.Get("Range") != "0-0" {
			break
		}
	}
	d.kill()
	_ = pw.CloseWithError(io.ErrClosedPipe)
	<-ended

	d = openDoorTo(t, dir)
	status := d.do(t, "GET", at, nil)
	if status == nil || status.StatusCode != http.StatusNoContent {
		t.Fatalf("after the start the upload is %v", status)
	}
	var last int
	if _, err := fmt.Sscanf(status.Header.Get("Range"), "0-%d", &last); err != nil || last == 0 {
		t.Fatalf("after the start the upload has %q, %v", status.Header.Get("Range"), err)
	}
	rest := body[last+1:]
	r := d.do(t, "PATCH", at, bytes.NewReader(rest), "Content-Range", fmt.Sprintf("%d-%d", last+1, len(body)-1))
	if r == nil || r.StatusCode != http.StatusAccepted {
		t.Fatalf("the rest was answered with %v", r)
	}
	if r = d.do(t, "PUT", at+"?digest="+digest, nil); r == nil || r.StatusCode != http.StatusCreated {
		t.Fatalf("the end was answered with %v", r)
	}
	if r = d.do(t, "HEAD", "/v2/default/app0/blobs/"+digest, nil); r == nil || r.StatusCode != http.StatusOK || r.ContentLength != int64(len(body)) {
		t.Errorf("the blob is %v", r)
	}
	for _, name := range []string{"app0", "app1"} {
		got, err := crane.Pull(d.host+"/default/"+name+":1", d.auth()...)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(got); err != nil {
			t.Errorf("%s is not whole: %v", name, err)
		}
	}
}

// A pushed image is deployed by its name here, in its own namespace and without a network.
func TestPushedImagesAreDeployed(t *testing.T) {
	needSandboxes(t)
	program := string(compile(t, imageProgram, "-static"))
	dir := t.TempDir()
	d := openDoorTo(t, dir)
	image := func(answer string) v1.Image {
		return makeImage(t, map[string]string{"bin/prog": program}, v1.Config{Entrypoint: []string{"/bin/prog", "serve", answer}, Env: []string{"A=" + answer}}, runtime.GOARCH)
	}
	deploy := func(namespace, ref string) (*api.Outcome, error) {
		public := true
		return d.client.Deploy(t.Context(), namespace, "web", api.Spec{Image: d.host + "/" + ref, Public: &public}, api.Code{})
	}
	cached := func(o *api.Outcome) bool {
		return slices.ContainsFunc(o.Steps, func(s api.Step) bool { return s.Image != nil && s.Image.Cached })
	}
	get := func() string {
		rig := &imageRig{victim: d.victim}
		return rig.get(t, "web", "/")
	}
	if err := crane.Push(image("one"), d.host+"/default/team/web:1", d.auth()...); err != nil {
		t.Fatal(err)
	}
	out, err := deploy("default", "default/team/web:1")
	if err != nil {
		t.Fatalf("%v\n%s", err, faas.AsError(err).Fix)
	}
	if got := out.Function.Active.Image.Reference; got != d.host+"/default/team/web:1" || cached(out) {
		t.Errorf("it is of %q, cached %t", got, cached(out))
	}
	wants(t, get(), "A=one")
	// The tag moves, and the function only with the next deploy.
	if err := crane.Push(image("two"), d.host+"/default/team/web:1", d.auth()...); err != nil {
		t.Fatal(err)
	}
	wants(t, get(), "A=one")
	d.kill()
	d = openDoorTo(t, dir)
	wants(t, get(), "A=one")
	if _, err = deploy("default", "default/team/web:1"); err != nil {
		t.Fatal(err)
	}
	wants(t, get(), "A=two")
	digest, err := image("one").Digest()
	if err != nil {
		t.Fatal(err)
	}
	if out, err = deploy("default", "default/team/web@"+digest.String()); err != nil || !cached(out) {
		t.Errorf("by the digest of the first: %v", err)
	}
	wants(t, get(), "A=one")
	// What is not there, or another namespace's.
	if _, err := d.client.CreateNamespace(t.Context(), "other"); err != nil {
		t.Fatal(err)
	}
	for ref, ns := range map[string]string{"default/team/web:9": "default", "default/none:1": "default", "default/team/web:1": "other", "other/team/web:1": "other"} {
		if _, err := deploy(ns, ref); faas.CodeOf(err) != faas.NotFound {
			t.Errorf("%s in %s: %v", ref, ns, err)
		}
	}
}
