package install

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/sandbox"
	"github.com/brasa-dev/brasa/runtimes"
)

// composer gets the packages that a composer.json names. Its scripts and plugins are code, so they
// are left out of the step that has credentials.
type composer struct {
	tools   Tools
	version sought[string]
}

func newComposer(t Tools) Ecosystem { return &composer{tools: t} }

// Name returns "composer".
func (c *composer) Name() string { return "composer" }

const (
	// composerTarget is where functions see their packages, in vendor.
	composerTarget = "/deps"
	// composerWith holds what is named beside the code, a line each.
	composerWith = ".brasa/with"
	// composerPlaces is a program of ours at /src.
	composerPlaces = ".brasa/places.php"
)

//go:embed composer_places.php
var composerCheck []byte

// composerKept are the parts of a composer.json that decide what is installed. Where the code's own
// classes are does not, and its scripts are not run.
var composerKept = []string{
	"name", "version", "require", "require-dev", "conflict", "replace", "provide", "minimum-stability", "prefer-stable", "repositories", "extra",
}

// composerConfig are the settings of a composer.json that count here.
var composerConfig = []string{"platform", "platform-check", "classmap-authoritative", "apcu-autoloader", "allow-plugins"}

// Find takes the composer.json, unless the code brings its packages in vendor.
func (c *composer) Find(code fs.FS, plan *runtimes.Plan, opt Options) (*Manifest, error) {
	if _, err := fs.Stat(code, "vendor/autoload.php"); err == nil {
		if len(opt.With) > 0 {
			return nil, faas.Errorf(faas.Invalid, op, "the code brings its packages in vendor, to which no others are added").
				WithFix("leave --with out, or take vendor away")
		}
		return nil, nil
	}
	for _, w := range opt.With {
		if !composerName.MatchString(w) {
			return nil, faas.Errorf(faas.Invalid, op, "%q names no package", clip(w, 80)).WithFix("write it as for composer require: --with monolog/monolog or --with 'monolog/monolog:^3.0'")
		}
	}
	m := &Manifest{Files: map[string][]byte{}, From: "composer.json", Runtime: minor(plan.Version)}
	text, err := readSmall(code, "composer.json")
	if errors.Is(err, fs.ErrNotExist) {
		if len(opt.With) == 0 {
			return nil, nil
		}
		m.From, text, err = "--with", []byte("{}"), nil
	}
	if err != nil {
		return nil, err
	}
	var whole map[string]json.RawMessage
	var read composerFile
	if err := errors.Join(json.Unmarshal(text, &whole), json.Unmarshal(text, &read)); err != nil {
		return nil, faas.Errorf(faas.Invalid, op, "composer.json: %s", strings.SplitN(err.Error(), "\n", 2)[0]).WithFix("composer validate says what is wrong with it")
	}
	packages := 0
	for name := range read.Require {
		if strings.Contains(name, "/") {
			packages++
		}
	}
	if packages == 0 && len(opt.With) == 0 && len(whole["autoload"]) == 0 {
		return nil, nil
	}
	kept := map[string]any{}
	for k, v := range whole {
		if slices.Contains(composerKept, k) || k == "scripts" && opt.Scripts {
			kept[k] = v
		}
	}
	var settings map[string]json.RawMessage
	_ = json.Unmarshal(whole["config"], &settings)
	for k := range settings {
		if !slices.Contains(composerConfig, k) {
			delete(settings, k)
		}
	}
	if len(settings) > 0 {
		kept["config"] = settings
	}
	if m.Files["composer.json"], err = json.Marshal(kept); err != nil {
		return nil, err
	}
	if err := m.addRepositories(code, read.Repositories); err != nil {
		return nil, err
	}
	unhashed := "all that it names"
	lock, err := readSmall(code, "composer.lock")
	switch {
	case err == nil:
		m.Files["composer.lock"], m.Lock = lock, "composer.lock"
		if unhashed, err = composerUnhashed(lock); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case packages > 0:
		m.Note = "there is no composer.lock, so versions are those of today: keep what composer update writes"
	}
	if len(opt.With) > 0 {
		m.Files[composerWith] = []byte(strings.Join(opt.With, "\n") + "\n")
		if unhashed == "" {
			unhashed = opt.With[0]
		}
	}
	m.Verified = unhashed == "" && packages > 0 && len(read.Repositories) == 0 && c.tools.Registries.PHP.Repository == ""
	if opt.Strict && unhashed != "" && packages+len(opt.With) > 0 {
		return nil, faas.Errorf(faas.Invalid, op, "hashes are demanded, and composer.lock has none for %s", unhashed).
			WithFix("take packages from a repository that gives hashes; those of Packagist that lie at GitHub have none")
	}
	return m, nil
}

var composerName = regexp.MustCompile(`^[a-z0-9]([_.-]?[a-z0-9]+)*/[a-z0-9](([_.]|-{1,2})?[a-z0-9]+)*(:[A-Za-z0-9^~*.,|<>=!@ -]+)?$`)

// composerFile is what is read of a composer.json.
type composerFile struct {
	Require      map[string]string          `json:"require"`
	Repositories composerRepos              `json:"repositories"`
	Autoload     map[string]json.RawMessage `json:"autoload"`
}

// composerRepos are repositories, which may be a list or an object.
type composerRepos []composerRepo

type composerRepo struct{ Type, URL string }

// UnmarshalJSON reads a list or an object, in which a repository may be switched off by false.
func (r *composerRepos) UnmarshalJSON(b []byte) error {
	var list []json.RawMessage
	if err := json.Unmarshal(b, &list); err != nil {
		var named map[string]json.RawMessage
		if err := json.Unmarshal(b, &named); err != nil {
			return err
		}
		for _, v := range named {
			list = append(list, v)
		}
	}
	for _, raw := range list {
		// Names are told apart by case, as PHP does.
		var one map[string]json.RawMessage
		var repo composerRepo
		if json.Unmarshal(raw, &one) != nil || one["type"] == nil {
			continue // it switches one off
		}
		_ = json.Unmarshal(one["type"], &repo.Type) // what is no text is none
		_ = json.Unmarshal(one["url"], &repo.URL)   // as above
		*r = append(*r, repo)
	}
	return nil
}

// check refuses a repository that Composer would start other programs for, or look for in directories of
// the step's.
func (r composerRepo) check() error {
	distant := isURL(r.URL)
	switch r.Type {
	case "path", "artifact", "package":
		return nil
	case "composer":
	case "vcs", "git", "github", "gitlab", "bitbucket", "git-bitbucket":
		distant = distant || composerGit.MatchString(r.URL)
	default:
		return faas.Errorf(faas.Invalid, op, "composer.json names a repository of the type %q, which is not asked here", clip(r.Type, 40)).WithFix("name one of the types composer, vcs, path or artifact")
	}
	if !distant {
		return faas.Errorf(faas.Invalid, op, "composer.json names the %s repository %q, which has no address", r.Type, clip(redact(r.URL), 80)).
			WithFix("name https://…; packages that the code brings along are of the type path or artifact")
	}
	return nil
}

var composerMend = regexp.MustCompile(`(?m)^brasa: (.+)$`)

var composerGit = regexp.MustCompile(`^(?:git@|git://|ssh://[^-])`)

// addRepositories adds the packages that lie in the code itself.
func (m *Manifest) addRepositories(code fs.FS, repos composerRepos) error {
	var sum int64
	for _, r := range repos {
		if err := r.check(); err != nil {
			return err
		}
		if r.Type != "path" && r.Type != "artifact" {
			continue
		}
		pattern := path.Clean(strings.TrimPrefix(r.URL, "./"))
		if !fs.ValidPath(pattern) {
			return faas.Errorf(faas.Invalid, op, "composer.json names packages in %s, which is not below the code", clip(r.URL, 80)).
				WithFix("deploy the directory that holds both, and name the function's file with --entry")
		}
		dirs, err := fs.Glob(code, pattern)
		if err != nil {
			return faas.Errorf(faas.Invalid, op, "composer.json names packages in %q, which is no pattern", clip(r.URL, 80))
		}
		for _, dir := range dirs {
			err := fs.WalkDir(code, dir, func(name string, e fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				if e.IsDir() && (e.Name() == ".git" || e.Name() == "vendor" && name != dir) {
					return fs.SkipDir
				}
				if !e.Type().IsRegular() {
					return nil
				}
				info, err := e.Info()
				if err != nil {
					return err
				}
				if sum += info.Size(); sum > int64(maxBrought) {
					return faas.Errorf(faas.TooLarge, op, "the packages that the code brings along take more than %s", maxBrought)
				}
				m.Files[name], err = fs.ReadFile(code, name)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// composerUnhashed names a package of a lock that it has no hash of; "" if it has them all.
func composerUnhashed(text []byte) (string, error) {
	var lock struct {
		Packages []struct {
			Name, Version string
			Dist          struct{ Shasum string }
		}
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		return "", faas.Errorf(faas.Invalid, op, "composer.lock: %v", err).WithFix("make it anew: composer update --lock")
	}
	for _, p := range lock.Packages {
		if p.Dist.Shasum == "" {
			return p.Name + " " + p.Version, nil
		}
	}
	return "", nil
}

// Plan has Composer install what the lock names, or resolve it where there is none.
func (c *composer) Plan(ctx context.Context, m *Manifest, opt Options) (*Job, error) {
	rt, err := c.tools.Runtimes.Lookup(runtimes.PHP)
	if err != nil {
		return nil, err
	}
	program, version, err := c.find(ctx, rt)
	if err != nil {
		return nil, err
	}
	job := &Job{Tool: "composer " + version, Target: composerTarget, Packages: composerPackages, Mounts: program.Mounts, Files: map[string][]byte{composerPlaces: composerCheck}}
	// As functions run it: with the extensions of the host, whose settings a sandbox does not see.
	args, env, mounts := rt.Command(nil)
	for _, x := range mounts {
		job.Mounts = append(job.Mounts, sandbox.Mount{Source: x.Source, Target: x.Target})
	}
	php := slices.Clone(args[:len(args)-1])
	env = slices.DeleteFunc(env, func(v string) bool { return !strings.HasPrefix(v, "PHP_") })
	env = append(env, "COMPOSER_VENDOR_DIR="+composerTarget+"/vendor", "COMPOSER_MIRROR_PATH_REPOS=1", "COMPOSER_NO_INTERACTION=1",
		"COMPOSER_ALLOW_SUPERUSER=1", "COMPOSER_ROOT_VERSION=1.0.0", "COMPOSER_MEMORY_LIMIT=-1", "COMPOSER_DISABLE_XDEBUG_WARN=1",
		"COLUMNS=1000") // it breaks lines of errors else, in the middle of names
	run := func(name, script string) JobStep {
		return JobStep{Name: name, Args: append([]string{"/bin/sh", "-ec", script, "sh", program.Path}, php...), Env: env, Dir: WorkDir}
	}
	get := run("install", composerInstall)
	get.Network = true
	job.Steps = []JobStep{get}
	if opt.Scripts {
		scripts := run("run scripts and plugins", composerScripts)
		scripts.Open = true
		job.Steps = append(job.Steps, scripts)
	}
	job.Access, job.Origin, err = c.access()
	return job, err
}

const (
	// Credentials lie in the step's own /tmp, and what is cached goes with it.
	composerInstall = `composer=$1; shift
export COMPOSER_HOME=/tmp/composer HOME=/tmp TMPDIR=/tmp
mkdir -p "$COMPOSER_HOME" app; cp ` + AccessDir + `/config.json "$COMPOSER_HOME"
cp -r ` + SourceDir + `/. app; chmod -R u+w app; cd app
[ ! -f composer.lock ] || "$@" ` + SourceDir + `/` + composerPlaces + `
common="--no-scripts --no-plugins --no-progress --prefer-dist --optimize-autoloader"
if [ -f ` + composerWith + ` ]; then
	tr '\n' '\0' < ` + composerWith + ` | xargs -0 "$@" "$composer" require --update-no-dev $common --
else
	"$@" "$composer" install --no-dev $common
fi
"$@" ` + SourceDir + `/` + composerPlaces + `
mkdir -p ` + composerTarget + `/` + ResolvedDir + `; cp composer.lock ` + composerTarget + `/` + ResolvedDir

	composerScripts = `composer=$1; shift
export COMPOSER_HOME=/tmp/composer HOME=/tmp TMPDIR=/tmp
cd app
"$@" "$composer" install --no-dev --no-progress --prefer-dist --optimize-autoloader`
)

// access says where packages come from.
func (c *composer) access() (a Access, origin string, err error) {
	r := c.tools.Registries.PHP
	type basic struct {
		User     string `json:"username"`
		Password string `json:"password"`
	}
	repositories, credentials := []any{}, map[string]basic{}
	settings := map[string]any{}
	add := func(address string, n int) error {
		if dir, ok := strings.CutPrefix(address, "file://"); ok {
			at := fmt.Sprintf("/packages-%d", n)
			a.Mounts = append(a.Mounts, sandbox.Mount{Source: dir, Target: at})
			repositories = append(repositories, map[string]string{"type": "composer", "url": "file://" + at})
			return nil
		}
		u, err := url.Parse(address)
		if err != nil {
			return err
		}
		if u.User != nil {
			password, _ := u.User.Password()
			credentials[u.Host] = basic{u.User.Username(), password}
			u.User = nil
		}
		if u.Scheme == "http" {
			settings["secure-http"] = false
		}
		repositories = append(repositories, map[string]string{"type": "composer", "url": u.String()})
		return nil
	}
	for n, address := range slices.Concat(r.Extra, []string{r.Repository}) {
		if address == "" {
			continue
		}
		if err := add(address, n); err != nil {
			return a, "", err
		}
	}
	var from []string
	if r.Repository != "" {
		repositories = append(repositories, map[string]bool{"packagist.org": false})
		from = append(from, redact(r.Repository))
	}
	for _, e := range r.Extra {
		from = append(from, redact(e))
	}
	if len(credentials) > 0 {
		settings["http-basic"] = credentials
	}
	whole := map[string]any{"config": settings}
	if len(repositories) > 0 {
		whole["repositories"] = repositories
	}
	a.Files = map[string][]byte{}
	if a.Files["config.json"], err = json.Marshal(whole); err != nil {
		return a, "", err
	}
	if ca := c.tools.Registries.CABundle(); ca != nil {
		a.Files[path.Base(CAFile)] = ca
		a.Env = append(a.Env, "SSL_CERT_FILE="+CAFile)
	}
	return a, strings.Join(from, " "), nil
}

// find looks for Composer and asks for its version.
func (c *composer) find(ctx context.Context, rt *runtimes.Runtime) (Program, string, error) {
	program, ok := c.tools.Program("composer", "composer.phar")
	version, err := c.version.get(ctx, func() (string, error) {
		why := "this host has no Composer"
		if ok {
			out, err := ask(ctx, rt.Program, program.Host, "--version", "--no-ansi", "--no-plugins")
			if x := composerSays.FindStringSubmatch(out); x != nil {
				return x[1], nil
			}
			why = fmt.Sprintf("this host has a Composer that does not run: %v", err)
		}
		return "", faas.Errorf(faas.Unavailable, op, "%s", why).
			WithFix("install it on the host: apt-get install composer unzip; or bring the packages with the code: composer install --no-dev")
	})
	return program, version, err
}

var composerSays = regexp.MustCompile(`Composer (?:version )?(\d\S*)`)

// composerPackages lists what Composer says that it has installed.
func composerPackages(dir string) ([]Package, error) {
	at := filepath.Join(dir, "vendor", "composer")
	text, err := os.ReadFile(filepath.Join(at, "installed.json"))
	if err != nil {
		return nil, nil // nothing but a loader
	}
	var installed struct {
		Packages []struct {
			Name, Version string
			Path          string `json:"install-path"`
		}
	}
	if err := json.Unmarshal(text, &installed); err != nil {
		return nil, faas.Errorf(faas.Failed, op, "what Composer says that it installed cannot be read: %v", err)
	}
	var all []Package
	for _, p := range installed.Packages {
		one := Package{Name: p.Name, Version: strings.TrimPrefix(p.Version, "v")}
		// The text was written by what ran; only what is below the layer is looked at.
		if rel, err := filepath.Rel(dir, filepath.Join(at, p.Path)); err == nil && filepath.IsLocal(rel) {
			one.Bytes = bytesBelow(filepath.Join(dir, rel))
		}
		all = append(all, one)
	}
	return all, nil
}

var (
	composerNone      = regexp.MustCompile(`(?:requires|require) (\S+/\S+)(?: ([^,\n]*?))?(?:, it could not be found in any version| -> could not be found|, found \S+ but it does not match| \S+ could not be found)`)
	composerVersions  = regexp.MustCompile(`requires (\S+/\S+) ([^,\n]+?)(?:, found | -> found )(\S+\[[^\]]*\])[^\n]*but (?:it|these) do(?:es)? not match`)
	composerMissing   = regexp.MustCompile(`Could not find a (?:matching version of )?package (\S+)|Package (\S+) could not be found|[Rr]oot composer\.json requires (\S+/\S+)[^\n]*could not be found`)
	composerExtension = regexp.MustCompile(`requires (?:PHP extension )?ext-(\w+)[^\n]*(?:missing|not)|ext-(\w+) \*? ?-> it is missing`)
	composerPHP       = regexp.MustCompile(`requires php ([^\n]*?) (?:->|but) your php version \(([^)]+)\)`)
	composerSum       = regexp.MustCompile(`[Cc]hecksum verification of the file failed \(downloaded from ([^)]+)\)`)
	composerStale     = regexp.MustCompile(`is not present in the lock file|lock file is not up to date with the latest changes`)
	composerGone      = regexp.MustCompile(`The "([^"]+)" file could not be downloaded[^\n]*(?:404|410)`)
	composerUnzip     = regexp.MustCompile(`zip extension and unzip(?:/7z)? commands? are both missing|unzip' nor '7z'`)
	composerLogin     = regexp.MustCompile(`(?i)authentication required \(([^)]+)\)|could not authenticate against (\S+)|HTTP/\S+ 40[13]`)
	composerDoes      = regexp.MustCompile(`Failed to download (\S+) from dist`)
)

// Explain knows what Composer writes.
func (c *composer) Explain(_ *Manifest, output string) *faas.Error {
	if x := composerMend.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "%s", clip(x[1], 240)).WithFix("take it from a repository, or name the directory that the code brings: a repository of the type path")
	}
	text := strings.Join(strings.Fields(output), " ") // which it breaks into lines at its will
	has := func(re *regexp.Regexp) []string {
		if x := re.FindStringSubmatch(output); x != nil {
			return x
		}
		return re.FindStringSubmatch(text)
	}
	if x := has(composerSum); x != nil {
		return faas.Errorf(faas.Invalid, op, "a package has another hash than composer.lock says: %s", redact(x[1])).
			WithFix("restore composer.lock from your history, or make it anew: composer update")
	}
	if has(composerUnzip) != nil {
		return faas.Errorf(faas.Unavailable, op, "packages are zip files, and this host has nothing to open them with").
			WithFix("have the operator install it: apt-get install unzip, or php-zip")
	}
	if x := has(composerExtension); x != nil {
		return faas.Errorf(faas.Unavailable, op, "a package needs PHP's extension %s, which this host lacks", x[1]+x[2]).
			WithFix("have the operator install it: apt-get install php-%s", x[1]+x[2])
	}
	if x := has(composerPHP); x != nil {
		return faas.Errorf(faas.Invalid, op, "a package wants PHP %s, and functions here run with %s", x[1], x[2]).
			WithFix("choose versions for it where the code lies: composer config platform.php %s, then composer update", x[2])
	}
	if x := has(composerVersions); x != nil {
		return faas.Errorf(faas.Invalid, op, "no version of %s fits %q", x[1], strings.TrimSpace(x[2])).WithFix("choose one that there is: %s", x[3])
	}
	if x := has(composerLogin); x != nil {
		return faas.Errorf(faas.Unavailable, op, "a repository of packages wants other credentials: %s", strings.TrimSpace(x[1]+x[2])).
			WithFix("have the operator set registries.php.repository or registries.php.extra, with user:password@ in the address")
	}
	if x := has(composerNone); x != nil {
		return faas.Errorf(faas.Invalid, op, "no repository has a package that fits %s", strings.TrimSpace(x[1]+" "+x[2])).
			WithFix("mend its name or version in composer.json: composer show --all %s", x[1])
	}
	if x := has(composerMissing); x != nil {
		return faas.Errorf(faas.Invalid, op, "no repository has the package %s", strings.Trim(x[1]+x[2]+x[3], ".,")).WithFix("mend its name in composer.json")
	}
	if x := has(composerGone); x != nil {
		return faas.Errorf(faas.Invalid, op, "a package is no longer where composer.lock says: %s", redact(x[1])).WithFix("choose another version: composer update")
	}
	if x := has(composerDoes); x != nil {
		return faas.Errorf(faas.Failed, op, "the package %s cannot be downloaded", x[1])
	}
	if has(composerStale) != nil {
		return faas.Errorf(faas.Invalid, op, "composer.lock does not fit composer.json").WithFix("composer update --lock where the code lies, and deploy again")
	}
	return nil
}
