package deploy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
)

func TestPolicyOfAsyncCallsComesFromTheRequestThenTheManifest(t *testing.T) {
	s := newShop(t, nil)
	code := func(manifest string) string {
		return zipOf(t, map[string]string{"main.py": good, "brasa.json": manifest})
	}
	r := request("f.zip", code(`{"async": {"retries": 5, "backoff_ms": "2s", "on_failure": "alarm", "public": true}}`))
	none := 0
	r.Async = &faas.Async{Retries: &none, OnSuccess: "https://example.com/done"}
	out, err := s.Deploy(t.Context(), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := out.Revision.Async
	if a == nil || *a.Retries != 0 || a.Backoff.D() != 2*time.Second || a.OnFailure != "alarm" || a.OnSuccess != "https://example.com/done" || !a.Public {
		t.Errorf("policy %+v", a)
	}
	if out, err = s.Deploy(t.Context(), request("f.zip", code(`{"async": {}}`)), nil); err != nil || out.Revision.Async != nil {
		t.Errorf("a policy that says nothing is kept as %+v, %v", out.Revision.Async, err)
	}
	for manifest, word := range map[string]string{
		`{"async": {"retries": 1000}}`:                   "async.retries",
		`{"async": {"retrys": 1}}`:                       "retrys",
		`{"async": {"on_success": "ftp://example.com"}}`: "async.on_success",
		`{"async": {"backoff_ms": "-1s"}}`:               "async.backoff_ms",
	} {
		_, err := s.Deploy(t.Context(), request("f.zip", code(manifest)), nil)
		if faas.CodeOf(err) != faas.Invalid || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v, want one that names %s", manifest, err, word)
		}
	}
}

func TestAHookThatMayNotBeCalledIsRefusedAtTheDeploy(t *testing.T) {
	var asked []string
	s := newShop(t, func(c *deploy.Config) {
		c.CheckHook = func(name string, to faas.Destination) error {
			asked = append(asked, name+" "+string(to))
			if strings.Contains(string(to), "10.0.0.1") {
				return faas.Errorf(faas.Invalid, "check "+name, "it is private")
			}
			return nil
		}
	})
	r := request("f.py", good)
	r.Async = &faas.Async{OnSuccess: "https://example.com/", OnFailure: "http://10.0.0.1/"}
	if _, err := s.Deploy(t.Context(), r, nil); faas.CodeOf(err) != faas.Invalid || !strings.Contains(err.Error(), "async.on_failure") {
		t.Errorf("a private hook: %v", err)
	}
	r = request("f.py", good)
	r.Async = &faas.Async{OnSuccess: "https://example.com/", OnFailure: "not/yet"}
	if _, err := s.Deploy(t.Context(), r, nil); err != nil || len(asked) < 3 {
		t.Errorf("good ones: %v, asked %q", err, asked)
	}
}
