package queue

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// openForTest opens a queue with its own engine and runs it until the test ends.
func openForTest(t *testing.T, dir string, config Config) *Durable {
	t.Helper()
	e, err := store.Open(store.Config{Dir: dir, MaxBytes: 4 << 30})
	if err != nil {
		t.Fatal(err)
	}
	config.Engine = e
	q, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

func invocation(function string) *faas.Invocation {
	return &faas.Invocation{
		ID: faas.NewID(time.Now()), Function: faas.Ref{Name: faas.Name{Namespace: "default", Function: function}},
		Kind: faas.KindInvoke, Body: strings.NewReader("body"), Length: 4,
	}
}

func pullOne(t *testing.T, q *Durable) Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	leases, err := q.Pull(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	return leases[0]
}

// A retry in the far future waits in another stream; fifty milliseconds are far enough here.
func TestLongRetry(t *testing.T) {
	q := openForTest(t, t.TempDir(), Config{Partitions: 2, later: time.Millisecond})
	inv := invocation("f")
	if err := q.Push(t.Context(), inv); err != nil {
		t.Fatal(err)
	}
	var notBefore time.Time
	for attempt := 1; attempt <= 3; attempt++ {
		l := pullOne(t, q)
		if time.Now().Before(notBefore) {
			t.Error("it came before it was due")
		}
		got := l.Invocation()
		if got.ID != inv.ID || got.Attempt != attempt || got.Length != 4 {
			t.Errorf("attempt %d of %s came, want %d of %s", got.Attempt, got.ID, attempt, inv.ID)
		}
		if attempt == 3 {
			if err := l.Done(t.Context()); err != nil {
				t.Error(err)
			}
			break
		}
		due := time.Now().Add(50 * time.Millisecond)
		if err := l.Retry(t.Context(), 50*time.Millisecond, nil); err != nil {
			t.Fatal(err)
		}
		if n, err := q.Depth(t.Context()); err != nil || n != 1 {
			t.Errorf("Depth while it is put off = %d, %v", n, err)
		}
		notBefore = due
	}
	if n, err := q.Depth(t.Context()); err != nil || n != 0 {
		t.Errorf("Depth = %d, %v", n, err)
	}
}

// A lease is kept alive while its holder lives, however long that takes, and comes back when not.
func TestLeases(t *testing.T) {
	dir := t.TempDir()
	t.Run("kept alive", func(t *testing.T) {
		q := openForTest(t, dir, Config{Lease: 300 * time.Millisecond})
		if err := q.Push(t.Context(), invocation("f")); err != nil {
			t.Fatal(err)
		}
		held := pullOne(t, q)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // three times the lease
		defer cancel()
		if leases, err := q.Pull(ctx, 1); err == nil {
			t.Errorf("%s was handed out while it was held", leases[0].Invocation().ID)
		}
		if held.Invocation().Attempt != 1 {
			t.Errorf("attempt %d", held.Invocation().Attempt)
		}
	})
	t.Run("comes back", func(t *testing.T) {
		q := openForTest(t, dir, Config{Lease: 300 * time.Millisecond})
		l := pullOne(t, q)
		if l.Invocation().Attempt != 2 {
			t.Errorf("attempt %d, want 2", l.Invocation().Attempt)
		}
		if err := l.Done(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestPoisonIsBuried(t *testing.T) {
	q := openForTest(t, t.TempDir(), Config{MaxAttempts: 3, Partitions: 1})
	poison, good := invocation("f"), invocation("f")
	for _, inv := range []*faas.Invocation{poison, good} {
		if err := q.Push(t.Context(), inv); err != nil {
			t.Fatal(err)
		}
	}
	attempts := 0
	for {
		l := pullOne(t, q)
		if l.Invocation().ID == poison.ID {
			attempts++
			if err := l.Retry(t.Context(), 0, nil); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if attempts == 3 {
			if err := l.Done(t.Context()); err != nil {
				t.Fatal(err)
			}
			break
		}
		if err := l.Retry(t.Context(), 10*time.Millisecond, nil); err != nil {
			t.Fatal(err)
		}
		if l.Invocation().Attempt > 2 && attempts < 3 {
			t.Fatal("the good one goes under with the bad one")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for {
		dead, err := q.Buried(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(dead) == 1 && dead[0].Invocation.ID == poison.ID && strings.Contains(dead[0].Why, "3 times") {
			return
		}
		short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
		if leases, err := q.Pull(short, 1); err == nil {
			t.Fatalf("%s was handed out again", leases[0].Invocation().ID)
		}
		stop()
	}
}

func TestFullQueueSaysSo(t *testing.T) {
	e, err := store.Open(store.Config{Dir: t.TempDir(), MaxBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	q, err := Open(t.Context(), Config{Engine: e, Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	pushed := 0
	for ; pushed < 1000; pushed++ {
		inv := invocation("f")
		inv.Body = strings.NewReader(strings.Repeat("x", 1<<20))
		if err = q.Push(t.Context(), inv); err != nil {
			break
		}
	}
	if faas.CodeOf(err) != faas.Overloaded || !strings.Contains(fmt.Sprint(err), "full") {
		t.Errorf("after %d: %v, want Overloaded", pushed, err)
	}
	if n, err := q.Depth(t.Context()); err != nil || n != pushed || n == 0 {
		t.Errorf("Depth = %d, %v; %d were accepted", n, err, pushed)
	}
	if err := pullOne(t, q).Done(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := q.Push(t.Context(), invocation("f")); err != nil {
		t.Errorf("Push after there is room again: %v", err)
	}
}

const (
	childEnv = "BRASA_TEST_CHILD" // the child's data directory
	faultEnv = "BRASA_TEST_FAULT" // where the child kills itself, and after how many times there
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

// child pushes and settles in a loop and says what was acknowledged.
func child(dir string) {
	point, count, _ := strings.Cut(os.Getenv(faultEnv), "@")
	left, _ := strconv.Atoi(count)
	fault = func(at string) {
		if at == point {
			if left--; left <= 0 {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
		}
	}
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	e, err := store.Open(store.Config{Dir: dir, MaxBytes: 1 << 30})
	fail(err)
	ctx := context.Background()
	q, err := Open(ctx, Config{Engine: e, Partitions: 4, Lease: 500 * time.Millisecond, later: time.Minute})
	fail(err)
	go func() { fail(q.Run(ctx)) }()
	fmt.Println("ready")
	for i := 0; ; i++ {
		inv := invocation(fmt.Sprintf("f%d", i%7))
		fail(q.Push(ctx, inv))
		fmt.Println("pushed", inv.ID)
		leases, err := q.Pull(ctx, 1)
		fail(err)
		l := leases[0]
		switch i % 4 {
		case 0:
			fmt.Println("finishing", l.Invocation().ID)
			fail(l.Done(ctx))
			fmt.Println("finished", l.Invocation().ID)
		case 1:
			fail(l.Retry(ctx, 0, nil))
		case 2:
			fmt.Println("burying", l.Invocation().ID)
			fail(l.Bury(ctx, fmt.Errorf("on purpose")))
			fmt.Println("buried", l.Invocation().ID)
		case 3:
			fail(l.Retry(ctx, 61*time.Second, nil))
		}
	}
}

func TestKillNine(t *testing.T) {
	if testing.Short() {
		t.Skip("runs children for seconds")
	}
	dir := t.TempDir()
	state := map[faas.ID]string{} // pushed, finishing, finished, burying, buried
	kills := 0
	for i, at := range []string{"", "bury: copied@3", "retry: copied@2", "", "bury: copied@1", "", ""} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir, faultEnv+"="+at)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			word, id, _ := strings.Cut(lines.Text(), " ")
			switch {
			case word == "error":
				t.Fatalf("child: %s", id)
			case word == "ready" && at == "":
				time.AfterFunc(time.Duration(50+rand.IntN(200))*time.Millisecond, func() { _ = cmd.Process.Kill() })
			case word != "ready":
				state[faas.ID(id)] = word
			}
		}
		kills++
		if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("child %d ended with %v, want to see it killed", i, err)
		}
	}
	e, err := store.Open(store.Config{Dir: dir, MaxBytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	q, err := Open(t.Context(), Config{Engine: e, Partitions: 4, Lease: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	found := map[faas.ID]int{}
	for _, p := range append(q.parts, q.later) {
		info, err := p.stream.Info(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
			m, err := p.stream.GetMsg(t.Context(), seq)
			if err != nil {
				continue // settled
			}
			inv, err := decode(m.Data)
			if err != nil {
				t.Errorf("%s: %v", m.Subject, err)
				continue
			}
			found[inv.ID]++
		}
	}
	dead, err := q.Buried(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	buried := map[faas.ID]int{}
	for _, d := range dead {
		buried[d.Invocation.ID]++
	}
	// The engine writes down what was settled a moment after it has said so, so a kill may bring
	// back the last of each partition, and no more.
	again, count := 0, map[string]int{}
	for id, s := range state {
		count[s]++
		n, b := found[id], buried[id]
		switch s {
		case "pushed":
			if n < 1 {
				t.Errorf("%s was accepted and is gone", id)
			}
		case "finished":
			again += n
		case "buried":
			if n != 0 || b != 1 {
				t.Errorf("%s was buried and is waiting %d times, buried %d times", id, n, b)
			}
		case "burying":
			if n+b < 1 {
				t.Errorf("%s was about to be buried and is gone", id)
			}
		}
	}
	if most := kills * 4; again > most {
		t.Errorf("%d finished invocations are there again after %d kills, want at most %d", again, kills, most)
	}
	if count["pushed"] < 20 || count["finished"] < 10 || count["buried"] < 10 {
		t.Errorf("too few to tell: %v", count)
	}
}
