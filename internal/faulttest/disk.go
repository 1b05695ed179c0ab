package faulttest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// SmallDisk mounts a disk of that size, such as "96m", for the time of the test and returns where it
// is. Where this can't be done the test is skipped.
func SmallDisk(t testing.TB, size string) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small disk")
	}
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size="+size+",mode=700"); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// Fill writes to a file until at most free bytes of its disk are left; with 0 to the very last byte.
func Fill(t testing.TB, path string, free int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := 1 << 20; block > 0; {
		var st unix.Statfs_t
		if err := unix.Statfs(filepath.Dir(path), &st); err != nil {
			t.Fatal(err)
		}
		if free > 0 && int64(st.Bavail)*st.Bsize <= free {
			return
		}
		switch _, err := f.Write(make([]byte, block)); {
		case errors.Is(err, unix.ENOSPC):
			block /= 4
		case err != nil:
			t.Fatal(err)
		}
	}
}
