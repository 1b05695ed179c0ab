package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

func openEngine(t testing.TB, dir string) *store.Engine {
	t.Helper()
	e, err := store.Open(store.Config{Dir: dir, MaxBytes: 4 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func openJournal(t testing.TB, e *store.Engine, change ...func(*Config)) *Journal {
	t.Helper()
	config := Config{Engine: e, Dir: filepath.Join(e.Dir(), "index")}
	for _, c := range change {
		c(&config)
	}
	j, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	})
	return j
}

// run runs the journal until the test ends.
func run(t testing.TB, j *Journal) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// call makes the activation of a call that began at a time.
func call(at time.Time, function string, outcome faas.Code, lines ...string) *faas.Activation {
	a := &faas.Activation{
		ID: faas.NewID(at), Namespace: "default", Function: function, Outcome: outcome, Fault: outcome.Fault(), Kind: faas.KindInvoke,
		Start: faas.StartWarm, Timing: faas.Timing{Begin: at, Total: 5 * time.Millisecond},
	}
	for _, l := range lines {
		a.Logs = append(a.Logs, faas.LogLine{Time: at, Stream: "stdout", Text: l})
	}
	return a
}

func ids(as []*faas.Activation) []faas.ID {
	out := []faas.ID{}
	for _, a := range as {
		out = append(out, a.ID)
	}
	return out
}

func flush(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func texts(lines []faas.LogLine) string {
	var out []string
	for _, l := range lines {
		out = append(out, l.Text)
	}
	return strings.Join(out, "|")
}

func TestWhoeverCalledFindsTheRecord(t *testing.T) {
	j := openJournal(t, openEngine(t, t.TempDir()))
	a := call(time.Now(), "hello", faas.OK, "one", "two")
	j.Record(a)
	for _, when := range []string{"at once", "when it is written"} {
		got, err := j.Get(t.Context(), "default", a.ID)
		if err != nil || got.ID != a.ID || texts(got.Logs) != "one|two" || got.Timing.Total != a.Timing.Total {
			t.Errorf("%s: Get = %+v, %v", when, got, err)
		}
		found, _, err := j.Find(t.Context(), Query{Namespace: "default"})
		if err != nil || len(found) != 1 || found[0].ID != a.ID || texts(found[0].Logs) != "one|two" {
			t.Errorf("%s: Find = %v, %v", when, found, err)
		}
		if _, err := j.Get(t.Context(), "other", a.ID); faas.CodeOf(err) != faas.NotFound {
			t.Errorf("%s: Get from another namespace: %v, want NotFound", when, err)
		}
		flush(t, j)
	}
	if _, err := j.Get(t.Context(), "default", faas.NewID(time.Now())); faas.CodeOf(err) != faas.NotFound {
		t.Errorf("Get of nothing: %v, want NotFound", err)
	}
	if _, err := j.Get(t.Context(), "default", "'; DROP TABLE activation"); faas.CodeOf(err) != faas.Invalid {
		t.Errorf("Get of no id: %v, want Invalid", err)
	}
}

// TestFind compares the index with a plain search through everything, over days, with a part of
// the records still in the buffer.
func TestFind(t *testing.T) {
	j := openJournal(t, openEngine(t, t.TempDir()), func(c *Config) { c.MaxBytes = 4 * faas.MiB }) // several files a day
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	random := rand.New(rand.NewPCG(1, 2))
	var all []*faas.Activation
	codes := []faas.Code{faas.OK, faas.OK, faas.OK, faas.Failed, faas.Timeout, faas.Internal, faas.Overloaded}
	for i := range 3000 {
		a := call(now.Add(-time.Duration(random.IntN(72*3600*1000))*time.Millisecond), fmt.Sprintf("p/f%d", random.IntN(4)), codes[random.IntN(len(codes))], strings.Repeat("line ", 20))
		a.Namespace = []string{"default", "other"}[random.IntN(2)]
		a.Start = []faas.Start{faas.StartWarm, faas.StartCold}[random.IntN(2)]
		all = append(all, a)
		j.Record(a)
		if i%500 == 0 {
			flush(t, j)
		}
	}
	flush(t, j)
	for range 5 {
		a := call(now.Add(-time.Duration(random.IntN(72*3600*1000))*time.Millisecond), "p/f1", faas.OK)
		all = append(all, a)
		j.Record(a)
	}
	slices.SortFunc(all, func(a, b *faas.Activation) int { return strings.Compare(string(b.ID), string(a.ID)) })
	if n := len(j.index.files); n < 5 {
		t.Errorf("%d index files: the test is to have several a day", n)
	}
	for _, q := range []Query{
		{Namespace: "default"},
		{Namespace: "other", Function: "p/f1"},
		{Namespace: "default", Outcome: "error"},
		{Namespace: "default", Outcome: "timeout", Function: "p/f2"},
		{Namespace: "default", Outcome: "ok"},
		{Namespace: "default", Fault: "function"},
		{Namespace: "default", Fault: "platform", Start: faas.StartCold},
		{Namespace: "default", Since: now.Add(-30 * time.Hour), Until: now.Add(-20 * time.Hour)},
		{Namespace: "default", Since: now.Add(-time.Hour), Limit: 7},
		{Namespace: "nobody"},
		{Namespace: "default", Function: "p/f9"},
		{Namespace: "default", Fault: "nobody"},
		{Namespace: "default", Limit: maxLimit},
	} {
		var want []faas.ID
		for _, a := range all {
			if q.matches(a) && (q.Since.IsZero() || !a.Timing.Begin.Before(q.Since)) && (q.Until.IsZero() || a.Timing.Begin.Before(q.Until)) {
				want = append(want, a.ID)
			}
		}
		var got []faas.ID
		for q.Cursor = ""; ; {
			page, cursor, err := j.Find(t.Context(), q)
			if err != nil {
				t.Fatalf("%+v: %v", q, err)
			}
			if most := max(q.Limit, 0); most > 0 && len(page) > most || most == 0 && len(page) > defaultLimit {
				t.Errorf("%+v: a page of %d", q, len(page))
			}
			got = append(got, ids(page)...)
			if cursor == "" {
				break
			}
			q.Cursor = cursor
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: %d found, want %d", q, len(got), len(want))
		}
	}
	if _, _, err := j.Find(t.Context(), Query{Namespace: "default", Cursor: "x"}); faas.CodeOf(err) != faas.Invalid {
		t.Errorf("Find with a bad cursor: %v", err)
	}
}

func TestLongLogs(t *testing.T) {
	e := openEngine(t, t.TempDir())
	j := openJournal(t, e)
	var lines []string
	for i := range 40_000 {
		lines = append(lines, fmt.Sprintf("%d %s", i, strings.Repeat("x", 40)))
	}
	long := call(time.Now(), "f", faas.OK, lines...)
	wide := call(time.Now(), "f", faas.OK, strings.Repeat("w", 3<<20))
	j.Record(long)
	j.Record(wide)
	check := func(j *Journal, when string) {
		t.Helper()
		for _, want := range []*faas.Activation{long, wide} {
			got, err := j.Get(t.Context(), "default", want.ID)
			if err != nil || texts(got.Logs) != texts(want.Logs) || got.LogTruncated {
				t.Errorf("%s: Get has %d of %d lines, truncated %v, %v", when, len(got.Logs), len(want.Logs), got.LogTruncated, err)
			}
		}
		found, _, err := j.Find(t.Context(), Query{Namespace: "default", Function: "f"})
		if err != nil || len(found) != 2 {
			t.Fatalf("%s: Find = %d, %v", when, len(found), err)
		}
		for _, a := range found {
			if a.ID == long.ID && (!a.LogTruncated || len(texts(a.Logs)) > logHead*2 || len(a.Logs) == 0) {
				t.Errorf("%s: Find gives %d lines of a long log, truncated %v", when, len(a.Logs), a.LogTruncated)
			}
		}
		if found, _, err := j.Find(t.Context(), Query{Namespace: "default", NoLogs: true}); err != nil || len(found[0].Logs) != 0 {
			t.Errorf("%s: Find without logs: %v", when, err)
		}
	}
	check(j, "in the buffer")
	flush(t, j)
	check(j, "in the index")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(j.config.Dir); err != nil {
		t.Fatal(err)
	}
	check(openJournal(t, e), "from the stream")
}

// TestIndexIsMadeAgain loses and damages the index in several ways; the stream has everything.
func TestIndexIsMadeAgain(t *testing.T) {
	e := openEngine(t, t.TempDir())
	now := time.Now()
	var want []faas.ID
	write := func(j *Journal, n int) {
		for range n {
			a := call(now.Add(-time.Duration(len(want))*time.Minute), "f", faas.OK, "line")
			want = append(want, a.ID)
			j.Record(a)
		}
		flush(t, j)
		slices.SortFunc(want, func(a, b faas.ID) int { return strings.Compare(string(b), string(a)) })
	}
	check := func(j *Journal, when string) {
		t.Helper()
		found, _, err := j.Find(t.Context(), Query{Namespace: "default", Limit: maxLimit})
		if err != nil || !slices.Equal(ids(found), want) {
			t.Errorf("%s: %d found, %v; want %d", when, len(found), err, len(want))
		}
		for _, a := range found {
			if texts(a.Logs) != "line" {
				t.Errorf("%s: logs are %q", when, texts(a.Logs))
				return
			}
		}
	}
	j := openJournal(t, e)
	write(j, 3000) // over three days
	check(j, "before")
	dir := j.config.Dir
	files, err := filepath.Glob(filepath.Join(dir, "*.db"))
	if err != nil || len(files) < 3 {
		t.Fatalf("files %v, %v", files, err)
	}
	noise := make([]byte, 40_000)
	for i := range noise {
		noise[i] = byte(i * 7)
	}
	for _, damage := range []struct {
		name string
		do   func() error
	}{
		{"all lost", func() error { return os.RemoveAll(dir) }},
		{"a file lost", func() error { return removeFile(files[0]) }},
		{"the newest file lost", func() error { return removeFile(files[len(files)-1]) }},
		{"the manifest lost", func() error { return os.Remove(filepath.Join(dir, manifestName)) }},
		{"the manifest damaged", func() error { return os.WriteFile(filepath.Join(dir, manifestName), []byte("{"), 0o600) }},
		{"a file is noise", func() error { return os.WriteFile(files[1], noise, 0o600) }},
		{"a file is of another version", func() error {
			db, err := sql.Open("sqlite", files[1])
			if err != nil {
				return err
			}
			_, err = db.Exec(`PRAGMA user_version = 99`)
			return errors.Join(err, db.Close())
		}},
		{"a file is empty", func() error { return os.Truncate(files[1], 0) }},
		{"a file is overwritten in the middle", func() error {
			f, err := os.OpenFile(files[1], os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(noise, 8192)
			return errors.Join(err, f.Close())
		}},
	} {
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if err := damage.do(); err != nil {
			t.Fatal(err)
		}
		j = openJournal(t, e)
		check(j, damage.name)
		write(j, 10)
		check(j, damage.name+", and written on")
	}
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	want := []faas.ID{}
	for range 3 {
		e := openEngine(t, dir)
		j := openJournal(t, e)
		found, _, err := j.Find(t.Context(), Query{Namespace: "default"})
		if err != nil || len(found) != len(want) {
			t.Errorf("%d found, %v; want %d", len(found), err, len(want))
		}
		a := call(time.Now(), "f", faas.OK)
		want = append(want, a.ID)
		j.Record(a) // Close writes it
		if err := errors.Join(j.Close(), e.Close()); err != nil {
			t.Fatal(err)
		}
		j.Record(a)
		if j.Dropped() != 1 {
			t.Error("recorded after Close")
		}
	}
}

// TestTail has writers and readers at the same time: a reader that asks for the tail and then for
// the past sees every record once.
func TestTail(t *testing.T) {
	j := openJournal(t, openEngine(t, t.TempDir()))
	run(t, j)
	const writers, each = 4, 500
	recorded := make(chan struct{})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				j.Record(call(time.Now(), fmt.Sprintf("f%d", w%2), faas.OK, fmt.Sprint(w, i)))
				if w == 0 && i == each/4 {
					close(recorded)
				}
			}
		})
	}
	<-recorded
	for range 3 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			q := Query{Namespace: "default", Function: "f1", Limit: maxLimit}
			ch, err := j.Tail(ctx, q)
			if err != nil {
				t.Error(err)
				return
			}
			seen := map[faas.ID]int{}
			past, _, err := j.Find(ctx, q)
			if err != nil {
				t.Error(err)
				return
			}
			for _, a := range past {
				seen[a.ID]++
			}
			inPast := len(seen)
			tailed := map[faas.ID]int{}
			for len(seen) < writers/2*each {
				select {
				case a := <-ch:
					if a.Function != "f1" {
						t.Errorf("the tail gave a call of %s", a.Function)
					}
					tailed[a.ID]++
					seen[a.ID]++
				case <-time.After(20 * time.Second):
					t.Errorf("%d seen (%d of them in the past), want %d", len(seen), inPast, writers/2*each)
					return
				}
			}
			for id, n := range tailed {
				if n != 1 {
					t.Errorf("the tail gave %s %d times", id, n)
				}
			}
		})
	}
	wg.Wait()
}

func TestTailEnds(t *testing.T) {
	j := openJournal(t, openEngine(t, t.TempDir()))
	ctx, cancel := context.WithCancel(t.Context())
	first, err := j.Tail(ctx, Query{Namespace: "default"})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, ok := <-first; ok {
		t.Error("something came after its context ended")
	}
	second, err := j.Tail(t.Context(), Query{Namespace: "default", Outcome: "error"})
	if err != nil {
		t.Fatal(err)
	}
	j.Record(call(time.Now(), "f", faas.OK))
	failed := call(time.Now(), "f", faas.Failed)
	j.Record(failed)
	if a := <-second; a.ID != failed.ID {
		t.Errorf("the tail gave %+v", a)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := <-second; ok {
		t.Error("something came after Close")
	}
	if _, err := j.Tail(t.Context(), Query{}); err == nil {
		t.Error("Tail after Close")
	}
}

func TestExpire(t *testing.T) {
	e := openEngine(t, t.TempDir())
	j := openJournal(t, e, func(c *Config) { c.MaxAge = 48 * time.Hour })
	now := time.Now()
	for day := range 5 {
		for range 20 {
			j.Record(call(now.Add(-time.Duration(4-day)*24*time.Hour), "f", faas.OK))
		}
		flush(t, j)
	}
	if err := j.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	check := func(j *Journal, most int, when string) {
		t.Helper()
		found, _, err := j.Find(t.Context(), Query{Namespace: "default", Limit: maxLimit})
		if err != nil || len(found) != most {
			t.Errorf("%s: %d left, %v; want %d", when, len(found), err, most)
		}
	}
	check(j, 60, "after expiry") // today, yesterday and the day before, which is not over 48 h ago
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(j.config.Dir); err != nil {
		t.Fatal(err)
	}
	j = openJournal(t, e, func(c *Config) { c.MaxAge = 48 * time.Hour })
	check(j, 60, "made again from the stream")
}

func TestExpireBySize(t *testing.T) {
	j := openJournal(t, openEngine(t, t.TempDir()), func(c *Config) { c.MaxBytes = 4 * faas.MiB })
	random := rand.NewChaCha8([32]byte{1})
	var newest faas.ID
	for i := range 3000 {
		b := make([]byte, 2000)
		_, _ = random.Read(b)
		a := call(time.Now(), "f", faas.OK, fmt.Sprintf("%x", b))
		newest = a.ID
		j.Record(a)
		if i%200 == 0 {
			flush(t, j)
			if err := j.Expire(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	flush(t, j)
	if err := j.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	_ = filepath.WalkDir(j.config.Dir, func(_ string, d fs.DirEntry, _ error) error {
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	if total > int64(j.config.MaxBytes) {
		t.Errorf("the index has %d KiB, most is %d", total>>10, j.config.MaxBytes/faas.KiB)
	}
	if state, err := j.stream.Info(t.Context()); err != nil || state.State.Bytes > uint64(j.config.MaxBytes)/2 {
		t.Errorf("the stream has %d KiB, %v", state.State.Bytes>>10, err)
	}
	if _, err := j.Get(t.Context(), "default", newest); err != nil {
		t.Errorf("the newest record: %v", err)
	}
}

func TestFullBufferDrops(t *testing.T) {
	j := openJournal(t, openEngine(t, t.TempDir()), func(c *Config) { c.BufferRecords, c.BufferBytes = 10, 1000 })
	j.write.Lock() // a disk that does not answer
	for range 15 {
		j.Record(call(time.Now(), "f", faas.OK))
	}
	if n := j.Dropped(); n != 5 {
		t.Errorf("%d dropped, want 5", n)
	}
	j.write.Unlock()
	flush(t, j)
	j.Record(call(time.Now(), "f", faas.OK, strings.Repeat("x", 2000)))
	if n := j.Dropped(); n != 6 {
		t.Errorf("%d dropped, want the large one too", n)
	}
	if found, _, err := j.Find(t.Context(), Query{Namespace: "default"}); err != nil || len(found) != 10 {
		t.Errorf("%d found, %v; want 10", len(found), err)
	}
}

// What instances write beside their calls has its lines in the logs, and is in no list of calls.
func TestCallsOnly(t *testing.T) {
	j := openJournal(t, openEngine(t, t.TempDir()))
	now := time.Now()
	made := call(now.Add(-time.Minute), "f", faas.OK)
	stray := call(now, "f", faas.OK)
	stray.Kind = faas.KindInstance
	stray.Logs = []faas.LogLine{{Time: now, Stream: "stdout", Text: "between calls"}}
	j.Record(made)
	j.Record(stray)
	check := func(when string) {
		t.Helper()
		calls, _, err := j.Find(t.Context(), Query{Namespace: "default", Function: "f", Calls: true, Limit: 1})
		if err != nil || len(calls) != 1 || calls[0].ID != made.ID {
			t.Errorf("%s: calls are %+v, %v; want only %s", when, calls, err, made.ID)
		}
		all, _, err := j.Find(t.Context(), Query{Namespace: "default", Function: "f"})
		if err != nil || len(all) != 2 || len(all[0].Logs) != 1 || all[0].Logs[0].Text != "between calls" {
			t.Errorf("%s: all are %+v, %v; want the stray lines too", when, all, err)
		}
	}
	check("in the buffer")
	flush(t, j)
	check("written")
}

func TestFigures(t *testing.T) {
	e := openEngine(t, t.TempDir())
	j := openJournal(t, e)
	now := time.Now()
	for i := range 100 {
		a := call(now.Add(-time.Duration(i)*30*time.Second), "f", faas.OK)
		a.Timing.Total = time.Duration(i+1) * time.Millisecond
		if i < 7 {
			a.Outcome = faas.Failed
		}
		switch i {
		case 0: // each was made for its call, or loaded for it
			a.Start = faas.StartCold
			a.Timing.Add(faas.PhaseSpawn, time.Millisecond)
		case 1:
			a.Start = faas.StartForked
			a.Timing.Add(faas.PhaseRuntimeLoad, 0)
		case 2:
			a.Start = faas.StartPrewarmed
			a.Timing.Add(faas.PhaseCodeLoad, time.Millisecond)
		case 3, 4: // these stood ready, the code loaded
			a.Start = []faas.Start{faas.StartPrewarmed, faas.StartRestored}[i-3]
			a.Timing.Add(faas.PhaseProvisioning, time.Millisecond)
		}
		j.Record(a)
	}
	j.Record(call(now.Add(-2*time.Hour), "f", faas.Failed))
	j.Record(call(now, "", faas.OK))
	stray := call(now, "f", faas.OK)
	stray.Kind = faas.KindInstance
	j.Record(stray)
	other := call(now, "f", faas.OK)
	other.Namespace = "other"
	j.Record(other)
	check := func(j *Journal, when string) {
		t.Helper()
		got := j.figuresAt("default", now)
		f := got["f"]
		if len(got) != 1 || f.Calls != 100 || f.Errors != 7 || f.Cold != 3 {
			t.Errorf("%s: %+v", when, got)
		}
		for _, q := range []struct{ got, want time.Duration }{{f.P50, 50 * time.Millisecond}, {f.P95, 95 * time.Millisecond}} {
			if r := float64(q.got) / float64(q.want); r < 0.9 || r > 1.1 {
				t.Errorf("%s: quantile %v, want %v to within a tenth", when, q.got, q.want)
			}
		}
	}
	check(j, "in the buffer")
	flush(t, j)
	check(j, "written")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	check(openJournal(t, e), "after a restart")
	if got := j.figuresAt("default", now.Add(2*time.Hour)); len(got) != 0 {
		t.Errorf("two hours later: %+v", got)
	}
}

// BenchmarkRecord is to be compared with BenchmarkChannel: what a caller pays against the plainest
// hand-over there is.
func BenchmarkRecord(b *testing.B) {
	j := openJournal(b, openEngine(b, b.TempDir()), func(c *Config) { c.BufferRecords = 1 << 30 })
	a := call(time.Now(), "f", faas.OK)
	b.ReportAllocs()
	for b.Loop() {
		j.Record(a)
	}
	b.StopTimer()
	j.mu.Lock()
	j.buffer = nil
	j.mu.Unlock()
}

func BenchmarkChannel(b *testing.B) {
	ch := make(chan *faas.Activation, 1024)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range ch {
		}
	}()
	a := call(time.Now(), "f", faas.OK)
	for b.Loop() {
		ch <- a
	}
	close(ch)
	<-done
}

// BenchmarkWrite is what one record costs the machine, off the caller's way.
func BenchmarkWrite(b *testing.B) {
	j := openJournal(b, openEngine(b, b.TempDir()))
	for b.Loop() {
		j.Record(call(time.Now(), "f", faas.OK, "a line of log"))
		if len(j.buffer) >= batchRecords {
			j.drain()
		}
	}
	j.drain()
}
