package daemon

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
)

// TestASequenceGoesOnWhereItWasKilled kills the server when a step of a sequence has just been kept: the
// next server begins with the step after it, and hands on what the one that is gone has answered.
func TestASequenceGoesOnWhereItWasKilled(t *testing.T) {
	needSandboxes(t)
	dir := filepath.Join(t.TempDir(), "d")
	v := startVictim(t, dir, "sequence: step kept#3")
	for name, code := range map[string]string{
		"draw": "import secrets\ndef handle(event, context):\n    return {'token': secrets.token_hex(8), 'by': context.invocation_id}\n",
		"pass": "def main(args):\n    return args\n",
	} {
		if _, err := v.client.Deploy(t.Context(), "default", name, api.Spec{}, api.Code{Filename: name + ".py", Reader: strings.NewReader(code)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := v.client.PutSequence(t.Context(), "default", "s", api.SequenceSpec{Steps: []string{"draw", "pass", "pass"}}); err != nil {
		t.Fatal(err)
	}
	var ids []faas.ID
	for in := v.inside(dir); len(ids) < 6; {
		var id faas.ID
		if err := in.ask(t.Context(), "POST", "/enqueue/s", []byte("{}"), &id); err != nil {
			if died(v, waitLongest) {
				break
			}
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if !died(v, waitLongest) {
		t.Fatal("no step was kept")
	}
	v = startVictim(t, dir, "")
	in := v.inside(dir)
	if left := waitLong(func() (any, bool) {
		var waiting []queue.Depth
		err := in.ask(t.Context(), "GET", "/waiting", nil, &waiting)
		return fmt.Sprint(waiting, err), err == nil && len(waiting) == 0
	}); left != nil {
		t.Fatalf("left: %v", left)
	}
	kept := 0
	for _, id := range ids {
		var whole, first faas.Activation
		if err := in.ask(t.Context(), "GET", "/activation/"+string(id), nil, &whole); err != nil {
			t.Fatal(err)
		}
		if whole.Outcome != faas.OK || len(whole.Steps) != 3 {
			t.Fatalf("%s: %s, %+v", id, whole.Error, whole.Steps)
		}
		if err := in.ask(t.Context(), "GET", "/activation/"+string(whole.Steps[0].ID), nil, &first); err != nil {
			t.Fatal(err)
		}
		var drawn, passed struct{ Token, By string }
		if json.Unmarshal(first.Answer.Body, &drawn) != nil || json.Unmarshal(whole.Answer.Body, &passed) != nil || drawn != passed || drawn.By != string(first.ID) {
			t.Errorf("the first step answered %s, the last %s", first.Answer.Body, whole.Answer.Body)
		}
		if whole.Steps[0].Kept {
			kept++
		}
	}
	if kept == 0 {
		t.Error("no sequence went on with what was kept")
	}
}
