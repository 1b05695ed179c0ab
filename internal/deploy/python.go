package deploy

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

const (
	// Python compiles a thousand lines in 3 to 4 ms, and to start one for it takes 15 to 20. So
	// ad-hoc code up to this size, some 2,000 lines, is left to compile itself: it may run only once.
	adhocUncompiled = 64 << 10
	// maxPython is the largest file that is compiled: what is larger is data, and takes the
	// compiler hundreds of times its size in memory.
	maxPython = 4 << 20
	// compileTimeout is enough for ten times the largest code that is known to be used.
	compileTimeout = time.Minute
)

// pythonCompiler compiles the files that /out/names names, one after the other so that the same
// files always make the same bytes, and writes what comes out to /out/bytecode: the tag of this
// Python, then for each file that has no errors its number, a length and the content of its .pyc.
// The source is not looked at again when a .pyc like this is loaded, for both lie in a read-only
// tree. It imports what is built in alone, which is a third of the time of py_compile.
const pythonCompiler = `
import sys
from _frozen_importlib_external import MAGIC_NUMBER
from _imp import source_hash
from marshal import dumps
room = int(sys.argv[1])
raw = int.from_bytes(MAGIC_NUMBER, "little")
with open("/out/names", "rb") as f:
    names = f.read().split(b"\0")
with open("/out/bytecode", "wb") as out:
    tag = sys.implementation.cache_tag.encode()
    out.write(len(tag).to_bytes(4, "big") + tag)
    for i, name in enumerate(names):
        path = sys.argv[2] + "/" + name.decode("utf-8", "surrogateescape")
        try:
            with open(path, "rb") as f:
                source = f.read()
            data = MAGIC_NUMBER + b"\1\0\0\0" + source_hash(raw, source) + dumps(compile(source, path, "exec", dont_inherit=True))
        except Exception:
            continue  # it fails where it is imported, if it is
        room -= len(data)
        if room < 0:
            sys.exit("the bytecode is larger than there is room for")
        out.write(i.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data)
`

// compilePython puts beside each file of Python in src its bytecode, so that no start of the
// function compiles anything. Code that cannot be compiled, or an interpreter that fails, costs
// speed and nothing else: the deploy goes on without.
func (d *Deployer) compilePython(ctx context.Context, req Request, plan *runtimes.Plan, _ *deps, dir, src string) (string, error) {
	names, size, used, err := pythonFiles(src)
	if err != nil {
		return "", err
	}
	if len(names) == 0 || size <= adhocUncompiled && req.Name.Function == faas.AdHoc {
		return src, nil
	}
	room := cmp.Or(d.cfg.Unpack.Bytes, 512*faas.MiB) - used.bytes
	// Each file may need a directory of its own.
	if used.entries+2*len(names) > cmp.Or(d.cfg.Unpack.Entries, 50_000) {
		err = errors.New("it has too many files")
	} else {
		err = d.addBytecode(ctx, dir, src, names, room)
	}
	if err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		d.cfg.Logger.Warn("python code is not compiled ahead; its cold starts take longer", "function", req.Name.String(), "error", err)
	}
	return src, nil
}

// extent is what a tree takes of its limits.
type extent struct {
	bytes   faas.Bytes
	entries int
}

// eachFile calls f with each regular file below src and its size, in order, and returns what the
// whole tree takes.
func eachFile(src string, f func(p string, size faas.Bytes) error) (used extent, err error) {
	err = filepath.WalkDir(src, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		used.entries++
		if !e.Type().IsRegular() {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		used.bytes += faas.Bytes(info.Size())
		return f(p, faas.Bytes(info.Size()))
	})
	return used, err
}

// pythonFiles returns the names of the files to compile, in order, their size, and what the whole
// tree takes.
func pythonFiles(src string) (names []string, size faas.Bytes, used extent, err error) {
	used, err = eachFile(src, func(p string, n faas.Bytes) error {
		if path.Ext(p) != ".py" || n > maxPython {
			return nil
		}
		name, err := filepath.Rel(src, p)
		names, size = append(names, name), size+n
		return err
	})
	return names, size, used, err
}

// addBytecode compiles the named files. The interpreter is confined as a function is and sees the
// source read-only: a compiler that is led astray by what it reads can spoil that code alone.
func (d *Deployer) addBytecode(ctx context.Context, dir, src string, names []string, room faas.Bytes) error {
	rt, err := d.cfg.Runtimes.Lookup(runtimes.Python)
	if err != nil {
		return err
	}
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "names"), []byte(strings.Join(names, "\x00")), 0o644); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, compileTimeout)
	defer cancel()
	log := &install.Tail{Most: 4 << 10}
	err = d.runBuild(ctx, sandbox.Spec{
		Name: buildName(dir), Hostname: "build",
		Args: []string{rt.Program, "-S", "-s", "-B", "-W", "ignore", "-c", pythonCompiler, strconv.FormatInt(int64(room), 10), runtimes.CodeDir},
		// The order of constant sets goes by their hashes, which must not differ from run to run.
		Env: []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "PYTHONHASHSEED=0"},
		Dir: "/out",
		Mounts: []sandbox.Mount{
			{Source: src, Target: runtimes.CodeDir},
			{Source: out, Target: "/out", Writable: true},
		},
		Memory: int64(d.cfg.Build.Memory), CPU: d.cfg.Build.CPU, PIDs: d.cfg.Build.PIDs, Files: 64,
	}, log)
	if err != nil {
		return err
	}
	f, err := os.OpenInRoot(out, "bytecode")
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > int64(room)+int64(8*len(names)+64) {
		return cmp.Or(err, errors.New("the compiler left no file of bytecode of a fitting size"))
	}
	return placeBytecode(f, src, names)
}

// placeBytecode reads what pythonCompiler wrote and lays it out as Python looks for it.
func placeBytecode(r io.Reader, src string, names []string) error {
	all, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	torn := errors.New("the compiler's output is not as it should be")
	field := func(n int) []byte {
		if n < 0 || n > len(all) {
			return nil
		}
		b := all[:n]
		all = all[n:]
		return b
	}
	sized := func() []byte {
		b := field(4)
		if b == nil {
			return nil
		}
		return field(int(binary.BigEndian.Uint32(b)))
	}
	tag := string(sized())
	if tag == "" || len(tag) > 64 || strings.ContainsAny(tag, "/\x00") {
		return torn
	}
	root, err := os.OpenRoot(src)
	if err != nil {
		return err
	}
	defer root.Close()
	for len(all) > 0 {
		number := field(4)
		if number == nil {
			return torn
		}
		content := sized()
		i := int(binary.BigEndian.Uint32(number))
		if content == nil || i >= len(names) {
			return torn
		}
		folder, file := path.Split(names[i])
		if err := writeBytecode(root, folder+"__pycache__", strings.TrimSuffix(file, ".py")+"."+tag+".pyc", content); err != nil {
			return err
		}
	}
	return nil
}

// writeBytecode writes one file in place of whatever the code brought of that name: that was made
// elsewhere, and is at best the same.
func writeBytecode(root *os.Root, folder, name string, content []byte) error {
	if info, err := root.Lstat(folder); err == nil && !info.IsDir() {
		return nil // a file or link of this name is the code's own matter; there is no place then
	}
	if err := root.Mkdir(folder, 0o755); err == nil {
		err = root.Chmod(folder, 0o755) // whatever the umask is: the tree's digest counts it
		if err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	p := folder + "/" + name
	if err := root.RemoveAll(p); err != nil {
		return err
	}
	if err := root.WriteFile(p, content, 0o644); err != nil {
		return err
	}
	return root.Chmod(p, 0o644)
}
