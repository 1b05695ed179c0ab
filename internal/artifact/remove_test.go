package artifact

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Programs make trees that are deeper than a path may be long, and than there are descriptors.
func TestRemoveTree(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "victim"), nil, 0o400); err != nil {
		t.Fatal(err)
	}
	top := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(top, 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(top, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = 200
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) }()
	const deep = 3000
	for n := range deep {
		for _, err := range []error{
			unix.Mkdirat(fd, "directory", 0o755), unix.Mkdirat(fd, "beside", 0o755), unix.Mkdirat(fd, "beside/full", 0o755),
			unix.Symlinkat(outside, fd, "link"), unix.Mknodat(fd, "pipe", unix.S_IFIFO|0o600, 0), unix.Symlinkat(fmt.Sprint("../", n), fd, "up"),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		next, err := unix.Openat(fd, "directory", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 {
			if err := unix.Fchmod(fd, 0o500); err != nil {
				t.Fatal(err)
			}
		}
		_ = unix.Close(fd)
		fd = next
	}
	_ = unix.Close(fd)
	if err := RemoveTree(top); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(top); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(outside, "victim")); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
	if err := RemoveTree(top); err != nil {
		t.Errorf("what is not there: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	if err := RemoveTree(link); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(outside, "victim")); err != nil {
		t.Errorf("a link was followed: %v", err)
	}
}
