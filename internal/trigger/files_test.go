package trigger_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

// fileHouse is a house whose triggers may watch a directory.
func fileHouse(t *testing.T) (*triggertest.House, string) {
	t.Helper()
	dir := t.TempDir()
	return triggertest.OpenWith(t, []trigger.Opened{{Path: dir}}), dir
}

func write(t *testing.T, text string, path ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path...), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path ...string) string {
	t.Helper()
	p := filepath.Join(path...)
	if err := os.MkdirAll(p, 0o700); err != nil {
		t.Fatal(err)
	}
	return p
}

// told are the paths of the files of which functions were told, and how often.
func told(t *testing.T, h *triggertest.House) map[string]int {
	t.Helper()
	times := map[string]int{}
	for _, c := range h.Node.Calls() {
		var e struct{ Path string }
		if err := json.Unmarshal([]byte(c.Body), &e); err != nil {
			t.Fatal(err)
		}
		times[e.Path]++
	}
	return times
}

// wantTold waits until functions were told of as many files as are wanted, and compares.
func wantTold(t *testing.T, h *triggertest.House, want map[string]int) {
	t.Helper()
	sum := 0
	for _, n := range want {
		sum += n
	}
	defer func() {
		if got := told(t, h); !maps.Equal(got, want) {
			t.Errorf("told of %v, want %v", got, want)
		}
	}()
	triggertest.Until(t, fmt.Sprintf("calls for %v", want), func() bool { return len(h.Node.Calls()) >= sum })
}

// watches waits until a source knows what was there before it.
func watches(t *testing.T, h *triggertest.House) {
	t.Helper()
	triggertest.Until(t, "the source has looked at the directory", func() bool {
		records, err := h.State.List(t.Context(), "source/", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		return len(records) > 0
	})
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestFilesThatAppear(t *testing.T) {
	h, dir := fileHouse(t)
	in := mkdir(t, dir, "in")
	write(t, "old", in, "old.csv")
	h.Run()
	h.Trigger("t", "file", map[string]any{"path": in, "pattern": "*.csv", "content": true})
	watches(t, h)
	// A file is told of when it is closed, not when it is there.
	f, err := os.Create(filepath.Join(in, "slow.csv"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("half of it, "); err != nil {
		t.Fatal(err)
	}
	write(t, "no", in, "other.txt")
	write(t, "no", in, ".hidden.csv")
	write(t, "moved", dir, "away.csv")
	if err := os.Rename(filepath.Join(dir, "away.csv"), filepath.Join(in, "moved.csv")); err != nil {
		t.Fatal(err)
	}
	wantTold(t, h, map[string]int{"moved.csv": 1})
	if _, err := f.WriteString("and the rest"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	wantTold(t, h, map[string]int{"moved.csv": 1, "slow.csv": 1})
	var e struct {
		Name, Path, Directory, Content string
		Size                           int64
		MTime                          time.Time
	}
	c := h.Node.Calls()[1]
	if err := json.Unmarshal([]byte(c.Body), &e); err != nil {
		t.Fatal(err)
	}
	if e.Name != "slow.csv" || e.Directory != in || e.Content != "half of it, and the rest" || e.Size != 24 || time.Since(e.MTime) > time.Hour || c.Header["Ce-Subject"][0] != "slow.csv" {
		t.Errorf("got %s with %v", c.Body, c.Header)
	}
	// Written anew it is another.
	write(t, "again", in, "slow.csv")
	wantTold(t, h, map[string]int{"moved.csv": 1, "slow.csv": 2})
}

// What appeared while the server was down is told once, and so is what it had begun with.
func TestFilesThatAppearWhileTheServerIsDown(t *testing.T) {
	h, dir := fileHouse(t)
	write(t, "old", dir, "old")
	release := make(chan struct{})
	h.Node.Do(func(triggertest.Call) error { <-release; return nil })
	stop := h.Run()
	h.Trigger("t", "file", map[string]any{"path": dir, "parallel": 2})
	watches(t, h)
	for n := range 5 {
		write(t, "x", dir, fmt.Sprint("before", n))
	}
	triggertest.Until(t, "two calls", func() bool { return len(h.Node.Calls()) == 2 })
	stop()
	write(t, "x", dir, "while")
	close(release)
	stop = h.Run()
	want := map[string]int{"before0": 1, "before1": 1, "before2": 1, "before3": 1, "before4": 1, "while": 1}
	wantTold(t, h, want)
	stop()
	h.Run()
	watches(t, h)
	write(t, "x", dir, "after")
	want["after"] = 1
	wantTold(t, h, want)
}

// A file is deleted, or moved, when its functions have succeeded; with what failed nothing is done.
func TestFilesThatAreDone(t *testing.T) {
	for then, config := range map[string]map[string]any{
		"delete": {"then": "delete"}, "move": {"then": "move", "move_to": "done"},
	} {
		t.Run(then, func(t *testing.T) {
			h, dir := fileHouse(t)
			done := mkdir(t, dir, "done")
			write(t, "taken", done, "b")
			write(t, "a", dir, "a")
			write(t, "b", dir, "b")
			write(t, "bad", dir, "bad")
			release := make(chan struct{})
			h.Node.Do(func(c triggertest.Call) error {
				<-release
				if strings.Contains(c.Body, `"bad"`) {
					return &faas.Error{Code: faas.Invalid, Op: "run", Err: fmt.Errorf("not this one")}
				}
				return nil
			})
			config["path"], config["from"], config["recursive"] = dir, "all", then == "move"
			stop := h.Run()
			h.Trigger("t", "file", config)
			triggertest.Until(t, "three calls", func() bool { return len(h.Node.Calls()) >= 3 })
			if got := files(t, dir); len(got) != 4 {
				t.Errorf("there are %v while the functions work, want all", got)
			}
			stop()
			h.Run()
			close(release)
			triggertest.Until(t, "two files gone", func() bool { return len(files(t, dir)) == 2 })
			want := []string{"b"}
			if then == "move" {
				want = []string{"a", "b", "b.1"}
			}
			if got := files(t, done); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("in done are %v, want %v", got, want)
			}
			wantTold(t, h, map[string]int{"a": 1, "b": 1, "bad": 1})
		})
	}
}

func TestFilesInDirectoriesBelow(t *testing.T) {
	h, dir := fileHouse(t)
	outside := t.TempDir()
	write(t, "x", outside, "secret")
	mkdir(t, dir, "a", "b")
	if err := os.Symlink(outside, filepath.Join(dir, "a", "out")); err != nil {
		t.Fatal(err)
	}
	h.Run()
	h.Trigger("t", "file", map[string]any{"path": dir, "recursive": true, "from": "all", "content": true})
	watches(t, h)
	write(t, "x", dir, "a", "b", "one")
	wantTold(t, h, map[string]int{"a/b/one": 1})
	// A directory that comes with what is in it, and one that is made.
	write(t, "x", mkdir(t, outside, "c", "d"), "two")
	if err := os.Rename(filepath.Join(outside, "c"), filepath.Join(dir, "c")); err != nil {
		if e, ok := err.(*os.LinkError); ok && e.Err == syscall.EXDEV {
			t.Skip("the directories are on two file systems")
		}
		t.Fatal(err)
	}
	wantTold(t, h, map[string]int{"a/b/one": 1, "c/d/two": 1})
	write(t, "x", mkdir(t, dir, "a", "e"), "three")
	wantTold(t, h, map[string]int{"a/b/one": 1, "c/d/two": 1, "a/e/three": 1})
	// What is no file, and what leads elsewhere, is passed by.
	for name, target := range map[string]string{"link": filepath.Join(outside, "secret"), "near": "a/b/one"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, "x", dir, "last")
	wantTold(t, h, map[string]int{"a/b/one": 1, "c/d/two": 1, "a/e/three": 1, "last": 1})
}

func TestFilesWithMuchOrStrangeContent(t *testing.T) {
	h, dir := fileHouse(t)
	write(t, strings.Repeat("x", 101), dir, "large")
	write(t, "\xff\xfe", dir, "bytes")
	write(t, "", dir, "empty")
	h.Run()
	h.Trigger("t", "file", map[string]any{"path": dir, "from": "all", "content": true, "content_bytes": 100})
	wantTold(t, h, map[string]int{"large": 1, "bytes": 1, "empty": 1})
	for _, c := range h.Node.Calls() {
		for name, want := range map[string]string{"large": `"content_left_out":true`, "bytes": `"content":{"base64":"//4="}`, "empty": `"content":""`} {
			if strings.Contains(c.Body, name) && !strings.Contains(c.Body, want) {
				t.Errorf("got %s, want %s", c.Body, want)
			}
		}
	}
	if len(h.Node.Calls()[0].Body) > 1000 {
		t.Error("the content is there that is too much")
	}
}

// Many files that come at once are each told of once.
func TestManyFiles(t *testing.T) {
	h, dir := fileHouse(t)
	h.Run()
	h.Trigger("t", "file", map[string]any{"path": dir, "then": "delete"})
	watches(t, h)
	want := map[string]int{}
	var work sync.WaitGroup
	for w := range 4 {
		for n := range 100 {
			want[fmt.Sprint(w, "-", n)] = 1
		}
		work.Go(func() {
			for n := range 100 {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(w, "-", n)), []byte("x"), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	triggertest.Until(t, "all files deleted", func() bool { return len(files(t, dir)) == 0 })
	wantTold(t, h, want)
}

func TestADirectoryThatGoesAwayAndComesBack(t *testing.T) {
	h, dir := fileHouse(t)
	in := filepath.Join(dir, "in")
	h.Run()
	h.Trigger("t", "file", map[string]any{"path": in, "from": "all"})
	status := func(words ...string) {
		t.Helper()
		triggertest.Until(t, fmt.Sprintf("a status that says %q", words), func() bool {
			s := h.Manager.Status(catalog.DefaultNamespace, "t").Error
			for _, w := range words {
				if !strings.Contains(s, w) {
					return false
				}
			}
			return true
		})
	}
	status("path", in, "make it")
	mkdir(t, in)
	write(t, "x", in, "one")
	wantTold(t, h, map[string]int{"one": 1})
	if err := os.RemoveAll(in); err != nil {
		t.Fatal(err)
	}
	status("path", in, "make it")
	mkdir(t, in)
	write(t, "x", in, "two")
	wantTold(t, h, map[string]int{"one": 1, "two": 1})
	triggertest.Until(t, "a status without an error", func() bool {
		s := h.Manager.Status(catalog.DefaultNamespace, "t")
		return s.Running && s.Error == ""
	})
	// In its place comes a link that leads out.
	if err := os.RemoveAll(in); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), in); err != nil {
		t.Fatal(err)
	}
	status("leads out", "name the directory itself")
}

func TestWhichFilesATriggerMayWatch(t *testing.T) {
	dir := t.TempDir()
	h := triggertest.OpenWith(t, []trigger.Opened{{Path: dir}, {Namespace: "other", Path: "/srv/other"}})
	for config, want := range map[string]string{
		`{}`:                                                      "path",
		`{"path":"in"}`:                                           "from the root",
		`{"path":"/etc"}`:                                         "triggers.files",
		`{"path":"/srv/other/in"}`:                                "triggers.files",
		`{"path":"` + dir + `x"}`:                                 "triggers.files",
		`{"path":"` + dir + `/../.."}`:                            "triggers.files",
		`{"path":"DIR","pattern":"["}`:                            "pattern",
		`{"path":"DIR","pattern":"a/*"}`:                          "recursive",
		`{"path":"DIR","then":"eat"}`:                             "keep, delete or move",
		`{"path":"DIR","then":"move"}`:                            "move_to",
		`{"path":"DIR","move_to":"done"}`:                         "then",
		`{"path":"DIR","then":"move","move_to":"../x"}`:           "move_to",
		`{"path":"DIR","then":"move","move_to":"/etc"}`:           "triggers.files",
		`{"path":"DIR","content_bytes":1}`:                        "content",
		`{"path":"DIR","content":true,"content_bytes":100000000}`: "content_bytes",
		`{"path":"DIR","parallel":-1}`:                            "parallel",
		`{"path":"DIR","from":"then"}`:                            "new or all",
		`{"path":"DIR","poll_ms":1}`:                              "poll_ms",
	} {
		config = strings.ReplaceAll(config, "DIR", dir)
		err := h.Manager.Check(&faas.Trigger{Namespace: "default", Name: "t", Source: &faas.Source{Kind: "file", Config: []byte(config)}})
		e := faas.AsError(err)
		if err == nil || !strings.Contains(e.Error()+" "+e.Fix, want) || strings.Contains(e.Error(), "/srv/other,") {
			t.Errorf("%s: got %v, want an error that says %q", config, err, want)
		}
	}
	other := &faas.Trigger{Namespace: "other", Name: "t", Source: &faas.Source{Kind: "file", Config: []byte(`{"path":"/srv/other/in"}`)}}
	if err := h.Manager.Check(other); err != nil {
		t.Errorf("the namespace to which it is opened may not: %v", err)
	}
	for _, bad := range []string{"", "srv", ":/srv", "/srv/../etc", "a:srv"} {
		if _, err := trigger.ParseOpened(bad); err == nil {
			t.Errorf("%q is taken for a directory", bad)
		}
	}
}

// What no rule leads to a function is held until one does.
func TestFilesThatNobodyIsToldOf(t *testing.T) {
	h, dir := fileHouse(t)
	write(t, "x", dir, "one")
	h.Run()
	config, err := json.Marshal(map[string]any{"path": dir, "from": "all", "then": "delete"})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Catalog.PutTrigger(t.Context(), &faas.Trigger{Namespace: catalog.DefaultNamespace, Name: "t", Source: &faas.Source{Kind: "file", Config: config}}, false); err != nil {
		t.Fatal(err)
	}
	triggertest.Until(t, "it is told of", func() bool { return h.Manager.Status(catalog.DefaultNamespace, "t").Events > 0 })
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("there are %v, want the file that no function was called with", got)
	}
	h.Rule("t-f", "t", "f")
	triggertest.Until(t, "the file deleted", func() bool { return len(files(t, dir)) == 0 })
	wantTold(t, h, map[string]int{"one": 1})
}
