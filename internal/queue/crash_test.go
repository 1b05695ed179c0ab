package queue

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/faulttest"
	"github.com/brasa-dev/brasa/internal/store"
)

// onlyEnv has a child only push.
const onlyEnv = "BRASA_TEST_ONLY"

func TestMain(m *testing.M) { faulttest.Main(m, child) }

// told is what children said was acknowledged.
type told struct {
	state  map[faas.ID]string
	keys   map[string]map[faas.ID]bool
	paused string // "true", "false" or "": it was about to change
}

// take takes in what a child said.
func (s *told) take(word, rest string) {
	switch word {
	case "key":
		id, key, _ := strings.Cut(rest, " ")
		if s.keys[key] == nil {
			s.keys[key] = map[faas.ID]bool{}
		}
		s.keys[key][faas.ID(id)] = true
	case "pausing":
		s.paused = ""
	case "paused":
		s.paused = rest
	default:
		s.state[faas.ID(rest)] = word
	}
}

// run starts a child, has it killed, and takes in what it said.
func (s *told) run(t *testing.T, dir, at string, env ...string) {
	t.Helper()
	after := time.Duration(100+rand.IntN(400)) * time.Millisecond
	faulttest.Kill(t, dir, faulttest.Fault{At: at, After: after, Env: env}, s.take)
}

func TestKillNine(t *testing.T) {
	if testing.Short() {
		t.Skip("runs children for seconds")
	}
	dir := t.TempDir()
	s := &told{state: map[faas.ID]string{}, keys: map[string]map[faas.ID]bool{}}
	index := filepath.Join(dir, "queue", "index.db")
	for i, at := range []string{
		"push: stored@2000", // thousands first
		"", "push: stored@9", "push: sent together@5", "push: key stored@3", "push: entered@20", "pull: marked@3", "done: removed@4",
		"retry: copied@2", "retry: removed@2", "bury: copied@2", "bury: removed@1", "cancel: marked@3", "cancel: removed@2",
		"pause: stored@3", "settled: recorded@9", "clean: purged@2", "clean: removed@2", "clean: synced@2", "clean: done@2", "redrive: copied@1", "redrive: removed@1", "clear: copied@1", "drop: purged@1", "drop: purged@2",
		"index: to be committed@30", "index: committed@30", "", "",
	} {
		switch i {
		case 9, 15, 17, 19: // lost
			if err := os.RemoveAll(filepath.Dir(index)); err != nil {
				t.Fatal(err)
			}
		case 12: // not a database
			if err := os.WriteFile(index, []byte(strings.Repeat("x", 50_000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 {
			s.run(t, dir, at, onlyEnv+"=1")
		} else {
			s.run(t, dir, at)
		}
	}
	s.check(t, dir, map[string]int{"pushed": 2000, "finished": 20, "buried": 5, "cancelled": 5})
}

// check opens what the children left and holds it to what they said. enough is how many there must be
// at least for it to tell anything.
func (s *told) check(t *testing.T, dir string, enough map[string]int) {
	t.Helper()
	far := func() time.Time { return time.Now().Add(10 * time.Hour) } // all is due
	begun := time.Now()
	config := Config{Partitions: 4, clock: clock{wall: far, steady: func() time.Duration { return time.Since(begun) }}}
	o := openOn(t, store.Config{Dir: dir, MaxBytes: 1 << 30}, config)
	waiting, count := s.compare(t, o)
	o.stop(t) // and what the streams say alone
	must(t, os.RemoveAll(filepath.Join(dir, "queue")))
	o = openOn(t, store.Config{Dir: dir, MaxBytes: 1 << 30}, config)
	if again, _ := s.compare(t, o); len(again) != len(waiting) {
		t.Errorf("%d wait with the index that was left, %d with one made of the streams", len(waiting), len(again))
	}
	s.drain(t, o, waiting)
	t.Logf("%d were told of: %v", len(s.state), count)
	for state, least := range enough {
		if count[state] < least {
			t.Errorf("too few to tell: %v", count)
		}
	}
}

// compare holds what waits and is buried to what was said.
func (s *told) compare(t *testing.T, o *opened) (waiting map[faas.ID]int, count map[string]int) {
	t.Helper()
	waiting, dead := map[faas.ID]int{}, map[faas.ID]int{}
	all, err := o.List(t.Context(), Filter{Namespace: "default"})
	must(t, err)
	for _, w := range all {
		waiting[w.ID]++
	}
	buried, err := o.Buried(t.Context(), Filter{Namespace: "default"})
	must(t, err)
	for _, d := range buried {
		dead[d.Invocation.ID]++
	}
	if info, err := o.dead.stream.Info(t.Context()); err != nil || int(info.State.Msgs) != len(buried) {
		t.Errorf("%d are buried, and the stream has %d, %v", len(buried), info.State.Msgs, err)
	}
	count = map[string]int{}
	for id, state := range s.state {
		count[state]++
		w, d := waiting[id], dead[id]
		ok := false
		switch state {
		case "pushing", "finishing", "cancelling":
			ok = w+d <= 1
		case "pushed":
			ok = w == 1 && d == 0
		case "finished", "cancelled", "other":
			ok = w+d == 0
		case "burying", "redriving":
			ok = w+d == 1
		case "buried":
			ok = w == 0 && d == 1
		}
		if !ok {
			t.Errorf("%s, of which the last word was %q, waits %d times and is dead %d times", id, state, w, d)
		}
	}
	for key, ids := range s.keys {
		if len(ids) != 1 {
			t.Errorf("%s was acknowledged as %d invocations", key, len(ids))
		}
	}
	if p := o.depth(t, "p").Paused; s.paused != "" && fmt.Sprint(p) != s.paused {
		t.Errorf("paused is %v, want %s", p, s.paused)
	}
	return waiting, count
}

// drain takes all out: each comes once, whole, and the streams are empty then.
func (s *told) drain(t *testing.T, o *opened, waiting map[faas.ID]int) {
	t.Helper()
	came := 0
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		names, more, err := o.Due(t.Context())
		must(t, err)
		if len(names) == 0 {
			if came >= len(waiting) {
				break
			}
			select {
			case <-more:
			case <-time.After(time.Second):
			}
			continue
		}
		for _, n := range names {
			leases, err := o.Pull(t.Context(), n, 100)
			must(t, err)
			var wg sync.WaitGroup
			for _, l := range leases {
				inv := l.Invocation()
				if waiting[inv.ID] != 1 || inv.Length != 4 {
					t.Errorf("%s came, which waited %d times, with %d bytes", inv.ID, waiting[inv.ID], inv.Length)
				}
				waiting[inv.ID]--
				came++
				wg.Go(func() {
					if err := l.Done(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		}
	}
	if came != len(waiting) {
		t.Errorf("%d came, and %d waited", came, len(waiting))
	}
	must(t, o.clean(t.Context(), 0))
	for _, p := range append([]*part{o.ledger.part}, o.parts...) {
		if info, err := p.stream.Info(t.Context()); err != nil || info.State.Msgs > 0 {
			t.Errorf("%s has %d messages left, %v", p.name, info.State.Msgs, err)
		}
	}
}

// What was queued anew is not buried any more, wherever that was interrupted.
func TestRedriveIsFinished(t *testing.T) {
	for _, at := range []string{"redrive: copied", "redrive: removed"} {
		t.Run(at, func(t *testing.T) {
			o := openQueue(t, t.TempDir(), Config{})
			id := o.push(t, "f", faas.Wait{})
			must(t, o.pullID(t, "f", id, 1).Bury(t.Context(), errors.New("x")))
			func() {
				defer func() { _ = recover() }()
				defer func() { fault = func(string) {} }()
				fault = func(a string) {
					if a == at {
						panic("the process ends")
					}
				}
				_, _ = o.Redrive(t.Context(), Filter{Namespace: "default"})
				t.Errorf("it did not come to %q", at)
			}()
			o = o.again(t, nil)
			info, err := o.dead.stream.Info(t.Context())
			must(t, err)
			if d := o.depth(t, "f"); d.Waiting != 1 || d.Dead != 0 || info.State.Msgs != 0 {
				t.Errorf("%+v, and %d messages of dead letters", d, info.State.Msgs)
			}
			must(t, o.pullID(t, "f", id, 1).Done(t.Context()))
		})
	}
}
