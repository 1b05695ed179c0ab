package sandbox

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// needCgroups skips where the kernel itself does not limit.
func needCgroups(t testing.TB, h *Host, controllers ...string) {
	t.Helper()
	for _, c := range controllers {
		if h.layout == nil || !h.layout.has[c] {
			t.Skipf("needs the %s controller", c)
		}
	}
}

func TestForkBombIsBounded(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		dir := buildStatic(t, forkBomb)
		o := run(t, h, Spec{Args: []string{"/code/main"}, Mounts: []Mount{{Source: dir, Target: "/code"}}, PIDs: 40})
		var n, again int
		fmt.Sscan(o.ok(t), &n, &again)
		if n < 30 || n > 40 || again != 1 {
			t.Errorf("with 40 processes allowed, %q were forked", o.stdout)
		}
	})
}

func TestThreadBombIsBounded(t *testing.T) {
	h := startHost(t)
	dir := buildStatic(t, threadBomb)
	o := run(t, h, Spec{Args: []string{"/code/main"}, Mounts: []Mount{{Source: dir, Target: "/code"}}, PIDs: 40})
	if n, _ := strconv.Atoi(o.ok(t)); n < 30 || n > 40 {
		t.Errorf("%d threads with 40 allowed", n)
	}
}

func TestMemoryBombEndsTheSandboxOnly(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		needCgroups(t, h, "memory")
		neighbour := start(t, h, Spec{Args: []string{"/bin/sleep", "1000"}})
		dir := buildStatic(t, memoryBomb)
		spec := Spec{Args: []string{"/code/main"}, Mounts: []Mount{{Source: dir, Target: "/code"}}, Memory: 32 << 20}
		o := run(t, h, spec)
		if !o.exit.OOM || o.exit.Signal == 0 {
			t.Errorf("memory bomb: %+v", o.exit)
		}
		if o.exit.Usage.MemoryPeak > 33<<20 || o.exit.Usage.MemoryPeak < 16<<20 {
			t.Errorf("its peak was %d with 32 MiB allowed", o.exit.Usage.MemoryPeak)
		}
		// A child is the bomb, and the shell would go on: the sandbox ends as a whole.
		spec.Args = []string{"/bin/sh", "-c", "while :; do /code/main; done"}
		if o := run(t, h, spec); !o.exit.OOM {
			t.Errorf("memory bomb in a child: %+v", o.exit)
		}
		select {
		case <-neighbour.Done():
			t.Errorf("a neighbour ended: %+v", neighbour.Exit())
		default:
		}
		if o := shell(t, h, "true"); o.exit.OOM {
			t.Error("a program that ends by itself is called out of memory")
		}
	})
}

func TestTemporaryFilesCountAsMemory(t *testing.T) {
	h := startHost(t)
	needCgroups(t, h, "memory")
	o := shell(t, h, "head -c 60m /dev/zero >/tmp/x; echo survived", func(s *Spec) { s.Memory, s.Tmp = 32<<20, 64<<20 })
	if !o.exit.OOM || strings.Contains(o.stdout, "survived") {
		t.Errorf("60 MB in /tmp with 32 MiB of memory: %+v %q", o.exit, o.stdout)
	}
}

func TestTemporaryFilesAreBounded(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		o := shell(t, h, `
			head -c 100m /dev/zero >/tmp/x 2>/tmp/err; stat -c %s /tmp/x; rm /tmp/x
			head -c 100m /dev/zero >/dev/shm/x 2>/dev/null; stat -c %s /dev/shm/x; rm /dev/shm/x
			i=0; while (: >/tmp/f$i) 2>/dev/null && [ $i -lt 5000 ]; do i=$((i+1)); done; echo $i
			i=0; while (: >/dev/shm/f$i) 2>/dev/null && [ $i -lt 50000 ]; do i=$((i+1)); done; echo $i`,
			func(s *Spec) { s.Tmp, s.Memory = 4<<20, 64<<20 })
		var tmp, shm, inodes, shmInodes int
		fmt.Sscan(o.ok(t), &tmp, &shm, &inodes, &shmInodes)
		if tmp > 4<<20 || tmp < 3<<20 || shm > 32<<20 || shm < 31<<20 || inodes > 1024 || shmInodes > 8192 || inodes == 0 {
			t.Errorf("/tmp took %d bytes and %d names, /dev/shm %d and %d", tmp, inodes, shm, shmInodes)
		}
	})
}

func TestDescriptorsAreBounded(t *testing.T) {
	h := startHost(t)
	o := run(t, h, Spec{Args: []string{"/usr/bin/python3", "-I", "-S", "-c", "import os\nn=0\ntry:\n  while True: os.dup(0); n+=1\nexcept OSError as e: print(n, e.errno)"}, Files: 64})
	var n, errno int
	fmt.Sscan(o.ok(t), &n, &errno)
	if n > 64 || n < 50 || errno != 24 {
		t.Errorf("%d descriptors with 64 allowed, errno %d", n, errno)
	}
}

// A quota is a ratio of CPU time to elapsed time, whatever else the machine does: it can only
// be lower than allowed.
func TestCPUQuotaHolds(t *testing.T) {
	h := startHost(t)
	needCgroups(t, h, "cpu", "cpuacct")
	s := start(t, h, Spec{Args: []string{"/bin/sh", "-c", "while :; do :; done & while :; do :; done"}, CPU: 250})
	first, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	timer := time.NewTimer(1500 * time.Millisecond) // fifteen periods of the quota
	defer timer.Stop()
	<-timer.C
	last, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	elapsed, used := time.Since(begin), last.CPU-first.CPU
	if ratio := float64(used) / float64(elapsed); ratio > 0.25*1.25 || used == 0 {
		t.Errorf("used %v in %v, ratio %.2f, allowed 0.25", used, elapsed, ratio)
	}
}

func TestUsage(t *testing.T) {
	h := startHost(t)
	needCgroups(t, h, "memory", "pids", "cpuacct")
	c := start(t, h, Spec{Args: []string{"/bin/sh", "-c", "exec <&3 >&3; read x; head -c 20m /dev/zero >/tmp/x; echo; read y; rm /tmp/x; echo; read z"}, Conn: true})
	c.Conn().SetDeadline(time.Now().Add(patience))
	step := func() Usage {
		t.Helper()
		if _, err := c.Conn().Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Conn().Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		u, err := c.Usage()
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	full := step()
	if full.Memory < 20<<20 || full.MemoryPeak < full.Memory || full.PIDs != 1 || full.CPU <= 0 {
		t.Errorf("with 20 MB in /tmp: %+v", full)
	}
	empty := step()
	if empty.Memory > 10<<20 || empty.MemoryPeak < 20<<20 {
		t.Errorf("after removing them: %+v", empty)
	}
	var no *UnsupportedError
	if err := c.ResetPeak(); errors.As(err, &no) {
		t.Log(err)
	} else if err != nil {
		t.Fatal(err)
	} else if u, err := c.Usage(); err != nil || u.MemoryPeak > 10<<20 {
		t.Errorf("after ResetPeak: %+v, %v", u, err)
	}
	pids, err := c.Processes()
	if err != nil || len(pids) != 1 || pids[0] != c.PID() {
		t.Errorf("processes %v, %v; PID %d", pids, err, c.PID())
	}
}

// A process that is being made shares the spawner's memory, and the kernel kills all that share a
// victim's; but it spares one that is still in vfork.
func TestMemoryThatEndsBeforeExecHarmsNobody(t *testing.T) {
	bothSpawners(t, func(t *testing.T, h *Host) {
		needCgroups(t, h, "memory")
		var neighbours []*Sandbox
		for range 2 * h.cfg.Spawners {
			neighbours = append(neighbours, start(t, h, Spec{Args: []string{"/bin/sleep", "1000"}}))
		}
		env := make([]string, 15)
		for i := range env {
			env[i] = "A=" + strings.Repeat("x", 100_000)
		}
		for _, memory := range []int64{1, 2 << 20, 8 << 20} {
			for range h.cfg.Spawners {
				s, err := h.Start(context.Background(), Spec{Name: uniqueName(), Args: []string{"/bin/true"}, Env: env, Memory: memory})
				if err != nil {
					t.Logf("%d bytes: %v", memory, err)
					continue
				}
				<-s.Done()
				t.Logf("%d bytes: %+v", memory, s.Exit())
				s.Close()
			}
		}
		for _, s := range neighbours {
			select {
			case <-s.Done():
				t.Errorf("a neighbour ended: %+v", s.Exit())
			default:
			}
		}
	})
}
