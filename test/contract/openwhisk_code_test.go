package contract

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// tarred is a tar.gz of files.
func tarred(t testing.TB, files map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for name, content := range files {
		err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestOpenWhiskCode sends code in the forms that OpenWhisk's runtimes take.
func TestOpenWhiskCode(t *testing.T) {
	h := newHouse(t, true)
	const answer = `(args) => ({ got: args.n })`
	for _, c := range []struct{ name, language, main, code string }{
		{"item 37: node, package.json", runtimes.Node, "", zipped(t, map[string]string{"package.json": `{"main":"lib/it.js"}`, "lib/it.js": "exports.main = " + answer})},
		{"item 37: node, tar.gz", runtimes.Node, "", tarred(t, map[string]string{"index.js": "exports.main = " + answer})},
		{"item 234: node, module.function", runtimes.Node, "lib.work", zipped(t, map[string]string{"index.js": "", "lib.js": "exports.work = " + answer})},
		{"item 234: node, folder.function", runtimes.Node, "lib.work", zipped(t, map[string]string{"package.json": `{"main":"lib/index.js"}`, "lib/index.js": "exports.work = " + answer})},
		{"item 235: node, exported", runtimes.Node, "", "exports.main = " + answer},
		{"item 235: node, a constant", runtimes.Node, "", "const main = " + answer},
		{"item 235: node, global", runtimes.Node, "niam", "niam = " + answer},
		{"item 235: node, another export", runtimes.Node, "", "const main = " + answer + "\nexports.other = 1"},
		{"item 235: node, ECMAScript module", runtimes.Node, "", "export const main = " + answer},
		{"item 235: node, asynchronous", runtimes.Node, "", "const main = async " + answer},
		{"item 37: python, packages", runtimes.Python, "", zipped(t, map[string]string{
			"__main__.py": "from mine import it\nfrom pkg.mod import n\ndef main(args):\n    return {'got': it(args) + n}\n", "pkg/__init__.py": "", "pkg/mod.py": "n = 0",
			"virtualenv/bin/activate_this.py": "", "virtualenv/lib/python3.99/site-packages/mine.py": "def it(args):\n    return args['n']\n",
		})},
		{"item 37: ruby, files", runtimes.Ruby, "", zipped(t, map[string]string{"main.rb": "require_relative 'lib/it'\ndef main(args) = { got: it(args) }", "lib/it.rb": "def it(args) = args['n']"})},
		{"item 37: php, packages", runtimes.PHP, "", zipped(t, map[string]string{
			"index.php": "<?php function main(array $args): array { return ['got' => it($args)]; }", "vendor/autoload.php": "<?php function it($args) { return $args['n']; }",
		})},
		{"item 234: php, method", runtimes.PHP, "Work::it", "<?php class Work { public static function it(array $args): array { return ['got' => $args['n']]; } }"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := h.registry.Lookup(c.language); err != nil {
				t.Skip(err)
			}
			rev := h.put(t, c.language, c.code, func(r *deploy.Request) { r.Handler = c.main })
			h.call(t, rev, `{"n":7}`, nil).want(t, 200, `{"got":7}`)
		})
	}
	for _, c := range []struct{ language, code string }{
		{runtimes.Python, "import os\nat = [os.environ.get(n) for n in ('__OW_ACTION_NAME', '__OW_API_HOST', '__OW_API_KEY')]\ndef main(args):\n    return {'at': at}\n"},
		{runtimes.Node, "const at = ['__OW_ACTION_NAME', '__OW_API_HOST', '__OW_API_KEY'].map((n) => process.env[n] ?? null)\nconst main = () => ({ at })"},
		{runtimes.ActionLoop, "#!/bin/sh\nk=null; [ -z \"$__OW_API_KEY\" ] || k=1\nat=\"[\\\"$__OW_ACTION_NAME\\\",\\\"$__OW_API_HOST\\\",$k]\"\nwhile read -r l; do echo \"{\\\"at\\\":$at}\" >&3; done\n"},
	} {
		t.Run("item 63: at load, "+c.language, func(t *testing.T) {
			if _, err := h.registry.Lookup(c.language); err != nil {
				t.Skip(err)
			}
			rev := h.put(t, c.language, c.code, nil)
			got := h.call(t, rev, `{}`, func(inv *faas.Invocation) {
				inv.Env = map[string]string{"__OW_ACTION_NAME": "/guest/hello", "__OW_API_HOST": "https://host", "__OW_API_KEY": "secret"}
			})
			got.want(t, 200, `{"at":["/guest/hello","https://host",null]}`)
		})
	}
	for _, c := range []struct{ name, language, code string }{
		{"node, what images bring", runtimes.Node, "const ow = require('openwhisk')\nconst main = () => ({ client: typeof ow })"},
		{"node, of the version that images have", runtimes.Node, "const v4 = require('uuid/v4'), redis = require('redis')\nconst main = () => ({ client: v4().length === 36 && typeof redis.print })"},
		{"python, what images bring", runtimes.Python, "import simplejson\n\ndef main(args):\n    return {'client': 'function' if simplejson.dumps({}) == '{}' else ''}\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := h.registry.Lookup(c.language); err != nil {
				t.Skip(err)
			}
			rev := h.put(t, c.language, c.code, nil)
			if len(rev.Layers) == 0 {
				h.call(t, rev, `{}`, nil).fails(t, initializing)
				t.Skip("the package can't be got from here")
			}
			h.call(t, rev, `{}`, nil).want(t, 200, `{"client":"function"}`)
		})
	}
}

// TestOpenWhiskBounds meets what a sandbox keeps an action from.
func TestOpenWhiskBounds(t *testing.T) {
	h := newHouse(t, false)
	if _, err := h.registry.Lookup(runtimes.Python); err != nil {
		t.Skip(err)
	}
	t.Run("item 79: open files", func(t *testing.T) {
		rev := h.put(t, runtimes.Python, "def main(args):\n    files = [open('/dev/null') for _ in range(args['n'])]\n    return {'open': len(files)}\n", nil)
		h.call(t, rev, `{"n":1000}`, nil).want(t, 200, `{"open":1000}`) // the interpreter has some of the 1024
		if got := h.call(t, rev, `{"n":1025}`, nil); got.Status != 502 || !strings.Contains(got.Body, "Too many open files") {
			t.Errorf("answer %d %s, %v", got.Status, got.Body, got.Err)
		}
	})
	t.Run("item 80: ping", func(t *testing.T) {
		rev := h.put(t, runtimes.Python, "import socket\ndef main(args):\n    socket.socket(socket.AF_INET, getattr(socket, args['kind']), socket.IPPROTO_ICMP)\n    return {}\n", nil)
		for _, kind := range []string{"SOCK_RAW", "SOCK_DGRAM"} {
			if got := h.call(t, rev, `{"kind":"`+kind+`"}`, nil); got.Status != 502 || !strings.Contains(got.Body, "not permitted") && !strings.Contains(got.Body, "ermission denied") {
				t.Errorf("%s: answer %d %s, %v", kind, got.Status, got.Body, got.Err)
			}
		}
	})
}
