package journal

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// waited makes the activation of a call that was accepted at one time and began at another.
func waited(accepted, began time.Time, outcome faas.Code, lines ...string) *faas.Activation {
	a := call(began, "f", outcome, lines...)
	a.ID = faas.NewID(accepted)
	return a
}

// A call that waited for days is found by its ID, in its place among others, as long as those that
// began on the same day as it.
func TestCallsThatWaited(t *testing.T) {
	e := openEngine(t, t.TempDir())
	small := func(c *Config) { c.MaxAge = 72 * time.Hour }
	j := openJournal(t, e, small)
	now := time.Now()
	long := strings.Repeat("x", 40_000)
	var want []faas.ID
	keep := func(a *faas.Activation) *faas.Activation {
		want = append(want, a.ID)
		j.Record(a)
		return a
	}
	for day := range 3 {
		for i := range 30 {
			keep(call(now.Add(-time.Duration(day)*24*time.Hour-time.Duration(i)*time.Second), "f", faas.OK, "line"))
		}
	}
	ancient := keep(waited(now.Add(-30*24*time.Hour), now, faas.Failed, long, long, long))
	ancient.Answer = &faas.Answer{Status: 500, Body: bytes.Repeat([]byte("\x00\xffab"), 50_000), Bytes: 200_000}
	for i := range 100 {
		keep(waited(now.Add(-40*time.Hour-time.Duration(i)*time.Minute), now, faas.OK, "line"))
	}
	flush(t, j)
	slices.SortFunc(want, func(a, b faas.ID) int { return strings.Compare(string(b), string(a)) })
	check := func(when string) {
		t.Helper()
		if err := j.Expire(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, limit := range []int{7, 50, maxLimit} {
			var got []faas.ID
			for cursor, more := "", true; more; more = cursor != "" {
				var found []*faas.Activation
				var err error
				if found, cursor, err = j.Find(t.Context(), Query{Namespace: "default", Limit: limit, Cursor: cursor}); err != nil {
					t.Fatal(err)
				}
				got = append(got, ids(found)...)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, by %d: %d found, want %d in the order of their IDs", when, limit, len(got), len(want))
			}
		}
		a, err := j.Get(t.Context(), "default", ancient.ID)
		if err != nil || texts(a.Logs) != texts(ancient.Logs) || a.LogTruncated || a.Answer == nil || !bytes.Equal(a.Answer.Body, ancient.Answer.Body) || a.Answer.Cut {
			t.Errorf("%s: the one of a month ago: %v", when, err)
		}
	}
	check("before")
	for _, name := range []string{"opened again", "made again from the stream"} {
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if name != "opened again" {
			if err := os.RemoveAll(j.config.Dir); err != nil {
				t.Fatal(err)
			}
		}
		j = openJournal(t, e, small)
		check(name)
	}
}

// What was written while a call of the day before still ran is not cut from the stream with it.
func TestExpiryLeavesTheDayAfterInTheStream(t *testing.T) {
	e := openEngine(t, t.TempDir())
	day := func(c *Config) { c.MaxAge = 24 * time.Hour }
	j := openJournal(t, e, day)
	now := time.Now()
	j.Record(call(now.Add(-72*time.Hour), "f", faas.OK))
	flush(t, j)
	for range 20 {
		j.Record(call(now, "f", faas.OK))
		flush(t, j)
	}
	j.Record(call(now.Add(-72*time.Hour), "f", faas.OK)) // it ran for three days
	flush(t, j)
	if err := errors.Join(j.Expire(t.Context()), j.Close(), os.RemoveAll(j.config.Dir)); err != nil {
		t.Fatal(err)
	}
	j = openJournal(t, e, day)
	if err := j.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found, _, err := j.Find(t.Context(), Query{Namespace: "default"}); err != nil || len(found) != 20 {
		t.Errorf("%d found after the index was lost, %v; want 20", len(found), err)
	}
}

// A call that comes again after its outcome was recorded has that of the last time.
func TestTheLastOutcomeCounts(t *testing.T) {
	e := openEngine(t, t.TempDir())
	j := openJournal(t, e)
	now := time.Now()
	a := call(now.Add(-26*time.Hour), "f", faas.Failed)
	a.Answer = &faas.Answer{Status: 503, Body: bytes.Repeat([]byte("old"), 10_000), Bytes: 30_000}
	var at []time.Time
	for i, began := range []time.Time{now.Add(-26 * time.Hour), now.Add(-25 * time.Hour), now.Add(-time.Minute), now} {
		again := *a
		again.Timing.Begin = began
		if i == 3 {
			again.Outcome, again.Answer = faas.OK, &faas.Answer{Status: 200, Body: bytes.Repeat([]byte("new"), 10_000), Bytes: 30_000}
		}
		at = append(at, began)
		j.Record(&again)
		for _, when := range []string{"in the buffer", "in the index"} {
			got, err := j.Get(t.Context(), "default", a.ID)
			if err != nil || !got.Timing.Begin.Equal(at[i]) || got.Outcome != again.Outcome || !bytes.Equal(got.Answer.Body, again.Answer.Body) {
				t.Errorf("%d, %s: %v, %v", i, when, got, err)
			}
			found, _, err := j.Find(t.Context(), Query{Namespace: "default"})
			if err != nil || len(found) != 1 || !found[0].Timing.Begin.Equal(at[i]) {
				t.Errorf("%d, %s: %d in the list, %v", i, when, len(found), err)
			}
			flush(t, j)
		}
	}
}

// Long answers are given by Get alone.
func TestLongAnswersAreNotInLists(t *testing.T) {
	j := openJournal(t, openEngine(t, t.TempDir()))
	short, long := call(time.Now(), "short", faas.OK), call(time.Now(), "long", faas.OK, "line")
	short.Answer = &faas.Answer{Status: 200, Body: []byte("hi"), Bytes: 2}
	long.Answer = &faas.Answer{Status: 200, Body: bytes.Repeat([]byte{0xff, 'a'}, int(faas.MaxAnswer)/2), Bytes: faas.GiB, Cut: true}
	j.Record(short)
	j.Record(long)
	for _, when := range []string{"in the buffer", "in the index"} {
		for _, a := range []*faas.Activation{short, long} {
			got, err := j.Get(t.Context(), "default", a.ID)
			if err != nil || !bytes.Equal(got.Answer.Body, a.Answer.Body) || got.Answer.Bytes != a.Answer.Bytes || got.Answer.Cut != a.Answer.Cut {
				t.Errorf("%s: %s: %v", when, a.Function, err)
			}
			found, _, err := j.Find(t.Context(), Query{Namespace: "default", Function: a.Function})
			if err != nil || len(found) != 1 || found[0].Answer == nil || len(found[0].Answer.Body) > inlineAnswer || found[0].Answer.Bytes != a.Answer.Bytes {
				t.Errorf("%s: %s in a list: %v", when, a.Function, err)
			}
		}
		if len(long.Answer.Body) != int(faas.MaxAnswer) {
			t.Error("what was recorded was changed")
		}
		flush(t, j)
	}
}
