package openwhisk_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/journal"
	"github.com/brasa-dev/brasa/internal/openwhisk"
	"github.com/brasa-dev/brasa/internal/queue"
	"github.com/brasa-dev/brasa/internal/store"
	"github.com/brasa-dev/brasa/internal/trigger"
	"github.com/brasa-dev/brasa/runtimes"
)

// world is a server of this dialect before everything that it stands on; only where actions would run
// there are Go funcs.
type world struct {
	t        *testing.T
	url      string
	catalog  *catalog.Catalog
	server   *openwhisk.Server
	keys     *auth.Subjects
	subjects map[string]auth.Subject // guest and other, by the name of the namespace

	mu   sync.Mutex
	runs []run                                        // guarded by mu
	envs map[string]map[string]string                 // guarded by mu; of the last call, by the same name
	does map[string]func(map[string]any) (any, error) // guarded by mu; by namespace/[package/]name
}

// run is a call that came to where actions run.
type run struct {
	name  string
	id    faas.ID
	cause faas.ID
	args  map[string]any
}

// registry is found out once for all tests, since that starts each interpreter there is.
var registry = sync.OnceValues(func() (*runtimes.Registry, error) {
	dir, err := os.MkdirTemp("", "brasa-openwhisk-")
	if err != nil {
		return nil, err
	}
	registryDir = dir
	return runtimes.Discover(context.Background(), runtimes.Config{Dir: dir}) // it outlives the test that asks first
})

var registryDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if registryDir != "" {
		_ = artifact.RemoveTree(registryDir)
	}
	os.Exit(code)
}

// open starts a server with the namespaces guest and other.
func open(t *testing.T, change func(*openwhisk.Config)) *world {
	t.Helper()
	w := &world{t: t, subjects: map[string]auth.Subject{}, does: map[string]func(map[string]any) (any, error){}, envs: map[string]map[string]string{}}
	dir, ctx := t.TempDir(), t.Context()
	engine, err := store.Open(store.Config{Dir: filepath.Join(dir, "store")})
	w.must(err)
	t.Cleanup(func() { _ = engine.Close() })
	log, err := journal.Open(ctx, journal.Config{Engine: engine, Dir: filepath.Join(dir, "journal")})
	w.must(err)
	t.Cleanup(func() { _ = log.Close() })
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	w.catalog, err = catalog.Open(ctx, catalog.Config{Store: store.Memory(), Secrets: store.Memory(), Key: key})
	w.must(err)
	subjects, err := auth.OpenSubjects(ctx, auth.Config{Store: store.Memory(), Attempts: 1 << 20})
	w.must(err)
	w.keys = subjects
	for _, ns := range []string{"guest", "other"} {
		_, err := w.catalog.CreateNamespace(ctx, ns)
		w.must(err)
		w.subjects[ns], err = subjects.Put(ctx, ns, ns, "", "", false)
		w.must(err)
	}
	objects, err := engine.Objects(ctx, "blobs")
	w.must(err)
	depot, err := artifact.Open(artifact.Config{Objects: objects, Dir: filepath.Join(dir, "code")})
	w.must(err)
	t.Cleanup(func() { _ = depot.Close() })
	registry, err := registry()
	w.must(err)
	deployer, err := deploy.New(deploy.Config{Catalog: w.catalog, Depot: depot, Runtimes: registry, Prover: w, Dir: filepath.Join(dir, "deploy")})
	w.must(err)
	dispatcher := dispatch.New(dispatch.Config{Catalog: w.catalog, Node: w, Recorder: log, Journal: log, Queue: queue.Memory(), Async: dispatch.AsyncConfig{Grace: time.Millisecond},
		Note: map[string]func(*faas.Revision, *faas.Invocation) json.RawMessage{
			faas.ContractOpenWhisk: func(rev *faas.Revision, inv *faas.Invocation) json.RawMessage { return w.server.Note(rev, inv) },
		},
		Env: map[string]func(context.Context, *faas.Revision, *faas.Invocation) (map[string]string, error){
			faas.ContractOpenWhisk: func(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (map[string]string, error) {
				return w.server.Env(ctx, rev, inv)
			},
		},
		Next: map[string]func(context.Context, *faas.Invocation, string) (faas.Name, error){
			faas.ContractOpenWhisk: func(ctx context.Context, inv *faas.Invocation, action string) (faas.Name, error) {
				return w.server.Next(ctx, inv, action)
			},
		},
	})
	triggers := trigger.New(trigger.Config{Catalog: w.catalog, Dispatcher: dispatcher, State: store.Memory()})
	cfg := openwhisk.Config{
		Catalog: w.catalog, Dispatcher: dispatcher, Deployer: deployer, Depot: depot, Journal: log, Triggers: triggers, Subjects: subjects, APIs: store.Memory(),
		Limits: openwhisk.Limits{InvocationsPerMinute: 1 << 20, FiresPerMinute: 1 << 20}, APIHost: "http://example.test",
	}
	if change != nil {
		change(&cfg)
	}
	w.server = openwhisk.New(cfg)
	server := httptest.NewServer(w.server)
	t.Cleanup(server.Close)
	w.url = server.URL
	w.background(w.server.Run)
	w.background(dispatcher.Run)
	w.background(triggers.Run)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) background(part func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

// Prove implements deploy.Prover.
func (w *world) Prove(context.Context, *faas.Revision) (faas.Proof, error) {
	return faas.Proof{Timing: faas.Timing{Begin: time.Now()}}, nil
}

// Status implements dispatch.Node.
func (w *world) Status() faas.NodeStatus { return faas.NodeStatus{Name: "test"} }

// Execute implements dispatch.Node: an action answers with its arguments unless it does something.
func (w *world) Execute(_ context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
	if rev.Broken != "" {
		return nil, faas.Errorf(faas.Failed, "run action", "%s", rev.Broken)
	}
	args := map[string]any{}
	if inv.Body != nil {
		b, err := io.ReadAll(inv.Body)
		if err != nil {
			return nil, err
		}
		if len(b) > 0 {
			if err := json.Unmarshal(b, &args); err != nil {
				return nil, faas.Errorf(faas.Failed, "read arguments", "%w", err)
			}
		}
	}
	w.mu.Lock()
	w.envs[rev.Name.String()] = inv.Env
	w.runs = append(w.runs, run{rev.Name.String(), inv.ID, inv.Cause, args})
	does := w.does[rev.Name.String()]
	w.mu.Unlock()
	var answer any = args
	if does != nil {
		var err error
		if answer, err = does(args); err != nil {
			return nil, err
		}
	}
	b, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	status := http.StatusOK
	if m, ok := answer.(map[string]any); ok && m["error"] != nil {
		status = http.StatusBadGateway
	}
	inv.Timing.Add(faas.PhaseExecution, time.Millisecond)
	return &faas.Result{Status: status, Header: map[string][]string{"Content-Type": {"application/json"}}, Body: faas.NewBytesBody(b)}, nil
}

// calls returns the calls of an action so far.
func (w *world) calls(name string) (out []run) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.runs {
		if r.name == name {
			out = append(out, r)
		}
	}
	return out
}

// until waits for what others do.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not in a minute: %s", what)
		}
	}
}

// answer is what a request came to.
type answer struct {
	status int
	header http.Header
	body   string
	json   any // nil: it is none
}

// send makes a request as a namespace. path is below /api/v1/namespaces/ if it does not begin with a
// slash.
func (w *world) send(who, method, path, body string) answer {
	w.t.Helper()
	return w.sendAs(who, method, path, body, map[string]string{"Content-Type": "application/json"})
}

func (w *world) sendAs(who, method, path, body string, header map[string]string) answer {
	w.t.Helper()
	if !strings.HasPrefix(path, "/") {
		path = "/api/v1/namespaces/" + path
	}
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, content)
	w.must(err)
	if s, ok := w.subjects[who]; ok {
		r.SetBasicAuth(s.UUID, s.Key)
	}
	for k, v := range header {
		r.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(r)
	w.must(err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	w.must(err)
	a := answer{status: res.StatusCode, header: res.Header, body: string(b)}
	if json.Unmarshal(b, &a.json) != nil {
		a.json = nil
	}
	return a
}

// step is a request with what it must come to.
type step struct {
	item   int // of the contract
	who    string
	method string
	path   string
	body   string
	status int
	want   string // JSON that the answer contains; "<absent>" and "<any>" stand for themselves
}

// play makes requests one after the other.
func (w *world) play(steps []step) {
	w.t.Helper()
	for i, s := range steps {
		if s.who == "" {
			s.who = "guest"
		}
		a := w.send(s.who, s.method, s.path, s.body)
		name := fmt.Sprintf("step %d, item %d: %s %s %.200s", i, s.item, s.method, s.path, s.body)
		if a.status != s.status {
			w.t.Errorf("%s: status %d, want %d: %.500s", name, a.status, s.status, a.body)
			continue
		}
		if s.status >= 400 && s.status < 500 {
			m, _ := a.json.(map[string]any)
			if m["error"] == nil || m["code"] == nil {
				w.t.Errorf("%s: an error without error and code: %s", name, a.body)
			}
		}
		if s.want == "" {
			continue
		}
		var want any
		if err := json.Unmarshal([]byte(s.want), &want); err != nil {
			w.t.Fatalf("%s: %v", name, err)
		}
		if err := contains(a.json, want, ""); err != nil {
			w.t.Errorf("%s: %v in %.2000s", name, err, a.body)
		}
	}
}

// contains says what of want is not in got. Objects may have more fields, and strings with "~" before
// them need only be contained.
func contains(got, want any, at string) error {
	switch want := want.(type) {
	case string:
		switch {
		case want == "<any>" && got != nil:
			return nil
		case strings.HasPrefix(want, "~"):
			if text, ok := got.(string); ok && strings.Contains(text, want[1:]) {
				return nil
			}
		}
	case map[string]any:
		m, ok := got.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is %v and no object", at, got)
		}
		for k, v := range want {
			field, there := m[k]
			if v == "<absent>" {
				if there {
					return fmt.Errorf("%s.%s is there", at, k)
				}
				continue
			}
			if err := contains(field, v, at+"."+k); err != nil {
				return err
			}
		}
		return nil
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return fmt.Errorf("%s is %v and no list of %d", at, got, len(want))
		}
		for i := range want {
			if err := contains(list[i], want[i], fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
		return nil
	}
	if got != want {
		return fmt.Errorf("%s is %v, want %v", at, got, want)
	}
	return nil
}
