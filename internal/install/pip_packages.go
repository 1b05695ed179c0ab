package install

import (
	"bufio"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// pythonPackages lists what lies in a directory that packages were installed into, by what each
// says of itself.
func pythonPackages(dir string) ([]Package, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	tree := root.FS()
	entries, err := fs.ReadDir(tree, ".")
	if err != nil {
		return nil, err
	}
	sizes, err := sizesOf(tree)
	if err != nil {
		return nil, err
	}
	var out []Package
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".dist-info")
		if !ok || !e.IsDir() {
			continue
		}
		p := Package{Name: name}
		if n, v, ok := strings.Cut(name, "-"); ok {
			p.Name, p.Version = n, v
		}
		if n, v := metadata(tree, e.Name()+"/METADATA"); n != "" && v != "" {
			p.Name, p.Version = n, v
		}
		p.Bytes = recorded(tree, e.Name(), sizes)
		out = append(out, p)
	}
	return out, nil
}

// sizesOf returns the sizes of all files of a tree by their paths, bytecode by its path without what
// tells the interpreter and the suffix.
func sizesOf(tree fs.FS) (map[string]int64, error) {
	sizes := map[string]int64{}
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.Type().IsRegular() {
			info, err := e.Info()
			if err != nil {
				return err
			}
			if bare, ok := strings.CutSuffix(name, ".pyc"); ok {
				name = strings.TrimSuffix(bare, path.Ext(bare))
			}
			sizes[name] = info.Size()
		}
		return nil
	})
	return sizes, err
}

// metadata reads name and version from the head of a package's METADATA.
func metadata(tree fs.FS, name string) (title, version string) {
	f, err := tree.Open(name)
	if err != nil {
		return "", ""
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, 64<<10))
	for lines.Scan() {
		k, v, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			break // the description begins
		}
		switch strings.ToLower(k) {
		case "name":
			title = clip(strings.TrimSpace(v), 100)
		case "version":
			version = clip(strings.TrimSpace(v), 100)
		}
	}
	return printable(title), printable(version)
}

// recorded adds up the files that a package's RECORD names, each with its bytecode.
func recorded(tree fs.FS, info string, sizes map[string]int64) (sum faas.Bytes) {
	f, err := tree.Open(info + "/RECORD")
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		name, _, _ := strings.Cut(lines.Text(), ",") // names with commas are in quotes, and rare
		name = path.Clean(strings.Trim(name, `"`))
		n, ok := sizes[name]
		if !ok {
			continue
		}
		delete(sizes, name) // which two packages name counts once
		sum += faas.Bytes(n)
		if module, ok := strings.CutSuffix(name, ".py"); ok {
			folder, file := path.Split(module)
			sum += faas.Bytes(sizes[folder+"__pycache__/"+file])
			delete(sizes, folder+"__pycache__/"+file)
		}
	}
	return sum
}
