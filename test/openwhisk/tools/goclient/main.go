// Command goclient goes once through what OpenWhisk's client library for Go does, against the server in
// APIHOST with the key in AUTH, and ends with the first thing that is not as it should be.
package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/apache/openwhisk-client-go/whisk"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("all is well")
}

type session struct {
	*whisk.Client
	failed error // the first failure; what comes after it does nothing
}

// step does one thing with the server.
func (s *session) step(name string, do func() error) {
	if s.failed != nil {
		return
	}
	if err := do(); err != nil {
		s.failed = fmt.Errorf("%s: %w", name, err)
	}
}

func run() error {
	base, err := whisk.GetURLBase(os.Getenv("APIHOST"), "/api")
	if err != nil {
		return err
	}
	client, err := whisk.NewClient(http.DefaultClient, &whisk.Config{
		Host: os.Getenv("APIHOST"), AuthToken: os.Getenv("AUTH"), Namespace: "_", BaseURL: base, Version: "v1",
	})
	if err != nil {
		return err
	}
	s := &session{Client: client}
	s.info()
	s.actions()
	s.packages()
	s.triggers()
	s.clear()
	return s.failed
}

func (s *session) info() {
	s.step("ask the server what it is", func() error {
		info, _, err := s.Info.Get()
		if err != nil {
			return err
		}
		return want("its build", info.Build != "", true)
	})
	s.step("list namespaces", func() error {
		all, _, err := s.Namespaces.List()
		if err != nil {
			return err
		}
		s.Config.Namespace = "_" // the library forgets it here
		return want("how many", len(all), 1)
	})
}

func (s *session) actions() {
	code, timeout := "function main(a) { return { hello: a.name } }", 10000
	s.step("create an action", func() error {
		made, _, err := s.Actions.Insert(&whisk.Action{
			Name: "greet", Exec: &whisk.Exec{Kind: "nodejs:default", Code: &code}, Limits: &whisk.Limits{Timeout: &timeout},
			Parameters: whisk.KeyValueArr{{Key: "name", Value: "nobody"}},
		}, false)
		if err != nil {
			return err
		}
		return errors.Join(want("version", made.Version, "0.0.1"), want("timeout", *made.Limits.Timeout, timeout))
	})
	s.step("create it again", func() error {
		_, res, err := s.Actions.Insert(&whisk.Action{Name: "greet", Exec: &whisk.Exec{Kind: "nodejs:default", Code: &code}}, false)
		return errors.Join(want("an error", err != nil, true), want("status", res.StatusCode, http.StatusConflict))
	})
	s.step("read it without its code", func() error {
		got, _, err := s.Actions.Get("greet", false)
		if err != nil {
			return err
		}
		return want("no code", got.Exec.Code == nil || *got.Exec.Code == "", true)
	})
	s.step("call it", func() error {
		got, _, err := s.Actions.Invoke("greet", map[string]string{"name": "Go"}, true, true)
		if err != nil {
			return err
		}
		return want("result", fmt.Sprint(got), "map[hello:Go]")
	})
	s.step("call it and read the record", func() error {
		got, _, err := s.Actions.Invoke("greet", nil, false, false)
		if err != nil {
			return err
		}
		id, _ := got.(map[string]any)["activationId"].(string)
		record, err := s.record(id)
		if err != nil {
			return err
		}
		_, _, err = s.Activations.Logs(id)
		return errors.Join(err, want("name", record.Name, "greet"), want("result", fmt.Sprint(record.Response.Result), "map[hello:nobody]"))
	})
	s.step("call what there is not", func() error {
		_, res, err := s.Actions.Invoke("nothing", nil, true, false)
		return errors.Join(want("an error", err != nil, true), want("status", res.StatusCode, http.StatusNotFound))
	})
}

// record waits for the record of a call.
func (s *session) record(id string) (*whisk.Activation, error) {
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		record, _, err := s.Activations.Get(id)
		if err == nil || time.Since(began) > time.Minute {
			return record, err
		}
	}
}

func (s *session) packages() {
	yes := true
	s.step("create a package", func() error {
		_, _, err := s.Packages.Insert(&whisk.Package{Name: "tools", Namespace: "_", Publish: &yes}, false)
		return err
	})
	s.step("bind it", func() error {
		got, _, err := s.Packages.Insert(&whisk.BindingPackage{Name: "mine", Namespace: "_", Binding: whisk.Binding{Namespace: "_", Name: "tools"}}, false)
		if err != nil {
			return err
		}
		return want("binding", got.Binding.Name, "tools")
	})
	s.step("list packages", func() error {
		all, _, err := s.Packages.List(&whisk.PackageListOptions{Limit: 30})
		if err != nil {
			return err
		}
		return want("how many", len(all), 2)
	})
}

func (s *session) triggers() {
	s.step("fire a trigger with no rule", func() error {
		if _, _, err := s.Triggers.Insert(&whisk.Trigger{Name: "tick"}, false); err != nil {
			return err
		}
		_, res, err := s.Triggers.Fire("tick", map[string]string{"name": "rule"})
		if err != nil {
			return err
		}
		return want("status", res.StatusCode, http.StatusNoContent)
	})
	s.step("fire a trigger with a rule", func() error {
		if _, _, err := s.Rules.Insert(&whisk.Rule{Name: "tick-greet", Trigger: "/_/tick", Action: "/_/greet"}, false); err != nil {
			return err
		}
		fired, _, err := s.Triggers.Fire("tick", map[string]string{"name": "rule"})
		if err != nil {
			return err
		}
		record, err := s.record(fired.ActivationId)
		if err != nil {
			return err
		}
		return want("name", record.Name, "tick")
	})
	s.step("pause the rule", func() error {
		if _, _, err := s.Rules.SetState("tick-greet", "inactive"); err != nil {
			return err
		}
		rule, _, err := s.Rules.Get("tick-greet")
		if err != nil {
			return err
		}
		return want("status", strings.ToLower(rule.Status), "inactive")
	})
}

func (s *session) clear() {
	for name, remove := range map[string]func() error{
		"rule":    func() error { _, err := s.Rules.Delete("tick-greet"); return err },
		"trigger": func() error { _, _, err := s.Triggers.Delete("tick"); return err },
		"action":  func() error { _, err := s.Actions.Delete("greet"); return err },
		"binding": func() error { _, err := s.Packages.Delete("mine"); return err },
		"package": func() error { _, err := s.Packages.Delete("tools"); return err },
	} {
		s.step("delete the "+name, remove)
	}
}

func want[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s is %v, want %v", what, got, want)
	}
	return nil
}
