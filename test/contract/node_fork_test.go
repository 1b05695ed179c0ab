package contract

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// TestSandboxedForks tells the stories of Node.js to stems that were forked from a zygote.
func TestSandboxedForks(t *testing.T) {
	s := NewSuite(t, nil)
	if how, _ := s.Runtime(t, runtimes.Node).Stem(&faas.Revision{}); how.Zygote == nil {
		t.Skip("this Node.js can't be forked: ", s.Runtime(t, runtimes.Node).Reseeds())
	}
	s.Launcher = &sandboxed{host: newHost(t), stems: true, forks: true}
	s.stories(t, runtimes.Node)
}

// TestForkedNodeDoesWhatAStartedOneDoes tries what code needs of a process in a forked and in a
// started one.
func TestForkedNodeDoesWhatAStartedOneDoes(t *testing.T) {
	s := NewSuite(t, nil)
	how, _ := s.Runtime(t, runtimes.Node).Stem(&faas.Revision{})
	if how.Zygote == nil {
		t.Skip("this Node.js can't be forked")
	}
	host := newHost(t)
	trial, err := os.ReadFile("../../runtimes/node/trial/needs.js")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"needs.js": string(trial)}
	for _, way := range []struct {
		name string
		fork bool
	}{{"started", false}, {"forked", true}} {
		t.Run(way.name, func(t *testing.T) {
			s.Launcher = &sandboxed{host: host, stems: true, forks: way.fork}
			in := s.Start(t, runtimes.Node, Function{Files: files, Entry: "needs.js"})
			a := in.Call("{}")
			if a.Err != nil {
				t.Fatal(a.Err)
			}
			var got struct {
				Tried  int
				Broken []string
			}
			if err := json.Unmarshal(a.Body, &got); err != nil || got.Tried < 10 {
				t.Fatalf("answered %q: %v", a.Body, err)
			}
			for _, b := range got.Broken {
				t.Error(b)
			}
			in = s.Start(t, runtimes.Node, Function{Files: files, Entry: "needs.js", Handler: "leave"})
			if a := in.Call("{}"); a.Err == nil {
				t.Errorf("answered %q", a.Body)
			}
			if e := in.Process.Wait(); e.Code != 7 {
				t.Errorf("left with %+v, want 7", e)
			}
		})
	}
}

// TestForkedNodeLooksAsAStartedOne compares all that the kernel and Node.js tell of a forked and of a
// started process, and looks whether forked ones have a pipe or an event in common.
func TestForkedNodeLooksAsAStartedOne(t *testing.T) {
	s := NewSuite(t, nil)
	how, _ := s.Runtime(t, runtimes.Node).Stem(&faas.Revision{})
	if how.Zygote == nil {
		t.Skip("this Node.js can't be forked")
	}
	host := newHost(t)
	type sight struct {
		Own      []string
		Portrait map[string]any
	}
	l := &sandboxed{host: host, stems: true}
	s.Launcher = l
	look := func(fork bool) (got sight) {
		l.forks = fork
		in := s.Start(t, runtimes.Node, Function{Files: map[string]string{"f.js": Source(t, "portrait.js")}, Entry: "f.js"})
		a := in.Call("{}")
		if a.Err != nil {
			t.Fatal(a.Err)
		}
		if err := json.Unmarshal(a.Body, &got); err != nil {
			t.Fatal(err)
		}
		return got
	}
	started, forked, sibling := look(false), look(true), look(true)
	for name, want := range started.Portrait {
		if got := forked.Portrait[name]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s is\n%v\nin a forked process, and\n%v\nin a started one", name, got, want)
		}
	}
	if len(forked.Own) < 4 {
		t.Errorf("few pipes and events: %v", forked.Own)
	}
	for _, o := range forked.Own {
		if slices.Contains(sibling.Own, o) {
			t.Errorf("two forked processes have %s in common", o)
		}
	}
}
