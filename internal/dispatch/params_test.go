package dispatch_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
)

type params = map[string]json.RawMessage

// A function is called with the parameters of its package, of the binding it was named by, and its own
// beneath what the caller sends, whose record it is, with the answer that was asked to be kept.
func TestParametersAndOwners(t *testing.T) {
	c := publish(t, faas.Limits{})
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.CreateNamespace(ctx, "other")
	must(err)
	shared := &faas.Package{Namespace: "default", Name: "tools", Shared: true, Params: params{"a": []byte(`"package"`), "b": []byte(`"package"`), "c": []byte(`"package"`), "d": []byte(`"package"`)}}
	must(c.PutPackage(ctx, shared, false))
	must(c.PutPackage(ctx, &faas.Package{
		Namespace: "other", Name: "bound", Binding: &faas.PackageRef{Namespace: "default", Name: "tools"}, Params: params{"b": []byte(`"binding"`), "c": []byte(`"binding"`), "d": []byte(`"binding"`)},
	}, false))
	rev := &faas.Revision{
		Name: faas.Name{Namespace: "default", Package: "tools", Function: "f"}, Runtime: "python", Entry: "f.py", Params: params{"c": []byte(`"function"`), "d": []byte(`"function"`)},
		Code: "sha256:" + faas.Digest(strings.Repeat("0", 64)), Limits: faas.DefaultLimits(), Network: faas.NetworkNone,
	}
	_, err = c.Publish(ctx, rev, catalog.PublishOptions{})
	must(err)
	n := &node{execute: func(_ context.Context, _ *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
		var b []byte
		if inv.Body != nil {
			var err error
			if b, err = io.ReadAll(inv.Body); err != nil {
				return nil, err
			}
		}
		return &faas.Result{Status: 200, Header: map[string][]string{}, Body: io.NopCloser(bytes.NewReader(b))}, nil
	}}
	var rec *records
	call := func(namespace, pkg, body string) (string, error) {
		rec = &records{}
		d := dispatch.New(dispatch.Config{Catalog: c, Node: n, Recorder: rec})
		inv := &faas.Invocation{
			Function: faas.Ref{Name: faas.Name{Namespace: namespace, Package: pkg, Function: "f"}}, Kind: faas.KindInvoke, Method: "POST",
			Owner: "other", Note: []byte(`{"x":1}`), Keep: 10,
		}
		if body != "" {
			inv.Body, inv.Length = strings.NewReader(body), int64(len(body))
		}
		res, err := d.Invoke(ctx, inv)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		return string(b), err
	}
	for _, x := range []struct{ namespace, pkg, body, want string }{
		{"default", "tools", "", `{"a":"package","b":"package","c":"function","d":"function"}`},
		{"other", "bound", `{"d":"caller"}`, `{"a":"package","b":"binding","c":"function","d":"caller"}`},
		{"other", "bound", `[1, 2]`, `[1, 2]`},
		{"other", "bound", `text`, `text`},
	} {
		got, err := call(x.namespace, x.pkg, x.body)
		if err != nil || got != x.want {
			t.Errorf("%s/%s with %q: got %q, %v; want %q", x.namespace, x.pkg, x.body, got, err, x.want)
		}
		act := rec.only(t)
		if act.Namespace != "other" || act.Function != "/default/tools/f" || string(act.Note) != `{"x":1}` {
			t.Errorf("record of %q in %q with note %s", act.Function, act.Namespace, act.Note)
		}
		if a := act.Answer; a == nil || string(a.Body) != x.want[:min(10, len(x.want))] || a.Cut != (len(x.want) > 10) || int(a.Bytes) != len(x.want) {
			t.Errorf("kept %+v of %q", a, x.want)
		}
	}
	// What is shared no more is not found through a binding that was made before.
	unshared := *shared
	unshared.Shared = false
	must(c.PutPackage(ctx, &unshared, true))
	if _, err := call("other", "bound", ""); faas.CodeOf(err) != faas.NotFound {
		t.Errorf("through the binding of a package that is not shared any more: %v", err)
	}
	err = c.PutPackage(ctx, &faas.Package{Namespace: "other", Name: "late", Binding: &faas.PackageRef{Namespace: "default", Name: "tools"}}, false)
	if faas.CodeOf(err) != faas.Denied {
		t.Errorf("binding what is not shared: %v", err)
	}
}
