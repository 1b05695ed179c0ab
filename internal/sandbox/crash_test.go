package sandbox

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// victim is a server that is about to be killed. It says on standard output how far it is.
func victim(point string) {
	h, err := New(Config{Dir: os.Getenv("BRASA_TEST_DIR"), Prefix: os.Getenv("BRASA_TEST_PREFIX"), GoInit: strings.HasPrefix(point, "go "), Egress: EgressConfig{Door: true}})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Println("new")
	go func() {
		if err := h.Run(context.Background()); err != nil {
			fmt.Println("error", err)
		}
	}()
	<-h.Ready()
	fmt.Println("ready")
	start := func(i int) (*Sandbox, error) {
		// A program that does what it can to stay.
		return h.Start(context.Background(), Spec{
			Name: fmt.Sprintf("v%d", i), Network: i%2 == 0 && h.noWay == nil, Door: true,
			Args: []string{"/bin/sh", "-c", "trap '' HUP TERM INT; (setsid sleep " + os.Getenv("BRASA_TEST_MARK") + " &) ; sleep " + os.Getenv("BRASA_TEST_MARK")},
			Env:  []string{"PATH=/usr/bin:/bin"},
		})
	}
	for i := range 8 {
		if _, err := start(i); err != nil {
			fmt.Println("error", err)
		}
	}
	fmt.Println("live")
	if strings.HasSuffix(point, "churn") {
		for i := 8; ; i++ {
			s, err := start(i)
			if err == nil && i%3 != 0 {
				s.Close()
			}
			if i == 40 {
				fmt.Println("churn")
			}
		}
	}
	select {}
}

func TestNothingOutlivesAKilledServer(t *testing.T) {
	if point := os.Getenv("BRASA_TEST_VICTIM"); point != "" {
		victim(point)
		return
	}
	if !inOwnNetwork(t) {
		return
	}
	before, err := forwarding()
	must(t, err)
	for i, point := range []string{"new", "ready", "live", "churn", "go live", "go churn"} {
		t.Run(point, func(t *testing.T) {
			cfg := testConfig(t)
			cfg.Prefix += "c"
			mark := fmt.Sprintf("86%05d", os.Getpid()%10000*10+i)
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestNothingOutlivesAKilledServer$")
			cmd.Env = append(os.Environ(), "BRASA_TEST_VICTIM="+point, "BRASA_TEST_DIR="+cfg.Dir, "BRASA_TEST_PREFIX="+cfg.Prefix, "BRASA_TEST_MARK="+mark)
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			lines := bufio.NewScanner(out)
			stage := strings.TrimPrefix(point, "go ")
			for lines.Scan() && lines.Text() != stage {
				if strings.HasPrefix(lines.Text(), "error") {
					t.Error(lines.Text())
				}
			}
			if stage == "live" {
				waitFor(t, "all processes", func() bool { return len(marked(t, mark)) >= 16 })
			}
			must(t, cmd.Process.Kill())
			cmd.Wait()
			// Without anyone's help, as soon as the kernel has got round to it.
			waitFor(t, "processes to end", func() bool { return len(marked(t, mark)) == 0 })

			// The next server finds and removes what only a server can, also if it is called otherwise.
			was := cfg.Prefix
			if point == "ready" {
				cfg.Prefix += "d"
			}
			h, err := New(cfg)
			must(t, err)
			defer h.Close()
			if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + was); len(left) != 0 {
				t.Errorf("cgroups left: %v", left)
			}
			for _, d := range h.layout.dirs() {
				if _, err := os.Stat(d); err == nil {
					t.Errorf("cgroup left: %s", d)
				}
			}
			if h.features.lacks(featureNftables) {
				return // there is no network to leave behind
			}
			if names := tableNames(t); len(names) != 0 {
				t.Errorf("tables left: %v", names)
			}
			if on, _ := forwarding(); on != before {
				t.Errorf("forwarding is %v, was %v", on, before)
			}
			waitFor(t, "interfaces to go", func() bool { return len(ourLinks(t, was)) == 0 })
			if point != "live" {
				return
			}
			h.Close()
			cfg.Egress.Door = true
			h = runHost(t, cfg)
			at, _ := answerDoor(t, h)
			if !strings.HasSuffix(at, fmt.Sprintf(":%d", doorPort)) {
				t.Errorf("the door is at %s", at) // somebody still has the usual port
			}
			if got := visitWith(t, h, Spec{Network: true, Door: true}, at)[at]; !strings.HasPrefix(got, "hello") {
				t.Errorf("the door of the next server: %q", got)
			}
		})
	}
}

// marked returns the processes that have a mark in their arguments.
func marked(t *testing.T, mark string) (found []string) {
	t.Helper()
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range all {
		text, err := os.ReadFile(p)
		if err == nil && strings.Contains(string(text), mark) {
			found = append(found, p)
		}
	}
	return found
}

// Processes in the cgroups of a dead server are killed, should any be left.
func TestLeftoverProcessesAreKilled(t *testing.T) {
	needRoot(t)
	cfg := testConfig(t)
	layout, err := lookCgroups(ownCgroups(), cfg.Prefix)
	if err != nil {
		t.Skip(err)
	}
	must(t, layout.settle())
	g, err := layout.create()
	must(t, err)
	defer g.closeFiles()
	cmd := exec.Command("sleep", "1000")
	must(t, cmd.Start())
	for _, dir := range g.dirs {
		must(t, writeGroupFile(dir, "cgroup.procs", fmt.Sprint(cmd.Process.Pid)))
	}
	h, err := New(cfg)
	must(t, err)
	defer h.Close()
	cmd.Wait()
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL {
		t.Errorf("the process ended with %v", cmd.ProcessState)
	}
	for _, dir := range layout.dirs() {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
}
