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

// The numbers are those of the behaviours of OpenWhisk that its clients and functions rely on.

// action is a language's rendering of the action that the table calls.
type action struct {
	language string
	file     string                 // below functions/openwhisk
	main     string                 // that makes it return {"entry":"niam"}; empty: it has one entry only
	handler  string                 // what must be said of it always
	archive  func(string) [2]string // name and content of the code's file in an archive; nil: none
	syntax   string                 // code that can't be read
	quits    string                 // code that ends its process while it is loaded
	hangs    string                 // code that never gets to be loaded
	lacks    []string               // what the language can't do, by the name of the case
	thrown   bool                   // what it throws is a defect, and not an error of its own
}

func actions() []action {
	as := func(name string) func(string) [2]string {
		return func(code string) [2]string { return [2]string{name, code} }
	}
	return []action{
		{
			language: runtimes.Python, file: "action.py", main: "niam", archive: as("__main__.py"),
			syntax: "def main(args):\n  return {", quits: "import os\nos._exit(4)", hangs: "import time\ntime.sleep(600)",
			lacks: []string{"reject"},
		},
		{
			language: runtimes.Node, file: "action.js", main: "niam", archive: func(code string) [2]string { return [2]string{"index.js", code + "\nexports.main = main;"} },
			syntax: "function main() { return {", quits: "process.exit(4)", hangs: "for (;;);", thrown: true,
		},
		{
			language: runtimes.ActionLoop, file: "loop.py", archive: as("exec"),
			syntax: "#!/usr/bin/env python3\nthis is no code: __OW_WAIT_FOR_ACK", quits: "#!/bin/sh\n: __OW_WAIT_FOR_ACK\nexit 4", hangs: "#!/bin/sh\n: __OW_WAIT_FOR_ACK\nsleep 600",
			lacks: []string{"reject", "throw"},
		},
		{
			language: runtimes.Go, file: "action.go.txt", main: "niam", archive: as("main.go"),
			syntax: "package main\n\nfunc Main(", quits: "package main\n\nimport \"os\"\n\nfunc init() { os.Exit(4) }\n\nfunc Main() {}",
			hangs: "package main\n\nimport \"time\"\n\nfunc init() { time.Sleep(time.Hour) }\n\nfunc Main() {}",
			lacks: []string{"reject", "throw"},
		},
		{
			language: runtimes.Ruby, file: "action.rb", main: "niam", archive: as("main.rb"), thrown: true,
			syntax: "def main(args)", quits: "exit 4", hangs: "sleep 600", lacks: []string{"reject"},
		},
		{
			language: runtimes.PHP, file: "action.php", main: "niam", archive: as("index.php"), thrown: true,
			syntax: "<?php function main(", quits: "<?php exit(4);", hangs: "<?php sleep(600);", lacks: []string{"reject", "empty object"},
		},
	}
}

func (a *action) can(what string) bool {
	for _, l := range a.lacks {
		if l == what {
			return false
		}
	}
	return true
}

func TestOpenWhisk(t *testing.T) {
	h := newHouse(t, false)
	for _, a := range actions() {
		t.Run(a.language, func(t *testing.T) {
			if _, err := h.registry.Lookup(a.language); err != nil {
				t.Skip(err)
			}
			h.tells(t, a)
		})
	}
}

// tells calls a language's action in all ways.
func (h *house) tells(t *testing.T, a action) {
	code := Source(t, "openwhisk/"+a.file)
	named := func(r *deploy.Request) { r.Handler = a.handler }
	rev := h.put(t, a.language, code, func(r *deploy.Request) {
		named(r)
		r.Env = map[string]string{"AT_LOAD": "at load ✓", "EMPTY": ""}
		r.Origin = &faas.Origin{Dialect: "openwhisk", Document: json.RawMessage(`{"version":"0.0.1"}`)}
		r.Params = map[string]json.RawMessage{"p": json.RawMessage(`1`)}
	})
	if rev.Broken != "" {
		t.Fatalf("it is broken: %s", rev.Broken)
	}
	if rev.Contract != faas.ContractOpenWhisk || rev.Origin == nil || string(rev.Params["p"]) != "1" {
		t.Errorf("revision %+v lost what the dialect keeps", rev)
	}
	call := func(input string) *activation { return h.call(t, rev, input, nil) }

	t.Run("235, 236 echo", func(t *testing.T) {
		input := `{"do":"echo","list":[1,null,true,{"x":1.5}],"unicode":"héllo ✓ 你好","empty":{}}`
		if !a.can("empty object") {
			input = strings.Replace(input, `,"empty":{}`, "", 1)
		}
		got := call(input)
		got.want(t, 200, input)
		if got.logs(runtimes.Stdout) != "out ✓\n" || got.logs(runtimes.Stderr) != "err ✓\n" {
			t.Errorf("logs = %q and %q", got.logs(runtimes.Stdout), got.logs(runtimes.Stderr))
		}
	})
	t.Run("236, 237 environment at load", func(t *testing.T) {
		call(`{"do":"load"}`).want(t, 200, `{"loaded":"at load ✓","unicode":"héllo ✓ 你好"}`)
		call(`{"do":"env","names":["EMPTY","__OW_API_KEY"]}`).want(t, 200, `{"EMPTY":"","__OW_API_KEY":null}`)
	})
	t.Run("63, 238 environment of a call", func(t *testing.T) {
		names := []string{"__OW_NAMESPACE", "__OW_ACTION_NAME", "__OW_ACTION_VERSION", "__OW_ACTIVATION_ID", "__OW_TRANSACTION_ID", "__OW_DEADLINE", "__OW_API_KEY", "__OW_API_HOST"}
		input, _ := json.Marshal(map[string]any{"do": "env", "names": names})
		got := h.call(t, rev, string(input), func(inv *faas.Invocation) {
			inv.Owner = "caller"
			inv.Env = map[string]string{"__OW_ACTION_VERSION": "0.0.7", "__OW_TRANSACTION_ID": "tid", "__OW_API_KEY": "uuid:key", "__OW_API_HOST": "https://host"}
		})
		got.want(t, 200, fmt.Sprintf(`{"__OW_NAMESPACE":"caller","__OW_ACTION_NAME":"/default/%s","__OW_ACTION_VERSION":"0.0.7","__OW_ACTIVATION_ID":%q,"__OW_TRANSACTION_ID":"tid","__OW_DEADLINE":"%d","__OW_API_KEY":"uuid:key","__OW_API_HOST":"https://host"}`,
			rev.Name.Path(), got.ID, got.Deadline.UnixMilli()))
	})
	t.Run("83 state", func(t *testing.T) {
		again := h.put(t, a.language, code, named)
		first := h.call(t, again, `{"do":"count"}`, nil)
		first.want(t, 200, `{"calls":1}`)
		second := h.call(t, again, `{"do":"count"}`, nil)
		second.want(t, 200, `{"calls":2}`)
		if first.warm() || !second.warm() {
			t.Errorf("loaded: %v and %v; want the first call alone to load the code", !first.warm(), !second.warm())
		}
	})
	t.Run("65 error of the application", func(t *testing.T) {
		call(`{"do":"error"}`).want(t, 502, `{"error":{"code":7,"text":"mine"}}`)
		if !call(`{"do":"echo"}`).warm() {
			t.Error("an error of the application ended its process")
		}
	})
	t.Run("66 rejection", func(t *testing.T) {
		if !a.can("reject") {
			t.Skip("it has no promises")
		}
		call(`{"do":"reject"}`).want(t, 502, `{"error":{"code":8,"text":"rejected"}}`)
		call(`{"do":"rejectNothing"}`).want(t, 502, `{"error":{}}`)
		if got := call(`{"do":"rejectError"}`); got.Status != 502 || !strings.Contains(got.Body, `"message":"rejected error"`) || !strings.Contains(got.Body, "TypeError") {
			t.Errorf("answer %d %s, %v", got.Status, got.Body, got.Err)
		}
		call(`{"do":"uncaught"}`).fails(t, running, "nobody catches this")
	})
	t.Run("67 exception", func(t *testing.T) {
		if !a.can("throw") {
			t.Skip("an exception is the end of its process")
		}
		got := call(`{"do":"throw"}`)
		if a.thrown {
			got.fails(t, running, "thrown on purpose")
		} else if got.Status != 502 || !strings.Contains(got.Body, "thrown on purpose") || !strings.HasPrefix(got.Body, `{"error":`) {
			t.Errorf("answer %d %s, %v", got.Status, got.Body, got.Err)
		}
		if !strings.Contains(got.logs(""), "thrown on purpose") {
			t.Errorf("log %q does not say what was thrown", got.logs(""))
		}
	})
	t.Run("68 syntax", func(t *testing.T) {
		bad := h.put(t, a.language, a.syntax, named)
		h.call(t, bad, `{}`, nil).fails(t, initializing)
	})
	t.Run("69 exits", func(t *testing.T) {
		quits := h.put(t, a.language, a.quits, named)
		h.call(t, quits, `{}`, nil).fails(t, initializing, "did not initialize", "exited")
		call(`{"do":"exit"}`).fails(t, running, "no valid response", "exited")
		if call(`{"do":"echo"}`).warm() {
			t.Error("the call after an exit found the process of the one before")
		}
	})
	t.Run("70 hangs in init", func(t *testing.T) {
		hangs := h.put(t, a.language, a.hangs, func(r *deploy.Request) {
			named(r)
			r.Limits.Timeout = faas.Duration(700 * time.Millisecond)
		})
		h.call(t, hangs, `{}`, nil).fails(t, initializing, "700 milliseconds", "during initialization")
	})
	t.Run("71, 72 runs too long", func(t *testing.T) {
		short := h.put(t, a.language, code, func(r *deploy.Request) {
			named(r)
			r.Limits.Timeout = faas.Duration(2 * time.Second)
		})
		h.call(t, short, `{"do":"echo"}`, nil).want(t, 200, `{"do":"echo"}`)
		got := h.call(t, short, `{"do":"hang"}`, nil)
		got.fails(t, running, "exceeded", "2000 milliseconds")
		if e := faas.AsError(got.Err); e.Code != faas.Timeout {
			t.Errorf("code %v, want a timeout", e.Code)
		}
		next := h.call(t, short, `{"do":"echo"}`, nil)
		next.want(t, 200, `{"do":"echo"}`)
		if next.warm() {
			t.Error("the call after a timeout found the process of the one before")
		}
	})
	t.Run("73, 240 results", func(t *testing.T) {
		call(`{"do":"text"}`).fails(t, running, "did not return a dictionary or array", "just text")
		call(`{"do":"list"}`).want(t, 200, `[1,"two"]`)
		got := call(`{"do":"nothing"}`)
		switch a.language {
		case runtimes.Node:
			got.want(t, 200, `{}`)
			call(`{"do":"null"}`).fails(t, running, "did not return a dictionary or array")
		case runtimes.PHP:
			got.want(t, 200, `{}`)
		default:
			got.fails(t, running, "did not return a dictionary or array")
		}
	})
	t.Run("74 memory", func(t *testing.T) {
		call(`{"do":"memory"}`).fails(t, running, "memory", "aborted")
	})
	t.Run("75 long result", func(t *testing.T) {
		got := call(`{"do":"big","size":2000000}`)
		if got.Err != nil || got.Status != 502 || !strings.Contains(got.Body, "1048576") || !strings.Contains(got.Body, " 20000") || !strings.Contains(got.Body, `{\"text\":`) {
			t.Errorf("answer %d %s, %v", got.Status, clip(got.Body), got.Err)
		}
		if got = call(`{"do":"big","size":1000000}`); got.Err != nil || got.Status != 200 || len(got.Body) < 1000000 {
			t.Errorf("answer %d of %d bytes, %v", got.Status, len(got.Body), got.Err)
		}
	})
	t.Run("231, 232 no code", func(t *testing.T) {
		for _, empty := range []string{"", " \n"} {
			rev := h.put(t, a.language, empty, named)
			h.call(t, rev, `{}`, nil).fails(t, initializing, "no code")
		}
	})
	t.Run("234 another entry", func(t *testing.T) {
		if a.main == "" {
			t.Skip("it has one entry only")
		}
		rev := h.put(t, a.language, code, func(r *deploy.Request) { r.Handler = a.main })
		h.call(t, rev, `{}`, nil).want(t, 200, `{"entry":"niam"}`)
		rev = h.put(t, a.language, code, func(r *deploy.Request) { r.Handler = "nosuch" })
		h.call(t, rev, `{}`, nil).fails(t, initializing, "nosuch")
	})
	t.Run("37 archive", func(t *testing.T) {
		if a.archive == nil {
			t.Skip("it has no archives")
		}
		file := a.archive(code)
		rev := h.put(t, a.language, zipped(t, map[string]string{file[0]: file[1], "data.txt": "x"}), named)
		h.call(t, rev, `{"do":"echo","n":1}`, nil).want(t, 200, `{"do":"echo","n":1}`)
		rev = h.put(t, a.language, zipped(t, map[string]string{"other.txt": "x"}), named)
		h.call(t, rev, `{}`, nil).fails(t, initializing)
		rev = h.put(t, a.language, "PK\x03\x04 is no archive", named)
		h.call(t, rev, `{}`, nil).fails(t, initializing)
	})
	t.Run("239 long arguments", func(t *testing.T) {
		input := `{"do":"echo","text":"` + strings.Repeat("y", 1040000) + `"}`
		call(input).want(t, 200, input)
	})
	t.Run("240 list as arguments", func(t *testing.T) {
		call(`[1,{"a":2}]`).want(t, 200, `[1,{"a":2}]`)
	})
}
