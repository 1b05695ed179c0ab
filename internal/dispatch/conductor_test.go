package dispatch_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
)

// conducts has a function of the node answer with what say returns for its arguments.
func conducts(say func(args map[string]any) string) func(context.Context, *faas.Invocation) (*faas.Result, error) {
	return func(_ context.Context, inv *faas.Invocation) (*faas.Result, error) {
		args := map[string]any{}
		if inv.Body != nil {
			b, err := io.ReadAll(inv.Body)
			if err != nil {
				return nil, err
			}
			if err := json.Unmarshal(b, &args); err != nil {
				return nil, err
			}
		}
		return says(200, say(args)), nil
	}
}

func TestAConductorDecidesTheNextStep(t *testing.T) {
	rec := &memo{}
	n := &steps{does: map[string]func(context.Context, *faas.Invocation) (*faas.Result, error){
		"add": conducts(func(a map[string]any) string { return fmt.Sprintf(`{"n":%v}`, a["n"].(float64)+1) }),
		"bad": func(context.Context, *faas.Invocation) (*faas.Result, error) {
			return nil, faas.Errorf(faas.Failed, "run", "not today")
		},
		"list": conducts(func(map[string]any) string { return `[1,2]` }),
		// c counts to three with add, and says in the end what it was told.
		"c": conducts(func(a map[string]any) string {
			if n, _ := a["n"].(float64); n < 3 && a["error"] == nil {
				return fmt.Sprintf(`{"action":"add","params":{"n":%v},"state":{"seen":%v,"k":"s"}}`, n, n)
			}
			b, err := json.Marshal(map[string]any{"params": a})
			if err != nil {
				return err.Error()
			}
			return string(b)
		}),
		// once calls what its argument names, and says what it hears.
		"once": conducts(func(a map[string]any) string {
			if call, ok := a["call"]; ok && a["state"] == nil {
				b, err := json.Marshal(call)
				if err != nil {
					return err.Error()
				}
				return fmt.Sprintf(`{"action":%s,"params":7,"state":1}`, b)
			}
			delete(a, "state")
			b, err := json.Marshal(map[string]any{"heard": a})
			if err != nil {
				return err.Error()
			}
			return string(b)
		}),
		"echo":    conducts(func(a map[string]any) string { b, _ := json.Marshal(a); return string(b) }),
		"plain":   conducts(func(map[string]any) string { return `{"x":1}` }),
		"broken":  conducts(func(map[string]any) string { return `{"error":"mine","action":"add"}` }),
		"forever": conducts(func(map[string]any) string { return `{"action":"forever"}` }),
		"loop": conducts(func(a map[string]any) string {
			if e, _ := a["error"].(string); strings.Contains(e, "as many functions as it may") {
				return `{"done":true}`
			}
			return `{"action":"echo"}`
		}),
	}}
	names := map[string]*faas.Async{}
	for name := range n.does {
		names["default/"+name] = nil
	}
	c := deployed(t, names)
	for _, name := range []string{"c", "once", "plain", "broken", "forever", "loop"} {
		makeConductor(t, c, name)
	}
	d := dispatch.New(dispatch.Config{Catalog: c, Node: n, Recorder: rec})
	invokeWith := func(name, body string) (*faas.Invocation, *faas.Result, string) {
		t.Helper()
		inv := call("default/"+name, faas.Wait{})
		inv.Wait, inv.Kind, inv.Body, inv.Length = nil, faas.KindInvoke, strings.NewReader(body), int64(len(body))
		res, err := d.Invoke(t.Context(), inv)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return inv, res, string(b)
	}
	inv, _, body := invokeWith("c", `{"n":1}`)
	if body != `{"k":"s","n":3,"seen":2}` {
		t.Errorf("c: %s", body)
	}
	act, err := rec.Get(t.Context(), "default", inv.ID)
	var ran []string
	for _, s := range act.Steps {
		ran = append(ran, s.Function)
		part, err := rec.Get(t.Context(), "default", s.ID)
		if err != nil || part.Cause != inv.ID {
			t.Errorf("step %+v: %+v, %v", s, part, err)
		}
	}
	if err != nil || strings.Join(ran, " ") != "c add c add c" {
		t.Errorf("steps %v, %v", ran, err)
	}
	for name, want := range map[string]string{
		`{"call":"echo"}`:           `{"heard":{"value":7}}`,
		`{"call":"list"}`:           `{"heard":{"value":[1,2]}}`,
		`{"call":"bad"}`:            `{"heard":{"error":"not today"}}`,
		`{"call":"/other/echo"}`:    `{"heard":{"error":"The composition cannot call \"/other/echo\": `,
		`{"call":"nothing"}`:        `{"heard":{"error":"The composition cannot call \"nothing\": `,
		`{"call":5}`:                `{"heard":{"error":"The composition cannot call 5: `,
		`{"call":"not a name / /"}`: `{"heard":{"error":"The composition cannot call`,
	} {
		if _, _, body := invokeWith("once", name); !strings.HasPrefix(body, want) {
			t.Errorf("once with %s: %s, want %s", name, body, want)
		}
	}
	if _, _, body := invokeWith("plain", `{}`); body != `{"x":1}` {
		t.Errorf("plain: %s", body)
	}
	if _, _, body := invokeWith("broken", `{}`); body != `{"error":"mine","action":"add"}` {
		t.Errorf("broken: %s", body)
	}
	if _, _, body := invokeWith("loop", `{}`); body != `{"done":true}` {
		t.Errorf("loop: %s", body)
	}
	if inv, res, body := invokeWith("forever", `{}`); res.Status != 502 && !strings.Contains(body, "without end") {
		t.Errorf("forever: %d %s (%d steps)", res.Status, body, len(inv.Report.Steps))
	}
}

// What a contract allows bounds sequences, and all that conductors lead to: n functions, and 2n+1 calls of
// conductors.
func TestAContractBoundsItsSteps(t *testing.T) {
	nested := 0
	n := &steps{does: map[string]func(context.Context, *faas.Invocation) (*faas.Result, error){
		"echo":    conducts(func(a map[string]any) string { b, _ := json.Marshal(a); return string(b) }),
		"forever": conducts(func(map[string]any) string { return `{"action":"echo"}` }),
		"nests":   conducts(func(map[string]any) string { nested++; return `{"action":"nests"}` }),
		"s":       nil, "deep": nil,
	}}
	names := map[string]*faas.Async{}
	for name := range n.does {
		names["default/"+name] = nil
	}
	c := deployed(t, names)
	publish := func(name string, change func(*faas.Revision)) {
		t.Helper()
		_, was, err := c.Resolve(faas.Ref{Name: faas.Name{Namespace: "default", Function: name}})
		if err != nil {
			t.Fatal(err)
		}
		rev := *was
		rev.ID = ""
		change(&rev)
		if _, err := c.Publish(t.Context(), &rev, catalog.PublishOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	sequence := func(contract string, names ...string) func(*faas.Revision) {
		return func(rev *faas.Revision) {
			rev.Contract, rev.Sequence, rev.Code, rev.Runtime = contract, &faas.Sequence{}, "", faas.RuntimeSequence
			for _, name := range names {
				rev.Sequence.Steps = append(rev.Sequence.Steps, faas.Name{Namespace: "default", Function: name})
			}
		}
	}
	d := dispatch.New(dispatch.Config{Catalog: c, Node: n, Recorder: &memo{}, Steps: map[string]int{faas.ContractOpenWhisk: 3}})
	// runs says how often each function ran.
	runs := func(name string) (map[string]int, int, error) {
		inv := call("default/"+name, faas.Wait{})
		inv.Wait, inv.Kind, inv.Body, inv.Length = nil, faas.KindInvoke, strings.NewReader(`{}`), 2
		res, err := d.Invoke(t.Context(), inv)
		if err != nil {
			return nil, 0, err
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		ran := map[string]int{}
		for _, s := range inv.Report.Steps {
			ran[s.Function]++
		}
		return ran, res.Status, nil
	}
	for contract, most := range map[string]int{faas.ContractOpenWhisk: 3, "": faas.MaxSteps} {
		conductor := func(rev *faas.Revision) { rev.Conductor, rev.Contract = true, contract }
		publish("forever", conductor)
		if ran, status, err := runs("forever"); err != nil || status != 502 || ran["echo"] != most || ran["forever"] != 2*most+1 {
			t.Errorf("contract %q: %v, %d, %v; want %d functions and %d calls of the conductor", contract, ran, status, err, most, 2*most+1)
		}
		publish("nests", conductor)
		nested = 0
		if _, _, err := runs("nests"); err != nil || nested > 2*most+1 || contract != "" && nested <= 2*most { // longer chains end before
			t.Errorf("contract %q: %d calls of conductors in conductors, %v; want %d", contract, nested, err, 2*most+1)
		}
		publish("s", sequence(contract, "echo", "echo", "echo"))
		publish("deep", sequence(contract, "s"))
		if ran, _, err := runs("deep"); err != nil || ran["s"] != 1 {
			t.Errorf("contract %q: a sequence as long as may be: %v, %v", contract, ran, err)
		}
		publish("s", sequence(contract, "echo", "echo", "echo", "echo"))
		_, _, err := runs("deep")
		if long := contract == faas.ContractOpenWhisk; long != (faas.CodeOf(err) == faas.Failed) {
			t.Errorf("contract %q: a sequence that became longer: %v", contract, err)
		}
	}
}

// makeConductor makes one of a function that is deployed.
func makeConductor(t *testing.T, c *catalog.Catalog, name string) {
	t.Helper()
	_, was, err := c.Resolve(faas.Ref{Name: faas.Name{Namespace: "default", Function: name}})
	if err != nil {
		t.Fatal(err)
	}
	rev := *was
	rev.ID, rev.Conductor = "", true
	if _, err := c.Publish(t.Context(), &rev, catalog.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
}
