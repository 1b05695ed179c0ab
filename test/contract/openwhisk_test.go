package contract

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
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
	compile  func(*testing.T, *house, string) string
	syntax   string   // code that can't be read
	quits    string   // code that ends its process while it is loaded
	hangs    string   // code that never gets to be loaded
	byEnv    bool     // it does both where AT_LOAD says so: to build it once is enough
	quitsAs  string   // the main that does so, where it is the same code
	hangsAs  string   // the same
	lacks    []string // what the language can't do, by the name of the case
	thrown   bool     // what it throws is a defect, and not an error of its own
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
			syntax: "package main\n\nfunc Main(", byEnv: true,
			lacks: []string{"reject", "throw"},
		},
		{
			language: runtimes.Java, file: "Action.java.txt", compile: jarOf, handler: "Action", main: "Action#niam", thrown: true,
			syntax: "PK\x03\x04 is no jar", quitsAs: "Action$Quits", hangsAs: "Action$Hangs", lacks: []string{"reject"},
		},
		{
			language: runtimes.Rust, file: "action.rs", main: "niam", compile: crateOf,
			syntax: "pub fn main(", lacks: []string{"reject", "throw", "run at load"},
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

// atLoad has an action do something while it is loaded.
func atLoad(what string) func(*faas.Revision) {
	return func(r *faas.Revision) {
		r.Env = maps.Clone(r.Env)
		r.Env["AT_LOAD"] = what
	}
}

// jarOf compiles an action in Java. What it is compiled with is got as a function's would be.
func jarOf(t *testing.T, h *house, code string) string {
	out, err := h.Deploy(t.Context(), deploy.Request{
		Name: faas.Name{Namespace: "default", Function: "compiled"}, Filename: "Action.java", Code: strings.NewReader(code), Handler: "Action.niam",
		Install: install.Options{With: []string{"com.google.code.gson:gson:2.11.0"}},
	}, nil)
	if code := faas.CodeOf(err); code == faas.Unavailable || err != nil && strings.Contains(err.Error(), "install") {
		t.Skip("what actions in Java take can't be got: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, release, err := h.depot.Tree(t.Context(), out.Revision.Code)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	files := map[string]string{}
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		files[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return zipped(t, files)
}

// crateOf makes an archive of a crate, which has less to compile than what is made of a single file.
func crateOf(t *testing.T, _ *house, code string) string {
	return zipped(t, map[string]string{
		"Cargo.toml": "[package]\nname = \"mine\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\nserde_json = \"1\"\n",
		"src/lib.rs": code,
	})
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
	h := newHouse(t, true)
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
	if a.compile != nil {
		code = a.compile(t, h, code)
	}
	as := func(main string) func(*deploy.Request) {
		return func(r *deploy.Request) { r.Handler = main }
	}
	named := as(a.handler)
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

	t.Run("items 235, 236: echo", func(t *testing.T) {
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
	t.Run("items 236, 237: environment at load", func(t *testing.T) {
		call(`{"do":"load"}`).want(t, 200, `{"loaded":"at load ✓","unicode":"héllo ✓ 你好"}`)
		call(`{"do":"env","names":["EMPTY","__OW_API_KEY"]}`).want(t, 200, `{"EMPTY":"","__OW_API_KEY":null}`)
	})
	t.Run("items 63, 238: environment of a call", func(t *testing.T) {
		names := []string{"__OW_NAMESPACE", "__OW_ACTION_NAME", "__OW_ACTION_VERSION", "__OW_ACTIVATION_ID", "__OW_TRANSACTION_ID", "__OW_DEADLINE", "__OW_API_KEY", "__OW_API_HOST"}
		input, _ := json.Marshal(map[string]any{"do": "env", "names": names})
		got := h.call(t, rev, string(input), func(inv *faas.Invocation) {
			inv.Owner = "caller"
			inv.Env = map[string]string{"__OW_ACTION_VERSION": "0.0.7", "__OW_TRANSACTION_ID": "tid", "__OW_API_KEY": "uuid:key", "__OW_API_HOST": "https://host"}
		})
		got.want(t, 200, fmt.Sprintf(`{"__OW_NAMESPACE":"caller","__OW_ACTION_NAME":"/default/%s","__OW_ACTION_VERSION":"0.0.7","__OW_ACTIVATION_ID":%q,"__OW_TRANSACTION_ID":"tid","__OW_DEADLINE":"%d","__OW_API_KEY":"uuid:key","__OW_API_HOST":"https://host"}`,
			rev.Name.Path(), got.ID, got.Deadline.UnixMilli()))
	})
	t.Run("item 83: state", func(t *testing.T) {
		again := h.again(rev, nil)
		first := h.call(t, again, `{"do":"count"}`, nil)
		first.want(t, 200, `{"calls":1}`)
		second := h.call(t, again, `{"do":"count"}`, nil)
		second.want(t, 200, `{"calls":2}`)
		if first.warm() || !second.warm() {
			t.Errorf("loaded: %v and %v; want the first call alone to load the code", !first.warm(), !second.warm())
		}
	})
	t.Run("item 65: error of the application", func(t *testing.T) {
		call(`{"do":"error"}`).want(t, 502, `{"error":{"code":7,"text":"mine"}}`)
		if !call(`{"do":"echo"}`).warm() {
			t.Error("an error of the application ended its process")
		}
	})
	t.Run("item 66: rejection", func(t *testing.T) {
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
	t.Run("item 67: exception", func(t *testing.T) {
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
	t.Run("item 68: syntax", func(t *testing.T) {
		syntax := a.syntax
		if a.language == runtimes.Rust {
			syntax = a.compile(t, h, syntax) // with what was compiled before
		}
		bad := h.put(t, a.language, syntax, named)
		h.call(t, bad, `{}`, nil).fails(t, initializing)
	})
	t.Run("item 69: exits", func(t *testing.T) {
		if a.can("run at load") {
			quits := h.again(rev, atLoad("quits"))
			if !a.byEnv {
				quits = h.put(t, a.language, cmp.Or(a.quits, code), as(cmp.Or(a.quitsAs, a.handler)))
			}
			h.call(t, quits, `{}`, nil).fails(t, initializing, "did not initialize", "exited")
		}
		call(`{"do":"exit"}`).fails(t, running, "no valid response", "exited")
		if call(`{"do":"echo"}`).warm() {
			t.Error("the call after an exit found the process of the one before")
		}
	})
	t.Run("item 70: hangs in init", func(t *testing.T) {
		if !a.can("run at load") {
			t.Skip("nothing of it runs before its first call")
		}
		hangs := h.again(rev, atLoad("hangs"))
		if !a.byEnv {
			hangs = h.put(t, a.language, cmp.Or(a.hangs, code), as(cmp.Or(a.hangsAs, a.handler)))
		}
		hangs = h.again(hangs, func(r *faas.Revision) { r.Limits.Timeout = faas.Duration(700 * time.Millisecond) })
		h.call(t, hangs, `{}`, nil).fails(t, initializing, "700 milliseconds", "during initialization")
	})
	t.Run("items 71, 72: runs too long", func(t *testing.T) {
		call(`{"do":"echo"}`).want(t, 200, `{"do":"echo"}`) // so that it is loaded
		got := h.call(t, rev, `{"do":"hang"}`, func(inv *faas.Invocation) { inv.Deadline = inv.Timing.Begin.Add(time.Second) })
		got.fails(t, running, "exceeded", "1000 milliseconds")
		if e := faas.AsError(got.Err); e.Code != faas.Timeout {
			t.Errorf("code %v, want a timeout", e.Code)
		}
		next := call(`{"do":"echo"}`)
		next.want(t, 200, `{"do":"echo"}`)
		if next.warm() {
			t.Error("the call after a timeout found the process of the one before")
		}
	})
	t.Run("items 73, 240: results", func(t *testing.T) {
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
	t.Run("item 74: memory", func(t *testing.T) {
		call(`{"do":"memory"}`).fails(t, running, "memory", "aborted")
	})
	t.Run("item 75: long result", func(t *testing.T) {
		got := call(`{"do":"big","size":2000000}`)
		if got.Err != nil || got.Status != 502 || !strings.Contains(got.Body, "1048576") || !strings.Contains(got.Body, " 20000") || !strings.Contains(got.Body, `{\"text\":`) {
			t.Errorf("answer %d %s, %v", got.Status, clip(got.Body), got.Err)
		}
		if got = call(`{"do":"big","size":1000000}`); got.Err != nil || got.Status != 200 || len(got.Body) < 1000000 {
			t.Errorf("answer %d of %d bytes, %v", got.Status, len(got.Body), got.Err)
		}
	})
	t.Run("items 231, 232: no code", func(t *testing.T) {
		for _, empty := range []string{"", " \n"} {
			rev := h.put(t, a.language, empty, named)
			h.call(t, rev, `{}`, nil).fails(t, initializing, "no code")
		}
	})
	t.Run("item 234: another entry", func(t *testing.T) {
		if a.main == "" {
			t.Skip("it has one entry only")
		}
		rev := h.put(t, a.language, code, func(r *deploy.Request) { r.Handler = a.main })
		h.call(t, rev, `{}`, nil).want(t, 200, `{"entry":"niam"}`)
		rev = h.put(t, a.language, code, func(r *deploy.Request) { r.Handler = "nosuch" })
		h.call(t, rev, `{}`, nil).fails(t, initializing, "nosuch")
	})
	t.Run("item 37: archive", func(t *testing.T) {
		if a.archive == nil {
			t.Skip("it has no archives")
		}
		file := a.archive(code)
		rev := h.put(t, a.language, zipped(t, map[string]string{file[0]: file[1], "data.txt": "x"}), named)
		h.call(t, rev, `{"do":"echo","n":1}`, nil).want(t, 200, `{"do":"echo","n":1}`)
		if a.language == runtimes.Go {
			return // what its compiler refuses was met before
		}
		rev = h.put(t, a.language, zipped(t, map[string]string{"other.txt": "x"}), named)
		h.call(t, rev, `{}`, nil).fails(t, initializing)
		rev = h.put(t, a.language, "PK\x03\x04 is no archive", named)
		h.call(t, rev, `{}`, nil).fails(t, initializing)
	})
	t.Run("item 239: long arguments", func(t *testing.T) {
		input := `{"do":"echo","text":"` + strings.Repeat("y", 1040000) + `"}`
		call(input).want(t, 200, input)
	})
	t.Run("item 240: list as arguments", func(t *testing.T) {
		call(`[1,{"a":2}]`).want(t, 200, `[1,{"a":2}]`)
	})
}
