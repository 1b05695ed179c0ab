package queue

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/faulttest"
)

// powerCut stops a filesystem in the middle of what it does: nothing more is written, not even its
// journal, and what only the page cache has is gone with the next mount.
func powerCut(t *testing.T, mount string) {
	t.Helper()
	const shutdown, noFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
	d, err := os.Open(mount)
	must(t, err)
	defer d.Close()
	must(t, unix.IoctlSetPointerInt(int(d.Fd()), shutdown, noFlush))
}

// mountsEnv says to a child of TestPowerCut that its mounts are its own.
const mountsEnv = "BRASA_TEST_OWN_MOUNTS"

// Whatever was acknowledged before the power was cut is there when it is back.
func TestPowerCut(t *testing.T) {
	if testing.Short() {
		t.Skip("runs children for seconds")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a disk whose power can be cut")
	}
	if os.Getenv(mountsEnv) == "" {
		// In mounts of its own: whoever is started meanwhile with a copy of the mounts, as sandboxes
		// are, would hold the filesystem with its cut power beyond the umount.
		cmd := exec.Command(os.Args[0], "-test.run=^TestPowerCut$", "-test.v")
		cmd.Env = append(os.Environ(), mountsEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		switch {
		case err != nil:
			t.Fatalf("%v\n%s", err, out)
		case bytes.Contains(out, []byte("--- SKIP")):
			t.Skipf("%s", out)
		case !bytes.Contains(out, []byte("--- PASS: TestPowerCut")):
			t.Fatalf("it did not run: %s", out)
		}
		return
	}
	base := t.TempDir()
	image, mount := filepath.Join(base, "image"), filepath.Join(base, "disk")
	must(t, os.Mkdir(mount, 0o700))
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 512<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Skipf("cannot make a disk here: %v: %s", err, out)
	}
	attach := func() {
		t.Helper()
		if out, err := exec.Command("mount", "-o", "loop", image, mount).CombinedOutput(); err != nil {
			t.Skipf("cannot mount a disk here: %v: %s", err, out)
		}
	}
	detach := func() {
		for range 100 { // whoever was killed may hold it for a moment
			if exec.Command("umount", mount).Run() == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("%s stays mounted", mount)
	}
	attach()
	t.Cleanup(detach)
	s := &told{state: map[faas.ID]string{}, keys: map[string]map[faas.ID]bool{}}
	dir := filepath.Join(mount, "data")
	for i := range 3 {
		cmd, lines := faulttest.Start(t, dir, faulttest.Fault{})
		cut := make(chan struct{})
		for lines.Scan() {
			switch word, rest, _ := strings.Cut(lines.Text(), " "); word {
			case "ready":
				go func() {
					defer close(cut)
					time.Sleep(time.Duration(1+i) * 700 * time.Millisecond)
					powerCut(t, mount)
					_ = cmd.Process.Kill()
				}()
			case "error":
				select {
				case <-cut:
				case <-time.After(10 * time.Second): // it met the cut before it was ended
					t.Fatalf("child %d: %s", i, rest)
				}
			default:
				s.take(word, rest)
			}
		}
		_ = cmd.Wait() // it was killed, or found its disk gone
		<-cut
		detach()
		attach()
	}
	s.check(t, dir, map[string]int{"pushed": 50, "finished": 5})
}
