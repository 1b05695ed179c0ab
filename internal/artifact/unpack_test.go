package artifact

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

// entry is one thing in an archive that a test makes.
type entry struct {
	name string
	body string
	mode int64
	kind byte   // of tar; 0 is a file
	link string // target
	flag uint16 // of zip
	size int64  // of tar; a lie if not 0
	pax  map[string]string
}

func makeTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.body)), Typeflag: tar.TypeReg, Linkname: e.link, PAXRecords: e.pax}
		if e.kind != 0 {
			h.Typeflag = e.kind
		}
		if e.kind == tar.TypeXGlobalHeader {
			h.Mode = 0
		}
		if e.mode != 0 {
			h.Mode = e.mode
		}
		if e.size != 0 {
			h.Size = e.size
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("%q: %v", e.name, err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close() // complains of lies
	return b.Bytes()
}

func makeGzip(t testing.TB, b []byte) []byte {
	t.Helper()
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

func makeZip(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Flags: e.flag}
		mode := fs.FileMode(0o644)
		if e.mode != 0 {
			mode = fs.FileMode(e.mode)
		}
		body := e.body
		switch e.kind {
		case tar.TypeSymlink:
			mode, body = fs.ModeSymlink|0o777, e.link
		case tar.TypeFifo:
			mode = fs.ModeNamedPipe | 0o644
		case tar.TypeDir:
			mode = fs.ModeDir | 0o755
		}
		h.SetMode(mode)
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// unpack unpacks into a directory below another one and checks that nothing appeared beside it
// and, after an error, in it.
func unpack(t testing.TB, archive []byte, name string, limits Limits) (map[string]string, error) {
	t.Helper()
	outer := t.TempDir()
	if err := os.WriteFile(filepath.Join(outer, "secret"), []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	inner := filepath.Join(outer, "in")
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(inner)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	// A reader without random access takes the longer way.
	unpackErr := Unpack(t.Context(), io.MultiReader(bytes.NewReader(archive)), name, root, limits)
	if b, err := os.ReadFile(filepath.Join(outer, "secret")); err != nil || string(b) != "host" {
		t.Fatalf("the file beside the directory is now %q, %v", b, err)
	}
	if d, err := os.ReadDir(outer); err != nil || len(d) != 2 {
		t.Fatalf("beside the directory there is now: %v, %v", d, err)
	}
	got := map[string]string{}
	err = filepath.WalkDir(inner, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == inner {
			return err
		}
		rel, _ := filepath.Rel(inner, p)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch d.Type() {
		case fs.ModeDir:
			got[rel] = "dir"
		case fs.ModeSymlink:
			target, err := os.Readlink(p)
			got[rel] = "-> " + target
			return err
		default:
			b, err := os.ReadFile(p)
			got[rel] = fmt.Sprintf("%s %s", info.Mode(), b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if unpackErr != nil && len(got) != 0 {
		t.Errorf("after the error %v there is still %v", unpackErr, got)
	}
	return got, unpackErr
}

func TestUnpackFormats(t *testing.T) {
	entries := []entry{
		{name: "./"}, {name: "./main.py", body: "print(1)"}, {name: "bin/", kind: tar.TypeDir}, {name: "bin/run", body: "x", mode: 0o4755},
		{name: "a/b/c.txt", body: "deep"}, {name: "a/link", kind: tar.TypeSymlink, link: "b/c.txt"}, {name: "bin/", kind: tar.TypeDir},
	}
	entries[0].kind = tar.TypeDir
	want := map[string]string{
		"main.py": "-rw-r--r-- print(1)", "bin": "dir", "bin/run": "-rwxr-xr-x x",
		"a": "dir", "a/b": "dir", "a/b/c.txt": "-rw-r--r-- deep", "a/link": "-> b/c.txt",
	}
	plain := makeTar(t, entries...)
	for name, archive := range map[string][]byte{"x.tar": plain, "x.zip": makeGzip(t, plain), "x.py": makeZip(t, entries...)} {
		got, err := unpack(t, archive, name, Limits{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s:\n got %v\nwant %v", name, got, want)
		}
	}
	hard := makeTar(t, entry{name: "f", body: "1"}, entry{name: "g", kind: tar.TypeLink, link: "./f"})
	if got, err := unpack(t, hard, "", Limits{}); err != nil || got["g"] != "-rw-r--r-- 1" {
		t.Errorf("hard link: %v, %v", got, err)
	}
	global := makeTar(t, entry{name: "pax_global_header", kind: tar.TypeXGlobalHeader, pax: map[string]string{"comment": "abc"}}, entry{name: "f"})
	if got, err := unpack(t, global, "", Limits{}); err != nil || len(got) != 1 {
		t.Errorf("git archive: %v, %v", got, err)
	}
}

func TestUnpackSingleFile(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"main.py", "print(1)", "map[main.py:-rw-r--r-- print(1)]"},
		{"dir/run.sh", "#!/bin/sh\n", "map[run.sh:-rwxr-xr-x #!/bin/sh\n]"},
		{"prog", "\x7fELFxx", "map[prog:-rwxr-xr-x \x7fELFxx]"},
		{"e.js", "", "map[e.js:-rw-r--r-- ]"},
	} {
		got, err := unpack(t, []byte(c.body), c.name, Limits{})
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%q: %v, %v; want %s", c.name, got, err, c.want)
		}
	}
	for _, name := range []string{"", "..", "a\\b", "a\x00b", "/"} {
		if got, err := unpack(t, []byte("x"), name, Limits{}); faas.CodeOf(err) != faas.Invalid {
			t.Errorf("%q: %v, %v; want Invalid", name, got, err)
		}
	}
}

func TestUnpackRefusesWhatIsNotPlain(t *testing.T) {
	long := strings.Repeat("n", maxName+1)
	sym := func(name, target string) entry { return entry{name: name, kind: tar.TypeSymlink, link: target} }
	both := map[string][]entry{
		"leads out":             {{name: "../evil", body: "x"}},
		"leads out ":            {{name: "a/../../evil", body: "x"}},
		"absolute":              {{name: "/etc/evil", body: "x"}},
		"backslash":             {{name: `..\evil`, body: "x"}},
		"drive":                 {{name: "C:evil", body: "x"}},
		"control character":     {{name: "a\nb", body: "x"}},
		"control character ":    {{name: "\u202egpj.exe", body: "x"}},
		"too long a name":       {{name: long, body: "x"}},
		"too long a path":       {{name: strings.Repeat("d/", maxPath/2+1) + "f", body: "x"}},
		"too deep":              {{name: strings.Repeat("d/", maxDeep+1) + "f", body: "x"}},
		"two entries called":    {{name: "a", body: "1"}, {name: "a", body: "2"}},
		"two entries called ":   {{name: "a/b", body: "1"}, {name: "a", body: "2"}},
		"two entries called  ":  {{name: "a", body: "1"}, {name: "./a", body: "2"}},
		"not a directory":       {{name: "a", body: "1"}, {name: "a/b", body: "2"}},
		"which are one":         {{name: "Main.py", body: "1"}, {name: "main.py", body: "2"}},
		"which are one ":        {{name: "\u00e9", body: "1"}, {name: "e\u0301", body: "2"}},
		"which are one  ":       {{name: "Dir/a", body: "1"}, {name: "dir/b", body: "2"}},
		"link ":                 {sym("l", "../out")},
		"absolute path":         {sym("l", "/etc/passwd")},
		"not a directory ":      {{name: "d/f", body: "1"}, sym("l", "d"), {name: "l/evil", body: "x"}},
		"two entries called   ": {sym("l", "f"), {name: "l", body: "x"}},
		"goes up again":         {{name: "a/b/f", body: "1"}, sym("a/up", ".."), sym("a/b/x", "../up/../..")},
		"goes up again ":        {{name: "a/f", body: "1"}, sym("a/l", ".."), sym("a/x", "l/later/l/later/../../../../../etc/passwd")},
		"in a circle":           {sym("a", "b"), sym("b", "a"), {name: "f"}},
		"neither a file":        {{name: "p", kind: tar.TypeFifo}},
		"no file in it":         {{name: "empty/", kind: tar.TypeDir}},
	}
	for why, entries := range both {
		for format, archive := range map[string][]byte{"tar": makeTar(t, entries...), "tar.gz": makeGzip(t, makeTar(t, entries...)), "zip": makeZip(t, entries...)} {
			refused(t, format, why, archive)
		}
	}
	for why, entries := range map[string][]entry{
		"hard link":       {{name: "l", kind: tar.TypeLink, link: "../secret"}},
		"hard link ":      {{name: "l", kind: tar.TypeLink, link: "/etc/passwd"}},
		"hard link  ":     {sym("s", "f"), {name: "f"}, {name: "l", kind: tar.TypeLink, link: "s"}},
		"neither a file":  {{name: "c", kind: tar.TypeChar}},
		"neither a file ": {{name: "b", kind: tar.TypeBlock}},
		"not UTF-8":       {{name: "a\xff", body: "x"}},
		"is damaged":      {{name: "a", body: "x", size: 1 << 20}},
	} {
		refused(t, "tar", why, makeTar(t, entries...))
	}
	sparse := makeTar(t, entry{name: "s", body: "x"})
	sparse[156] = tar.TypeGNUSparse
	copy(sparse[257:], "ustar  \x00")
	resum(sparse)
	refused(t, "tar", "", sparse)
	refused(t, "zip", "encrypted", makeEncrypted(t))
	refused(t, "zip", "overlap", makeOverlap(t))
	for kind, magic := range map[string]string{"xz": "\xfd7zXZ\x00", "bzip2": "BZh9", "zstd": "\x28\xb5\x2f\xfd", "7z": "7z\xbc\xaf\x27\x1c", "rar": "Rar!\x1a\x07\x00"} {
		refused(t, kind, "this is a "+kind, []byte(magic+"............"))
	}
	refused(t, "gzip", "does not hold a tar", makeGzip(t, []byte("hello")))
	whole := makeZip(t, entry{name: "a", body: strings.Repeat("abc", 1000)})
	refused(t, "zip", "damaged", whole[:len(whole)-10])
	whole[60] ^= 0xff
	refused(t, "zip", "damaged", whole)
	packed := makeGzip(t, makeTar(t, entry{name: "a", body: strings.Repeat("abc", 100000)}))
	refused(t, "tar.gz", "damaged", packed[:len(packed)/2])
}

// A link that stays inside where it was unpacked may lead out of where it is moved to.
func TestCheckLinks(t *testing.T) {
	for target, inside := range map[string]bool{"f": true, "d/../f": false, "./d/f": true, "..": false, "../src/f": false, "/etc": false} {
		dir := t.TempDir()
		if err := os.Symlink(target, filepath.Join(dir, "l")); err != nil {
			t.Fatal(err)
		}
		if err := CheckLinks(os.DirFS(dir)); (err == nil) != inside {
			t.Errorf("a link to %q: %v, want it taken: %v", target, err, inside)
		}
	}
}

func refused(t *testing.T, format, why string, archive []byte) {
	t.Helper()
	got, err := unpack(t, archive, "name", Limits{})
	if faas.CodeOf(err) != faas.Invalid || !strings.Contains(err.Error(), strings.TrimRight(why, " ")) {
		t.Errorf("%s with %q: got %v, error %v; want Invalid that says so", format, why, got, err)
	}
}

func resum(block []byte) {
	copy(block[148:156], "        ")
	sum := 0
	for _, c := range block[:512] {
		sum += int(c)
	}
	copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
}

func makeEncrypted(t *testing.T) []byte {
	b := makeZip(t, entry{name: "a", body: "secret"})
	for _, sig := range []struct {
		magic string
		at    int
	}{{"PK\x03\x04", 6}, {"PK\x01\x02", 8}} {
		b[bytes.Index(b, []byte(sig.magic))+sig.at] |= 1
	}
	return b
}

// makeOverlap makes a zip of two entries that share one compressed body.
func makeOverlap(t *testing.T) []byte {
	b := makeZip(t, entry{name: "a", body: strings.Repeat("x", 1000)}, entry{name: "b", body: strings.Repeat("y", 1000)})
	second := bytes.LastIndex(b, []byte("PK\x01\x02"))
	first := bytes.Index(b, []byte("PK\x01\x02"))
	copy(b[second+42:second+46], b[first+42:first+46]) // its offset becomes the first one's
	return b
}

func TestUnpackLimits(t *testing.T) {
	zeros := strings.Repeat("\x00", 12<<20)
	noise := string(noiseBytes(3 << 20))
	var many []entry
	for i := range 60 {
		many = append(many, entry{name: fmt.Sprintf("d%d/f", i), body: "x"})
	}
	for _, c := range []struct {
		key     string
		limits  Limits
		entries []entry
	}{
		{"code_bytes", Limits{Bytes: 2 * faas.MiB}, []entry{{name: "f", body: noise}}},
		{"code_bytes", Limits{Bytes: 4 * faas.MiB}, []entry{{name: "f", body: noise}, {name: "g", body: noise}}},
		{"code_entries", Limits{Entries: 100}, many}, // directories that are only implied count too
		{"code_entries", Limits{Entries: 50}, many},
		{"code_ratio", Limits{}, []entry{{name: "f", body: zeros}}},
	} {
		plain := makeTar(t, c.entries...)
		for format, archive := range map[string][]byte{"tar": plain, "tar.gz": makeGzip(t, plain), "zip": makeZip(t, c.entries...)} {
			_, err := unpack(t, archive, "", c.limits)
			if format == "tar" && c.key == "code_ratio" {
				if err != nil {
					t.Errorf("a tar that is not compressed has no ratio: %v", err)
				}
				continue
			}
			e, ok := errors.AsType[*faas.Error](err)
			if !ok || e.Code != faas.TooLarge || e.Limit != c.key {
				t.Errorf("%s with %+v: %v; want TooLarge with limit %s", format, c.limits, err, c.key)
			}
		}
	}
	linked := makeTar(t, entry{name: "f", body: noise}, entry{name: "g", kind: tar.TypeLink, link: "f"})
	if _, err := unpack(t, linked, "", Limits{Bytes: 4 * faas.MiB}); faas.CodeOf(err) != faas.TooLarge {
		t.Errorf("a hard link's bytes count: %v", err)
	}
	skipped := makeGzip(t, makeTar(t, entry{name: "g", kind: tar.TypeXGlobalHeader, pax: map[string]string{"x": strings.Repeat("\x20", 900000)}}, entry{name: "f"}))
	if _, err := unpack(t, skipped, "", Limits{}); err != nil {
		t.Errorf("a large comment: %v", err)
	}
	if _, err := unpack(t, makeLiar(t), "", Limits{Bytes: faas.MiB}); faas.CodeOf(err) != faas.Invalid {
		t.Errorf("a zip that says less than it holds: %v", err)
	}
	if _, err := unpack(t, makeCrowd(200_000), "", Limits{Entries: 1000}); faas.CodeOf(err) != faas.TooLarge {
		t.Errorf("a zip with a huge directory: %v", err)
	}
}

// makeLiar makes a zip whose entry says it has ten bytes and has eight million.
func makeLiar(t *testing.T) []byte {
	b := makeZip(t, entry{name: "a", body: strings.Repeat("x", 8<<20)})
	at := bytes.Index(b, []byte("PK\x01\x02"))
	binary.LittleEndian.PutUint32(b[at+24:], 10)
	return b
}

// makeCrowd makes a zip of n entries that are all the same empty one, 47 bytes each.
func makeCrowd(n int) []byte {
	le := binary.LittleEndian
	local := make([]byte, 31)
	copy(local, "PK\x03\x04")
	le.PutUint16(local[26:], 1)
	local[30] = 'a'
	h := make([]byte, 47)
	copy(h, "PK\x01\x02")
	le.PutUint32(h[16:], crc32.ChecksumIEEE(nil))
	le.PutUint16(h[28:], 1)
	h[46] = 'a'
	b := append(slices.Clone(local), bytes.Repeat(h, n)...)
	end := make([]byte, 22)
	copy(end, "PK\x05\x06")
	le.PutUint16(end[8:], uint16(n))
	le.PutUint16(end[10:], uint16(n))
	le.PutUint32(end[12:], uint32(47*n))
	le.PutUint32(end[16:], 31)
	return append(b, end...)
}

func TestUnpackNeedsAnEmptyDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := Unpack(t.Context(), strings.NewReader("x"), "f", root, Limits{}); err == nil {
		t.Error("unpacked into a directory that is not empty")
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err != nil {
		t.Errorf("what was there is gone: %v", err)
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(makeZip(f, entry{name: "a/b", body: "x"}, entry{name: "l", kind: tar.TypeSymlink, link: "a"}))
	f.Add(makeTar(f, entry{name: "a/b", body: "x"}, entry{name: "l", kind: tar.TypeLink, link: "a/b"}))
	f.Add(makeGzip(f, makeTar(f, entry{name: "../a", body: "x"})))
	f.Add(makeCrowd(3))
	f.Add([]byte("#!/bin/sh"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		limits := Limits{Bytes: faas.MiB, Entries: 100, Ratio: 100}
		got, err := unpack(t, archive, "main.py", limits)
		if err != nil && faas.CodeOf(err) != faas.Invalid && faas.CodeOf(err) != faas.TooLarge {
			t.Errorf("an archive can only be Invalid or TooLarge: %v", err)
		}
		if len(got) > limits.Entries {
			t.Errorf("%d entries", len(got))
		}
	})
}
