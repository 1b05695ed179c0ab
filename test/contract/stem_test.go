package contract

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// zygote is a warmed Python from which stems are forked, as in a sandbox but without one.
type zygote struct {
	conn *net.UnixConn
	// twins makes each stem number 1 of its own pid namespace, and so of the same number as the
	// zygote: what tells a fork by the process's number sees none.
	twins bool

	mu    sync.Mutex
	reply chan uint32
	exits map[uint32]chan syscall.WaitStatus
}

// pythonZygote forks a stem for each message, with the three descriptors that come with it, and
// tells of those that end.
const pythonZygote = `
import ctypes, os, signal, socket, sys
boot, twins = sys.argv[1], sys.argv[2] == "twins"
sys.path.insert(0, boot)
import bootstrap
bootstrap.warm()
host = socket.socket(fileno=3)
libc = ctypes.CDLL(None)
def become(fds):
    host.close()
    for at, fd in enumerate(fds):
        os.dup2(fd, 20 + at)
        os.close(fd)
    for at in range(3):
        os.dup2(20 + at, (3, 1, 2)[at])
        os.close(20 + at)
    bootstrap.stem(3)
host.settimeout(0.005)
while True:
    try:
        data, fds, _, _ = socket.recv_fds(host, 16, 3)
        if not data:
            os._exit(0)
        pid = os.fork()
        if pid == 0:
            if twins:
                assert libc.unshare(0x20000000) == 0  # CLONE_NEWPID
                pid = os.fork()
                if pid:
                    for fd in fds:
                        os.close(fd)
                    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255)
                assert os.getpid() == 1
            try:
                become(fds)
            finally:
                os._exit(99)
        for fd in fds:
            os.close(fd)
        host.settimeout(None)
        host.send((0).to_bytes(4, "little") + pid.to_bytes(4, "little") + bytes(4))
    except TimeoutError:
        pass
    host.settimeout(None)
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        host.send((1).to_bytes(4, "little") + pid.to_bytes(4, "little") + status.to_bytes(4, "little"))
    host.settimeout(0.005)
`

func newZygote(t testing.TB, rt *runtimes.Runtime, twins bool) *zygote {
	t.Helper()
	if v := strings.Split(rt.Version, "."); len(v) > 1 && v[0] == "3" && len(v[1]) == 1 {
		t.Skip("the driver needs socket.recv_fds, of Python 3.10")
	}
	args, env, mounts := rt.Command(nil)
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
	defer near.Close()
	defer far.Close()
	conn, err := net.FileConn(near)
	if err != nil {
		t.Fatal(err)
	}
	mode := "plain"
	cmd := exec.Command(args[0], "-I", "-S", "-B", "-c", pythonZygote, mounts[0].Source, mode)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if twins {
		cmd.Args[len(cmd.Args)-1] = "twins"
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	cmd.Env, cmd.Dir, cmd.ExtraFiles, cmd.Stderr = env, "/tmp", []*os.File{far}, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	z := &zygote{conn: conn.(*net.UnixConn), twins: twins, reply: make(chan uint32), exits: map[uint32]chan syscall.WaitStatus{}}
	var told sync.WaitGroup
	told.Go(z.listen)
	t.Cleanup(func() {
		_ = z.conn.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		told.Wait()
	})
	return z
}

func (z *zygote) exit(pid uint32) chan syscall.WaitStatus {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.exits[pid] == nil {
		z.exits[pid] = make(chan syscall.WaitStatus, 1)
	}
	return z.exits[pid]
}

func (z *zygote) listen() {
	b := make([]byte, 12)
	for {
		if _, err := io.ReadFull(z.conn, b); err != nil {
			close(z.reply)
			return
		}
		pid := binary.LittleEndian.Uint32(b[4:])
		if b[0] == 0 {
			z.reply <- pid
			continue
		}
		z.exit(pid) <- syscall.WaitStatus(binary.LittleEndian.Uint32(b[8:]))
	}
}

// Start is Launcher's.
func (z *zygote) Start(t testing.TB, _ *runtimes.Runtime, _ *faas.Revision, code string, _ map[string]string, _ bool) *Process {
	t.Helper()
	p := &Process{Code: code, Dial: net.Dial}
	var far *os.File
	p.Conn, far = socketPair(t)
	stdout, outW := pipe(t)
	stderr, errW := pipe(t)
	p.Stdout, p.Stderr = stdout, stderr
	_, _, err := z.conn.WriteMsgUnix([]byte{1}, syscall.UnixRights(int(far.Fd()), int(outW.Fd()), int(errW.Fd())), nil)
	if err != nil {
		t.Fatal(err)
	}
	pid, ok := <-z.reply
	if !ok {
		t.Fatal("the zygote has ended")
	}
	for _, f := range []*os.File{far, outW, errW} {
		_ = f.Close()
	}
	ended := z.exit(pid)
	p.Wait = sync.OnceValue(func() runtimes.Exit {
		ws := <-ended
		if ws.Signaled() {
			return runtimes.Exit{Signal: ws.Signal()}
		}
		return runtimes.Exit{Code: ws.ExitStatus()}
	})
	p.Kill = func() { _ = syscall.Kill(int(pid), syscall.SIGKILL) }
	if z.twins {
		p.Kill = func() {} // its number here is not known; it ends with its connection
	}
	t.Cleanup(func() {
		p.Kill()
		_ = p.Conn.Close()
		_ = stdout.Close()
		_ = stderr.Close()
	})
	return p
}

// TestForked tells the stories of Python to stems that were forked from a zygote.
func TestForked(t *testing.T) {
	s := NewSuite(t, nil)
	s.Launcher = newZygote(t, s.Runtime(t, runtimes.Python), false)
	s.stories(t, runtimes.Python)
}

// draws is a function that returns something of each source of randomness that code uses. What is
// drawn while it is loaded counts too.
const draws = `
import os, random, secrets, ssl, tempfile, uuid

def draw():
    return {
        "random": [random.random(), random.getrandbits(64)],
        "generator": random.Random().random(),
        "uuid4": str(uuid.uuid4()),
        "uuid1": str(uuid.uuid1()),
        "urandom": os.urandom(16).hex(),
        "secrets": secrets.token_hex(16),
        "ssl": ssl.RAND_bytes(16).hex(),
        "tempfile": next(tempfile._get_candidate_names()),
    }

first = draw()

def main(args):
    return {"load": first, "call": draw()}
`

// distinct says whether the instances drew nothing twice.
func distinct(t *testing.T, answers [][]byte) {
	t.Helper()
	seen := map[string]string{}
	for i, b := range answers {
		var got map[string]map[string]any
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("answer %q: %v", b, err)
		}
		for when, drawn := range got {
			for what, value := range drawn {
				key := what + " " + fmt.Sprint(value)
				if before := seen[key]; before != "" {
					t.Errorf("instance %d drew %s while %sing, which %s had drawn", i, key, when, before)
				}
				seen[key] = fmt.Sprintf("instance %d while %sing", i, when)
			}
		}
	}
}

// TestStemsDrawNothingTwice: what forked processes draw is their own. One that draws what its zygote
// left it draws the same as all the others, so a few hundred show it; BRASA_TEST_MANY asks for more.
func TestStemsDrawNothingTwice(t *testing.T) {
	for _, twins := range []bool{false, true} {
		name, n := "forked", 300
		if twins {
			name, n = "with the number of their zygote", 100
		}
		if many, err := strconv.Atoi(os.Getenv("BRASA_TEST_MANY")); err == nil {
			n = many
		}
		if testing.Short() {
			n = 50
		}
		t.Run(name, func(t *testing.T) {
			if twins && os.Getuid() != 0 {
				t.Skip("needs root: for namespaces of process numbers")
			}
			s := NewSuite(t, nil)
			s.Launcher = newZygote(t, s.Runtime(t, runtimes.Python), twins)
			answers := make([][]byte, n)
			f := Function{Entry: "main.py", Files: map[string]string{"main.py": draws}}
			for i := range answers {
				t.Run("", func(t *testing.T) { // so that each ends when it has answered
					a := s.Start(t, runtimes.Python, f).Call("{}")
					if a.Err != nil {
						t.Fatal(a.Err, a.Log.Text(""))
					}
					answers[i] = a.Body
				})
			}
			distinct(t, answers)
		})
	}
}

// TestASeedStartsRandomnessAnew: a call that brings a seed finds none of the randomness that the
// process had, as after it was put back to an earlier state.
func TestASeedStartsRandomnessAnew(t *testing.T) {
	s := NewSuite(t, Plain{})
	in := s.Start(t, runtimes.Python, Function{Entry: "main.py", Files: map[string]string{"main.py": `
import random, tempfile, uuid

random.seed(1)
first = random.Random(1).random()
next(tempfile._get_candidate_names())

def main(args):
    return {"as_before": random.random() == first, "node": uuid.uuid1().node, "sequence": tempfile._name_sequence is None}
`}})
	type look struct {
		AsBefore bool `json:"as_before"`
		Node     int64
		Sequence bool
	}
	see := func(input, seed string) (l look) {
		inv := in.Invocation([]byte(input))
		inv.Seed = seed
		a := in.Do(t.Context(), inv)
		if err := json.Unmarshal(a.Body, &l); err != nil {
			t.Fatal(a.Err, err)
		}
		return l
	}
	if !see("{}", "").AsBefore {
		t.Error("without a seed the function's own is gone")
	}
	seed := strings.Repeat("0f", 32)
	one := see("{}", seed)
	if one.AsBefore || !one.Sequence {
		t.Errorf("after a seed: %+v, want a new start of all", one)
	}
	if two := see("{}", seed); two.Node == one.Node {
		t.Errorf("the same seed twice: %+v and %+v, want nodes that differ", one, two)
	}
}

// TestStemLoadsAndCallsInOneBreath sends LOAD and the first CALL in one write.
func TestStemLoadsAndCallsInOneBreath(t *testing.T) {
	s := NewSuite(t, Plain{})
	rt := s.Runtime(t, runtimes.Python)
	zygote := newZygote(t, rt, false)
	for name, c := range map[string]struct {
		l           Launcher
		concurrency int
		code        string
	}{
		"started":    {Plain{}, 1, "def main(args): return args\n"},
		"forked":     {zygote, 1, "def main(args): return args\n"},
		"on threads": {zygote, 4, "def main(args): return args\n"},
		"on a loop":  {zygote, 1, "async def main(args): return args\n"},
	} {
		t.Run(name, func(t *testing.T) {
			rev := &faas.Revision{Limits: faas.DefaultLimits()}
			dir := write(t, map[string]string{"main.py": c.code})
			p := c.l.Start(t, rt, rev, dir, nil, true)
			frame := func(kind byte, stream uint32, payload string) []byte {
				b := binary.BigEndian.AppendUint32(nil, uint32(len(payload)+5))
				return append(binary.BigEndian.AppendUint32(append(b, kind), stream), payload...)
			}
			read := func() (kind byte, payload []byte) {
				head := make([]byte, 9)
				if _, err := io.ReadFull(p.Conn, head); err != nil {
					t.Fatal(err)
				}
				payload = make([]byte, binary.BigEndian.Uint32(head)-5)
				if _, err := io.ReadFull(p.Conn, payload); err != nil {
					t.Fatal(err)
				}
				return head[4], payload
			}
			if kind, _ := read(); kind != 16 {
				t.Fatalf("frame %d, want HELLO", kind)
			}
			spec := runtimes.SpecOf(rev, nil)
			spec.Code, spec.Entry, spec.Concurrency = dir, "main.py", c.concurrency
			b, err := json.Marshal(spec)
			if err != nil {
				t.Fatal(err)
			}
			call := func(stream uint32, seed string) []byte {
				meta := `{"id":"i","kind":"invoke","query":"","headers":{},"body":"whole","length":7` + seed + `}`
				return frame(2, stream, string(binary.BigEndian.AppendUint32(nil, uint32(len(meta))))+meta+fmt.Sprintf(`{"n":%d}`, stream))
			}
			out := append(frame(1, 0, string(b)), call(1, "")...)
			out = append(out, call(3, `,"seed":"`+strings.Repeat("5a", 32)+`"`)...)
			if _, err := p.Conn.Write(out); err != nil {
				t.Fatal(err)
			}
			if kind, payload := read(); kind != 17 {
				t.Fatalf("frame %d %s, want LOADED", kind, payload)
			}
			got := map[string]bool{}
			for range 2 { // on threads they may come in either order
				kind, payload := read()
				if kind != 20 {
					t.Fatalf("frame %d, want RESULT", kind)
				}
				got[string(payload[strings.LastIndex(string(payload), "{"):])] = true
			}
			if !got[`{"n":1}`] || !got[`{"n":3}`] {
				t.Errorf("answers %v, want those of both calls", got)
			}
		})
	}
}

// TestPythonCannotTellAStem looks at what a function sees of its process, in one that was started
// for it, in a forked one, and with its bytecode beside it.
func TestPythonCannotTellAStem(t *testing.T) {
	s := NewSuite(t, Plain{})
	rt := s.Runtime(t, runtimes.Python)
	zygote := newZygote(t, rt, false)
	const look = `
import os, sys, threading, warnings, gc

def spec(m):
    s = m.__spec__
    return [s.name, s.origin, s.cached, s.parent, s.has_location, type(s.loader).__name__, s.loader.path, s.submodule_search_locations]

def fail():
    raise KeyError("what")

seen = {
    "name": __name__, "file": __file__, "cached": __cached__, "package": __package__, "spec": spec(sys.modules[__name__]),
    "loader": type(__loader__).__name__, "globals": sorted(globals()), "doc": __doc__, "main": sorted(vars(sys.modules["__main__"])),
    "argv": sys.argv, "path": sys.path, "cwd": os.getcwd(), "env": sorted(os.environ), "thread": threading.current_thread().name,
    "threads": threading.active_count(), "named": threading.Thread().name, "open": sorted(os.listdir("/proc/self/fd"))[:4], "flags": repr(sys.flags), "filters": len(warnings.filters),
    "ours": sorted(n for n in sys.modules if n.partition(".")[0] in ("brasa", "bootstrap", "play", "zygote")), "gc": [gc.isenabled(), gc.get_threshold()],
    "umask": os.umask(0o22), "stdout": [sys.stdout.name, sys.stdout.encoding],
    "path_cache": [n for n in sys.path_importer_cache if ".brasa-" in n], "source": fail.__code__.co_filename,
}

def main(args):
    if args.get("fail"):
        fail()
    return seen
`
	dir := write(t, map[string]string{"main.py": look})
	compiled := write(t, map[string]string{"main.py": look})
	compilePython(t, rt, compiled, "main.py")
	type sight struct{ seen, trace string }
	sights := map[string]sight{}
	for name, c := range map[string]struct {
		l    Launcher
		code string
	}{"started": {Plain{}, dir}, "forked": {zygote, dir}, "started, compiled": {Plain{}, compiled}, "forked, compiled": {zygote, compiled}} {
		in := s.boot(t, rt, c.l, c.code, Function{Entry: "main.py"})
		if err := in.Load(nil); err != nil {
			t.Fatal(name, err, faas.AsError(err).Trace)
		}
		a := in.Call("{}")
		if a.Err != nil {
			t.Fatal(name, a.Err)
		}
		e := in.Call(`{"fail":true}`).WantError(t, faas.Failed, "KeyError")
		sights[name] = sight{strings.ReplaceAll(string(a.Body), c.code, "CODE"), strings.ReplaceAll(e.Trace, c.code, "CODE")}
	}
	want := sights["started"]
	if !strings.Contains(want.trace, `raise KeyError("what")`) || !strings.Contains(want.seen, `CODE/main.py`) {
		t.Fatalf("seen %s\n%s", want.seen, want.trace)
	}
	for name, got := range sights {
		if got != want {
			t.Errorf("%s sees\n%s\n%s\nand one that was started\n%s\n%s", name, got.seen, got.trace, want.seen, want.trace)
		}
	}
}

// compilePython does what a deploy does.
func compilePython(t testing.TB, rt *runtimes.Runtime, dir string, files ...string) {
	t.Helper()
	for _, f := range files {
		out, err := exec.Command(rt.Program, "-I", "-S", "-c",
			"import sys, py_compile as p; p.compile(sys.argv[1], dfile='/code/'+sys.argv[2], doraise=True, invalidation_mode=p.PycInvalidationMode.UNCHECKED_HASH)",
			dir+"/"+f, f).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
}

// TestFilesOfTheCodeComeBeforeTheLibrary: a file called as a module of the library is what import
// finds, though the stem had the library's.
func TestFilesOfTheCodeComeBeforeTheLibrary(t *testing.T) {
	s := NewSuite(t, Plain{})
	rt := s.Runtime(t, runtimes.Python)
	zygote := newZygote(t, rt, false)
	own := "MINE = True\n"
	for name, c := range map[string]struct {
		files   map[string]string
		entry   string
		handler string
		want    string
	}{
		"modules": {map[string]string{
			"queue.py": own, "logging.py": own, "random.py": own, "json.py": own,
			"main.py": "import queue, logging, random, json\ndef main(args): return [m.MINE for m in (queue, logging, random, json)]\n",
		}, "main.py", "", "[true,true,true,true]"},
		"packages": {map[string]string{
			"email/__init__.py": own, "email/part.py": own, "vendor/html/__init__.py": own, "site-packages/csv.py": own,
			"main.py": "import email.part, html, csv\ndef main(args): return [m.MINE for m in (email, email.part, html, csv)]\n",
		}, "main.py", "", "[true,true,true,true]"},
		"folders that are no packages": {map[string]string{
			"logging/data.txt": "", "json/x.txt": "",
			"main.py": "import logging, json\ndef main(args): return [bool(logging.getLogger), bool(json.dumps)]\n",
		}, "main.py", "", "[true,true]"},
		"the entry":          {map[string]string{"queue.py": "import queue as q\ndef main(args): return [__name__, q.main is main]\n"}, "queue.py", "", `["queue",true]`},
		"beside the handler": {map[string]string{"main.py": "", "lib/uuid.py": own, "lib/work.py": "import uuid\ndef run(args): return uuid.MINE\n"}, "main.py", "lib.work.run", "true"},
		"what others import": {map[string]string{
			"string.py": "import sys\nfrom string_of_old import *\nMINE = True\n", "string_of_old.py": "ascii_letters = digits = 'a'\n",
			"main.py": "import string, tempfile, json\ndef main(args): return [string.MINE, bool(tempfile.mkdtemp), json.dumps({})]\n",
		}, "main.py", "", `[true,true,"{}"]`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, c.files)
			for which, l := range map[string]Launcher{"started": Plain{}, "forked": zygote} {
				in := s.boot(t, rt, l, dir, Function{Entry: c.entry, Handler: c.handler})
				if err := in.Load(nil); err != nil {
					t.Fatal(which, err, faas.AsError(err).Trace)
				}
				if a := in.Call("{}"); a.Err != nil || string(a.Body) != c.want {
					t.Errorf("%s answered %q, %v, want %s", which, a.Body, a.Err, c.want)
				}
			}
		})
	}
}

// TestBytecodeIsUsedAsImportWould loads bytecode that differs from its source, which is the one
// way to see which of the two ran.
func TestBytecodeIsUsedAsImportWould(t *testing.T) {
	s := NewSuite(t, Plain{})
	rt := s.Runtime(t, runtimes.Python)
	for name, c := range map[string]struct {
		spoil func(t *testing.T, pyc string)
		want  string
	}{
		"as compiled":    {func(*testing.T, string) {}, `"compiled"`},
		"of another age": {func(t *testing.T, pyc string) { patch(t, pyc, 0, 0) }, `"source"`},
		"cut off":        {func(t *testing.T, pyc string) { cut(t, pyc, 12) }, `"source"`},
		"gone":           {func(t *testing.T, pyc string) { _ = os.Remove(pyc) }, `"source"`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string]string{"main.py": "def main(args): return {'is': 'compiled'}\n"})
			compilePython(t, rt, dir, "main.py")
			if err := os.WriteFile(dir+"/main.py", []byte("def main(args): return {'is': 'source'}\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			cached, err := os.ReadDir(dir + "/__pycache__")
			if err != nil || len(cached) != 1 {
				t.Fatal(cached, err)
			}
			c.spoil(t, dir+"/__pycache__/"+cached[0].Name())
			in := s.boot(t, rt, s.Launcher, dir, Function{Entry: "main.py"})
			if err := in.Load(nil); err != nil {
				t.Fatal(err)
			}
			if a := in.Call("{}"); a.Err != nil || string(a.Body) != `{"is":`+c.want+`}` {
				t.Errorf("answered %q, %v, want %s", a.Body, a.Err, c.want)
			}
		})
	}
}

func patch(t *testing.T, file string, at int64, b byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{b}, at)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, file string, size int64) {
	t.Helper()
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
}
