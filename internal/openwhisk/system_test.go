package openwhisk_test

import (
	"encoding/base64"
	"errors"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/openwhisk"
)

func TestPackagesOfTheServer(t *testing.T) {
	w := open(t, nil)
	if _, err := w.catalog.Namespace("whisk.system"); faas.CodeOf(err) != faas.NotFound {
		t.Fatalf("before anybody asks: %v", err)
	}
	w.play([]step{
		{item: 119, method: "GET", path: "whisk.system/packages", status: 200, want: `[{"name":"alarms","publish":true},{"name":"websocket"},{"name":"samples"},{"name":"utils"}]`},
		{item: 119, method: "GET", path: "whisk.system/packages/utils", status: 200, want: `{"feeds":[],"annotations":[{"key":"description","value":"<any>"}]}`},
		{item: 119, method: "GET", path: "whisk.system/actions/utils/echo", status: 200, want: `{"exec":{"kind":"python:3.10","code":"def main(args):\n    return args\n"}}`},
		{item: 119, method: "POST", path: "whisk.system/actions/utils/echo?blocking=true&result=true", body: `{"message":"hi"}`, status: 200, want: `{"message":"hi"}`},
		{item: 118, method: "PUT", path: "whisk.system/actions/utils/echo?overwrite=true", body: nodeCode, status: 403},
		{item: 118, method: "DELETE", path: "whisk.system/packages/utils?force=true", status: 403},
		{item: 107, method: "PUT", path: "_/packages/u", body: `{"binding":{"namespace":"whisk.system","name":"utils"},"parameters":[{"key":"x","value":1}]}`, status: 200},
		{item: 112, method: "POST", path: "_/actions/u/echo?blocking=true&result=true", body: `{}`, status: 200, want: `{"x":1}`},
		{item: 153, method: "PUT", path: "_/actions/s", body: sequence("/whisk.system/utils/split", "/whisk.system/utils/sort"), status: 200},
	})
	actions := 0
	for _, fn := range w.catalog.Functions("whisk.system") {
		_, rev, err := w.catalog.Resolve(faas.Ref{Name: fn.Name})
		if err != nil || rev.Broken != "" {
			t.Errorf("%s: %v, %s", fn.Name, err, rev.Broken)
		}
		actions++
	}
	if want := 9 + 6 + 1 + 3; actions != want {
		t.Errorf("%d actions, want %d", actions, want)
	}
}

// Whoever names them first need not be who reads them.
func TestPackagesOfTheServerAreThereAtFirstUse(t *testing.T) {
	w := open(t, nil)
	w.play([]step{{item: 119, method: "POST", path: "whisk.system/actions/samples/greeting?blocking=true&result=true", body: `{"name":"x"}`, status: 200, want: `{"name":"x"}`}})
	w = open(t, nil)
	w.play([]step{{item: 107, method: "PUT", path: "_/packages/u", body: `{"binding":{"namespace":"/whisk.system","name":"utils"}}`, status: 400}})
	w.play([]step{{item: 107, method: "PUT", path: "_/packages/u", body: `{"binding":{"namespace":"whisk.system","name":"utils"}}`, status: 200}})
	w = open(t, nil)
	w.play([]step{
		{item: 136, method: "PUT", path: "_/triggers/t", body: `{}`, status: 200},
		{item: 139, method: "PUT", path: "_/rules/r", body: `{"trigger":"/_/t","action":"/whisk.system/utils/echo"}`, status: 200},
	})
	if _, _, outcomes := w.fire("t", `{}`); len(outcomes) != 1 || outcomes[0]["success"] != true {
		t.Errorf("item 139: %v", outcomes)
	}
}

func TestPackagesOfAServerThatLacksALanguage(t *testing.T) {
	w := open(t, func(c *openwhisk.Config) {
		c.Ready = func(language string) error {
			if language == "python" {
				return errors.New("it is not installed")
			}
			if language == "swift" {
				return faas.Errorf(faas.Unavailable, "look up runtime", "no swiftc anywhere").WithFix("install Swift 5.5")
			}
			return nil
		}
	})
	w.play([]step{
		{item: 119, method: "GET", path: "whisk.system/packages", status: 200, want: `[{"name":"alarms"}]`},
		{item: 27, method: "PUT", path: "_/actions/a", body: pyCode, status: 400, want: `{"error":"~it is not installed"}`},
		{item: 27, method: "PUT", path: "_/actions/a", body: exec("swift:5.3", "a"), status: 400, want: `{"error":"~kind 'swift:5.3' can't be run here: no swiftc anywhere; install Swift 5.5; or bring an image that has it, as kind blackbox"}`},
		{item: 27, method: "PUT", path: "_/actions/a", body: exec("swift:default", "a"), status: 400, want: `{"error":"~no swiftc anywhere"}`},
		{item: 27, method: "PUT", path: "_/actions/p", body: exec("swift:5.3", base64.StdEncoding.EncodeToString([]byte("PK\x03\x04 no archive"))), status: 400, want: `{"error":"~no swiftc"}`},
		{item: 27, method: "PUT", path: "_/actions/p", body: exec("swift:5.3", base64.StdEncoding.EncodeToString([]byte("\x7fELF"))), status: 200, want: `{"exec":{"kind":"swift:5.3","binary":true}}`},
		{item: 27, method: "PUT", path: "_/actions/q", body: exec("python:3.11", base64.StdEncoding.EncodeToString([]byte("\x7fELF"))), status: 400},
		{item: 27, method: "PUT", path: "_/actions/a", body: exec("dotnet:3.1", "a"), status: 400, want: `{"error":"~main"}`},
		{item: 27, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200},
	})
	a := w.send("", "GET", "/", "")
	m, _ := a.json.(map[string]any)
	families, _ := m["runtimes"].(map[string]any)
	if families["python"] != nil || families["swift"] != nil || families["dotnet"] == nil || families["nodejs"] == nil {
		t.Errorf("item 2: runtimes %v", families)
	}
}
