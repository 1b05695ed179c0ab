package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestCgroupV2 runs this package's tests on a kernel with version 2 control groups only, in a
// virtual machine without acceleration. It is slow and asks for qemu-system-x86_64 and a kernel,
// so it is run when BRASA_TEST_QEMU is set; BRASA_TEST_KERNEL names the kernel, by default the
// newest of /boot.
func TestCgroupV2(t *testing.T) {
	if os.Getenv("BRASA_TEST_QEMU") == "" {
		t.Skip("BRASA_TEST_QEMU is not set")
	}
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("needs qemu-system-x86_64")
	}
	kernel := os.Getenv("BRASA_TEST_KERNEL")
	if kernel == "" {
		found, _ := filepath.Glob("/boot/vmlinuz-*")
		if len(found) == 0 {
			t.Skip("needs a kernel: set BRASA_TEST_KERNEL")
		}
		kernel = found[len(found)-1]
	}
	var image bytes.Buffer
	must(t, vmImage(t, &image))
	initrd := filepath.Join(t.TempDir(), "initrd")
	must(t, os.WriteFile(initrd, image.Bytes(), 0o644))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, "-machine", "q35,accel=tcg", "-cpu", "max", "-m", "2048", "-smp", "2", "-nographic", "-no-reboot", "-nodefaults",
		"-serial", "stdio", "-net", "none", "-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all")
	out, err := cmd.CombinedOutput()
	text := string(out)
	if i := strings.Index(text, "=== RUN"); i > 0 {
		text = text[i:]
	}
	if err != nil || !strings.Contains(text, "brasa tests: exit code 0") {
		t.Fatalf("%v\n%s", err, text)
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "--- ") || strings.Contains(line, "cgroup ") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// vmTests are those that do not need a compiler, a language or a network.
const vmTests = "Start|Conn|Mounts|Step|Kill|EndOf|Signals|Orphans|Bomb|Temporary|CPUQuota|Usage|Churn|Leftover|Forbidden|Stripped|RootIs|SpawnerDeath|Pools|Probe|Shared|Distinct|OnlyOwn|Close"

// vmImage writes an initial file system: this test binary as init, a few programs of this
// machine with their libraries, and the fixtures built.
func vmImage(t *testing.T, w *bytes.Buffer) error {
	a := &archive{w: w, made: map[string]bool{}}
	a.file("init", "/proc/self/exe", 0o755)
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		a.link(link, "usr/"+link)
	}
	for _, name := range []string{"sh", "bash", "sleep", "head", "cat", "id", "ls", "env", "sort", "grep", "tr", "cut", "stat", "rm", "mount", "hostname", "wc", "readlink", "chmod", "cp", "touch", "true", "ps", "ipcmk", "ipcs", "setsid", "find", "expr"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		a.program(path)
	}
	for _, source := range fixtures {
		a.file("fixtures/"+fixtureName(source), filepath.Join(buildStatic(t, source), "main"), 0o755)
	}
	a.end()
	return a.err
}

// archive writes a cpio of the kind the kernel unpacks.
type archive struct {
	w    *bytes.Buffer
	n    int
	made map[string]bool
	err  error
}

func (a *archive) entry(name string, mode uint32, content []byte) {
	a.n++
	fmt.Fprintf(a.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", a.n, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	a.w.WriteString(name + "\x00")
	pad := func() {
		for a.w.Len()%4 != 0 {
			a.w.WriteByte(0)
		}
	}
	pad()
	a.w.Write(content)
	pad()
}

func (a *archive) dir(name string) {
	if name == "." || a.made[name] {
		return
	}
	a.dir(filepath.Dir(name))
	a.made[name] = true
	a.entry(name, unix.S_IFDIR|0o755, nil)
}

func (a *archive) file(name, from string, mode uint32) {
	if a.made[name] || a.err != nil {
		return
	}
	a.dir(filepath.Dir(name))
	a.made[name] = true
	content, err := os.ReadFile(from)
	a.err = err
	a.entry(name, unix.S_IFREG|mode, content)
}

func (a *archive) link(name, to string) { a.entry(name, unix.S_IFLNK|0o777, []byte(to)) }

// program adds a program under /usr/bin and its libraries where it looks for them.
func (a *archive) program(path string) {
	a.file("usr/bin/"+filepath.Base(path), path, 0o755)
	out, _ := exec.Command("ldd", path).Output()
	for f := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(f, "/lib") {
			a.file("usr"+f, f, 0o755)
		} else if strings.HasPrefix(f, "/usr/lib") {
			a.file(f[1:], f, 0o755)
		}
	}
}

func (a *archive) end() { a.entry("TRAILER!!!", 0, nil) }

// vmInit is what the test binary does as the machine's first process.
func vmInit() {
	code := 1
	if err := vmSettle(); err != nil {
		fmt.Println("brasa tests: settle:", err)
	} else {
		cmd := exec.Command("/init", "-test.run="+vmTests, "-test.v", "-test.timeout=15m")
		cmd.Env = []string{"PATH=/usr/bin", "TMPDIR=/tmp", "HOME=/tmp", "BRASA_TEST_FIXTURES=/fixtures"}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		group, err := os.Open("/sys/fs/cgroup/unit")
		if err == nil {
			// Where a service manager would put a unit it hands control over to.
			cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
			err = cmd.Run()
		}
		if err != nil {
			fmt.Println("brasa tests:", err)
		}
		if cmd.ProcessState != nil {
			code = cmd.ProcessState.ExitCode()
		}
	}
	fmt.Println("brasa tests: exit code", code)
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// vmSettle leaves the initial file system, which cannot be pivoted out of, and mounts the rest.
func vmSettle() error {
	os.Mkdir("/new", 0o755)
	if err := unix.Mount("tmpfs", "/new", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	skip := []string{"new", "dev", "proc", "sys", "root"}
	err := fs.WalkDir(os.DirFS("/"), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || path == ".":
			return err
		case slices.Contains(skip, path):
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll("/new/"+path, 0o755)
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink("/" + path)
			if err != nil {
				return err
			}
			return os.Symlink(to, "/new/"+path)
		}
		content, err := os.ReadFile("/" + path)
		if err != nil {
			return err
		}
		return os.WriteFile("/new/"+path, content, 0o755)
	})
	if err != nil {
		return err
	}
	for _, d := range []string{"proc", "sys", "dev", "tmp", "etc"} {
		os.Mkdir("/new/"+d, 0o755)
	}
	os.WriteFile("/new/etc/hostname", []byte("vm\n"), 0o644)
	if err := os.Chdir("/new"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	for _, m := range []struct{ fstype, at string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"cgroup2", "/sys/fs/cgroup"}} {
		if err := unix.Mount(m.fstype, m.at, m.fstype, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	os.Chmod("/tmp", 0o1777)
	if err := loopbackUp(); err != nil {
		return err
	}
	if err := enable2("/sys/fs/cgroup"); err != nil {
		return err
	}
	return os.Mkdir("/sys/fs/cgroup/unit", 0o755)
}
