package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
	"github.com/brasa-dev/brasa/runtimes/rust"
)

// cargo gets the crates that a Cargo.toml names. The compiler, which has no network, reads them as
// its registry's cache; a call sees nothing of them. Of the code cargo sees the names and versions
// alone here: what could make it run something, such as its configuration, is left out.
type cargo struct{ tools Tools }

func newCargo(t Tools) Ecosystem { return &cargo{t} }

// Name returns "cargo".
func (c *cargo) Name() string { return "cargo" }

const (
	// cargoTarget is where a build sees the crates.
	cargoTarget = "/cargo"
	// cargoConfig is the configuration that says where crates come from, in the layer and at /src.
	cargoConfig = "config.toml"
	// cargoPlace says in the manifest's files which crate is meant.
	cargoPlace = ".brasa/crate"
	// cargoMirror is what the registry that is configured is called. Its token is in a variable of that
	// name, in capitals, which cargo sends to whatever registry has the name in any case.
	cargoMirror = "mirror"
	// cargoPublic is how a lock names crates.io.
	cargoPublic = "registry+https://github.com/rust-lang/crates.io-index"
)

// Find takes the Cargo.toml of the crate and of all that lie beside it, unless its dependencies are
// in the code.
func (c *cargo) Find(code fs.FS, plan *runtimes.Plan, opt Options) (*Manifest, error) {
	crate, err := rust.Find(code, plan.Entry)
	if err != nil {
		return nil, err
	}
	if _, err := rust.Add(nil, opt.With); err != nil {
		return nil, err
	}
	vendored, indexes, err := cargoSettings(code)
	if err != nil {
		return nil, err
	}
	if vendored {
		if len(opt.With) > 0 {
			return nil, faas.Errorf(faas.Invalid, op, "the code brings its crates along, to which no others are added").WithFix("leave --with out")
		}
		return nil, nil
	}
	rt, err := c.tools.Runtimes.Lookup(runtimes.Rust)
	if err != nil {
		return nil, err
	}
	m := &Manifest{Files: map[string][]byte{cargoPlace: []byte(crate.Root + "\n" + crate.Dir + "\n" + cargoPlatform(plan, rt) + "\n")}, Runtime: rt.Version}
	needs, err := m.addCrates(code, crate, opt.With)
	if err != nil || !needs {
		return nil, err
	}
	if len(indexes) > 0 {
		if m.Files[".brasa/registries.toml"], err = toml.Marshal(map[string]any{"registries": indexes}); err != nil {
			return nil, err
		}
	}
	lock := path.Join(crate.Root, "Cargo.lock")
	text, err := readSmall(code, lock)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	unhashed := "all that it names"
	if err == nil {
		if unhashed, err = cargoUnhashed(lock, text); err != nil {
			return nil, err
		}
		m.Files[lock], m.Lock = text, lock
	} else {
		m.Note = "there is no Cargo.lock, so versions are those of today: keep what cargo generate-lockfile writes"
	}
	m.Verified = unhashed == "" && len(opt.With) == 0
	if opt.Strict && !m.Verified {
		if unhashed == "" {
			unhashed = opt.With[0]
		}
		return nil, faas.Errorf(faas.Invalid, op, "hashes are demanded, and Cargo.lock has none for %s", unhashed).
			WithFix("take crates from a registry and send Cargo.lock along: cargo generate-lockfile")
	}
	return m, nil
}

// cargoPlatform is what crates are got for.
func cargoPlatform(plan *runtimes.Plan, rt *runtimes.Runtime) string {
	if plan.Runtime == runtimes.Wasm {
		return runtimes.RustWasm
	}
	return rt.Targets[0]
}

// cargoUnhashed names a package of a lock that it has no hash of; "" if it has them all.
func cargoUnhashed(name string, text []byte) (string, error) {
	var lock struct {
		Package []struct{ Name, Version, Source, Checksum string }
	}
	if err := toml.Unmarshal(text, &lock); err != nil {
		return "", faas.Errorf(faas.Invalid, op, "%s: %v", name, err).WithFix("make it anew: cargo generate-lockfile")
	}
	for _, p := range lock.Package {
		if p.Source != "" && p.Checksum == "" {
			return p.Name + " " + p.Version, nil
		}
	}
	return "", nil
}

// cargoSettings reads what the code's own configuration says of where crates are: whether the code
// has them itself, and the addresses of other registries. All else that it may say is for the
// compiler.
func cargoSettings(code fs.FS) (vendored bool, indexes map[string]map[string]string, err error) {
	var cfg struct {
		Source map[string]struct {
			Directory string `toml:"directory"`
		} `toml:"source"`
		Registries map[string]struct {
			Index string `toml:"index"`
		} `toml:"registries"`
	}
	for _, name := range []string{".cargo/config.toml", ".cargo/config"} {
		text, err := readSmall(code, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, nil, err
		}
		if err := toml.Unmarshal(text, &cfg); err != nil {
			return false, nil, faas.Errorf(faas.Invalid, op, "%s: %v", name, err)
		}
		break
	}
	for _, s := range cfg.Source {
		if s.Directory == "" {
			continue
		}
		if info, err := fs.Stat(code, path.Clean(s.Directory)); err == nil && info.IsDir() {
			return true, nil, nil
		}
	}
	indexes = map[string]map[string]string{}
	for name, r := range cfg.Registries {
		if strings.EqualFold(name, cargoMirror) || !cargoRegistryName.MatchString(name) {
			return false, nil, faas.Errorf(faas.Invalid, op, "the code's configuration of cargo names a registry %q, which is what the server's is called, or has other characters than letters and digits", clip(name, 40)).
				WithFix("give it another name")
		}
		if r.Index != "" {
			indexes[name] = map[string]string{"index": r.Index}
		}
	}
	return false, indexes, nil
}

// cargoRegistryName keeps to letters of which one alone is written with each capital.
var cargoRegistryName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// maxCrates bounds how many crates one tree may have.
const maxCrates = 500

// addCrates adds each Cargo.toml of the tree, less what is not of dependencies, and says whether any
// names some.
func (m *Manifest) addCrates(code fs.FS, crate *rust.Crate, with []string) (needs bool, err error) {
	add := func(name string, text []byte) error {
		if name == path.Join(crate.Dir, "Cargo.toml") && len(with) > 0 {
			if text, err = rust.Add(text, with); err != nil {
				return err
			}
		}
		less, some, err := rust.Dependencies(name, text)
		if err != nil {
			return err
		}
		needs = needs || some
		m.Files[name] = less
		// A crate without source is none for cargo.
		m.Files[path.Join(path.Dir(name), "src/lib.rs")] = []byte{}
		return nil
	}
	if crate.Made != nil {
		return len(with) > 0, add("Cargo.toml", crate.Made)
	}
	n := 0
	err = fs.WalkDir(code, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && name != "." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "target" || e.Name() == "node_modules") {
			return fs.SkipDir
		}
		if e.Name() != "Cargo.toml" || !e.Type().IsRegular() {
			return nil
		}
		if n++; n > maxCrates {
			return faas.Errorf(faas.TooLarge, op, "the code has more than %d crates", maxCrates)
		}
		text, err := readSmall(code, name)
		if err != nil {
			return err
		}
		return add(name, text)
	})
	return needs, err
}

// Plan has cargo fetch what the lock names, or resolve it where there is none.
func (c *cargo) Plan(_ context.Context, m *Manifest, opt Options) (*Job, error) {
	rt, err := c.tools.Runtimes.Lookup(runtimes.Rust)
	if err != nil {
		return nil, err
	}
	place := strings.Split(string(m.Files[cargoPlace]), "\n")
	job := &Job{Tool: "cargo " + rt.Version, Target: cargoTarget, BuildOnly: true, Files: map[string][]byte{}, Packages: cargoPackages}
	for _, t := range rt.Tools {
		job.Mounts = append(job.Mounts, sandbox.Mount{Source: t.Source, Target: t.Target})
	}
	locked := ""
	if m.Lock != "" && len(opt.With) == 0 {
		locked = "--locked"
	}
	job.Steps = []JobStep{{
		Name: "fetch", Dir: WorkDir, Args: []string{"/bin/sh", "-ec", cargoFetch, "sh", rt.Program, place[0], place[1], place[2], locked},
		Env:     []string{"CARGO_HOME=" + cargoTarget, "RUSTC=" + rt.Compiler, "CARGO_TERM_COLOR=never", "CARGO_TERM_PROGRESS_WHEN=never"},
		Network: true,
	}}
	r := c.tools.Registries.Cargo
	var settings strings.Builder
	if r.Registry != "" {
		// The same name for both: a token is for a registry, and a source stands in for another.
		fmt.Fprintf(&settings, "[source.crates-io]\nreplace-with = \"mirror\"\n\n[source.mirror]\nregistry = %q\n\n[registries.mirror]\nindex = %q\n\n", r.Registry, r.Registry)
		job.Origin = redact(r.Registry)
	}
	settings.Write(m.Files[".brasa/registries.toml"])
	if settings.Len() > 0 {
		job.Files[path.Join(".brasa", cargoConfig)] = []byte(settings.String())
	}
	if r.Token != "" {
		job.Access.Env = append(job.Access.Env, "CARGO_REGISTRIES_MIRROR_TOKEN="+r.Token, "CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS=cargo:token")
	}
	if ca := c.tools.Registries.CABundle(); ca != nil {
		job.Access.Files = map[string][]byte{path.Base(CAFile): ca}
		job.Access.Env = append(job.Access.Env, "CARGO_HTTP_CAINFO="+CAFile, "SSL_CERT_FILE="+CAFile)
	}
	return job, nil
}

const cargoFetch = `cargo=$1 root=$2 dir=$3 target=$4 locked=$5
cp -r ` + SourceDir + ` code; chmod -R u+w code; cd code
[ ! -f .brasa/` + cargoConfig + ` ] || cp .brasa/` + cargoConfig + ` ` + cargoTarget + `
cd "$dir"
"$cargo" fetch --target "$target" $locked
cd "` + WorkDir + `/code/$root"
[ -n "$locked" ] || { mkdir -p ` + cargoTarget + `/` + ResolvedDir + `; cp Cargo.lock ` + cargoTarget + `/` + ResolvedDir + `; }
cd ` + cargoTarget + `; rm -rf .package-cache* .global-cache`

// cargoPackages lists the crates in a registry's cache.
func cargoPackages(dir string) ([]Package, error) {
	found, err := filepath.Glob(filepath.Join(dir, "registry", "src", "*", "*"))
	if err != nil {
		return nil, err
	}
	var all []Package
	for _, p := range found {
		name, version := cargoName(filepath.Base(p))
		all = append(all, Package{Name: name, Version: version, Bytes: bytesBelow(p)})
	}
	return all, nil
}

var cargoVersion = regexp.MustCompile(`-\d+\.\d+\.\d+`)

// cargoName splits the directory of a crate, such as "serde_json-1.0.1".
func cargoName(dir string) (name, version string) {
	at := cargoVersion.FindAllStringIndex(dir, -1)
	if len(at) == 0 {
		return dir, ""
	}
	return dir[:at[0][0]], dir[at[0][0]+1:]
}

var (
	cargoChanged  = regexp.MustCompile("checksum for `([^`]+)` changed between lock files|failed to verify the checksum of `([^`]+)`")
	cargoYanked   = regexp.MustCompile("failed to select a version for the requirement `([^` ]+) = \"([^\"]*)\"`[^\n]*\n\\s*version (\\S+) is yanked")
	cargoVersions = regexp.MustCompile("failed to select a version for the requirement `([^` ]+) = \"([^\"]*)\"`(?:[^\n]*\n\\s*candidate versions found which didn't match: ([^\n]*))?")
	cargoConflict = regexp.MustCompile("failed to select a version for `([^`]+)`\\.")
	cargoNoCrate  = regexp.MustCompile("no matching package named `([^`]+)` found|no matching package found\nsearched package name: `([^`]+)`")
	cargoStale    = regexp.MustCompile(`because --locked was passed|needs to be updated but --locked`)
	cargoFeature  = regexp.MustCompile("(?m)^the package `([^`]+)` depends on `([^`]+)`, with features: `?([^`\n]+?)`? but")
	cargoPath     = regexp.MustCompile("failed to read `" + WorkDir + "/code/([^`]+)`")
	cargoGit      = regexp.MustCompile(`(?m)^\s*(?:unable to update|failed to clone into: \S+) ?(\S*://\S+)?`)
	cargoLogin    = regexp.MustCompile(`got HTTP status code: 40[13]|got 401|no token found|HTTP/?[\d.]* 401`)
)

// Explain knows what cargo writes.
func (c *cargo) Explain(m *Manifest, output string) *faas.Error {
	if x := cargoChanged.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "%s has another hash than Cargo.lock says", strings.Replace(x[1]+x[2], " v", " ", 1)).
			WithFix("restore Cargo.lock from your history, or make it anew: cargo generate-lockfile")
	}
	if x := cargoYanked.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "version %s of the crate %s was taken back by its author (yanked)", x[3], x[1]).
			WithFix("choose another: cargo add %s; a Cargo.lock that names it already still works", x[1])
	}
	if x := cargoVersions.FindStringSubmatch(output); x != nil {
		e := faas.Errorf(faas.Invalid, op, "no version of the crate %s fits %q", x[1], x[2])
		if x[3] != "" {
			return e.WithFix("choose one that there is: %s", x[3])
		}
		return e.WithFix("choose another: cargo add %s", x[1])
	}
	if x := cargoNoCrate.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "there is no crate %s", x[1]+x[2]).WithFix("mend its name in Cargo.toml: cargo search %s", x[1]+x[2])
	}
	if x := cargoFeature.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "the crate %s has no feature %s, which %s asks for", x[2], x[3], strings.TrimSuffix(strings.SplitN(x[1], " (", 2)[0], " ")).
			WithFix("mend the features in Cargo.toml: cargo info %s", x[2])
	}
	if x := cargoConflict.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "no version of the crate %s fits all that depend on it", x[1]).WithFix("see cargo tree -i %s where the code lies", x[1])
	}
	if cargoStale.MatchString(output) {
		return faas.Errorf(faas.Invalid, op, "%s does not fit Cargo.toml", m.Lock).WithFix("bring it up to date and deploy again: cargo update --workspace")
	}
	if x := cargoPath.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "a crate depends on one that is not in the code: %s", path.Dir(x[1])).
			WithFix("deploy the directory that holds both and name the function's with --entry")
	}
	if cargoLogin.MatchString(output) {
		return faas.Errorf(faas.Unavailable, op, "the registry demands a token").WithFix("name it with the key registries.cargo.token")
	}
	if x := cargoGit.FindStringSubmatch(output); x != nil && x[1] != "" && strings.Contains(output, "git") {
		return faas.Errorf(faas.Unavailable, op, "the repository %s cannot be got", redact(x[1])).
			WithFix("take the crate from a registry, or bring it with the code: cargo vendor")
	}
	return nil
}
