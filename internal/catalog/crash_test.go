package catalog

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// The crash tests run this test binary once more as a child that publishes in a loop and says on
// its standard output what was acknowledged, kill it with SIGKILL, and look at what it left.
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
	e, c := openOn(fail, dir)
	defer e.Close()
	ctx := context.Background()
	start := 0
	if fn, err := c.Function(name("f")); err == nil {
		revs, err := c.Revisions(fn.Name)
		fail(err)
		start, _ = strconv.Atoi(revs[0].Env["N"])
		fmt.Println("f", start) // the last child may have written it without the time to say so
	}
	fmt.Println("ready")
	for n := start + 1; ; n++ {
		_, err := c.Publish(ctx, revision("f", n), PublishOptions{})
		fail(err)
		fmt.Println("f", n)
		_, err = c.PutSecret(ctx, DefaultNamespace, "S", []byte(strconv.Itoa(n)))
		fail(err)
		fmt.Println("s", n)
		_, err = c.Publish(ctx, revision("g", n), PublishOptions{})
		fail(err)
		fmt.Println("g", n)
		fail(c.Delete(ctx, name("g")))
		fmt.Println("d", n)
	}
}

func openOn(fail func(error), dir string) (*store.Engine, *Catalog) {
	e, err := store.Open(store.Config{Dir: dir, MaxBytes: 1 << 30})
	fail(err)
	docs, err := e.Bucket(context.Background(), "catalog", 10)
	fail(err)
	secs, err := e.Bucket(context.Background(), "secrets", 1)
	fail(err)
	c, err := Open(context.Background(), Config{Store: docs, Secrets: secs, Key: testKey})
	fail(err)
	return e, c
}

// crash runs a child until it dies, by itself at the fault or killed after a random time, and
// returns the last number that it acknowledged of each kind.
func crash(t *testing.T, dir, faultAt string, after time.Duration) map[string]int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir, faultEnv+"="+faultAt)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acked := map[string]int{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		kind, rest, _ := strings.Cut(lines.Text(), " ")
		switch kind {
		case "ready":
			if faultAt == "" {
				time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
			}
		case "error":
			t.Fatalf("child: %s", rest)
		default:
			acked[kind], _ = strconv.Atoi(rest)
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("child ended with %v, want to see it killed", err)
	}
	return acked
}

// look opens what a crash left: everything acknowledged is there, nothing is half there.
func look(t *testing.T, dir, when string, acked map[string]int) {
	t.Helper()
	e, c := openOn(func(err error) {
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}, dir)
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	number := func(fn string) int {
		t.Helper()
		f, rev, err := c.Resolve(faas.Ref{Name: name(fn)})
		if err != nil {
			if faas.CodeOf(err) != faas.NotFound {
				t.Errorf("%s: %s: %v", when, fn, err)
			}
			return 0
		}
		if revs, err := c.Revisions(name(fn)); err != nil || len(revs) != len(f.Revisions) {
			t.Errorf("%s: %s lists %d revisions and %d are there, %v", when, fn, len(f.Revisions), len(revs), err)
		}
		n, _ := strconv.Atoi(rev.Env["N"])
		return n
	}
	// One more than was acknowledged may be there: the crash came before the word of it got out.
	if got := number("f"); got < acked["f"] || got > acked["f"]+1 {
		t.Errorf("%s: f is at %d, %d was acknowledged", when, got, acked["f"])
	}
	if acked["s"] > 0 {
		v, _, err := c.OpenSecrets(t.Context(), DefaultNamespace, []string{"S"})
		if got, _ := strconv.Atoi(v["S"]); err != nil || got < acked["s"] || got > max(acked["s"]+1, acked["f"]) {
			t.Errorf("%s: the secret is at %d, %d was acknowledged, %v", when, got, acked["s"], err)
		}
	}
	g := number("g")
	switch {
	case acked["g"] > acked["d"] && g != 0 && g != acked["g"]:
		t.Errorf("%s: g is at %d, %d was acknowledged", when, g, acked["g"])
	case acked["d"] > 0 && acked["d"] == acked["g"] && g != 0 && g != acked["g"]+1:
		t.Errorf("%s: g is at %d, its deletion at %d was acknowledged", when, g, acked["d"])
	}
	if err := c.collect(t.Context(), time.Now().Add(24*time.Hour)); err != nil {
		t.Errorf("%s: collect: %v", when, err)
	}
	records, err := c.config.Store.List(t.Context(), kindRevision, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	for _, fn := range c.Functions(DefaultNamespace) {
		want += len(fn.Revisions)
	}
	if len(records) != want {
		t.Errorf("%s: %d revisions stored after the collector, %d are in use", when, len(records), want)
	}
}

func TestKillNine(t *testing.T) {
	if testing.Short() {
		t.Skip("runs children for seconds")
	}
	t.Run("at named points", func(t *testing.T) {
		for _, point := range []string{
			"publish: begun", "publish: revision written", "publish: pointer moved", "prune",
			"delete: begun", "delete: tombstone written", "secret: data key written", "secret: written",
		} {
			dir := filepath.Join(t.TempDir(), "data")
			for _, count := range []int{1, 2, 13} { // the first start, a young store, one with a full history
				at := fmt.Sprintf("%s@%d", point, count)
				look(t, dir, at, crash(t, dir, at, 0))
			}
		}
	})
	t.Run("at random", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		last := map[string]int{}
		for i := range 12 {
			acked := crash(t, dir, "", time.Duration(rand.IntN(150))*time.Millisecond)
			for _, k := range []string{"f", "s"} {
				acked[k] = max(acked[k], last[k])
			}
			look(t, dir, fmt.Sprintf("crash %d", i), acked)
			last = acked
		}
		if last["f"] < 20 {
			t.Errorf("only %d publications in all crashes: too few to tell", last["f"])
		}
	})
}
