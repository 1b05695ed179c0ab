package contract

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// nodeDraws is a function that draws from everything that Node.js has, having drawn before, and having
// kept what it drew with.
const nodeDraws = `
const crypto = require('crypto'); const tls = require('tls'); const { random } = Math; const { randomUUID, randomInt } = crypto; const { subtle } = globalThis.crypto;
for (let i = 0; i < 5; i++) { random(); randomUUID(); randomInt(1e9); crypto.randomBytes(8); globalThis.crypto.getRandomValues(new Uint8Array(8)); }
exports.main = async () => {
  const hello = await new Promise((done) => { // what a TLS client sends first holds 32 random bytes
    const { Duplex } = require('stream');
    const wire = new Duplex({ read() {}, write(data, encoding, next) { done(data.subarray(11, 43).toString('hex')); next(); } });
    tls.connect({ socket: wire, rejectUnauthorized: false }).on('error', () => {});
  });
  const key = await subtle.exportKey('raw', await subtle.generateKey({ name: 'AES-GCM', length: 256 }, true, ['encrypt']));
  return {
    random: Math.random(), kept: random(), uuid: crypto.randomUUID(), keptUUID: randomUUID(), webUUID: globalThis.crypto.randomUUID(),
    fresh: crypto.randomUUID({ disableEntropyCache: true }), bytes: crypto.randomBytes(16).toString('hex'), values: Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(16))).toString('hex'),
    int: randomInt(2 ** 48 - 1), later: await new Promise((done) => crypto.randomBytes(16, (e, b) => done(b.toString('hex')))), key: Buffer.from(key).toString('hex'), hello,
  };
};
`

func rewoundTimes() int {
	if n, err := strconv.Atoi(os.Getenv("BRASA_TEST_REWINDS")); err == nil {
		return n
	}
	return 100
}

// TestNodeRewound shows that a process of Node.js that is put back never draws what it drew, by any
// of the ways there are; and that without its seeds it would.
func TestNodeRewound(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: sandboxes are made in the initial user namespace")
	}
	dir := t.TempDir()
	reg, err := runtimes.Discover(t.Context(), runtimes.Config{Dir: filepath.Join(dir, "runtimes"), Node: os.Getenv("BRASA_TEST_NODE")})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := reg.Lookup(runtimes.Node)
	if err != nil {
		t.Skip(err)
	}
	if err := rt.Reseeds(); err != nil {
		t.Skip(err)
	}
	host, err := sandbox.New(sandbox.Config{Dir: filepath.Join(dir, "sandbox"), RootDirs: reg.RootDirs(), Prefix: "nrtest", EgressPool: -1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- host.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = host.Close()
	})
	<-host.Ready()

	code := write(t, map[string]string{"index.js": nodeDraws})
	rev := &faas.Revision{ID: "0123456789abcdef", Name: faas.Name{Namespace: "ns", Function: "fn"}, Runtime: runtimes.Node, Entry: "index.js", Limits: faas.DefaultLimits()}
	s, _ := rt.Stem(rev)
	spec := sandbox.Spec{Name: "rewound", Args: s.Args, Env: s.Env, Dir: "/tmp", Tmp: int64(faas.MiB), Memory: int64(faas.GiB), PIDs: 64, Conn: true, Stderr: os.Stderr}
	for _, m := range s.Mounts {
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: m.Source, Target: m.Target})
	}
	box, err := host.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	conn := runtimes.NewConn(box.Conn(), runtimes.Options{})
	defer conn.Close()
	if _, err := conn.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := box.Adopt(t.Context(), sandbox.Claim{Mounts: []sandbox.Mount{{Source: code, Target: runtimes.CodeDir}}}); err != nil {
		t.Fatal(err)
	}
	load := runtimes.SpecOf(rev, nil)
	load.Seed = seed()
	if _, err := conn.Load(t.Context(), load); err != nil {
		t.Fatal(err, faas.AsError(err).Trace)
	}
	in := &Instance{Conn: conn, t: t}
	draw := func(seed string) map[string]any {
		t.Helper()
		inv := in.Invocation([]byte("{}"))
		inv.Seed = seed
		a := in.Do(t.Context(), inv)
		if a.Err != nil {
			t.Fatal(a.Err, faas.AsError(a.Err).Trace)
		}
		var out map[string]any
		if err := json.Unmarshal(a.Body, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for range 5 {
		draw("")
	}
	if err := box.Arm(t.Context()); err != nil {
		if unsupported, ok := err.(*sandbox.UnsupportedError); ok {
			t.Skip(unsupported)
		}
		t.Fatal(err)
	}
	rewind := func() {
		t.Helper()
		if _, err := box.Rewind(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	first := draw("")
	rewind()
	second := draw("")
	rewind()
	for _, what := range []string{"random", "kept", "uuid", "keptUUID", "bytes", "int", "hello"} {
		if first[what] != second[what] {
			t.Errorf("without a seed %s was %v and then %v: the test shows nothing", what, first[what], second[what])
		}
	}
	seen := map[any]string{}
	for what, v := range first {
		seen[v] = what
	}
	for i := range rewoundTimes() {
		for what, v := range draw(seed()) {
			if before := seen[v]; before != "" {
				t.Errorf("rewind %d: %s drew %v, as %s did before", i, what, v, before)
			}
			seen[v] = what
		}
		rewind()
	}
}

func seed() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
