package main

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brasa-dev/brasa/internal/cli"
)

// A value that a flag cannot have is named with what it should look like, and a 0 is not taken for the
// default behind the back of who wrote it.
func TestValuesThatFlagsRefuse(t *testing.T) {
	for _, x := range []struct{ args, want string }{
		{"deploy x.py --timeout 5", "--timeout 5 is no time; write it as 500ms, 30s or 5m"},
		{"deploy x.py --timeout 0", "--timeout 0: it must be more than 0"},
		{"deploy x.py --timeout=-3s", "--timeout -3s: it must be more than 0"},
		{"deploy x.py --concurrency 0", "--concurrency 0: it must be more than 0"},
		{"deploy x.py --pids many", "--pids many is no whole number"},
		{"deploy x.py --memory 0", "--memory 0: it must be more than 0"},
		{"deploy x.py --public=perhaps", "--public perhaps is neither true nor false"},
		{"invoke x --timeout soon", "--timeout soon is no time"},
		{"deploy x --image missing.tar", "no such file or directory"},
		{"deploy x --image y.tar", "did you mean x.tar?"},
		{"invoke x --revision zzz", "brasa versions x"},
	} {
		t.Run(x.args, func(t *testing.T) {
			t.Setenv("BRASA_SERVER", "http://127.0.0.1:1") // what is not refused here reaches nobody
			t.Setenv("BRASA_DATA", t.TempDir())
			t.Chdir(t.TempDir())
			write(t, ".", "x.py", "x.tar")
			root := newRoot(newApp(nil))
			root.SetArgs(strings.Fields(x.args))
			err := root.ExecuteContext(t.Context())
			failure := cli.Explain(err)
			if said := failure.What + failure.Because + strings.Join(failure.Fix, " "); failure.Exit != cli.ExitUsage || !strings.Contains(said, x.want) {
				t.Errorf("got exit %d, %q; want exit %d and %q", failure.Exit, said, cli.ExitUsage, x.want)
			}
		})
	}
	t.Run("in the environment", func(t *testing.T) {
		t.Setenv("BRASA_DEPLOY_TIMEOUT", "5")
		root := newRoot(newApp(nil))
		root.SetArgs([]string{"deploy", "x.py"})
		if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "BRASA_DEPLOY_TIMEOUT=5 is no time") {
			t.Errorf("got %v", err)
		}
	})
}

// Who has no terminal is told the steps of a deploy that takes long, once each, and nothing of a quick one.
func TestALongDeployIsNotSilentWithoutATerminal(t *testing.T) {
	for took, want := range map[time.Duration][]string{2 * time.Second: nil, time.Minute: {"build", "prove"}} {
		synctest.Test(t, func(t *testing.T) {
			var told []string
			s := &stepTeller{say: func(step string) { told = append(told, step) }}
			end := s.begin()
			s.at("unpack")
			s.at("build")
			time.Sleep(took)
			synctest.Wait()
			s.at("prove")
			end()
			time.Sleep(time.Minute)
			synctest.Wait()
			if !slices.Equal(told, want) && !(took < longSilence && len(told) == 0) {
				t.Errorf("after %s: told %q, want %q", took, told, want)
			}
		})
	}
}
