package contract

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// TestOpenWhiskPrograms calls executables in both of the ways that OpenWhisk has for them.
func TestOpenWhiskPrograms(t *testing.T) {
	h := newHouse(t, false)
	t.Run("item 241: line in, line out, without an acknowledgement", func(t *testing.T) {
		rev := h.put(t, runtimes.ActionLoop, Source(t, "openwhisk/loop.sh"), nil)
		if rev.Env[runtimes.LoopAck] != "" {
			t.Error("a program that knows nothing of it is asked to acknowledge its start")
		}
		for _, name := range []string{"Ada", "Grace"} {
			got := h.call(t, rev, `{"name":"`+name+`"}`, nil)
			got.want(t, 200, `{"hello":"`+name+`"}`)
			if got.logs(runtimes.Stdout) != "out "+name+"\n" {
				t.Errorf("log %q", got.logs(""))
			}
		}
	})
	t.Run("item 241: acknowledgement that says no", func(t *testing.T) {
		rev := h.put(t, runtimes.ActionLoop, "#!/bin/sh\n# __OW_WAIT_FOR_ACK\necho '{\"ok\":false}' >&3\nsleep 60\n", nil)
		h.call(t, rev, `{}`, nil).fails(t, initializing, "ready")
	})
	t.Run("item 241: what is no JSON", func(t *testing.T) {
		rev := h.put(t, runtimes.ActionLoop, "#!/bin/sh\nread line; echo 'what { is this' >&3\nread line\n", nil)
		h.call(t, rev, `{}`, nil).fails(t, running, "did not return", "what { is this")
	})
	t.Run("item 241: exit at once", func(t *testing.T) {
		rev := h.put(t, runtimes.ActionLoop, "#!/bin/sh\nexit 2\n", nil)
		got := h.call(t, rev, `{}`, nil) // the process may live to see its call: nobody acknowledged anything
		if got.Err == nil || !strings.Contains(got.Err.Error(), "exited") {
			t.Errorf("answer %d %s, %v", got.Status, got.Body, got.Err)
		}
	})
	t.Run("item 241: more than was asked for", func(t *testing.T) {
		rev := h.put(t, runtimes.ActionLoop, "#!/bin/sh\nwhile read -r line; do n=$((n+1)); printf '{\"n\":%d}\\n{\"not\":%d}\\n{\"half' $n $n >&3; done\n", nil)
		for n := 1; n < 4; n++ { // an answer that nobody asked for is not the next caller's
			h.call(t, rev, `{}`, nil).want(t, 200, fmt.Sprintf(`{"n":%d}`, n))
		}
	})
	t.Run("item 241: archive", func(t *testing.T) {
		rev := h.put(t, runtimes.ActionLoop, zipped(t, map[string]string{"exec": "#!/bin/bash\n. /code/lib.sh\n", "lib.sh": Source(t, "openwhisk/loop.sh")}), nil)
		h.call(t, rev, `{"name":"Ada"}`, nil).want(t, 200, `{"hello":"Ada"}`)
		rev = h.put(t, runtimes.ActionLoop, zipped(t, map[string]string{"other": "#!/bin/bash\n"}), nil)
		h.call(t, rev, `{}`, nil).fails(t, initializing, "exec")
	})

	native := h.put(t, deploy.NativeAction, Source(t, "openwhisk/native.sh"), nil)
	call := func(input string) *activation { return h.call(t, native, input, nil) }
	t.Run("items 235, 238: a process for each call", func(t *testing.T) {
		got := call(`{"name":"Ada ✓"}`)
		got.want(t, 200, `{"name":"Ada ✓"}`)
		if got.logs(runtimes.Stdout) != "log line\n" || got.logs(runtimes.Stderr) != "err line\n" {
			t.Errorf("logs = %q and %q", got.logs(runtimes.Stdout), got.logs(runtimes.Stderr))
		}
		got = call(`{"do":"env"}`)
		got.want(t, 200, fmt.Sprintf(`{"name":"/default/%s","id":%q}`, native.Name.Path(), got.ID))
	})
	t.Run("items 65, 69, 73: a process for each call", func(t *testing.T) {
		call(`{"do":"error"}`).want(t, 502, `{"error":"mine"}`)
		call(`{"do":"text"}`).fails(t, running, "did not return", "just text")
		call(`{"do":"exit"}`).fails(t, running, "no valid response", "exited with code 3")
		call(`{"text":"`+strings.Repeat("x", 200<<10)+`"}`).fails(t, initializing, "arguments")
	})
	t.Run("item 71: a process for each call", func(t *testing.T) {
		rev := h.put(t, deploy.NativeAction, "#!/bin/sh\nsleep 600\n", func(r *deploy.Request) { r.Limits.Timeout = faas.Duration(500 * time.Millisecond) })
		h.call(t, rev, `{}`, nil).fails(t, running, "exceeded", "500 milliseconds")
	})
	t.Run("a function of Brasa's own that speaks ActionLoop", func(t *testing.T) {
		rev := h.put(t, runtimes.ActionLoop, "#!/bin/sh\nwhile read -r line; do case $line in *bad*) echo '{\"error\":\"bad input\"}' ;; *) echo '{\"a\":1}' ;; esac >&3; done\n",
			func(r *deploy.Request) { r.Contract, r.Unproved = faas.ContractNative, false })
		h.call(t, rev, `{}`, nil).want(t, 200, `{"a":1}`)
		got := h.call(t, rev, `{"x":"bad"}`, nil)
		if faas.CodeOf(got.Err) != faas.Failed || !strings.Contains(got.Err.Error(), "bad input") {
			t.Errorf("answer %d %s, %v; want a failure", got.Status, got.Body, got.Err)
		}
	})
	t.Run("item 27: languages that are not here", func(t *testing.T) {
		for _, language := range []string{"fortran", "cobol", ""} {
			if _, err := h.tryPut(t, language, "x", nil); faas.CodeOf(err) != faas.Invalid {
				t.Errorf("%s: %v, want it refused as invalid", language, err)
			}
		}
	})
	t.Run("item 29: what is too much", func(t *testing.T) {
		_, err := h.tryPut(t, runtimes.Node, "x", func(r *deploy.Request) {
			r.Params = map[string]json.RawMessage{"p": json.RawMessage(`"` + strings.Repeat("x", 4<<20) + `"`)}
		})
		if faas.CodeOf(err) != faas.TooLarge {
			t.Errorf("parameters of more than a record holds: %v", err)
		}
	})
}
