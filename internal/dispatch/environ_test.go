package dispatch_test

import (
	"context"
	"errors"
	"testing"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
)

// What a contract's code finds in its environment is worked out as each call begins, and for the code
// of that contract alone.
func TestACallGetsTheEnvironmentOfItsContract(t *testing.T) {
	var rec records
	c := publish(t, faas.Limits{})
	_, native, err := c.Resolve(faas.Ref{Name: hello().Function.Name})
	if err != nil {
		t.Fatal(err)
	}
	action := *native
	action.Name.Function, action.Contract = "action", faas.ContractOpenWhisk
	action.ID = action.Digest()
	if _, err := c.Publish(t.Context(), &action, catalog.PublishOptions{}); err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	var failing error
	d := dispatch.New(dispatch.Config{
		Catalog: c, Recorder: &rec,
		Env: map[string]func(context.Context, *faas.Revision, *faas.Invocation) (map[string]string, error){
			faas.ContractOpenWhisk: func(_ context.Context, rev *faas.Revision, inv *faas.Invocation) (map[string]string, error) {
				return map[string]string{"NAME": rev.Name.Function, "ID": string(inv.ID)}, failing
			},
		},
		Node: &node{func(_ context.Context, _ *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
			got = inv.Env
			return &faas.Result{Status: 200, Header: map[string][]string{}, Body: faas.NewBytesBody(nil)}, nil
		}},
	})
	call := func(name string) (*faas.Invocation, error) {
		inv := hello()
		inv.Function.Name.Function = name
		res, err := d.Invoke(t.Context(), inv)
		if err == nil {
			res.Body.Close()
		}
		return inv, err
	}
	if inv, err := call("action"); err != nil || got["NAME"] != "action" || got["ID"] != string(inv.ID) {
		t.Errorf("the action got %v, %v", got, err)
	}
	if _, err := call("hello"); err != nil || got != nil {
		t.Errorf("the native function got %v, %v", got, err)
	}
	failing = errors.New("no such subject")
	if _, err := call("action"); err == nil {
		t.Error("the call ran although its environment could not be had")
	}
	if last := rec.list[len(rec.list)-1]; last.Outcome == faas.OK {
		t.Errorf("recorded as %s", last.Outcome)
	}
}
