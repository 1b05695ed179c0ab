package install

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// npmPackages lists the packages of a layer, nested ones and those in pnpm's own directory included.
// A package's size is that of its files without those of packages inside of it.
func npmPackages(dir string) ([]Package, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	sizes := map[string]faas.Bytes{} // by directory
	var order []string
	err = fs.WalkDir(root.FS(), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		at := packageDir(p)
		if at == "" {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if _, seen := sizes[at]; !seen {
			order = append(order, at)
		}
		sizes[at] += faas.Bytes(info.Size())
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := make([]Package, 0, len(order))
	for _, at := range order {
		p := Package{Name: at[strings.LastIndex("/"+at, "/node_modules/")+1:], Bytes: sizes[at]}
		if i := strings.LastIndex(at, "/node_modules/"); i >= 0 {
			p.Name = at[i+len("/node_modules/"):]
		} else {
			p.Name = at
		}
		var m struct{ Version string }
		b, err := fs.ReadFile(root.FS(), at+"/package.json")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && json.Unmarshal(b, &m) == nil {
			p.Version = m.Version
		}
		all = append(all, p)
	}
	return all, nil
}

// packageDir returns the directory of the package that a file of a layer belongs to; "" for what
// belongs to none, such as links to programs.
func packageDir(file string) string {
	base, rest := "", file
	if i := strings.LastIndex("/"+file, "/node_modules/"); i >= 0 {
		base, rest = file[:i+len("node_modules/")], file[i+len("node_modules/"):]
	}
	parts := strings.Split(rest, "/")
	n := 1
	if strings.HasPrefix(parts[0], "@") {
		n = 2
	}
	if len(parts) <= n || strings.HasPrefix(parts[0], ".") {
		return ""
	}
	return base + strings.Join(parts[:n], "/")
}
