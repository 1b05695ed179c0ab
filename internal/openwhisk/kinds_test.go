package openwhisk_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/openwhisk"
)

// Each family's default is what the family alone stands for; items 2, 27 and 33.
func TestDefaultKinds(t *testing.T) {
	found, err := registry()
	if err != nil {
		t.Fatal(err)
	}
	w := open(t, func(c *openwhisk.Config) {
		c.Ready = func(language string) error { _, err := found.Lookup(language); return err }
	})
	var info struct {
		Runtimes map[string][]struct {
			Kind, Image         *string
			Deprecated, Default *bool
			RequireMain         bool
		}
	}
	w.must(json.Unmarshal([]byte(w.send("", "GET", "/", "").body), &info))
	refused := w.send("guest", "PUT", "_/actions/none", exec("cobol:60", "a")).body
	if len(info.Runtimes["nodejs"]) == 0 || len(info.Runtimes["python"]) == 0 {
		t.Fatalf("item 2: runtimes %+v", info.Runtimes)
	}
	for family, kinds := range info.Runtimes {
		defaults := 0
		for _, k := range kinds {
			if k.Kind == nil || k.Image == nil || k.Deprecated == nil || k.Default == nil {
				t.Fatalf("item 2: a kind of %s without its fields: %+v", family, k)
			}
			if listed := strings.Contains(refused, " "+*k.Kind+",") || strings.Contains(refused, " "+*k.Kind+"\""); listed == *k.Deprecated {
				t.Errorf("item 27: %s is among the valid kinds: %t; %s", *k.Kind, listed, refused)
			}
			if !*k.Default {
				continue
			}
			defaults++
			body, fields := exec(family+":default", ""), ""
			if k.RequireMain {
				body, fields = strings.Replace(body, `"code"`, `"main":"Main","code"`, 1), `"main":"Main",`
			}
			want := fmt.Sprintf(`{"exec":{%s"kind":%q},"annotations":[{"key":"provide-api-key","value":false},{"key":"exec","value":%q}]}`, fields, *k.Kind, *k.Kind)
			w.play([]step{
				{item: 33, method: "PUT", path: "_/actions/" + family, body: body, status: 200, want: want},
				{item: 33, method: "GET", path: "_/actions/" + family + "?code=false", status: 200, want: want},
			})
		}
		if defaults != 1 {
			t.Errorf("item 2: %d defaults of %s", defaults, family)
		}
	}
}

func TestBlackbox(t *testing.T) { // item 36
	w := open(t, nil)
	code := "#!/bin/sh\necho '{}'\n"
	native, _ := json.Marshal(map[string]any{"exec": map[string]any{"kind": "blackbox", "image": "openwhisk/dockerskeleton:1.3", "code": code}})
	w.play([]step{
		{item: 36, method: "PUT", path: "_/actions/none", body: `{"exec":{"kind":"blackbox","image":"somebody/something"}}`, status: 200, want: `{"exec":{"kind":"blackbox","image":"somebody/something","code":"<absent>","binary":false}}`},
		{item: 36, method: "GET", path: "_/actions/none", status: 200, want: `{"exec":{"kind":"blackbox","image":"somebody/something","code":"<absent>"}}`},
		{item: 36, method: "PUT", path: "_/actions/empty", body: `{"exec":{"kind":"blackbox","image":"somebody/something","code":""}}`, status: 200, want: `{"exec":{"code":""}}`},
		{item: 36, method: "GET", path: "_/actions/empty", status: 200, want: `{"exec":{"code":""}}`},
		{item: 36, method: "PUT", path: "_/actions/n", body: string(native), status: 200},
		{item: 36, method: "GET", path: "_/actions/n", status: 200, want: string(native)},
		{item: 36, method: "PUT", path: "_/actions/x", body: `{"exec":{"kind":"blackbox","code":"x"}}`, status: 400, want: `{"error":"~image"}`},
	})
}

func TestDeprecatedKinds(t *testing.T) { // item 45
	w := open(t, nil)
	w.play([]step{{item: 45, method: "PUT", path: "_/actions/old", body: exec("nodejs:6", "x"), status: 400, want: `{"error":"~deprecated"}`}})
	// One that was made when the kind was not deprecated yet.
	old := func() {
		_, err := w.catalog.Publish(t.Context(), &faas.Revision{
			Name: faas.Name{Namespace: "guest", Function: "old"}, Runtime: "node", Limits: faas.DefaultLimits(), Contract: faas.ContractOpenWhisk,
			Origin: &faas.Origin{Dialect: "openwhisk", Document: []byte(`{"namespace":"guest","name":"old","version":"0.0.1","exec":{"kind":"nodejs:6"}}`)},
		}, catalog.PublishOptions{})
		w.must(err)
	}
	old()
	w.play([]step{
		{item: 45, method: "GET", path: "_/actions/old", status: 200, want: `{"exec":{"kind":"nodejs:6"}}`},
		{item: 45, method: "PUT", path: "_/actions/old?overwrite=true", body: exec("nodejs:6", "y"), status: 400},
		{item: 45, method: "PUT", path: "_/actions/old?overwrite=true", body: `{"publish":true}`, status: 400},
		{item: 45, method: "POST", path: "_/actions/old", body: `{}`, status: 400},
		{item: 45, method: "DELETE", path: "_/actions/old", status: 200, want: `{"exec":{"kind":"nodejs:6"}}`},
	})
	old()
	w.play([]step{ // of a kind that there is it may become
		{item: 45, method: "PUT", path: "_/actions/old?overwrite=true", body: nodeCode, status: 200, want: `{"version":"0.0.2","exec":{"kind":"nodejs:20"}}`},
		{item: 45, method: "POST", path: "_/actions/old?blocking=true", status: 200},
	})
}

func TestKindsThatANamespaceMayNotUse(t *testing.T) { // item 122
	w := open(t, nil)
	w.play([]step{{item: 122, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200}})
	w.must(w.keys.PutLimits(t.Context(), "guest", auth.NamespaceLimits{Kinds: []string{"python:3.10"}}))
	w.play([]step{
		{item: 122, method: "PUT", path: "_/actions/b", body: nodeCode, status: 403},
		{item: 122, method: "PUT", path: "_/actions/b", body: pyCode, status: 200},
		{item: 122, method: "POST", path: "_/actions/a", body: `{}`, status: 403},
		{item: 122, method: "POST", path: "_/actions/b", body: `{}`, status: 202},
	})
}
