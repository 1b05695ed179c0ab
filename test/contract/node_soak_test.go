package contract

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// nodeFolder makes processes of Node.js, forked or started, as package worker makes stems, without
// what a test of one process needs.
type nodeFolder struct {
	host *sandbox.Host
	how  runtimes.Stem
	code string
	n    atomic.Int64
}

// folded is one of its processes.
type folded struct {
	box  *sandbox.Sandbox
	conn *runtimes.Conn
	log  *Lines
}

func (f *folded) close() {
	_ = f.box.Close()
	_ = f.conn.Close()
}

// make makes a process and waits until it says hello. z is nil for one that is started.
func (n *nodeFolder) make(ctx context.Context, z *sandbox.Zygote) (*folded, error) {
	l := faas.DefaultLimits()
	spec := sandbox.Spec{
		Name: fmt.Sprintf("soak-%d", n.n.Add(1)), Args: n.how.Args, Env: n.how.Env, Dir: "/tmp", Hostname: "function", Zygote: z,
		Tmp: int64(l.Tmp), Memory: int64(l.Memory), CPU: l.CPU, PIDs: l.PIDs, Conn: true,
	}
	for _, m := range n.how.Mounts {
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: m.Source, Target: m.Target})
	}
	box, err := n.host.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	f := &folded{box: box, log: NewLines()}
	f.conn = runtimes.NewConn(box.Conn(), runtimes.Options{Log: f.log})
	if _, err := f.conn.Hello(ctx); err != nil {
		f.close()
		return nil, fmt.Errorf("%w; exit %+v", err, box.Exit())
	}
	return f, nil
}

// load gives the process the code.
func (n *nodeFolder) load(ctx context.Context, f *folded, entry, handler string) error {
	if err := f.box.Adopt(ctx, sandbox.Claim{Hostname: "f", Mounts: []sandbox.Mount{{Source: n.code, Target: runtimes.CodeDir}}}); err != nil {
		return err
	}
	rev := &faas.Revision{ID: "0123456789abcdef", Name: faas.Name{Namespace: "ns", Function: "fn"}, Entry: entry, Handler: handler, Limits: faas.DefaultLimits()}
	_, err := f.conn.Load(ctx, runtimes.SpecOf(rev, nil))
	return err
}

// call calls the function and puts its answer into to.
func (f *folded) call(ctx context.Context, input string, to any) error {
	now := time.Now()
	body := []byte(input)
	inv := &faas.Invocation{
		ID: faas.NewID(now), Kind: faas.KindInvoke, Body: faas.NewBytesBody(body), Length: int64(len(body)),
		Deadline: now.Add(time.Minute), Attempt: 1, Header: map[string][]string{},
	}
	a := (&Instance{Conn: f.conn}).Do(ctx, inv)
	if a.Err != nil {
		return a.Err
	}
	return json.Unmarshal(a.Body, to)
}

// newNodeFolder returns one with a zygote, and skips where there can be none.
func newNodeFolder(t *testing.T) (*nodeFolder, *sandbox.Zygote) {
	t.Helper()
	s := NewSuite(t, nil)
	rt := s.Runtime(t, runtimes.Node)
	rev := &faas.Revision{Limits: faas.DefaultLimits()}
	how, _ := rt.Stem(rev)
	if how.Zygote == nil {
		t.Skip("this Node.js can't be forked")
	}
	draws, err := os.ReadFile("../leak/testdata/draw.js")
	if err != nil {
		t.Fatal(err)
	}
	needs, err := os.ReadFile("../../runtimes/node/trial/needs.js")
	if err != nil {
		t.Fatal(err)
	}
	l := &sandboxed{host: newHost(t), stems: true, forks: true}
	n := &nodeFolder{host: l.host, how: how, code: write(t, map[string]string{"draw.js": string(draws) + Source(t, "draw_more.js"), "few.js": Source(t, "draw_few.js"), "needs.js": string(needs), "plain.js": "exports.main = () => 1;\n"})}
	return n, l.zygote(t, rt, rev)
}

// forks is how many processes are forked of one zygote; BRASA_TEST_FORKS changes it.
func forks() int {
	if n, err := strconv.Atoi(os.Getenv("BRASA_TEST_FORKS")); err == nil {
		return n
	}
	if testing.Short() {
		return 40
	}
	return 250
}

// TestNodeForksLastAndDrawNothingTwice forks many processes of one zygote, six at a time. Each draws
// from sources of randomness, some from all there are, and none of them what another has drawn, but for the seed of
// V8's hashes, which they share. Every hundredth does all that code may need. They end in all ways there
// are, and leave nothing behind.
func TestNodeForksLastAndDrawNothingTwice(t *testing.T) {
	n, z := newNodeFolder(t)
	ctx, total := t.Context(), forks()
	before := stateOf(t, z)
	var (
		mu     sync.Mutex
		seen   = map[string]string{}
		hashes = map[int]int{}
		failed int
		next   atomic.Int64
		all    sync.WaitGroup
	)
	began := time.Now()
	for range 6 {
		all.Go(func() {
			for {
				i := int(next.Add(1))
				if i > total {
					return
				}
				drawn, hash, err := n.soak(ctx, z, i)
				mu.Lock()
				if err != nil {
					failed++
					t.Errorf("fork %d: %v", i, err)
				}
				if len(drawn) > 0 {
					hashes[hash]++
				}
				for what, v := range drawn {
					if was := seen[v]; was != "" {
						t.Errorf("%s of fork %d is %s, as %s", what, i, v, was)
					}
					seen[v] = fmt.Sprintf("%s of fork %d", what, i)
				}
				stop := failed > 5
				if i%500 == 0 {
					t.Logf("%d forks in %v, %d failed, %d numbers drawn", i, time.Since(began).Round(time.Second), failed, len(seen))
				}
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	all.Wait()
	after := stateOf(t, z)
	t.Logf("%d forks in %v, %d failed; %d numbers drawn; string hashes seen: %d", total, time.Since(began).Round(time.Millisecond), failed, len(seen), len(hashes))
	t.Logf("zygote before %+v, after %+v", before, after)
	if after.descriptors != before.descriptors || after.threads != before.threads || after.memory > before.memory+1024 {
		t.Errorf("the zygote was %+v and became %+v", before, after)
	}
}

// soak is the life of one forked process.
func (n *nodeFolder) soak(ctx context.Context, z *sandbox.Zygote, i int) (drawn map[string]string, hash int, err error) {
	f, err := n.make(ctx, z)
	if err != nil {
		return nil, 0, err
	}
	defer f.close()
	if i%100 == 50 {
		var got struct{ Broken []string }
		if err := n.load(ctx, f, "needs.js", ""); err != nil {
			return nil, 0, err
		}
		if err := f.call(ctx, "{}", &got); err != nil || len(got.Broken) > 0 {
			return nil, 0, fmt.Errorf("needs: %q, %v", got.Broken, err)
		}
		return nil, 0, nil
	}
	handler := ""
	if i%5 == 1 {
		handler = "leave"
	}
	entry := "few.js"
	if i%25 == 0 || i < 20 { // the rest costs a process fifty times what the fork does
		entry = "draw.js"
	}
	if err := n.load(ctx, f, entry, handler); err != nil {
		return nil, 0, err
	}
	if handler != "" {
		if err := f.call(ctx, "{}", nil); err == nil {
			return nil, 0, fmt.Errorf("one that leaves answered")
		}
		if e := f.box.Exit(); e.Code != 7 {
			return nil, 0, fmt.Errorf("left with %+v", e)
		}
		return nil, 0, nil
	}
	var got struct {
		Drawn map[string]string
		Hash  int
		PID   int
	}
	if err := f.call(ctx, fmt.Sprintf(`{"more":%v}`, i <= 10 || i%100 == 25), &got); err != nil {
		return nil, 0, err
	}
	if len(got.Drawn) < 7 || got.PID != 2 {
		return nil, 0, fmt.Errorf("answered %+v", got)
	}
	if i%5 == 2 { // the host goes: it ends by itself, as all do
		_ = f.conn.Close()
		_ = f.box.Conn().Close()
		if e := f.box.Exit(); e.Code != 0 || e.Signal != 0 {
			return nil, 0, fmt.Errorf("without its host it ended with %+v", e)
		}
	}
	return got.Drawn, got.Hash, nil
}

// zygoteState is what must not grow with the forks.
type zygoteState struct {
	descriptors, threads int
	memory               int // kB, of its own making
}

func stateOf(t *testing.T, z *sandbox.Zygote) zygoteState {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(z.PID()))
	var s zygoteState
	for name, to := range map[string]*int{"fd": &s.descriptors, "task": &s.threads} {
		entries, err := os.ReadDir(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		*to = len(entries)
	}
	// Pages of files that nobody has written to are its own or shared by who else runs Node.js just now.
	s.memory = rollup(t, z.PID(), "Anonymous:")
	return s
}

// rollup adds up fields of /proc/PID/smaps_rollup, in kB.
func rollup(t testing.TB, pid int, fields ...string) (sum int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		for _, f := range fields {
			if rest, ok := strings.CutPrefix(line, f); ok {
				kb, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
				sum += kb
			}
		}
	}
	return sum
}
