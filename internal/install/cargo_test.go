package install

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes/rust"
)

func TestCargoExplains(t *testing.T) {
	explained(t, &cargo{}, "Cargo.lock", map[string]said{
		"changed hash": {"    Updating crates.io index\nerror: checksum for `zmij v1.0.23` changed between lock files\n", faas.Invalid, []string{"zmij 1.0.23", "Cargo.lock"}},
		"damaged":      {"error: failed to download from `x`\n\nCaused by:\n  failed to verify the checksum of `itoa v1.0.1`\n", faas.Invalid, []string{"itoa 1.0.1"}},
		"no version":   {"error: failed to select a version for the requirement `serde_json = \"^99\"`\ncandidate versions found which didn't match: 1.0.154, 1.0.153, ...\nlocation searched: crates.io index\n", faas.Invalid, []string{"serde_json", "^99", "1.0.154"}},
		"yanked":       {"error: failed to select a version for the requirement `futures-util = \"=0.3.26\"`\n  version 0.3.26 is yanked\nlocation searched: crates.io index\n", faas.Invalid, []string{"0.3.26", "futures-util", "yanked"}},
		"no crate":     {"error: no matching package named `serde_jsonxyzq` found\nlocation searched: crates.io index\n", faas.Invalid, []string{"serde_jsonxyzq"}},
		"stale lock":   {"error: cannot update the lock file /scratch/code/Cargo.lock because --locked was passed to prevent this\n", faas.Invalid, []string{"Cargo.lock", "cargo update --workspace"}},
		"no git":       {"error: failed to get `x` as a dependency of package `ex v0.1.0`\n\nCaused by:\n  unable to update https://u:p@github.com/a/b\n\nCaused by:\n  failed to clone into: /cargo/git/db/b\n", faas.Unavailable, []string{"github.com/a/b", "cargo vendor"}},
		"outside":      {"error: failed to get `near` as a dependency of package `ex v0.1.0 (/scratch/code)`\n\nCaused by:\n  failed to read `/scratch/code/lib/near/Cargo.toml`\n", faas.Invalid, []string{"lib/near"}},
	})
	if e := (&cargo{}).Explain(&Manifest{}, "unable to update https://u:p@github.com/a/b\ngit\n"); e == nil || strings.Contains(e.Error(), "u:p@") {
		t.Errorf("a password is told: %v", e)
	}
}

func TestCargoSeesNamesAndVersionsAlone(t *testing.T) {
	m := &Manifest{Files: map[string][]byte{}}
	tree := fstest.MapFS{
		"Cargo.toml":         {Data: []byte("[package]\nname = \"a\"\nversion = \"1.0.0\"\nbuild = \"evil.rs\"\n\n[[bin]]\nname = \"x\"\npath = \"y.rs\"\n\n[dependencies]\nnear = { path = \"near\" }\nitoa = \"1\"\n")},
		"near/Cargo.toml":    {Data: []byte("[package]\nname = \"near\"\nversion = \"1.0.0\"\n")},
		"target/Cargo.toml":  {Data: []byte("[")},
		".cargo/config.toml": {Data: []byte("[build]\nrustc-wrapper = \"/code/evil\"\n\n[registries.mine]\nindex = \"sparse+https://crates.example/\"\n")},
	}
	needs, err := m.addCrates(tree, &rust.Crate{Dir: ".", Root: ".", Bin: "x"}, []string{"ryu@1"})
	if err != nil || !needs {
		t.Fatalf("needs %v, %v", needs, err)
	}
	text := string(m.Files["Cargo.toml"])
	if strings.Contains(text, "evil") || strings.Contains(text, "y.rs") || !strings.Contains(text, "itoa") || !strings.Contains(text, "ryu") {
		t.Errorf("cargo sees\n%s", text)
	}
	if m.Files["near/Cargo.toml"] == nil || m.Files["target/Cargo.toml"] != nil {
		t.Errorf("files %v", m.Files)
	}
	vendored, indexes, err := cargoSettings(tree)
	if err != nil || vendored || len(indexes) != 1 || indexes["mine"]["index"] == "" {
		t.Errorf("settings %v, %v, %v", vendored, indexes, err)
	}
	tree[".cargo/config.toml"] = &fstest.MapFile{Data: []byte("[source.crates-io]\nreplace-with = \"v\"\n[source.v]\ndirectory = \"vendor\"\n")}
	tree["vendor/itoa/Cargo.toml"] = &fstest.MapFile{}
	if vendored, _, err = cargoSettings(tree); err != nil || !vendored {
		t.Errorf("crates in the code are not seen: %v", err)
	}
}

func TestCargoLockHashes(t *testing.T) {
	const public = "\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n"
	for text, want := range map[string]string{
		"[[package]]\nname = \"own\"\nversion = \"1.0.0\"\n":                                            "",
		"[[package]]\nname = \"a\"\nversion = \"1.0.0\"" + public + "checksum = \"00\"\n":               "",
		"[[package]]\nname = \"a\"\nversion = \"1.0.0\"" + public:                                       "a 1.0.0",
		"[[package]]\nname = \"g\"\nversion = \"2.0.0\"\nsource = \"git+https://git.example/g#0123\"\n": "g 2.0.0",
	} {
		if got, err := cargoUnhashed("Cargo.lock", []byte(text)); err != nil || got != want {
			t.Errorf("%s\nlacks %q, %v; want %q", text, got, err, want)
		}
	}
	if _, err := cargoUnhashed("Cargo.lock", []byte("[[")); faas.CodeOf(err) != faas.Invalid {
		t.Errorf("a lock that is none: %v", err)
	}
}

func TestCargoName(t *testing.T) {
	for dir, want := range map[string][2]string{
		"serde_json-1.0.154":        {"serde_json", "1.0.154"},
		"windows-sys-0.52.0":        {"windows-sys", "0.52.0"},
		"a-1.0.0-rc.1":              {"a", "1.0.0-rc.1"},
		"utf8-ranges-1-2.3.4+build": {"utf8-ranges-1", "2.3.4+build"},
	} {
		if name, version := cargoName(dir); name != want[0] || version != want[1] {
			t.Errorf("%s is %s in version %s", dir, name, version)
		}
	}
}
