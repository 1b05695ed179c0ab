package brokers_test

import (
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger/brokers"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

// refused is a configuration that makes no sense, and what the error says of it.
type refused struct{ kind, config, want string }

// wantRefused checks each of them. They may name the secret S; no error repeats the password "p4ss".
func wantRefused(t *testing.T, all []refused) {
	t.Helper()
	h := triggertest.Open(t, brokers.Kinds()...)
	for _, c := range all {
		err := h.Manager.Check(&faas.Trigger{Name: "t", Source: &faas.Source{Kind: c.kind, Config: []byte(c.config), Secrets: []string{"S"}}})
		e := faas.AsError(err)
		if err == nil || e.Code != faas.Invalid || !strings.Contains(e.Error()+" "+e.Fix, c.want) {
			t.Errorf("%s %s: got %v; want an error that says %q", c.kind, c.config, err, c.want)
		}
		if err != nil && strings.Contains(e.Error()+e.Fix, "p4ss") {
			t.Errorf("%s: the error repeats a password", err)
		}
	}
}

func TestAnUnknownBrokerIsRefused(t *testing.T) {
	wantRefused(t, []refused{{"carrier-pigeon", `{}`, "jetstream, "}})
}

func TestWhatNATSCannotBeAskedIsRefused(t *testing.T) {
	wantRefused(t, []refused{
		{"nats", `{"url":"http://x:1","subject":"a"}`, "no address"},
		{"nats", `{"url":"nats://u:p4ss@x:1","subject":"a"}`, "password"},
		{"nats", `{"url":"nats://x:1"}`, "subject is missing"},
		{"nats", `{"url":"nats://x:1","subject":"a..b"}`, "a..b"},
		{"jetstream", `{"url":"nats://x:1","stream":"A B"}`, "A B"},
		{"jetstream", `{"url":"nats://x:1","stream":"A","parallel":-1}`, "parallel"},
	})
}
