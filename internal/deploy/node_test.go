package deploy_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/deploy"
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
