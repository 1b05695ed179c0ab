package rust

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/brasa-dev/brasa/internal/faas"
)

func tree(files map[string]string) fstest.MapFS {
	t := fstest.MapFS{}
	for name, content := range files {
		t[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return t
}

const plain = "[package]\nname = \"pay\"\nversion = \"1.0.0\"\n"

func TestFind(t *testing.T) {
	for name, c := range map[string]struct {
		files          map[string]string
		entry          string
		dir, root, bin string
	}{
		"main":                 {map[string]string{"Cargo.toml": plain, "src/main.rs": ""}, "", ".", ".", "pay"},
		"main by its file":     {map[string]string{"Cargo.toml": plain, "src/main.rs": "", "src/bin/x.rs": ""}, "src/main.rs", ".", ".", "pay"},
		"bin":                  {map[string]string{"Cargo.toml": plain, "src/bin/x.rs": "", "src/lib.rs": ""}, "", ".", ".", "x"},
		"bin in a directory":   {map[string]string{"Cargo.toml": plain, "src/bin/x/main.rs": "", "src/main.rs": ""}, "src/bin/x/main.rs", ".", ".", "x"},
		"named":                {map[string]string{"Cargo.toml": plain + "[[bin]]\nname = \"go\"\npath = \"src/main.rs\"\n", "src/main.rs": ""}, "", ".", ".", "go"},
		"default":              {map[string]string{"Cargo.toml": plain + "default-run = \"b\"\n", "src/bin/a.rs": "", "src/bin/b.rs": ""}, "", ".", ".", "b"},
		"below":                {map[string]string{"api/Cargo.toml": plain, "api/src/main.rs": ""}, "api", "api", "api", "pay"},
		"member":               {map[string]string{"Cargo.toml": "[workspace]\nmembers = [\"crates/*\"]\n", "crates/a/Cargo.toml": plain, "crates/a/src/main.rs": "", "crates/b/Cargo.toml": plain, "crates/b/src/lib.rs": ""}, "", "crates/a", ".", "pay"},
		"member by its folder": {map[string]string{"Cargo.toml": "[workspace]\nmembers = [\"a\", \"b\"]\n", "a/Cargo.toml": plain, "a/src/main.rs": "", "b/Cargo.toml": plain, "b/src/main.rs": ""}, "b", "b", ".", "pay"},
		"file":                 {map[string]string{"hello.rs": ""}, "hello.rs", ".", ".", "function"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Find(tree(c.files), c.entry)
			if err != nil {
				t.Fatal(err)
			}
			if got.Dir != c.dir || got.Root != c.root || got.Bin != c.bin || (got.Made != nil) != (c.bin == "function") {
				t.Errorf("crate = %+v", got)
			}
		})
	}
}

func TestFindSaysWhatIsUnclear(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		entry string
		want  string
	}{
		"library":  {map[string]string{"Cargo.toml": plain, "src/lib.rs": ""}, "", "library"},
		"several":  {map[string]string{"Cargo.toml": plain, "src/bin/a.rs": "", "src/bin/b.rs": ""}, "", "src/bin/a.rs, src/bin/b.rs"},
		"members":  {map[string]string{"Cargo.toml": "[workspace]\nmembers = [\"a\", \"b\"]\n", "a/Cargo.toml": plain, "a/src/main.rs": "", "b/Cargo.toml": plain, "b/src/main.rs": ""}, "", "a, b"},
		"no toml":  {map[string]string{"Cargo.toml": "[package\n"}, "", "Cargo.toml:"},
		"nothing":  {map[string]string{"Cargo.toml": "[profile.release]\n"}, "", "neither a package nor a workspace"},
		"no entry": {map[string]string{"Cargo.toml": plain, "src/main.rs": ""}, "src/other.rs", "no file"},
		"module":   {map[string]string{"Cargo.toml": plain, "src/main.rs": "", "src/util.rs": ""}, "src/util.rs", "not the source of a program"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Find(tree(c.files), c.entry)
			if faas.CodeOf(err) != faas.Invalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v; want %q", err, c.want)
			}
		})
	}
}

func TestNames(t *testing.T) {
	got, err := Names(tree(map[string]string{
		"Cargo.toml": "[workspace]\nmembers = [\"a\"]\n", "a/Cargo.toml": plain, "b/Cargo.toml": strings.Replace(plain, "pay", "other", 1), "c/Cargo.toml": "[",
		"target/package/Cargo.toml": strings.Replace(plain, "pay", "made", 1),
	}))
	if err != nil || strings.Join(got, " ") != "pay other" {
		t.Errorf("names %q, %v", got, err)
	}
}
