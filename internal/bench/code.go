package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Sources of the functions. Each parses its input and puts it into the answer, as every side does,
// unless it says otherwise.
const (
	pythonCode = `
def main(args):
    return {"greeting": "Hello, %s!" % args["name"]}
`
	nodeCode = `
exports.main = (args) => ({greeting: 'Hello, ' + args.name + '!'});
`
	javaCode = `
import java.util.Map;

public class Hello {
    public static Map<String, Object> main(Map<String, Object> args) {
        return Map.of("greeting", "Hello, " + args.get("name") + "!");
    }
}
`
	numpyCode = `
import numpy

def main(args):
    n = int(numpy.arange(3).sum())
    return {"greeting": "Hello, %s!" % args["name"] if n == 3 else "wrong"}
`
	expressCode = `
const express = require('express');
const app = express();
app.get('/', (req, res) => res.end());
exports.main = (args) => ({greeting: 'Hello, ' + args.name + '!'});
`
	// Ten milliseconds of the processor's time.
	workCode = `
import time

def main(args):
    end = time.thread_time() + 0.01
    while time.thread_time() < end:
        pass
    return {"greeting": "Hello, %s!" % args["name"]}
`
	// Answers when the time has come that it was given, so that many calls run at once.
	waitCode = `
import time

def main(args):
    time.sleep(max(0, args["until"] - time.time()))
    return {"greeting": "Hello, Ada!"}
`
	failCode = `
def main(args):
    raise ValueError("as was asked")
`
	slowCode = `
import time

def main(args):
    time.sleep(60)
`
	// The program that an executable is: it answers without a look at its input.
	execCode = `
#include <unistd.h>
int main(void) { static const char s[] = "{\"greeting\":\"Hello, Ada!\"}"; return write(1, s, sizeof s - 1) != sizeof s - 1; }
`
)

// program compiles execCode into dir.
func program(ctx context.Context, dir string) (string, error) {
	src, out := filepath.Join(dir, "hello.c"), filepath.Join(dir, "hello")
	if err := os.WriteFile(src, []byte(execCode), 0o600); err != nil {
		return "", err
	}
	if b, err := exec.CommandContext(ctx, "cc", "-static", "-O2", "-o", out, src).CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile a C program: %w: %.200s", err, b)
	}
	return out, nil
}

// module is a WASI command that writes Answer: import fd_write, one page of memory that holds the
// answer and its place, and _start.
func module() []byte {
	section := func(id byte, body ...byte) []byte {
		return append(binary.AppendUvarint([]byte{id}, uint64(len(body))), body...)
	}
	text := func(s string) []byte { return append([]byte{byte(len(s))}, s...) }
	const at = 16 // of the answer; the vector that points to it is at 0, what was written at 8
	b := []byte("\x00asm\x01\x00\x00\x00")
	b = append(b, section(1, 2, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f, 0x60, 0, 0)...)
	imp := append([]byte{1}, text("wasi_snapshot_preview1")...)
	imp = append(append(imp, text("fd_write")...), 0, 0)
	b = append(b, section(2, imp...)...)
	b = append(b, section(3, 1, 1)...)
	b = append(b, section(5, 1, 0, 1)...)
	exp := append(append([]byte{2}, text("memory")...), 2, 0)
	exp = append(append(exp, text("_start")...), 0, 1)
	b = append(b, section(7, exp...)...)
	code := []byte{0, 0x41, 1, 0x41, 0, 0x41, 1, 0x41, 8, 0x10, 0, 0x1a, 0x0b} // fd_write(1, 0, 1, 8); drop
	b = append(b, section(10, append([]byte{1, byte(len(code))}, code...)...)...)
	data := binary.LittleEndian.AppendUint32(nil, at)
	data = binary.LittleEndian.AppendUint32(data, uint32(len(Answer)))
	data = append(append(data, make([]byte, at-len(data))...), Answer...)
	seg := append([]byte{1, 0, 0x41, 0, 0x0b, byte(len(data))}, data...)
	return append(b, section(11, seg...)...)
}

// withPackage returns a directory with the code in a file and a package of the language's own
// registry beside it. What was fetched is kept in the user's cache folder.
func withPackage(ctx context.Context, dir, file, code string, install func(dir string) *exec.Cmd, kept string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "brasa-bench", kept)
	if _, err := os.Stat(filepath.Join(cache, "done")); err != nil {
		if err := os.RemoveAll(cache); err != nil {
			return "", err
		}
		if err := os.MkdirAll(cache, 0o755); err != nil {
			return "", err
		}
		cmd := install(cache)
		if b, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%s: %w: %.300s", strings.Join(cmd.Args[:min(3, len(cmd.Args))], " "), err, b[max(0, len(b)-300):])
		}
		if err := os.WriteFile(filepath.Join(cache, "done"), nil, 0o600); err != nil {
			return "", err
		}
	}
	out := filepath.Join(dir, kept)
	if err := os.CopyFS(out, os.DirFS(cache)); err != nil {
		return "", err
	}
	return out, os.WriteFile(filepath.Join(out, file), []byte(code), 0o600)
}

// tarOf packs a directory for a deploy.
func tarOf(ctx context.Context, dir string) io.Reader {
	r, w := io.Pipe()
	cmd := exec.CommandContext(ctx, "tar", "-C", dir, "-cf", "-", ".")
	cmd.Stdout = w
	go func() { w.CloseWithError(cmd.Run()) }()
	return r
}
