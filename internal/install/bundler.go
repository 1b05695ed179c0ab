package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	_ "embed"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// bundler gets the gems that a Gemfile names. The Gemfile and the extensions of gems are code, so
// they are evaluated and compiled where there is no network; the step between, which has it and the
// credentials for it, runs what we wrote alone. The layer is laid out as Bundler and RubyGems do it,
// with a file that puts the gems on the load path without either.
type bundler struct {
	tools   Tools
	version sought[string]
}

func newBundler(t Tools) Ecosystem { return &bundler{tools: t} }

// Name returns "bundler".
func (b *bundler) Name() string { return "bundler" }

//go:embed bundler.rb
var bundlerScript []byte

const (
	// bundlerTarget is where functions see their gems.
	bundlerTarget = "/deps"
	// bundlerProgram is ours, at /src.
	bundlerProgram = ".brasa/bundler.rb"
	// bundlerMade is the Gemfile where the code has none.
	bundlerMade = ".brasa/Gemfile"
	// bundlerUnlocked says that more is named than the lock knows.
	bundlerUnlocked = ".brasa/unlocked"
	// bundlerPublic is how a lock names rubygems.org.
	bundlerPublic = "https://rubygems.org/"
	// maxBrought bounds the packages that the code brings along.
	maxBrought = 256 * faas.MiB
)

// Find takes the Gemfile, unless the code brings its gems in vendor/bundle.
func (b *bundler) Find(code fs.FS, plan *runtimes.Plan, opt Options) (*Manifest, error) {
	if info, err := fs.Stat(code, "vendor/bundle"); err == nil && info.IsDir() {
		if len(opt.With) > 0 {
			return nil, faas.Errorf(faas.Invalid, op, "the code brings its gems in vendor/bundle, to which no others are added").
				WithFix("leave --with out, or take vendor/bundle away")
		}
		return nil, nil
	}
	m := &Manifest{Files: map[string][]byte{}, Runtime: plan.Version}
	with, err := bundlerWith(opt.With)
	if err != nil {
		return nil, err
	}
	for _, pair := range [][2]string{{"Gemfile", "Gemfile.lock"}, {"gems.rb", "gems.locked"}} {
		text, err := readSmall(code, pair[0])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		m.From, m.Files[pair[0]] = pair[0], append(text, with...)
		lock, err := readSmall(code, pair[1])
		if err == nil {
			m.Files[pair[1]], m.Lock = lock, pair[1]
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		break
	}
	switch {
	case m.From == "" && len(with) == 0:
		return nil, nil
	case m.From == "":
		m.From, m.Files[bundlerMade] = "--with", append([]byte("source \"https://rubygems.org\"\n"), with...)
	}
	if m.Lock == "" && m.From != "--with" {
		m.Note = "there is no Gemfile.lock, so versions are those of today: keep what bundle lock writes"
	}
	if m.Lock != "" && len(with) > 0 {
		m.Files[bundlerUnlocked] = []byte("\n")
	}
	if err := m.addGems(code); err != nil {
		return nil, err
	}
	unhashed := "all that it names"
	if m.Lock != "" {
		unhashed = gemsUnhashed(string(m.Files[m.Lock]))
	}
	if unhashed == "" && len(opt.With) > 0 {
		unhashed = opt.With[0]
	}
	m.Verified = unhashed == "" && b.tools.Registries.Ruby.Source == "" && gemsPublic(string(m.Files[m.Lock]))
	if opt.Strict && unhashed != "" {
		return nil, faas.Errorf(faas.Invalid, op, "hashes are demanded, and Gemfile.lock has none for %s", unhashed).
			WithFix("have Bundler 2.6 or newer write them: bundle lock --add-checksums")
	}
	return m, nil
}

var gemWith = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]*)(?:@([0-9][A-Za-z0-9.]*)|:((?:[<>=!~]*\s*[0-9][A-Za-z0-9.]*)(?:\s*,\s*[<>=!~]*\s*[0-9][A-Za-z0-9.]*)*))?$`)

// bundlerWith makes lines of a Gemfile of what is named beside it.
func bundlerWith(with []string) ([]byte, error) {
	var text strings.Builder
	for _, w := range with {
		x := gemWith.FindStringSubmatch(w)
		if x == nil {
			return nil, faas.Errorf(faas.Invalid, op, "%q names no gem", clip(w, 80)).WithFix("write it as --with rack, --with rack@3.1.8 or --with 'rack:~> 3.0'")
		}
		fmt.Fprintf(&text, "\ngem %q", x[1])
		for _, v := range strings.Split(strings.TrimSpace(x[2]+x[3]), ",") {
			if v = strings.TrimSpace(v); v != "" {
				fmt.Fprintf(&text, ", %q", v)
			}
		}
	}
	if text.Len() == 0 {
		return nil, nil
	}
	return []byte(text.String() + "\n"), nil
}

// addGems adds the gems that the code brings in vendor/cache, and what describes those that are
// directories of it.
func (m *Manifest) addGems(code fs.FS) error {
	var sum int64
	return fs.WalkDir(code, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if name != "." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		gem := path.Dir(name) == "vendor/cache" && path.Ext(name) == ".gem"
		if !e.Type().IsRegular() || !gem && path.Ext(name) != ".gemspec" && e.Name() != "version.rb" && name != ".ruby-version" {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if sum += info.Size(); sum > int64(maxBrought) {
			return faas.Errorf(faas.TooLarge, op, "the gems that the code brings along take more than %s", maxBrought)
		}
		m.Files[name], err = fs.ReadFile(code, name)
		return err
	})
}

var (
	gemSpec     = regexp.MustCompile(`(?m)^    (\S+) \(([^()\s]+)\)$`)
	gemChecksum = regexp.MustCompile(`(?m)^  (\S+) \(([^()\s]+)\) sha256=[0-9a-f]{64}`)
	gemRemote   = regexp.MustCompile(`(?m)^  remote: (\S+)$`)
)

// gemsUnhashed names a gem of a lock that it has no hash of; "" if it has them all.
func gemsUnhashed(lock string) string {
	have := map[string]bool{}
	_, sums, _ := strings.Cut(lock, "\nCHECKSUMS\n")
	for _, x := range gemChecksum.FindAllStringSubmatch(sums, -1) {
		have[x[1]+" "+x[2]] = true
	}
	for _, x := range gemSpec.FindAllStringSubmatch(lock, -1) {
		if !have[x[1]+" "+x[2]] {
			return x[1] + " " + x[2]
		}
	}
	return ""
}

// gemsPublic says whether all that a lock names is at rubygems.org.
func gemsPublic(lock string) bool {
	all := gemRemote.FindAllStringSubmatch(lock, -1)
	for _, x := range all {
		if x[1] != bundlerPublic {
			return false
		}
	}
	return len(all) > 0
}

// Plan reads the Gemfile, downloads, and installs, each in a step of its own.
func (b *bundler) Plan(ctx context.Context, m *Manifest, _ Options) (*Job, error) {
	rt, err := b.tools.Runtimes.Lookup(runtimes.Ruby)
	if err != nil {
		return nil, err
	}
	version, err := b.find(ctx, rt)
	if err != nil {
		return nil, err
	}
	job := &Job{
		Tool: "bundler " + version, Target: bundlerTarget, Packages: gemPackages,
		Files: map[string][]byte{bundlerProgram: bundlerScript},
	}
	run := func(name, what string, network bool) {
		var takes []string
		if network { // what the Gemfile has written is its code's
			takes = []string{"wanted.json"}
		}
		job.Steps = append(job.Steps, JobStep{
			Name: name, Args: []string{rt.Program, SourceDir + "/" + bundlerProgram, what}, Dir: WorkDir, Network: network, Takes: takes,
			Env: []string{"BUNDLE_APP_CONFIG=" + WorkDir + "/config", "BUNDLE_SILENCE_ROOT_WARNING=1", "BUNDLE_DISABLE_VERSION_CHECK=1", "MAKEFLAGS=-j2"},
		})
	}
	run("read the Gemfile", "read", false)
	run("download", "download", true)
	run("install", "install", false)
	job.Access, job.Origin, err = b.access()
	return job, err
}

// access says where gems come from.
func (b *bundler) access() (a Access, origin string, err error) {
	r := b.tools.Registries.Ruby
	settings := map[string]any{}
	if r.Source != "" {
		settings["mirror"], origin = r.Source, redact(r.Source)
		if dir, ok := strings.CutPrefix(r.Source, "file://"); ok {
			a.Mounts = []sandbox.Mount{{Source: dir, Target: "/gems"}}
			settings["mirror"] = "file:///gems"
		}
	}
	if len(r.Extra) > 0 {
		settings["sources"] = r.Extra
	}
	a.Files = map[string][]byte{}
	if a.Files["gems.json"], err = json.Marshal(settings); err != nil {
		return a, "", err
	}
	if ca := b.tools.Registries.CABundle(); ca != nil {
		a.Files[path.Base(CAFile)] = ca
		a.Env = append(a.Env, "SSL_CERT_FILE="+CAFile, "BUNDLE_SSL_CA_CERT="+CAFile)
	}
	return a, origin, nil
}

// find asks the Ruby that runs functions for its Bundler.
func (b *bundler) find(ctx context.Context, rt *runtimes.Runtime) (string, error) {
	return b.version.get(ctx, func() (string, error) {
		out, err := ask(ctx, rt.Program, "-e", `require "bundler"; print Bundler::VERSION`)
		if v := strings.TrimSpace(out); err == nil && v != "" {
			return v, nil
		}
		return "", faas.Errorf(faas.Unavailable, op, "this host has no Bundler for its Ruby %s", rt.Version).
			WithFix("install it on the host: apt-get install bundler; or bring the gems with the code: bundle config set --local path vendor/bundle, then bundle install")
	})
}

// gemPackages lists the gems of a layer.
func gemPackages(dir string) ([]Package, error) {
	found, err := filepath.Glob(filepath.Join(dir, "ruby", "*", "gems", "*"))
	if err != nil {
		return nil, err
	}
	var all []Package
	for _, p := range found {
		x := gemDir.FindStringSubmatch(filepath.Base(p))
		if x == nil {
			continue
		}
		all = append(all, Package{Name: x[1], Version: x[2], Bytes: bytesBelow(p)})
	}
	return all, nil
}

var gemDir = regexp.MustCompile(`^(.+?)-(\d[A-Za-z0-9.]*(?:-.+)?)$`)

var (
	gemMend     = regexp.MustCompile(`(?m)^brasa: (.+)$`)
	gemNone     = regexp.MustCompile("Could not find gem '([^']+)' in")
	gemConflict = regexp.MustCompile(`(?s)(?:could not find compatible versions? for gem "([^"]+)"|Because .+?version solving has failed)`)
	gemHeaders  = regexp.MustCompile(`mkmf\.rb can't find header files for ruby|You have to install development tools first`)
	gemLibrary  = regexp.MustCompile(`(?i)(\S+\.h) is (?:missing|not found)|(?:library|header)s? (?:for )?(\S+) (?:is|are) missing|checking for (\S+)\.{3} no\n[^\n]*\*\*\* extconf`)
	gemLogin    = regexp.MustCompile(`(?i)bad username or password for (\S+)|authentication is required for (\S+)|bad response (?:Unauthorized|Forbidden) 40[13]`)
)

// Explain knows what Bundler, RubyGems and our own steps write.
func (b *bundler) Explain(_ *Manifest, output string) *faas.Error {
	if gemHeaders.MatchString(output) {
		return faas.Errorf(faas.Unavailable, op, "a gem must be compiled, and this host has not what that takes").
			WithFix("have the operator install it: apt-get install ruby-dev gcc make libc6-dev; or lock the gem's compiled variant: bundle lock --add-platform x86_64-linux")
	}
	if x := gemLogin.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Unavailable, op, "a registry of gems wants other credentials").
			WithFix("have the operator set registries.ruby.source or registries.ruby.extra, with user:password@ in the address")
	}
	if x := gemMend.FindStringSubmatch(output); x != nil {
		e := faas.Errorf(faas.Invalid, op, "%s", x[1])
		switch {
		case strings.Contains(x[1], "cannot be compiled"):
			e = faas.Errorf(faas.Failed, op, "%s", x[1])
			if lib := gemLibrary.FindStringSubmatch(output); lib != nil {
				return e.WithFix("have the operator install the library that it looks for: %s", lib[1]+lib[2]+lib[3])
			}
			return e.WithFix("have the operator install the libraries that it looks for, or lock a compiled variant of the gem: bundle lock --add-platform x86_64-linux")
		case strings.Contains(x[1], "has the hash"):
			return e.WithFix("restore Gemfile.lock from your history; if the gem was changed on purpose: bundle lock --add-checksums")
		case strings.Contains(x[1], "yanked"):
			return e.WithFix("choose another version: bundle update, and deploy again")
		}
		return e
	}
	if x := gemNone.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "no registry has a gem that fits %s", x[1]).WithFix("mend its name or version in the Gemfile: gem search --all, gem list --remote --all")
	}
	if x := gemConflict.FindStringSubmatch(output); x != nil {
		what := x[1]
		if what == "" {
			what = lineWith(output, "because")
		}
		return faas.Errorf(faas.Invalid, op, "no versions of the gems fit each other: %s", what).WithFix("loosen the versions in the Gemfile: bundle lock, where the code lies, says more")
	}
	return nil
}
