package registry

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The ways of sending a blob that the specification has.
func TestUploads(t *testing.T) {
	w := newWorld(t, Limits{Blob: 1 << 20})
	const repo = "team/app"
	begin := func() string {
		return w.expect(w.do("team", "POST", "/v2/"+repo+"/blobs/uploads/", ""), 202, "").header.Get("Location")
	}
	there := func(body string) {
		t.Helper()
		a := w.expect(w.do("team", "GET", "/v2/"+repo+"/blobs/"+sum(body), ""), 200, "")
		if a.body != body || a.header.Get("Docker-Content-Digest") != sum(body) {
			t.Errorf("the blob is %q, want %q", a.body, body)
		}
		h := w.expect(w.do("team", "HEAD", "/v2/"+repo+"/blobs/"+sum(body), ""), 200, "")
		if h.header.Get("Content-Length") != fmt.Sprint(len(body)) {
			t.Errorf("HEAD says %s bytes, want %d", h.header.Get("Content-Length"), len(body))
		}
	}
	t.Run("at once", func(t *testing.T) {
		a := w.expect(w.do("team", "POST", "/v2/"+repo+"/blobs/uploads/?digest="+sum("one"), "one"), 201, "")
		if got, want := a.header.Get("Location"), "/v2/"+repo+"/blobs/"+sum("one"); got != want {
			t.Errorf("it lies at %s, want %s", got, want)
		}
		there("one")
		w.expect(w.do("team", "POST", "/v2/"+repo+"/blobs/uploads/?digest="+sum("other"), "one"), 400, "DIGEST_INVALID")
		w.expect(w.upload("team", repo, ""), 201, "")
		there("")
	})
	t.Run("in pieces", func(t *testing.T) {
		at := begin()
		a := w.expect(w.do("team", "PATCH", at, "hello ", "Content-Range", "0-5"), 202, "")
		if got := a.header.Get("Range"); got != "0-5" {
			t.Errorf("the range is %s, want 0-5", got)
		}
		at = a.header.Get("Location")
		a = w.expect(w.do("team", "PATCH", at, "again", "Content-Range", "3-7"), 416, "BLOB_UPLOAD_INVALID")
		if got := a.header.Get("Range"); got != "0-5" {
			t.Errorf("after a piece out of order the range is %s, want 0-5", got)
		}
		w.expect(w.do("team", "PATCH", at, "short", "Content-Range", "6-50"), 400, "SIZE_INVALID")
		w.expect(w.do("team", "PATCH", at, "x", "Content-Range", "junk"), 400, "BLOB_UPLOAD_INVALID")
		w.expect(w.do("team", "PATCH", at, "wor", "Content-Range", "6-8"), 202, "")
		if got := w.expect(w.do("team", "GET", at, ""), 204, "").header.Get("Range"); got != "0-8" {
			t.Errorf("the range is %s, want 0-8", got)
		}
		w.expect(w.do("team", "PUT", at+"?digest="+sum("hello world"), "ld", "Content-Range", "9-10"), 201, "")
		there("hello world")
		w.expect(w.do("team", "GET", at, ""), 404, "BLOB_UPLOAD_UNKNOWN")
	})
	t.Run("gone on with after a restart", func(t *testing.T) {
		at := begin()
		w.expect(w.do("team", "PATCH", at, "first half, ", "Content-Range", "0-11"), 202, "")
		w.stop()
		w.start()
		if got := w.expect(w.do("team", "GET", at, ""), 204, "").header.Get("Range"); got != "0-11" {
			t.Errorf("the range is %s, want 0-11", got)
		}
		w.expect(w.do("team", "PATCH", at, "second half", "Content-Range", "12-22"), 202, "")
		w.expect(w.do("team", "PUT", at+"?digest="+sum("first half, second half"), ""), 201, "")
		there("first half, second half")
	})
	t.Run("given up", func(t *testing.T) {
		at := begin()
		w.expect(w.do("team", "DELETE", at, ""), 204, "")
		w.expect(w.do("team", "PATCH", at, "x"), 404, "BLOB_UPLOAD_UNKNOWN")
	})
	t.Run("of another repository", func(t *testing.T) {
		at := strings.Replace(begin(), repo, "team/more", 1)
		w.expect(w.do("team", "PATCH", at, "x"), 404, "BLOB_UPLOAD_UNKNOWN")
	})
	t.Run("wrong digest", func(t *testing.T) {
		at := begin()
		w.expect(w.do("team", "PUT", at+"?digest="+sum("this"), "that"), 400, "DIGEST_INVALID")
		w.expect(w.do("team", "HEAD", "/v2/"+repo+"/blobs/"+sum("that"), ""), 404, "")
		w.expect(w.do("team", "PUT", begin()+"?digest=sha512:00", "that"), 400, "DIGEST_INVALID")
		w.expect(w.do("team", "PUT", begin(), "that"), 400, "DIGEST_INVALID")
	})
	t.Run("mounted", func(t *testing.T) {
		w.expect(w.upload("admin", "other/base", "shared"), 201, "")
		w.expect(w.do("admin", "POST", "/v2/"+repo+"/blobs/uploads/?from=other/base&mount="+sum("shared"), ""), 201, "")
		there("shared")
		w.expect(w.do("admin", "POST", "/v2/"+repo+"/blobs/uploads/?from=other/base&mount="+sum("unknown"), ""), 202, "")
		w.expect(w.do("admin", "POST", "/v2/"+repo+"/blobs/uploads/?mount="+sum("shared"), ""), 202, "")
	})
	t.Run("too large", func(t *testing.T) {
		big := strings.Repeat("x", 1<<20+1)
		w.expect(w.do("team", "PATCH", begin(), big), 413, "SIZE_INVALID")
		at := begin()
		w.expect(w.do("team", "PATCH", at, big[:1<<20]), 202, "")
		w.expect(w.do("team", "PATCH", at, "x"), 413, "SIZE_INVALID")
	})
	t.Run("a part", func(t *testing.T) {
		w.expect(w.upload("team", repo, "0123456789"), 201, "")
		for ask, want := range map[string]string{"bytes=3-5": "345", "bytes=7-": "789", "bytes=0-99": "0123456789", "junk": "0123456789", "bytes=1-2,4-5": "0123456789"} {
			if a := w.do("team", "GET", "/v2/"+repo+"/blobs/"+sum("0123456789"), "", "Range", ask); a.body != want {
				t.Errorf("%s gave %q, want %q", ask, a.body, want)
			}
		}
		w.expect(w.do("team", "GET", "/v2/"+repo+"/blobs/"+sum("0123456789"), "", "Range", "bytes=10-"), 416, "SIZE_INVALID")
	})
	t.Run("many at once", func(t *testing.T) {
		body := strings.Repeat("many", 100_000)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { w.expect(w.upload("team", repo, body), 201, "") })
		}
		wg.Wait()
		there(body)
	})
	if left, err := filepath.Glob(filepath.Join(w.dir, "uploads", "*")); err != nil || len(left) > 9 {
		t.Errorf("%d uploads are left, %v", len(left), err)
	}
}

// A sender that goes away in the middle of a piece finds what got here, and goes on from there.
func TestBrokenConnection(t *testing.T) {
	w := newWorld(t, Limits{})
	at := w.expect(w.do("team", "POST", "/v2/team/app/blobs/uploads/", ""), 202, "").header.Get("Location")
	pr, pw := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "PATCH", w.srv.URL+at, pr)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("x", "team")
	done := make(chan struct{})
	go func() {
		defer close(done)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	if _, err := pw.Write(bytes.Repeat([]byte("x"), 100_000)); err != nil {
		t.Fatal(err)
	}
	_ = pw.CloseWithError(os.ErrClosed)
	<-done
	var a answer
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if a = w.do("team", "GET", at, ""); a.header.Get("Range") == "0-99999" {
			break
		}
	}
	if got := a.header.Get("Range"); got != "0-99999" {
		t.Fatalf("the range is %s, want 0-99999", got)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		a = w.do("team", "PUT", at+"?digest="+sum(strings.Repeat("x", 100_000)+"end"), "end", "Content-Range", "100000-100002")
		if a.status != 409 || time.Now().After(deadline) { // the broken request may be ending still
			break
		}
	}
	w.expect(a, 201, "")
}
