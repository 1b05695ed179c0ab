package sandbox

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// rewindTimes is how often the runtimes are put back; BRASA_TEST_REWINDS changes it.
func rewindTimes() int {
	if n, err := strconv.Atoi(os.Getenv("BRASA_TEST_REWINDS")); err == nil {
		return n
	}
	return 200
}

const nodeSubject = `
const net = require('net'), fs = require('fs');
const conn = new net.Socket({fd: 3, readable: true, writable: true});
let count = 0;
global.kept = [];
function hello() { count++; return count === 1 ? 'hello' : 'hello ' + count; }
let rest = '';
conn.on('data', async (data) => {
  rest += data;
  for (let at; (at = rest.indexOf('\n')) >= 0;) {
    const line = rest.slice(0, at);
    rest = rest.slice(at + 1);
    let answer;
    try { answer = line === 'hello' ? hello() : await eval(line); } catch (e) { answer = 'Error: ' + e; }
    conn.write(answer + '\n');
  }
});
`

func startNode(t testing.TB, h *Host) *subject {
	t.Helper()
	const node = "/usr/bin/node"
	if _, err := os.Stat(node); err != nil || !strings.HasPrefix(resolved(node), "/usr/") {
		t.Skipf("needs %s", node)
	}
	return startSubject(t, h, []string{node, "-e", nodeSubject}, func(s *Spec) { s.Memory = 1 << 30 })
}

const javaSubject = `
import java.io.*;
public class Subject {
	static int count;
	static java.util.List<Object> kept = new java.util.ArrayList<>();
	static String hello() { count++; return count == 1 ? "hello" : "hello " + count; }
	static String work(String line) throws Exception {
		switch (line) {
		case "hello": return hello();
		case "objects": for (int i = 0; i < 3000; i++) kept.add(new int[] {i}); return "" + kept.size();
		case "many": for (int i = 0; i < 200000; i++) kept.add(new int[] {i}); return "" + kept.size();
		case "thread": new Thread(() -> { try { Thread.sleep(1000000); } catch (Exception e) { } }).start(); return "1";
		case "gc": System.gc(); return "1";
		case "property": System.setProperty("x", "y"); return "1";
		case "state": return kept.size() + " " + System.getProperty("x");
		}
		return "what?";
	}
	public static void main(String[] a) throws Exception {
		FileDescriptor three = new FileDescriptor();
		var number = FileDescriptor.class.getDeclaredField("fd");
		number.setAccessible(true);
		number.setInt(three, 3);
		FileInputStream in = new FileInputStream(three);
		FileOutputStream out = new FileOutputStream(in.getFD());
		ByteArrayOutputStream line = new ByteArrayOutputStream();
		for (;;) {
			int c = in.read();
			if (c < 0) return;
			if (c != '\n') { line.write(c); continue; }
			String text = line.toString();
			line.reset();
			out.write((work(text) + "\n").getBytes());
		}
	}
}
`

// rewindLoop asks and puts back n times. Every answer must be the first.
func rewindLoop(t *testing.T, s *subject, n int, line, probe string) {
	t.Helper()
	s.arm(t)
	want := s.ask(t, line)
	s.rewind(t)
	state := s.ask(t, probe)
	s.rewind(t)
	var answers []rewindAnswer
	rewindTrace = func(a rewindAnswer) { answers = append(answers, a) }
	defer func() { rewindTrace = nil }()
	for i := range n {
		if got := s.ask(t, line); got != want {
			t.Fatalf("call %d: got %.100q, want %.100q", i, got, want)
		}
		s.rewind(t)
		if i%10 == 9 {
			if got := s.ask(t, probe); got != state {
				t.Fatalf("after call %d: %q, want %q", i, got, state)
			}
			s.rewind(t)
		}
	}
	slices.SortFunc(answers, func(a, b rewindAnswer) int { return int(int64(a.took) - int64(b.took)) })
	at := func(percent int) time.Duration { return time.Duration(answers[len(answers)*percent/100].took) }
	wide := 0
	for _, a := range answers {
		wide += int(a.wide)
	}
	t.Logf("%d of %d looked through all memory", wide, len(answers))
	t.Logf("%d rewinds: median %v, 10%% %v, 99%% %v; at 10%% %s", len(answers), at(50), at(10), at(99), describeRewind(answers[len(answers)/10]))
}

// describeRewind says where the time of a rewind went.
func describeRewind(a rewindAnswer) string {
	text := fmt.Sprintf("%d pages of %d, %d threads", a.pages, a.kept, a.threads)
	for i, name := range []string{"stop", "maps", "scan", "state", "batch", "write", "protect", "go"} {
		text += fmt.Sprintf(", %s %d", name, a.part[i]/1000)
	}
	return text + " µs"
}

func TestRewindPython(t *testing.T) {
	h := startHost(t)
	needRewind(t, h)
	for _, c := range []struct {
		name, line string
		share      int // of the times
	}{
		{"a small answer", `json.dumps({"a": [hello(), 1.5, None]})`, 1},
		{"a thousand objects", `len(json.dumps([{"id": i, "x": str(i)} for i in range(1000)])), hello()`, 1},
		{"a thousand pages", `kept.append(bytearray(4 << 20)) or len(kept), hello()`, 2},
		{"8 MB that leak", `kept.append(b"x" * (8 << 20)) or len(kept), hello()`, 4},
		{"a thread", `threading.Thread(target=time.sleep, args=(1000,), daemon=True).start(), hello()`, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := rewindPython(t, h)
			for range 3 {
				s.ask(t, c.line)
				s.ask(t, "kept.clear()")
			}
			rewindLoop(t, s, rewindTimes()/c.share, c.line, "len(kept), sorted(sys.modules)")
		})
	}
}

func TestRewindNode(t *testing.T) {
	h := startHost(t)
	needRewind(t, h)
	for _, c := range []struct {
		name, line string
		share      int
	}{
		{"a small answer", `JSON.stringify({a: [hello(), 1.5, null]})`, 1},
		{"200 objects", `JSON.stringify(Array.from({length: 200}, (_, i) => ({id: i, x: String(i)}))).length + hello()`, 1},
		{"20,000 objects", `JSON.stringify(kept = Array.from({length: 20000}, (_, i) => ({id: i, x: String(i)}))).length + hello()`, 4},
		{"the first file", `fs.promises.readFile('/etc/passwd', 'utf8').then(x => x.length + hello())`, 4},
		{"a timer that is left", `setInterval(() => { count++; }, 1), hello()`, 4},
		{"random bytes", `require('crypto').randomUUID().length`, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startNode(t, h)
			for range 3 {
				s.ask(t, `JSON.stringify({a: 1})`)
			}
			rewindLoop(t, s, rewindTimes()/c.share, c.line, "kept.length + Object.keys(require.cache).length")
		})
	}
}

func TestRewindJava(t *testing.T) {
	h := startHost(t)
	needRewind(t, h)
	java, err := filepath.EvalSymlinks("/usr/bin/java")
	if err != nil || !strings.HasPrefix(java, "/usr/") {
		t.Skip("needs /usr/bin/java")
	}
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "Subject.java"), []byte(javaSubject), 0o644))
	if out, err := exec.Command(filepath.Join(filepath.Dir(java), "javac"), "-d", dir, filepath.Join(dir, "Subject.java")).CombinedOutput(); err != nil {
		t.Skipf("needs javac: %v %s", err, out)
	}
	for _, c := range []struct {
		name, line string
		share      int
	}{
		{"a small answer", "hello", 1},
		{"3,000 objects", "objects", 1},
		{"200,000 objects", "many", 4},
		{"a thread", "thread", 4},
		{"a property", "property", 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := startSubject(t, h, []string{java, "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx64m", "-Xss512k", "-XX:-UsePerfData", "-XX:-UseDynamicNumberOfCompilerThreads", "--add-opens=java.base/java.io=ALL-UNNAMED", "-cp", "/code", "Subject"},
				func(s *Spec) { s.Mounts = []Mount{{Source: dir, Target: "/code"}}; s.Memory = 1 << 30 })
			for range 3 {
				s.ask(t, "state")
			}
			rewindLoop(t, s, rewindTimes()/c.share, c.line, "state")
		})
	}
}

// Snapshots of processes that hold the same take little more than one.
func TestRewindSnapshotsShare(t *testing.T) {
	h := startHost(t)
	needRewind(t, h)
	memory := func() (total int64) {
		for _, w := range h.rewinders.all {
			total += residentBytes(w.cmd.Process.Pid)
		}
		return total
	}
	var subjects []*subject
	for range 2 {
		s := rewindPython(t, h)
		s.arm(t)
		subjects = append(subjects, s)
	}
	first := memory()
	for range 8 {
		s := rewindPython(t, h)
		s.arm(t)
		subjects = append(subjects, s)
	}
	t.Logf("2 snapshots: %d kB; 8 more: %d kB each", first>>10, (memory()-first)>>13)
	for _, s := range subjects {
		s.ask(t, "hello")
		s.rewind(t)
		s.Close()
	}
	if err := subjects[0].Arm(context.Background()); err == nil {
		t.Error("a closed sandbox is armed")
	}
}

// rewinderFDs returns how many descriptors the rewinders hold when what was closed has been
// forgotten: nothing is armed, so none but their own.
func rewinderFDs(t testing.TB, h *Host) (n int) {
	t.Helper()
	for _, w := range h.rewinders.all {
		w.forget(0) // answered by nothing; what was sent before is done when this is taken
		if _, err := w.call(context.Background(), rewindRequest{op: rewindBack}, nil); err != nil {
			t.Fatal(err)
		}
		list, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(w.cmd.Process.Pid), "fd"))
		must(t, err)
		n += len(list)
	}
	return n
}

// Processes forked from one zygote are put back as any other, and their snapshots share what they
// have in common.
func TestRewindForked(t *testing.T) {
	h := startHost(t)
	needRewind(t, h)
	z, mounts := startPythonZygote(t, h)
	memory := func() (total int64) {
		for _, w := range h.rewinders.all {
			total += residentBytes(w.cmd.Process.Pid)
		}
		return total
	}
	var forked []*scripted
	var held []int64
	for range 6 {
		s := startScripted(t, h, Spec{Zygote: z, Mounts: mounts})
		if got := s.text("out = 'x'"); got != "x" {
			t.Fatalf("got %q", got)
		}
		must(t, s.Arm(context.Background()))
		forked = append(forked, s)
		held = append(held, memory())
	}
	// Two rewinders, so the first two share nothing.
	last := len(held) - 1
	t.Logf("snapshots take %d kB, then %d kB each", held[1]>>10, (held[last]-held[1])>>10/int64(last-1))
	if each, first := (held[last]-held[1])/int64(last-1), held[1]/2; each > first/2 {
		t.Errorf("each further snapshot takes %d kB, the first took %d kB", each>>10, first>>10)
	}
	for round := range 20 {
		for _, s := range forked {
			if got := s.text("import sys\ncount = globals().get('count', 0) + 1\nout = str(count)"); got != "1" {
				t.Fatalf("round %d: got %s", round, got)
			}
			if _, err := s.Rewind(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A descriptor of the rewinder's must not keep a dead program's connection open.
	forked[0].Kill()
	if _, err := forked[0].answers.ReadByte(); err == nil {
		t.Error("the connection of a dead program still says something")
	}
}
