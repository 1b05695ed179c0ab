package sandbox

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStartRunsAndReportsExit(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		o := shell(t, h, "echo out; echo err >&2; exit 3")
		if o.stdout != "out\n" || o.stderr != "err\n" || o.exit.Code != 3 || o.exit.Signal != 0 || o.exit.OOM {
			t.Errorf("got %q %q %+v", o.stdout, o.stderr, o.exit)
		}
	})
}

func TestConnIsDescriptorThree(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		s := start(t, h, Spec{Args: []string{"/bin/sh", "-c", "read line <&3; echo got $line >&3"}, Conn: true})
		s.Conn().SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(s.Conn(), "hello\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(s.Conn())
		if err != nil || string(answer) != "got hello\n" {
			t.Errorf("got %q, %v", answer, err)
		}
	})
}

func TestMounts(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		o := shell(t, h, `pwd; cat /code/file /one /tmp/deep/er/file; touch /code/x /one 2>&1; echo made >/build/made; ls -ld /build | cut -c1-10`, func(s *Spec) {
			s.Mounts = []Mount{
				{Source: dir, Target: "/code"},
				{Source: filepath.Join(dir, "file"), Target: "/one"},
				{Source: dir, Target: "/tmp/deep/er"},
				{Source: out, Target: "/build", Writable: true},
			}
		})
		if !strings.HasPrefix(o.ok(t), "/code\ncontentcontentcontent") || !strings.Contains(o.stdout, "/code/x': Read-only file system") {
			t.Errorf("got %q %q", o.stdout, o.stderr)
		}
		if made, err := os.ReadFile(filepath.Join(out, "made")); err != nil || string(made) != "made\n" {
			t.Errorf("writable mount: got %q, %v", made, err)
		}
	})
}

func TestFewDescriptorsBesideManySandboxes(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		for range 24 {
			start(t, h, Spec{Args: []string{"/bin/sleep", "1000"}})
		}
		o := shell(t, h, "ulimit -n; ulimit -Hn", func(s *Spec) { s.Files = 20 })
		if o.ok(t) != "20\n20" {
			t.Errorf("limit of open files: got %q", o.stdout)
		}
	})
}

func TestStepErrorNamesTheStep(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		_, err := h.Start(context.Background(), Spec{Name: "nothing", Args: []string{"/no/such/program"}})
		var failed *StepError
		if !errors.As(err, &failed) || failed.Step != "exec /no/such/program" || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
		_, err = h.Start(context.Background(), Spec{Name: "nowhere", Args: []string{"/bin/true"}, Dir: "/no/such/dir"})
		if !errors.As(err, &failed) || failed.Step != "enter /no/such/dir" {
			t.Errorf("got %v", err)
		}
		// Nothing is kept of what failed: the name is free.
		shell(t, h, "true", func(s *Spec) { s.Name = "nothing" }).ok(t)
	})
}

func TestLargeEnvironment(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		big := strings.Repeat("x", 100_000)
		o := shell(t, h, "echo ${#A} ${#B} ${#C}", func(s *Spec) { s.Env = append(s.Env, "A="+big, "B="+big, "C="+big) })
		if got := o.ok(t); got != "100000 100000 100000" {
			t.Errorf("got %q", got)
		}
		if _, err := h.Start(context.Background(), Spec{Name: "huge", Args: []string{"/bin/true"}, Env: []string{"A=" + strings.Repeat("x", maxRequest)}}); err == nil {
			t.Error("an environment of 2 MB was taken")
		}
	})
}

func TestSpecIsChecked(t *testing.T) {
	h := startHost(t)
	for _, spec := range []Spec{
		{Name: "Upper", Args: []string{"/bin/true"}},
		{Name: "../x", Args: []string{"/bin/true"}},
		{Name: "a", Args: []string{"true"}},
		{Name: "a"},
		{Name: "a", Args: []string{"/bin/true"}, Hostname: "a b"},
		{Name: "a", Args: []string{"/bin/true"}, Env: []string{"A=\x00"}},
		{Name: "a", Args: []string{"/bin/true"}, Mounts: []Mount{{Source: "/", Target: "/usr"}}},
		{Name: "a", Args: []string{"/bin/true"}, Mounts: []Mount{{Source: "/", Target: "/proc/self"}}},
		{Name: "a", Args: []string{"/bin/true"}, Mounts: []Mount{{Source: "/", Target: "/dev/../code"}, {Source: "/", Target: "/code"}}},
		{Name: "a", Args: []string{"/bin/true"}, Mounts: []Mount{{Source: "/etc", Target: "/usr/share/nothing-there"}}},
	} {
		if s, err := h.Start(context.Background(), spec); err == nil {
			s.Close()
			t.Errorf("%+v was started", spec)
		}
	}
	start(t, h, Spec{Name: "twice", Args: []string{"/bin/sleep", "1000"}})
	if _, err := h.Start(context.Background(), Spec{Name: "twice", Args: []string{"/bin/true"}}); !errors.Is(err, ErrNameTaken) {
		t.Errorf("second of a name: %v", err)
	}
}
