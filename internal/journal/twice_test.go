package journal

import (
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// A call that ran twice, as after a crash, is recorded twice. That ends no list early.
func TestAListWithRecordsThatWereWrittenTwiceGoesOn(t *testing.T) {
	j := openJournal(t, openEngine(t, t.TempDir()))
	begin := time.Now().Add(-time.Minute)
	const calls = 20
	var ids [calls]faas.ID
	const older = 5 // in a piece of their own, which is not looked at for what comes after them
	for i := range older {
		j.Record(call(begin.Add(time.Duration(i-older)*time.Second), "f", faas.OK))
	}
	flush(t, j)
	for round := range 2 {
		for i := range calls {
			if round == 1 && i%3 != 0 {
				continue
			}
			a := call(begin.Add(time.Duration(i)*time.Second), "f", faas.OK)
			if round == 0 {
				ids[i] = a.ID
			}
			a.ID = ids[i]
			j.Record(a)
		}
		flush(t, j)
	}
	seen := map[faas.ID]bool{}
	for cursor, pages := "", 0; pages < 2*calls; pages++ {
		page, next, err := j.Find(t.Context(), Query{Namespace: "default", Function: "f", Calls: true, NoLogs: true, Limit: 4, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page {
			seen[a.ID] = true
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	if len(seen) != calls+older {
		t.Errorf("%d calls were listed, want %d", len(seen), calls+older)
	}
}
