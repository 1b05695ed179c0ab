package sandbox

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// visible prints what of the root can be seen and of the process itself.
const visible = `#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static void list(const char *dir) {
	DIR *d = opendir(dir);
	if (!d) { printf("%s: %s\n", dir, strerror(errno)); return; }
	printf("%s:", dir);
	for (struct dirent *e; (e = readdir(d));) if (e->d_name[0] != '.') printf(" %s", e->d_name);
	printf("\n");
}
static void show(const char *file) {
	char b[8192]; int fd = open(file, O_RDONLY); int n = fd < 0 ? -1 : read(fd, b, sizeof b);
	if (n < 0) printf("%s: %s\n", file, strerror(errno)); else printf("%s: %.*s\n", file, n, b);
}
static void tries(const char *file) {
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd >= 0) printf("wrote %s\n", file); else printf("kept %s: %s\n", file, strerror(errno));
}
int main(int argc, char **argv) {
	char dir[4096];
	printf("cwd %s\n", getcwd(dir, sizeof dir));
	for (int i = 2; i < argc; i++) {
		if (argv[1][0] == 'l') list(argv[i]);
		if (argv[1][0] == 's') show(argv[i]);
		if (argv[1][0] == 'w') tries(argv[i]);
		if (argv[1][0] == 'u') printf("%d %d %d\n", getuid() == 0, geteuid() == 0, getegid() == 0);
	}
	return 0;
}`

const pauser = "#include <unistd.h>\nint main(void) { for (;;) pause(); }"

// makeRoot returns a tree with a program at /bin/prog and not much else.
func makeRoot(t testing.TB, source string) string {
	t.Helper()
	dir := t.TempDir()
	built := buildStatic(t, source)
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	must(t, os.Rename(filepath.Join(built, "main"), filepath.Join(dir, "bin/prog")))
	return dir
}

func TestOwnRootShowsNothingOfTheHost(t *testing.T) {
	root := makeRoot(t, visible)
	must(t, os.Mkdir(filepath.Join(root, "etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("app:x:1000:1000::/app:/bin/sh"), 0o644))
	bothSpawners(t, func(t *testing.T, h *Host) {
		code := t.TempDir()
		must(t, os.WriteFile(filepath.Join(code, "file"), []byte("content"), 0o644))
		in := func(args ...string) outcome {
			return run(t, h, Spec{Root: root, Args: append([]string{"/bin/prog"}, args...), Hostname: "box", Mounts: []Mount{{Source: code, Target: "/code"}, {Source: filepath.Join(code, "file"), Target: "/opt/a/one"}}})
		}
		got := in("list", "/", "/etc", "/bin", "/tmp", "/dev/shm", "/usr", "/code", "/opt/a", "/proc/1/root", "/..", "/proc/self/root/../root").ok(t)
		for _, want := range []string{
			"cwd /code\n", "/bin: prog\n", "/tmp:\n", "/dev/shm:\n", "/usr: No such file or directory\n", "/code: file\n", "/opt/a: one\n", "/proc/1/root: Permission denied\n",
			"/proc/self/root/../root: No such file or directory",
		} {
			if !strings.Contains(got+"\n", want) {
				t.Errorf("want %q in %q", want, got)
			}
		}
		for _, line := range strings.Split(got, "\n") {
			dir, names, _ := strings.Cut(line, ":")
			sorted := strings.Fields(names)
			slices.Sort(sorted)
			if all := strings.Join(sorted, " "); (dir == "/" || dir == "/..") && all != "bin code dev etc opt proc tmp" || dir == "/etc" && all != "hosts passwd resolv.conf" {
				t.Errorf("got %q", line)
			}
		}
		got = in("show", "/etc/passwd", "/etc/hosts", "/code/file", "/opt/a/one", "/proc/keys", "/proc/self/mountinfo").ok(t)
		for _, want := range []string{"/etc/passwd: app:x:1000:1000::/app:/bin/sh\nfunction:x:11", "127.0.1.1 box\n", "/code/file: content\n", "/opt/a/one: content\n", "/proc/keys: \n"} {
			if !strings.Contains(got, want) {
				t.Errorf("want %q in %q", want, got)
			}
		}
		_, mounts, _ := strings.Cut(got, "/proc/self/mountinfo: ")
		for _, line := range strings.Split(strings.TrimSpace(mounts), "\n") {
			f := strings.Fields(line)
			if len(f) < 6 || slices.Contains([]string{"/tmp", "/dev/shm", "/etc/hosts", "/etc/passwd"}, f[4]) {
				continue
			}
			if !strings.HasPrefix(f[5], "ro,") || !strings.Contains(f[5], "nosuid") || strings.Contains(line, h.cfg.Dir) {
				t.Errorf("mount %q", line)
			}
			// Where the code lies can be told, as in every sandbox; where the root does cannot.
			if strings.Contains(line, root) || f[4] == "/usr" {
				t.Errorf("mount %q shows the host", line)
			}
		}
	})
}

func TestOwnRootIsReadOnly(t *testing.T) {
	root := makeRoot(t, visible)
	must(t, os.Mkdir(filepath.Join(root, "open"), 0o777))
	must(t, os.Chmod(filepath.Join(root, "open"), 0o777))
	must(t, os.WriteFile(filepath.Join(root, "open/file"), nil, 0o666))
	must(t, os.Chmod(filepath.Join(root, "open/file"), 0o666))
	bothSpawners(t, func(t *testing.T, h *Host) {
		o := run(t, h, Spec{Root: root, Args: []string{"/bin/prog", "write", "/x", "/open/x", "/open/file", "/bin/prog", "/etc/x", "/etc/passwd", "/etc/hosts", "/etc/resolv.conf", "/dev/x", "/proc/x", "/tmp/x", "/dev/shm/x", "/dev/null"}})
		for _, line := range strings.Split(o.ok(t), "\n") {
			if may := strings.HasSuffix(line, " /tmp/x") || strings.HasSuffix(line, " /dev/shm/x") || strings.HasSuffix(line, " /dev/null"); strings.HasPrefix(line, "wrote") && !may {
				t.Error(line)
			}
		}
		if n := strings.Count(o.stdout, "wrote"); n != 3 {
			t.Errorf("%d places could be written: %q", n, o.stdout)
		}
		left, err := os.ReadDir(root)
		if err != nil || len(left) != 2 {
			t.Errorf("the tree has %v now", left)
		}
	})
}

// Whoever packed the tree may have put links where we mount, to lead us elsewhere.
func TestOwnRootCannotLeadMountsAway(t *testing.T) {
	root := makeRoot(t, visible)
	for name, link := range map[string]string{"tmp": "/bin", "code": "/proc/1", "proc": "/nowhere", "dev": "bin", "etc": "/../../../../etc", "data": "/"} {
		must(t, os.Symlink(link, filepath.Join(root, name)))
	}
	bothSpawners(t, func(t *testing.T, h *Host) {
		code := t.TempDir()
		must(t, os.WriteFile(filepath.Join(code, "file"), []byte("content"), 0o644))
		o := run(t, h, Spec{Root: root, Args: []string{"/bin/prog", "list", "/code", "/data/in", "/tmp", "/etc", "/bin"}, Mounts: []Mount{{Source: code, Target: "/code"}, {Source: code, Target: "/data/in"}}})
		got := o.ok(t)
		for _, want := range []string{"/code: file", "/data/in: file", "/tmp:", "/bin: prog"} {
			if !slices.Contains(strings.Split(got, "\n"), want) {
				t.Errorf("want %q in %q", want, got)
			}
		}
		if strings.Contains(got, "shadow") {
			t.Errorf("the host's /etc: %q", got)
		}
	})
}

func TestOwnRootIsConfinedAsAlways(t *testing.T) {
	root := makeRoot(t, attacker)
	suid := makeRoot(t, visible)
	must(t, os.Chmod(filepath.Join(suid, "bin/prog"), 0o6755))
	bothSpawners(t, func(t *testing.T, h *Host) {
		lines := strings.Split(run(t, h, Spec{Root: root, Args: []string{"/bin/prog"}}).ok(t), "\n")
		if lines[len(lines)-1] != "end" || len(lines) < 60 {
			t.Fatalf("the attacker did not get through its list: %q", lines)
		}
		for _, line := range lines[:len(lines)-1] {
			if strings.HasSuffix(line, " worked") {
				t.Error(line)
			}
		}
		if got := run(t, h, Spec{Root: suid, Args: []string{"/bin/prog", "uid", "x"}}).ok(t); got != "cwd /tmp\n0 0 0" {
			t.Errorf("set-user-id: got %q", got)
		}
	})
}

// A path may come to be another directory's, as when laid-out code was removed and laid out anew.
func TestOwnRootIsThatOfNow(t *testing.T) {
	root := makeRoot(t, visible)
	h := startHost(t)
	list := func() string { return run(t, h, Spec{Root: root, Args: []string{"/bin/prog", "list", "/bin"}}).ok(t) }
	before := list()
	moved := root + ".old"
	must(t, os.Rename(root, moved))
	must(t, os.CopyFS(root, os.DirFS(moved)))
	must(t, os.WriteFile(filepath.Join(root, "bin/new"), nil, 0o644))
	if after := list(); before != "cwd /tmp\n/bin: prog" || !strings.Contains(after, "new") {
		t.Errorf("got %q, then %q", before, after)
	}
	h.bases.mu.Lock()
	kept := len(h.bases.have)
	h.bases.mu.Unlock()
	if kept != 1 {
		t.Errorf("%d bases are kept", kept)
	}
	h.bases.sweep(time.Now().Add(baseKeep))
	h.bases.dropping.Wait()
	if left, err := os.ReadDir(h.bases.dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestOwnRootErrors(t *testing.T) {
	h := startHost(t)
	root := makeRoot(t, visible)
	for want, spec := range map[string]Spec{
		"no such file or directory": {Root: "/no/such/tree", Args: []string{"/bin/prog"}},
		"not a directory":           {Root: filepath.Join(root, "bin/prog"), Args: []string{"/bin/prog"}},
		"absolute path":             {Root: "relative", Args: []string{"/bin/prog"}},
		"exec /bin/sh":              {Root: root, Args: []string{"/bin/sh"}},
		"enter /no/such/dir":        {Root: root, Args: []string{"/bin/prog"}, Dir: "/no/such/dir"},
	} {
		spec.Name = uniqueName()
		_, err := h.Start(context.Background(), spec)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if _, err := exec.LookPath("sh"); err != nil { // the host has what the tree has not
		t.Error(err)
	}
}

func TestAdoptBelowOwnRoot(t *testing.T) {
	root := makeRoot(t, pauser)
	bothSpawners(t, func(t *testing.T, h *Host) {
		first, second := t.TempDir(), t.TempDir()
		s := start(t, h, Spec{Root: root, Args: []string{"/bin/prog"}, Mounts: []Mount{{Source: first, Target: "/code"}}})
		must(t, s.Adopt(context.Background(), Claim{Hostname: "other", Mounts: []Mount{{Source: second, Target: "/code"}}, Tmp: 32 << 20}))
		err := s.Adopt(context.Background(), Claim{Mounts: []Mount{{Source: second, Target: "/elsewhere"}}})
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a place that is not there: %v", err)
		}
	})
}

// BenchmarkOwnRoot compares, alternating, a start in a tree of its own with one in the host's system.
func BenchmarkOwnRoot(b *testing.B) {
	h := startHost(b)
	root := makeRoot(b, nothing)
	specs := map[string]Spec{
		"host": {Args: []string{"/code/prog"}, Mounts: []Mount{{Source: filepath.Join(root, "bin"), Target: "/code"}}},
		"own":  {Root: root, Args: []string{"/code/prog"}, Mounts: []Mount{{Source: filepath.Join(root, "bin"), Target: "/code"}}},
	}
	took, parts := map[string][]time.Duration{}, map[string][]time.Duration{}
	for b.Loop() {
		for name, spec := range specs {
			for len(h.groups.ready) < cap(h.groups.ready) || len(h.nets.ready) < cap(h.nets.ready) {
				time.Sleep(time.Millisecond) // the measured span begins after it
			}
			spec.Name = uniqueName()
			begin := time.Now()
			s, err := h.Start(context.Background(), spec)
			if err != nil {
				b.Fatal(err)
			}
			took[name] = append(took[name], time.Since(begin))
			for _, p := range s.Steps() {
				parts[name+"-"+p.Name] = append(parts[name+"-"+p.Name], p.Took)
			}
			s.Close()
		}
	}
	for name, d := range took {
		report(b, name, d, nil)
	}
	report(b, "", nil, parts)
}
