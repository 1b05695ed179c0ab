// Package faulttest makes the faults that stores are tested with: processes that are killed between
// two steps, and disks that are full.
package faulttest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	dirEnv   = "BRASA_TEST_CHILD" // the child's data directory
	pointEnv = "BRASA_TEST_FAULT" // where it kills itself
)

// Main is a TestMain. In a process that Kill or Start began it calls child; elsewhere it runs the
// tests.
func Main(m *testing.M, child func(*Child)) {
	dir := os.Getenv(dirEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	c := &Child{Dir: dir}
	point, count, _ := strings.Cut(os.Getenv(pointEnv), "@")
	n, _ := strconv.Atoi(count)
	c.point = point
	c.left.Store(int64(max(n, 1)))
	child(c)
}

// Child is a process that works until it is killed, and says on its standard output, word by word,
// what was acknowledged to it. Its methods may be called from several goroutines.
type Child struct {
	Dir   string // of its data
	point string
	left  atomic.Int64
}

// Ready says that the child has begun, from when on it may be killed.
func (c *Child) Ready() { fmt.Println("ready") }

// Must ends a child that was not to fail, and with it the test.
func (c *Child) Must(err error) {
	if err != nil {
		fmt.Println("error", strings.ReplaceAll(err.Error(), "\n", " "))
		os.Exit(1)
	}
}

// Reach tells that a named point of the code was reached. If it is the one at which the child is to
// end, the process is killed.
func (c *Child) Reach(point string) {
	if point != "" && point == c.point && c.left.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it takes a moment
	}
}

// Fault says how a child ends.
type Fault struct {
	// At is the point at which it kills itself, and at which visit: "point@3". Empty: it is killed
	// from outside, After it said that it was ready.
	At    string
	After time.Duration
	Env   []string // more of its environment
}

// killTime is how long a child may take to come to its fault.
const killTime = time.Minute

// Start starts a child on a directory, and returns what it says. Who calls it ends it.
func Start(t testing.TB, dir string, f Fault) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), dirEnv+"="+dir, pointEnv+"="+f.At), f.Env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(out)
}

// Kill starts a child on a directory, has it killed, and calls heard with each line that it said: its
// first word and the rest.
func Kill(t testing.TB, dir string, f Fault, heard func(word, rest string)) {
	t.Helper()
	cmd, lines := Start(t, dir, f)
	limit := time.AfterFunc(killTime, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	for lines.Scan() {
		switch word, rest, _ := strings.Cut(lines.Text(), " "); word {
		case "error":
			_ = cmd.Process.Kill()
			t.Fatalf("the child that was to be killed at %q: %s", f.At, rest)
		case "ready":
			if f.At == "" {
				time.AfterFunc(f.After, func() { _ = cmd.Process.Kill() })
			}
		default:
			heard(word, rest)
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child for %q ended with %v, want to see it killed", f.At, err)
	}
	if !limit.Stop() {
		t.Errorf("the child never came to %q", f.At)
	}
}
