package install

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// pinned is a program that npm gets from the registry.
type pinned struct {
	name, version, integrity string
	file                     string // that Node.js runs
}

// The programs that install locks which npm does not read. Each is one package without dependencies.
var (
	pnpm10 = pinned{
		"pnpm", "10.34.8",
		"sha512-9ieo6XE0Ov5J39D2PQKCNCAd+oMdXLWIcz4eX42ya/FpiaMhYatcG02zsf28NzFgYGtbieAC323RmoWt+R/FqA==", "bin/pnpm.cjs",
	}
	yarn1 = pinned{
		"yarn", "1.22.22",
		"sha512-prL3kGtyG7o9Z9Sv8IPfBNrWTDmXB4Qbes8A9rEzt6wkJV8mUvoirjU0Mp3GGAU06Y0XQyA3/2/RQFVuK7MTfg==", "lib/cli.js",
	}
	// Yarn writes its lock anew if it is of another version than its own, and refuses to when it is
	// told to leave it alone.
	yarn49 = pinned{
		"@yarnpkg/cli-dist", "4.9.1",
		"sha512-yuC8sQNJrwELRy73+hAjwzwK/WClTcKdGHl+a7dxvWwNPQau+oAcVjY7zG7PYTOYjR+UNUMpPnM17eYGGPso6A==", "bin/yarn.js",
	}
	yarn418 = pinned{
		"@yarnpkg/cli-dist", "4.18.1",
		"sha512-EH+A4TxAtBWXKE0DGQxW9Bo9crXHLJ73mfxjTQJuv8XonNWWTpei8BQ5JjczHJNU9GROTycwMFn8iOvRIZXUcA==", "bin/yarn.js",
	}
)

// berryFor returns the Yarn whose locks have a version, nil if there is none.
func berryFor(version string) *pinned {
	switch n, err := strconv.Atoi(version); {
	case err != nil || n < 8:
		return nil
	case n == 8:
		return &yarn49
	}
	return &yarn418
}

// lock is what npm needs to get the program and no other.
func (p pinned) lock() map[string][]byte {
	wants := fmt.Sprintf(`{%q:%q}`, p.name, p.version)
	return map[string][]byte{
		".tool/package.json": fmt.Appendf(nil, `{"name":"tool","version":"0.0.0","dependencies":%s}`, wants),
		".tool/package-lock.json": fmt.Appendf(nil, `{"name":"tool","version":"0.0.0","lockfileVersion":3,"requires":true,"packages":{"":{"name":"tool","version":"0.0.0","dependencies":%s},"node_modules/%s":{"version":%q,"integrity":%q}}}`,
			wants, p.name, p.version, p.integrity),
	}
}

// program finds Node.js and npm as a sandbox sees them.
func (n npm) program() (node, cli, version string, err error) {
	rt, err := n.tools.Runtimes.Lookup(runtimes.Node)
	if err != nil {
		return "", "", "", err
	}
	prefix := filepath.Dir(filepath.Dir(rt.Program))
	places := []string{filepath.Join(prefix, "lib/node_modules/npm"), "/usr/lib/node_modules/npm", "/usr/local/lib/node_modules/npm", "/usr/share/nodejs/npm"}
	for _, dir := range places {
		cli := filepath.Join(dir, "bin", "npm-cli.js")
		real, err := filepath.EvalSymlinks(cli)
		if err != nil || !strings.HasPrefix(real, "/usr/") && !strings.HasPrefix(real, prefix+"/") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, "package.json"))
		var m struct{ Version string }
		if err == nil && json.Unmarshal(b, &m) == nil && m.Version != "" {
			return rt.Program, cli, m.Version, nil
		}
	}
	return "", "", "", faas.Errorf(faas.Unavailable, "install dependencies", "this server has Node.js and no npm beside it").
		WithFix("install npm on the server, or send node_modules along: npm ci --omit=dev")
}

// fetchScript gets the packages and puts them into place. The project lies in a directory of the
// layer while it is installed, so that they are moved and not copied. $1 is Node.js, $2 is npm, the
// rest is what is run. A lock that pins the tool lies in .tool.
//
// What programs note down of their work goes at the end: it has times and paths in it, by which the
// same packages would be another layer.
const fetchScript = `set -eu
node=$1 npm=$2; shift 2
p=/node_modules/.brasa
rm -rf "$p"; mkdir "$p"; cp -R /src/. "$p"; chmod -R u+w "$p"; cd "$p"
for f in npmrc yarnrc.yml; do if [ -f /access/$f ]; then cat /access/$f >>.$f; fi; done
if [ -d .tool ]; then
  if [ -f /access/npmrc ]; then cp /access/npmrc .tool/.npmrc; fi
  (cd .tool && "$node" "$npm" ci --ignore-scripts)
fi
"$@"
if [ -d node_modules ]; then
  cd node_modules
  rm -rf .modules.yaml .pnpm-workspace-state*.json .pnpm/lock.yaml .yarn-integrity .yarn-state.yml .package-map.json .cache
  find . -mindepth 1 -maxdepth 1 -exec mv {} /node_modules/ \;
fi
cd /node_modules; rm -rf "$p"
`

// berryScript installs with the lock left alone, and then takes out what is for development only,
// which Yarn does not do in one go. $1 is Node.js, $2 is Yarn.
const berryScript = `"$1" "$2" install --immutable --mode=skip-build && "$1" "$2" workspaces focus --production`

func (n npm) job(m *Manifest, opt Options, node, cli, version string) (*Job, error) {
	j := &Job{
		Tool: "npm " + version, Target: npmTarget, Access: n.access(), Files: map[string][]byte{}, Packages: npmPackages,
		Origin: n.origin(),
	}
	env := []string{
		"NO_COLOR=1", "CI=1", "NODE_ENV=production",
		"npm_config_cache=" + WorkDir + "/npm", "npm_config_userconfig=" + WorkDir + "/npmrc", "npm_config_audit=false", "npm_config_fund=false",
		"npm_config_update_notifier=false", "npm_config_progress=false", "npm_config_color=false", "npm_config_fetch_retries=2",
		"npm_config_fetch_retry_mintimeout=1000", "npm_config_fetch_retry_maxtimeout=5000", "npm_config_fetch_timeout=30000",
		"npm_config_git=/bin/false", // what git runs is not ours to know
	}
	run := []string{node, cli}
	if tool := n.pinnedTool(m); tool != nil {
		j.Tool = tool.name + " " + tool.version
		j.Files = tool.lock()
		run[1] = npmTarget + "/.brasa/.tool/node_modules/" + tool.name + "/" + tool.file
	}
	if len(opt.With) > 0 && lockTool(m) != byNPM {
		return nil, faas.Errorf(faas.Invalid, npmOp, "--with adds packages to a lock of npm or to none, and the code has %s", m.Lock).
			WithFix("add them to package.json and %s", m.Lock)
	}
	switch lockTool(m) {
	case byPNPM:
		run = append(run, "install", "--prod", "--frozen-lockfile", "--ignore-scripts", "--ignore-pnpmfile", "--reporter=append-only",
			"--store-dir", npmTarget+"/.brasa/.store", "--config.manage-package-manager-versions=false", "--config.verify-store-integrity=true")
		if opt.Scripts { // pnpm's links are packages in the making to npm, which runs the scripts
			run = append(run, "--config.node-linker=hoisted")
		}
	case byYarn:
		run = append(run, "install", "--frozen-lockfile", "--production", "--ignore-scripts", "--non-interactive", "--no-progress", "--cache-folder", WorkDir+"/yarn")
	case byBerry:
		run = append([]string{"/bin/sh", "-c", berryScript, "yarn"}, run...)
		env = append(env, "YARN_NODE_LINKER=node-modules", "YARN_ENABLE_TELEMETRY=0", "YARN_ENABLE_GLOBAL_CACHE=0", "YARN_CACHE_FOLDER="+WorkDir+"/yarn",
			"YARN_ENABLE_SCRIPTS=0", "YARN_ENABLE_COLORS=0", "YARN_ENABLE_PROGRESS_BARS=0", "YARN_ENABLE_MESSAGE_NAMES=1", "YARN_IGNORE_PATH=1", "YARN_COMPRESSION_LEVEL=0")
	default:
		verb := "install"
		if m.Lock != "" && len(opt.With) == 0 {
			verb = "ci"
		}
		run = append(run, verb, "--omit=dev", "--ignore-scripts")
		if verb == "install" {
			run = append(run, "--no-save", "--no-package-lock")
			if m.Lock != "" { // what it pins stays pinned
				run = slices.DeleteFunc(run, func(s string) bool { return s == "--no-package-lock" })
			}
		}
		run = append(append(run, "--"), opt.With...)
	}
	j.Steps = []JobStep{{
		Name: "download", Network: true, Env: env, Dir: npmTarget,
		Args: append([]string{"/bin/sh", "-c", fetchScript, "install", node, cli}, run...),
	}}
	if opt.Scripts {
		j.Steps = append(j.Steps, JobStep{
			Name: "scripts", Open: true, Env: append(env, nodeHeaders(node)...), Dir: npmTarget,
			Args: []string{node, cli, "rebuild", "--prefix", "/", "--foreground-scripts"},
		})
	}
	return j, nil
}

// pinnedTool is the program that installs a manifest, nil if that is npm.
func (n npm) pinnedTool(m *Manifest) *pinned {
	switch lockTool(m) {
	case byPNPM:
		return &pnpm10
	case byYarn:
		return &yarn1
	case byBerry:
		for line := range strings.Lines(string(m.Files[m.Lock])) {
			if v, ok := strings.CutPrefix(line, "  version: "); ok { // of __metadata, which comes first
				return berryFor(strings.TrimSpace(v))
			}
		}
		return &yarn418
	}
	return nil
}

// nodeHeaders tells node-gyp where the headers of this Node.js are, if they are there; else it gets
// them from nodejs.org.
func nodeHeaders(node string) []string {
	prefix := filepath.Dir(filepath.Dir(node))
	if _, err := os.Stat(filepath.Join(prefix, "include/node/node.h")); err != nil {
		return nil
	}
	return []string{"npm_config_nodedir=" + prefix}
}

// origin names the registries that stand in for the public one.
func (n npm) origin() string {
	r := n.tools.Registries.NPM
	if r.Registry == "" && len(r.Scopes) == 0 {
		return ""
	}
	parts := []string{redact(r.Registry)}
	for _, s := range r.Scopes {
		scope, address, _ := strings.Cut(s, "=")
		parts = append(parts, scope+"="+redact(address))
	}
	return strings.Join(parts, " ")
}

// access writes the registries and their credentials as npm, pnpm and Yarn 1 read them, and as newer
// Yarns do.
func (n npm) access() Access {
	r := n.tools.Registries
	a := Access{Files: map[string][]byte{}}
	if ca := r.CABundle(); ca != nil {
		a.Files[filepath.Base(CAFile)] = ca
		a.Env = append(a.Env, "NODE_EXTRA_CA_CERTS="+CAFile)
	}
	var rc, berry strings.Builder
	if r.NPM.Registry != "" {
		address, user := splitUser(r.NPM.Registry)
		fmt.Fprintf(&rc, "\nregistry=%s\n", address)
		fmt.Fprintf(&berry, "\nnpmRegistryServer: %q\n", strings.TrimSuffix(address, "/"))
		writeAuth(&rc, &berry, "", address, user, r.NPM.Token)
		if u, err := url.Parse(address); err == nil && u.Scheme == "http" {
			fmt.Fprintf(&berry, "unsafeHttpWhitelist: [%q]\n", u.Hostname())
		}
	}
	for i, s := range r.NPM.Scopes {
		scope, address, _ := strings.Cut(s, "=")
		address, token, _ := strings.Cut(address, "#")
		address, user := splitUser(address)
		fmt.Fprintf(&rc, "\n%s:registry=%s\n", scope, address)
		if i == 0 {
			berry.WriteString("npmScopes:\n")
		}
		fmt.Fprintf(&berry, "  %q:\n    npmRegistryServer: %q\n", strings.TrimPrefix(scope, "@"), strings.TrimSuffix(address, "/"))
		writeAuth(&rc, &berry, "    ", address, user, token)
	}
	if rc.Len() > 0 {
		a.Files["npmrc"], a.Files["yarnrc.yml"] = []byte(rc.String()), []byte(berry.String())
	}
	return a
}

// writeAuth writes the credentials for one address.
func writeAuth(rc, berry *strings.Builder, indent, address, user, token string) {
	_, place, _ := strings.Cut(address, ":") // "//host/path/", as .npmrc wants it
	switch {
	case token != "":
		fmt.Fprintf(rc, "%s:_authToken=%s\n", place, token)
		fmt.Fprintf(berry, "%snpmAuthToken: %q\n%snpmAlwaysAuth: true\n", indent, token, indent)
	case user != "":
		fmt.Fprintf(rc, "%s:_auth=%s\n", place, base64.StdEncoding.EncodeToString([]byte(user)))
		fmt.Fprintf(berry, "%snpmAuthIdent: %q\n%snpmAlwaysAuth: true\n", indent, user, indent)
	}
}

// splitUser takes user:password out of an address, and ends it with a slash.
func splitUser(address string) (clean, user string) {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return withSlash(address), ""
	}
	name := u.User.Username()
	password, _ := u.User.Password()
	u.User = nil
	return withSlash(u.String()), name + ":" + password
}

func withSlash(address string) string { return strings.TrimSuffix(address, "/") + "/" }
