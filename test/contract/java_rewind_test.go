package contract

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// javaDraws is a function that draws from what Java has, having drawn before and having kept what
// it drew with. "kept" is a generator of its own, which no seed reaches.
const javaDraws = `
import java.security.SecureRandom;
import java.util.*;
import java.util.concurrent.ThreadLocalRandom;
import java.util.stream.*;
import javax.crypto.KeyGenerator;
public class Draws {
    static final Random own = new Random(7);
    static final SecureRandom secure = new SecureRandom(), sha = get("SHA1PRNG"), drbg = get("DRBG"), prng = get("NativePRNG");
    static SecureRandom get(String name) {
        try { return SecureRandom.getInstance(name); } catch (Exception e) { throw new IllegalStateException(e); }
    }
    static { try { draw(); } catch (Exception e) { throw new IllegalStateException(e); } }
    public static Object main(Map<String, Object> args) throws Exception { return draw(); }
    static Map<String, Object> draw() throws Exception {
        Map<String, Object> m = new LinkedHashMap<>();
        m.put("own", Long.toHexString(own.nextLong()));
        m.put("secure", Long.toHexString(secure.nextLong()));
        m.put("sha", Long.toHexString(sha.nextLong()));
        m.put("drbg", Long.toHexString(drbg.nextLong()));
        m.put("prng", Long.toHexString(prng.nextLong()));
        m.put("strong", Long.toHexString(SecureRandom.getInstanceStrong().nextLong()));
        m.put("uuid", UUID.randomUUID().toString());
        m.put("math", Double.toString(Math.random()));
        m.put("threadLocal", Long.toHexString(ThreadLocalRandom.current().nextLong()));
        m.put("new", Long.toHexString(new Random().nextLong()));
        m.put("split", Long.toHexString(new SplittableRandom().nextLong()));
        List<Integer> cards = IntStream.range(0, 52).boxed().collect(Collectors.toList());
        Collections.shuffle(cards);
        m.put("shuffle", cards.toString());
        m.put("key", HexFormat.of().formatHex(KeyGenerator.getInstance("AES").generateKey().getEncoded()));
        return m;
    }
}
`

// TestJavaRewound shows that a process of Java that waited as a stem, was claimed and is put back
// after each call never draws what it drew; and that without its seeds it would.
func TestJavaRewound(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: sandboxes are made in the initial user namespace")
	}
	dir := t.TempDir()
	reg, err := runtimes.Discover(t.Context(), runtimes.Config{Dir: filepath.Join(dir, "runtimes"), Java: os.Getenv("BRASA_TEST_JAVA")})
	if err != nil {
		t.Fatal(err)
	}
	rt, err := reg.Lookup(runtimes.Java)
	if err != nil {
		t.Skip(err)
	}
	host, err := sandbox.New(sandbox.Config{Dir: filepath.Join(dir, "sandbox"), RootDirs: reg.RootDirs(), Prefix: "jrtest", EgressPool: -1})
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

	suite := &Suite{built: map[string]string{}}
	t.Cleanup(suite.Close)
	code := suite.compile(t, rt, Function{Files: map[string]string{"Draws.java": javaDraws}})
	rev := &faas.Revision{ID: "0123456789abcdef", Name: faas.Name{Namespace: "ns", Function: "fn"}, Runtime: runtimes.Java, Entry: "Draws.class", Limits: faas.DefaultLimits()}
	s, _ := rt.Stem(rev)
	spec := sandbox.Spec{Name: "rewound", Args: s.Args, Env: s.Env, Dir: "/tmp", Tmp: int64(faas.MiB), Memory: int64(faas.GiB), PIDs: 64, Conn: true, Stderr: os.Stderr, Stdout: os.Stderr}
	for _, m := range s.Mounts {
		spec.Mounts = append(spec.Mounts, sandbox.Mount{Source: m.Source, Target: m.Target})
	}
	box, err := host.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	own := NewLines()
	conn := runtimes.NewConn(box.Conn(), runtimes.Options{Log: own})
	defer conn.Close()
	if _, err := conn.Hello(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text := own.Text(""); strings.Contains(text, "brasa:") {
		t.Errorf("the stem complains: %s", text)
	}
	if err := box.Adopt(t.Context(), sandbox.Claim{Mounts: []sandbox.Mount{{Source: code, Target: runtimes.CodeDir}}}); err != nil {
		t.Fatal(err)
	}
	load := runtimes.SpecOf(rev, nil)
	load.Seed = seed()
	began := time.Now()
	if _, err := conn.Load(t.Context(), load); err != nil {
		t.Fatal(err, faas.AsError(err).Trace)
	}
	in := &Instance{Conn: conn, t: t}
	draw := func(seed string) map[string]string {
		t.Helper()
		inv := in.Invocation([]byte("{}"))
		inv.Seed = seed
		a := in.Do(t.Context(), inv)
		if a.Err != nil {
			t.Fatal(a.Err, faas.AsError(a.Err).Trace)
		}
		var out map[string]string
		if err := json.Unmarshal(a.Body, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := draw("")
	t.Logf("load and first call took %v", time.Since(began))
	for range 20 { // what the compiler makes is lost with each rewind
		draw(seed())
	}
	time.Sleep(200 * time.Millisecond) // the compiler comes to rest
	if err := box.Arm(t.Context()); err != nil {
		if unsupported, ok := err.(*sandbox.UnsupportedError); ok {
			t.Skip(unsupported)
		}
		t.Fatal(err)
	}
	var took time.Duration
	rewinds := 0
	rewind := func() {
		t.Helper()
		r, err := box.Rewind(t.Context())
		if err != nil {
			t.Fatalf("rewind %d: %v", rewinds, err)
		}
		took += r.Took
		rewinds++
	}
	same := draw("")
	rewind()
	again := draw("")
	rewind()
	for _, what := range []string{"own", "math", "threadLocal", "split", "shuffle"} {
		if same[what] != again[what] {
			t.Errorf("without a seed %s was %v and then %v: the test shows nothing", what, same[what], again[what])
		}
	}
	seen := map[string]string{}
	for what, v := range first {
		seen[v] = what
	}
	for i := range rewoundTimes() {
		for what, v := range draw(seed()) {
			if before := seen[v]; before != "" && what != "own" {
				t.Errorf("rewind %d: %s drew %v, as %s did before", i, what, v, before)
			}
			seen[v] = what
		}
		rewind()
	}
	t.Logf("%d rewinds took %v each", rewinds, took/time.Duration(rewinds))
}
