package deploy

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/brasa-dev/brasa/internal/artifact"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// unpack lays what was sent out in dir and returns its size.
func (d *Deployer) unpack(ctx context.Context, req Request, dir string) (faas.Bytes, error) {
	if req.Code == nil {
		return 0, faas.Errorf(faas.Invalid, "unpack code", "there is no code").WithFix("send a file, an archive or text")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	sent := &countingReader{r: req.Code}
	if err := artifact.Unpack(ctx, sent, filename(req), root, d.cfg.Unpack); err != nil {
		return 0, err
	}
	if err := unnest(dir); err != nil {
		return 0, err
	}
	if err := artifact.CheckLinks(root.FS()); err != nil {
		return 0, err
	}
	return sent.n, markPrograms(root)
}

// filename is what a single file is called in the code: as the person called it, without its
// folders, else by the language they named.
func filename(req Request) string {
	if name := path.Base(path.Clean("/" + strings.ReplaceAll(req.Filename, `\`, "/"))); name != "/" && name != "." {
		return name
	}
	switch strings.ToLower(req.Language) {
	case runtimes.Python, "python3", "py":
		return "function.py"
	case runtimes.Node, "nodejs", "javascript", "js":
		return "function.js"
	case "typescript", "ts":
		return "function.ts"
	case runtimes.Ruby, "rb":
		return "function.rb"
	case runtimes.PHP:
		return "function.php"
	case runtimes.Java:
		return "Function.java"
	case runtimes.Go, "golang":
		return "function.go"
	case runtimes.Rust, "rs":
		return "function.rs"
	}
	return "function"
}

// unnest lifts the contents of the only folder of an archive that has nothing else at its top, as
// archives of a project often do.
func unnest(dir string) error {
	top, err := os.ReadDir(dir)
	if err != nil || len(top) != 1 || !top[0].IsDir() {
		return err
	}
	inner := filepath.Join(dir, top[0].Name())
	entries, err := os.ReadDir(inner)
	if err != nil {
		return err
	}
	// A name that is the folder's own would meet it; then it stays nested.
	for _, e := range entries {
		if e.Name() == top[0].Name() {
			return nil
		}
	}
	for _, e := range entries {
		if err := os.Rename(filepath.Join(inner, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return os.Remove(inner)
}

// markPrograms makes files at the top executable that are programs by their content: a file sent
// over HTTP, or in an archive from another system, has lost its mode.
func markPrograms(root *os.Root) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		f, err := root.Open(e.Name())
		if err != nil {
			return err
		}
		head := make([]byte, 4)
		n, err := io.ReadFull(f, head)
		_ = f.Close()
		if err != nil && n == 0 {
			continue
		}
		if head = head[:n]; bytes.HasPrefix(head, []byte("#!")) || bytes.Equal(head, []byte("\x7fELF")) {
			if err := root.Chmod(e.Name(), 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// detect finds out what the code is and settles how it will run.
func (d *Deployer) detect(req Request, dir string) (runtimes.Plan, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return runtimes.Plan{}, err
	}
	defer root.Close()
	plan, err := d.cfg.Runtimes.Plan(root.FS(), runtimes.Hints{
		Language: req.Language, Entry: req.Entry, Handler: req.Handler, Command: req.Command,
	})
	if err != nil {
		return plan, err
	}
	if err := d.settle(req, &plan); err != nil {
		return plan, err
	}
	return plan, d.checkSecrets(req.Name.Namespace, plan.Secrets)
}

func detected(p runtimes.Plan) Detected {
	return Detected{Language: p.Runtime, Version: p.Version, Entry: p.Entry, Handler: p.Handler, Command: p.Command, Why: p.Why, Lacks: p.Lacks}
}

type countingReader struct {
	r io.Reader
	n faas.Bytes
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += faas.Bytes(n)
	return n, err
}
