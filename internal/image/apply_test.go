package image

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// What layers bring, replace and take away is what a container engine would make of them.
func TestLayersMakeOneRoot(t *testing.T) {
	for name, c := range map[string]struct {
		layers [][]entry
		want   string
	}{
		"files, modes and links are kept": {
			[][]entry{{
				{name: "bin/"}, {name: "bin/sh", body: "shell", mode: 0o755}, {name: "etc/passwd", body: "root", mode: 0o600}, {name: "./lib", link: "usr/lib"},
				{name: "bin/bash", link: "/bin/sh"}, {name: "up", link: "../../.."}, {name: "/abs", body: "x", mode: 0o111},
			}},
			"abs* = x\nbin/\nbin/bash -> /bin/sh\nbin/sh* = shell\netc/\netc/passwd = root\nlib -> usr/lib\nup -> ../../..\n",
		},
		"a later layer replaces": {
			[][]entry{{{name: "a", body: "1"}, {name: "d/x", body: "1"}, {name: "e/y", body: "1"}, {name: "l", link: "a"}}, {{name: "a", body: "2"}, {name: "d", body: "file"}, {name: "e/"}, {name: "l", body: "no link"}}},
			"a = 2\nd = file\ne/\ne/y = 1\nl = no link\n",
		},
		"a directory takes the place of a link": {
			[][]entry{{{name: "real/f", body: "1"}, {name: "d", link: "real"}}, {{name: "d/"}, {name: "d/g", body: "2"}}},
			"d/\nd/g = 2\nreal/\nreal/f = 1\n",
		},
		"a layer writes through a link below it, inside the root": {
			[][]entry{{{name: "var/run", link: "/run"}, {name: "run/"}, {name: "esc", link: "/../../etc"}}, {{name: "var/run/pid", body: "1"}, {name: "esc/passwd", body: "ours"}}},
			"esc -> /../../etc\netc/\netc/passwd = ours\nrun/\nrun/pid = 1\nvar/\nvar/run -> /run\n",
		},
		"whiteouts take away files, directories and links": {
			[][]entry{{{name: "a", body: "1"}, {name: "d/x", body: "1"}, {name: "d/y", body: "1"}, {name: "l", link: "d"}}, {{name: ".wh.a"}, {name: ".wh.d"}, {name: ".wh.l"}, {name: ".wh.never"}, {name: "none/.wh.f"}}},
			"",
		},
		"a whiteout spares what its own layer brings": {
			[][]entry{{{name: "d/old", body: "1"}, {name: "f", body: "1"}}, {{name: "d/new", body: "2"}, {name: ".wh.d"}, {name: "f", body: "2"}, {name: ".wh.f"}}},
			"d/\nd/new = 2\nf = 2\n",
		},
		"a whiteout comes first and the new file after it": {
			[][]entry{{{name: "d/old", body: "1"}}, {{name: ".wh.d"}, {name: "d/"}, {name: "d/new", body: "2"}}},
			"d/\nd/new = 2\n",
		},
		"an opaque directory hides all below it, wherever its mark stands": {
			[][]entry{{{name: "d/old", body: "1"}, {name: "d/sub/old", body: "1"}, {name: "other", body: "1"}}, {{name: "d/new", body: "2"}, {name: "d/sub/new", body: "2"}, {name: "d/.wh..wh..opq"}}},
			"d/\nd/new = 2\nd/sub/\nd/sub/new = 2\nother = 1\n",
		},
		"an opaque root": {
			[][]entry{{{name: "d/old", body: "1"}}, {{name: ".wh..wh..opq"}, {name: "n", body: "2"}}},
			"n = 2\n",
		},
		"notes of builders are no files": {
			[][]entry{{{name: ".wh..wh.plnk/"}, {name: "a", body: "1"}, {name: ".wh..wh.aufs"}}},
			"a = 1\n",
		},
		"hard links are one file, also across layers and to links": {
			[][]entry{{{name: "a", body: "1", mode: 0o755}, {name: "s", link: "a"}}, {{name: "b", hard: "a"}, {name: "c/d", hard: "/b"}, {name: "t", hard: "s"}}},
			"a* = 1\nb* = 1\nc/\nc/d* = 1\ns -> a\nt -> a\n",
		},
		"names that differ in case, in form or are no UTF-8": {
			[][]entry{{{name: "A", body: "1"}, {name: "a", body: "2"}, {name: "x\\x2dy", body: "3"}, {name: "\xff\xfe", body: "4"}, {name: "tab\there", body: "5"}}},
			"A = 1\na = 2\ntab\there = 5\nx\\x2dy = 3\n\xff\xfe = 4\n",
		},
		"devices below /dev are left out": {
			[][]entry{{{name: "dev/null", kind: tar.TypeChar}, {name: "dev/sda", kind: tar.TypeBlock}, {name: "dev/initctl", kind: tar.TypeFifo}, {name: "dev/fd", link: "/proc/self/fd"}, {name: "a", body: "1"}}},
			"a = 1\ndev/\ndev/fd -> /proc/self/fd\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, Config{})
			img := of(t, c.layers...)
			i, err := take(t, s, img)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, listing(t, s, i)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			// The stored root is the same as the one that was unpacked.
			if err := s.config.Depot.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A root survives the loss of what is laid out: what the depot has gives the same.
func TestRootIsLaidOutAgain(t *testing.T) {
	objects, dir := store.MemoryObjects(), t.TempDir()
	open := func() *artifact.Depot {
		d, err := artifact.Open(artifact.Config{Objects: objects, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := open()
	when := time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)
	s := newStore(t, Config{Depot: d})
	i, err := take(t, s, of(t, []entry{
		{name: "bin/busybox", body: "program", mode: 0o4755, when: when}, {name: "bin/ls", hard: "bin/busybox"}, {name: "bin/sh", link: "/bin/busybox"},
		{name: "\xff", body: "1", when: when}, {name: "old", body: "1", when: time.Unix(-5, 0)},
	}))
	if err != nil {
		t.Fatal(err)
	}
	before := listing(t, s, i)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "roots", i.Root.Hex())
	if err := os.Rename(path, path+".gone"); err != nil {
		t.Fatal(err)
	}
	d = open()
	defer d.Close()
	s = newStore(t, Config{Depot: d})
	if diff := cmp.Diff(before, listing(t, s, i)); diff != "" {
		t.Errorf("laid out again it differs (-before +after)\n%s", diff)
	}
	r := root(t, s, i)
	a, err1 := r.Stat("bin/busybox")
	b, err2 := r.Stat("bin/ls")
	if err1 != nil || err2 != nil || !os.SameFile(a, b) {
		t.Errorf("bin/busybox and bin/ls are two files: %v %v", err1, err2)
	}
	if got := a.ModTime().UTC(); !got.Equal(when) {
		t.Errorf("bin/busybox is of %v, want %v", got, when)
	}
	if a.Mode() != 0o555 {
		t.Errorf("bin/busybox has mode %v, want -r-xr-xr-x", a.Mode())
	}
	if _, err := r.Stat("bin/sh"); err == nil {
		t.Error("an absolute link was followed out of the root")
	}
	// A root is no code, and code is no root.
	if _, _, err := d.Tree(t.Context(), i.Root); err == nil {
		t.Error("the root was laid out as code")
	}
}

// hostile are layers that must be refused, with what the error has to say.
var hostile = map[string]struct {
	layers [][]entry
	want   string
	limit  string
}{
	"traversal":                      {[][]entry{{{name: "../evil", body: "x"}}}, "leads out of its directory", ""},
	"traversal in the middle":        {[][]entry{{{name: "a/../../evil", body: "x"}}}, "leads out of its directory", ""},
	"absolute traversal":             {[][]entry{{{name: "/../evil", body: "x"}}}, "leads out of its directory", ""},
	"whiteout of the parent":         {[][]entry{{{name: "d/.wh..."}}}, "names no file", ""},
	"whiteout of nothing":            {[][]entry{{{name: "d/a", body: "1"}, {name: "d/.wh."}}}, "names no file", ""},
	"hard link to the host":          {[][]entry{{{name: "shadow", hard: "../../../../etc/shadow"}}}, "leads out of its directory", ""},
	"hard link to what is not there": {[][]entry{{{name: "shadow", hard: "/etc/shadow"}}}, "is not an earlier file", ""},
	"hard link to a directory":       {[][]entry{{{name: "d/"}, {name: "e", hard: "d"}}}, "is not a file", ""},
	"hard link to itself":            {[][]entry{{{name: "e", hard: "e"}}}, "is not an earlier file", ""},
	"character device":               {[][]entry{{{name: "tmp/null", kind: tar.TypeChar}}}, "a character device", ""},
	"block device":                   {[][]entry{{{name: "devil/sda", kind: tar.TypeBlock}}}, "a block device", ""},
	"named pipe":                     {[][]entry{{{name: "run/pipe", kind: tar.TypeFifo}}}, "a named pipe", ""},
	"below a file":                   {[][]entry{{{name: "f", body: "1"}}, {{name: "f/g", body: "1"}}}, "is a file", ""},
	"circle of links":                {[][]entry{{{name: "a", link: "b"}, {name: "b", link: "a"}}, {{name: "a/f", body: "1"}}}, "circle of symbolic links", ""},
	"long name":                      {[][]entry{{{name: strings.Repeat("n", 256), body: "1"}}}, "more than 255 bytes", ""},
	"long path":                      {[][]entry{{{name: strings.Repeat("long/", 700) + "f", body: "1"}}}, "more than 3000 bytes", ""},
	"deep path":                      {[][]entry{{{name: strings.Repeat("d/", 1000) + "f", body: "1"}}}, "is no path", ""},
	"empty link":                     {[][]entry{{{name: "l", kind: tar.TypeSymlink}}}, "is no path", ""},
	"bomb":                           {[][]entry{{{name: "zeros", size: 64 << 20}}}, "more than 100 times its size", "image_ratio"},
	"large file":                     {[][]entry{{{name: "f", size: 5 << 20}}}, "larger than 4MiB", "image_file_bytes"},
	"large image":                    {[][]entry{{{name: "a", size: 3 << 20}}, {{name: "a", size: 3 << 20}}, {{name: "a", size: 3 << 20}}}, "larger than 8MiB together", "image_bytes"},
	"many files":                     {[][]entry{manyFiles(120)}, "more than 100 files", "image_entries"},
	"many directories of one name":   {[][]entry{{{name: strings.Repeat("d/", 120) + "f", body: "1"}}}, "more than 100 files", "image_entries"},
	"many layers":                    {[][]entry{{{name: "a"}}, {{name: "a"}}, {{name: "a"}}, {{name: "a"}}, {{name: "a"}}, {{name: "a"}}}, "6 layers, more than 5", "image_layers"},
}

func manyFiles(n int) []entry {
	var out []entry
	for i := range n {
		out = append(out, entry{name: "f" + string(rune('a'+i%26)) + strings.Repeat("x", i/26)})
	}
	return out
}

func TestHostileLayersAreRefused(t *testing.T) {
	for name, c := range hostile {
		t.Run(name, func(t *testing.T) {
			dir, around := t.TempDir(), t.TempDir()
			d, err := artifact.Open(artifact.Config{Objects: store.MemoryObjects(), Dir: filepath.Join(around, "depot")})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			s := newStore(t, Config{Depot: d, Dir: dir, Limits: Limits{Bytes: 8 << 20, File: 4 << 20, Entries: 100, Layers: 5}})
			if name == "bomb" {
				s.config.Limits = Limits{}
				s.config.Limits.applyDefaults()
			}
			_, err = take(t, s, of(t, c.layers...))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
			code := faas.Invalid
			if c.limit != "" {
				code = faas.TooLarge
			}
			if got := faas.CodeOf(err); got != code || limitOf(err) != c.limit {
				t.Errorf("it is %v with limit %q, want %v with %q", got, limitOf(err), code, c.limit)
			}
			leftovers(t, filepath.Join(around, "depot"))
			beside, err := os.ReadDir(around)
			if err != nil {
				t.Fatal(err)
			}
			if len(beside) != 1 {
				t.Errorf("something was written beside the depot: %v", beside)
			}
		})
	}
}

// What lies deep, or behind links to links, costs a bounded number of steps, however small the layer is.
func TestPathsTakeNoMoreStepsThanTheyMay(t *testing.T) {
	deep := strings.Repeat("d/", 120)
	cases := map[string]func(n int) entry{
		"deep everywhere": func(n int) entry { return entry{name: deep + strconv.Itoa(n) + "/f", body: "x"} },
		"a directory that is replaced": func(n int) entry {
			if n%2 == 0 {
				return entry{name: "l", link: deep}
			}
			return entry{name: "l/x/f", body: "x"}
		},
		"links that wind": func(n int) entry {
			if n%2 == 0 {
				return entry{name: "l" + strconv.Itoa(n), link: strings.Repeat("d/../", 400) + "d"}
			}
			return entry{name: "l" + strconv.Itoa(n-1) + "/f" + strconv.Itoa(n), body: "x"}
		},
	}
	for name, c := range cases {
		a, err := newApplier(t.Context(), t.TempDir(), Limits{Bytes: 1 << 30, File: 1 << 20, Entries: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer a.close()
		const n = 200
		entries := []entry{{name: deep}}
		for i := range n {
			entries = append(entries, c(i))
		}
		if _, err := a.apply(bytes.NewReader(layerTar(t, entries...))); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if most := n * 4000; a.steps > most {
			t.Errorf("%s: %d entries took %d steps, more than %d", name, n, a.steps, most)
		}
		a.steps = maxSteps - 10
		if _, err := a.apply(bytes.NewReader(layerTar(t, entries...))); limitOf(err) != "image_entries" {
			t.Errorf("%s: got %v, want it refused for its steps", name, err)
		}
	}
	a, err := newApplier(t.Context(), t.TempDir(), Limits{Bytes: 1 << 30, File: 1 << 20, Entries: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	links := []entry{{name: "a/" + deep}, {name: "a/l", link: deep[:200]}, {name: "a/l/m", link: strings.Repeat("e/", 100)}, {name: "a/l/" + strings.Repeat("e/", 100)}, {name: "a/l/m/f", body: "x"}}
	if _, err := a.apply(bytes.NewReader(layerTar(t, links...))); err == nil || !strings.Contains(err.Error(), "too long a path") {
		t.Errorf("deep by way of links: %v; want it refused", err)
	}
}

// A link of one layer does not lead a later one out of the root, whatever it points at.
func TestLinksDoNotLeadOut(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "victim"), []byte("untouched"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, Config{})
	up := strings.Repeat("../", 40)
	i, err := take(t, s, of(t,
		[]entry{{name: "abs", link: outside}, {name: "rel", link: up + outside[1:]}, {name: "hop", link: "abs"}, {name: "dir/"}, {name: "dir/up", link: "../../.."}},
		[]entry{{name: "abs/victim", body: "1"}, {name: "rel/second", body: "2"}, {name: "hop/third", body: "3"}, {name: "dir/up" + outside + "/fourth", body: "4"}, {name: "h", hard: "abs/victim"}},
		[]entry{{name: "abs/.wh.victim"}, {name: "rel/.wh..wh..opq"}},
	))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(outside, "victim")); err != nil || string(b) != "untouched" {
		t.Errorf("the file outside is %q, %v", b, err)
	}
	if e, err := os.ReadDir(outside); err != nil || len(e) != 1 {
		t.Errorf("outside there is %v, %v", e, err)
	}
	if got := listing(t, s, i); !strings.Contains(got, "h = 1\n") || strings.Contains(got, "victim =") {
		t.Errorf("the root is\n%s", got)
	}
}

// What the image gives to users and groups is dropped and said.
func TestPrivilegesAreDropped(t *testing.T) {
	s := newStore(t, Config{})
	i, err := take(t, s, of(t, []entry{
		{name: "bin/su", body: "x", mode: 0o4755}, {name: "bin/wall", body: "x", mode: 0o2755}, {name: "tmp/", mode: 0o1777},
		{name: "bin/ping", body: "x", mode: 0o755, pax: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02"}},
		{name: "etc/shadow", body: "x", mode: 0o000}, {name: "dev/tty", kind: tar.TypeChar},
	}))
	if err != nil {
		t.Fatal(err)
	}
	r := root(t, s, i)
	for name, want := range map[string]os.FileMode{"bin/su": 0o555, "bin/wall": 0o555, "bin/ping": 0o555, "etc/shadow": 0o444} {
		info, err := r.Stat(name)
		if err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	notes := strings.Join(i.Notes, "\n")
	for _, want := range []string{"1 device nodes", "2 files lost their set-user-ID", "1 files lost their capabilities"} {
		if !strings.Contains(notes, want) {
			t.Errorf("the notes %q lack %q", notes, want)
		}
	}
}

// Sparse files are what they stand for, within the limits.
func TestSparseFiles(t *testing.T) {
	s := newStore(t, Config{Limits: Limits{File: 1 << 20}})
	// A file of 1,000,000 bytes with data at its end alone, in the form of GNU tar 1.0.
	sparse := func(size string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		body := "1\n0\n3\n"
		body += strings.Repeat("\x00", 512-len(body)) + "abc"
		if err := w.WriteHeader(&tar.Header{Name: "GNUSparseFile.0/log", Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg, Format: tar.FormatPAX}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		records := ""
		for _, kv := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=log", "GNU.sparse.realsize=" + size} {
			n := len(kv) + 3
			if n > 9 {
				n = len(kv) + 4
			}
			records += strconv.Itoa(n) + " " + kv + "\n"
		}
		head := make([]byte, 512)
		copy(head, "PaxHeaders/log")
		copy(head[100:], "0000644\x000000000\x000000000\x00")
		copy(head[124:], octal(len(records), 11))
		copy(head[136:], octal(0, 11))
		head[156] = 'x'
		copy(head[257:], "ustar\x0000")
		copy(head[148:], "        ")
		sum := 0
		for _, c := range head {
			sum += int(c)
		}
		copy(head[148:], octal(sum, 6)+"\x00 ")
		pad := make([]byte, (512-len(records)%512)%512)
		return bytes.Join([][]byte{head, []byte(records), pad, b.Bytes()}, nil)
	}
	l := pack(t, sparse("1000"), "gzip")
	i, err := take(t, s, build(t, nil, l))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := listing(t, s, i), "log = abc"+strings.Repeat("\x00", 997)+"\n"; got != want {
		t.Errorf("the sparse file is %q", got)
	}
	if _, err = take(t, s, build(t, nil, pack(t, sparse("9000000000000"), "gzip"))); limitOf(err) != "image_file_bytes" {
		t.Errorf("a sparse file of 9 TB: %v", err)
	}
}

func octal(n, width int) string { return fmt.Sprintf("%0*o", width, n) }

// A layer that is not what it is said to be leaves nothing.
func TestLayersAreCompared(t *testing.T) {
	good := pack(t, layerTar(t, entry{name: "a", body: "1"}, entry{name: "b", body: strings.Repeat("2", 5000)}), "gzip")
	other := pack(t, layerTar(t, entry{name: "a", body: "evil"}), "gzip")
	zst := pack(t, layerTar(t, entry{name: "a", body: strings.Repeat("xyz", 5000)}), "zstd")
	wrong, err := other.Digest()
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good.packed)
	flipped[len(flipped)/2] ^= 0x40
	for name, c := range map[string]struct {
		layer v1.Layer
		want  string
	}{
		"wrong digest":        {&rawLayer{packed: good.packed, diffID: good.diffID, kind: good.kind, digest: wrong}, "not what its digest says"},
		"wrong diff ID":       {&rawLayer{packed: good.packed, diffID: other.diffID, kind: good.kind}, "not what the image's configuration says"},
		"truncated gzip":      {&rawLayer{packed: good.packed[:len(good.packed)-20], diffID: good.diffID, kind: good.kind}, "damaged"},
		"truncated zstd":      {&rawLayer{packed: zst.packed[:len(zst.packed)-10], diffID: zst.diffID, kind: zst.kind}, "damaged"},
		"flipped bit":         {&rawLayer{packed: flipped, diffID: good.diffID, kind: good.kind}, ""},
		"no tar":              {pack(t, []byte(strings.Repeat("this is no tar archive", 100)), "gzip"), "damaged"},
		"tar without its end": {pack(t, layerTar(t, entry{name: "a", body: strings.Repeat("1", 3000)})[:1600], "gzip"), "damaged"},
		"something after it":  {&rawLayer{packed: append(bytes.Clone(good.packed), "more"...), diffID: good.diffID, kind: good.kind}, "damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d, err := artifact.Open(artifact.Config{Objects: store.MemoryObjects(), Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			s := newStore(t, Config{Depot: d})
			_, err = s.FromLayout(t.Context(), layoutOf(t, build(t, nil, c.layer)), Options{})
			if faas.CodeOf(err) != faas.Invalid || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want Invalid with %q", err, c.want)
			}
			leftovers(t, dir)
		})
	}
}
