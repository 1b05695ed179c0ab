package deploy_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
	"github.com/brasa-dev/brasa/runtimes"
)

// manyModules is a function of Node.js with enough modules to be packed.
func manyModules() map[string]string {
	files := map[string]string{"package.json": `{"main": "index.js"}`}
	var index strings.Builder
	for i := range 12 {
		files[fmt.Sprintf("node_modules/m%d/index.js", i)] = fmt.Sprintf("exports.n = () => %d;\n", i)
		fmt.Fprintf(&index, "require('m%d').n();\n", i)
	}
	files["index.js"] = index.String() + "exports.main = () => 1;\n"
	return files
}

func TestNodeIsPackedAtDeploy(t *testing.T) {
	s, _ := pythonShop(t, func(d *deploy.Config) {
		if _, err := d.Runtimes.Lookup(runtimes.Node); err != nil {
			t.Skip(err)
		}
	})
	deployed := func(files map[string]string) (string, map[string]string) {
		t.Helper()
		out, err := s.Deploy(t.Context(), request("code.zip", zipOf(t, files)), nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(out.Revision.ID), s.tree(t, out.Revision)
	}
	sent := manyModules()
	sent[runtimes.NodePack] = "made elsewhere"
	id, files := deployed(sent)
	pack := files[runtimes.NodePack]
	if !strings.Contains(pack, `["/code/node_modules/m11/index.js",`) || !strings.Contains(pack, "\xde\xc0") {
		t.Fatalf("the pack of %d bytes has not the last module, or no code", len(pack))
	}
	for name, content := range sent {
		if name != runtimes.NodePack && files[name] != content {
			t.Errorf("%s is %q, want it as it was sent", name, files[name])
		}
	}
	// The bytes of V8's code differ from run to run; what is deployed again is the same all the same.
	if again, _ := deployed(sent); again != id {
		t.Errorf("deployed again it is revision %s, want %s", again, id)
	}
	other := maps.Clone(sent)
	other["node_modules/m0/index.js"] = "exports.n = () => 'other';\n"
	if _, files := deployed(other); !strings.Contains(files[runtimes.NodePack], "'other'") {
		t.Error("the pack of other code has not its source")
	}

	// What can't be loaded without its secrets, or is not worth it, goes without.
	needs := maps.Clone(sent)
	needs["index.js"] = "if (!process.env.SECRET) throw new Error('no secret');\n" + needs["index.js"]
	for name, files := range map[string]map[string]string{
		"needs a secret": needs,
		"small":          {"index.js": "exports.main = () => 1;\n", runtimes.NodePack: "made elsewhere"},
	} {
		if _, files := deployed(files); files[runtimes.NodePack] != "" {
			t.Errorf("%s: it has a pack", name)
		}
	}
}

// packed is a tarball as npm pack makes it, of a package with many modules, and its hash.
func packed(t *testing.T) (tarball, integrity string) {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	add := func(name, text string) {
		err := w.WriteHeader(&tar.Header{Name: "package/" + name, Mode: 0o644, Size: int64(len(text))})
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	add("package.json", `{"name":"many","version":"1.0.0"}`)
	index := ""
	for i := range 12 {
		add(fmt.Sprintf("m%d.js", i), fmt.Sprintf("exports.n = () => %d;\n", i))
		index += fmt.Sprintf("require('./m%d').n();\n", i)
	}
	add("index.js", index+"exports.n = 12;\n")
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(b.Bytes())
	return b.String(), "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

func TestNodeIsPackedWithWhatWasInstalled(t *testing.T) {
	s, _ := pythonShop(t, func(d *deploy.Config) {
		if _, err := d.Runtimes.Lookup(runtimes.Node); err != nil {
			t.Skip(err)
		}
		inst, err := install.New(install.Config{Depot: d.Depot, Sandbox: d.Sandbox, Runtimes: d.Runtimes, Dir: filepath.Join(t.TempDir(), "install")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = inst.Close() })
		d.Install = inst
	})
	tarball, sum := packed(t)
	code := func(name, index string) string {
		return zipOf(t, map[string]string{
			name: index, "many.tgz": tarball, "package.json": `{"main":"` + name + `","dependencies":{"many":"file:many.tgz"}}`,
			"package-lock.json": `{"name":"x","lockfileVersion":3,"requires":true,"packages":{"":{"dependencies":{"many":"file:many.tgz"}},"node_modules/many":{"version":"1.0.0","resolved":"file:many.tgz","integrity":"` + sum + `"}}}`,
		})
	}
	for name, index := range map[string]string{
		"index.js":  "exports.main = () => require('many').n; exports.main();\n",
		"index.mjs": "import many from 'many';\nexport const main = () => many.n;\n",
		"index.ts":  "import * as many from 'many';\nexport const main = (): number => many.n;\n",
	} {
		out, err := s.Deploy(t.Context(), request("code.zip", code(name, index)), nil)
		if e := faas.AsError(err); err != nil && e.Code == faas.Unavailable {
			t.Skip(err)
		} else if err != nil {
			t.Fatalf("%v\n%s", err, e.Trace)
		}
		pack := s.tree(t, out.Revision)[runtimes.NodePack]
		if !strings.Contains(pack, `["/node_modules/many/m11.js",`) || !strings.Contains(pack, "\xde\xc0") {
			t.Errorf("%s: the pack of %d bytes has not the layer's last module, or no code", name, len(pack))
		}
		again, err := s.Deploy(t.Context(), request("code.zip", code(name, index)), nil)
		if err != nil || again.Revision.ID != out.Revision.ID {
			t.Errorf("%s: deployed again it is %+v, %v; want revision %s", name, again, err, out.Revision.ID)
		}
		// Code that requires the same has the same pack, though it is other code.
		other, err := s.Deploy(t.Context(), request("code.zip", code(name, index+"// other\n")), nil)
		if err != nil || other.Revision.ID == out.Revision.ID {
			t.Fatalf("%s: other code is %+v, %v", name, other, err)
		}
		if s.tree(t, other.Revision)[runtimes.NodePack] != pack {
			t.Errorf("%s: for other code that requires the same another pack was made", name)
		}
		if again != nil && len(again.Revision.Layers) != 1 {
			t.Errorf("%s: its layers are %+v", name, again.Revision.Layers)
		}
	}
}
