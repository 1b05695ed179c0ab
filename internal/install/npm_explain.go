package install

import (
	"regexp"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// npmFault is something that npm, pnpm or Yarn say went wrong.
type npmFault struct {
	says    *regexp.Regexp // its first group is what the message names
	code    faas.Code
	message string // %s is the group
	fix     string // the same
}

const (
	noVersion = "no registry has %s"
	fixName   = "choose a version that there is, in package.json or with --with; npm view NAME versions lists them"
	noPackage = "the registry has no package %s, or this server may not read it"
	fixAccess = "look at its spelling; for a private registry the server's operator sets registries.npm"
	badHash   = "what the registry sent for %s is not what the lock says it was"
	fixHash   = "if the lock was edited by hand, make it anew; if not, somebody changed the package: do not use it before you know why"
	outOfSync = "the lock and package.json are not of one mind: %s"
	engine    = "a package asks for another version of Node.js or of its system: %s"
	fixEngine = "choose a version of it that runs with the server's Node.js, or take engine-strict out of .npmrc"
	away      = "the registry cannot be reached: %s"
	fixAway   = "try again; if it stays away, the server's operator looks at its network and at registries.npm"
	refused   = "the registry refuses this server: %s"
	fixRefuse = "the server's operator sets registries.npm.token, or that of the scope"
)

// npmFaults are looked for in this order.
var npmFaults = []npmFault{
	{regexp.MustCompile(`(?i)integrity checksum failed when using \w+: wanted (\S+)`), faas.Invalid, badHash, fixHash},
	{regexp.MustCompile(`ERR_PNPM_TARBALL_INTEGRITY\W+Got unexpected checksum for "([^"]+)"`), faas.Invalid, badHash, fixHash},
	{regexp.MustCompile(`GET (\S+) error \(ERR_PNPM_TARBALL_INTEGRITY\)`), faas.Invalid, badHash, fixHash},
	{regexp.MustCompile(`Integrity check failed for "([^"]+)"`), faas.Invalid, badHash, fixHash},
	{regexp.MustCompile(`YN0018:[^\w@]*(\S+): The remote archive doesn't match`), faas.Invalid, badHash, fixHash},

	{regexp.MustCompile(`No matching version found for (\S+?)\.?(?:\s|$)`), faas.Invalid, noVersion, fixName},
	{regexp.MustCompile(`Couldn't find any versions for "([^"]+" that matches "[^"]+)"`), faas.Invalid, noVersion, fixName},
	{regexp.MustCompile(`YN0082:[^\w@]*(\S+): No candidates found`), faas.Invalid, noVersion, fixName},
	{regexp.MustCompile(`requested resource '([^']+)' could not be found`), faas.Invalid, noPackage, fixAccess},
	{regexp.MustCompile(`ERR_PNPM_FETCH_404\W+GET (\S+?):`), faas.Invalid, noPackage, fixAccess},
	{regexp.MustCompile(`YN0035:[^\w@]*(\S+): Package not found`), faas.Invalid, noPackage, fixAccess},
	{regexp.MustCompile(`Couldn't find package "([^"]+)"`), faas.Invalid, noPackage, fixAccess},
	{regexp.MustCompile(`404 Not Found - GET (\S+)`), faas.Invalid, noPackage, fixAccess},

	{regexp.MustCompile(`npm error ((?:Missing|Invalid): .+)`), faas.Invalid, outOfSync, "write the lock anew: npm install --package-lock-only"},
	{regexp.MustCompile(`npm error (.*can only install.*in sync)`), faas.Invalid, outOfSync, "write the lock anew: npm install --package-lock-only"},
	{regexp.MustCompile(`ERR_PNPM_(?:OUTDATED_LOCKFILE|LOCKFILE_CONFIG_MISMATCH)\W+(.+)`), faas.Invalid, outOfSync, "write the lock anew: pnpm install --lockfile-only"},
	{regexp.MustCompile(`(Your lockfile needs to be updated)`), faas.Invalid, outOfSync, "write the lock anew: yarn install"},
	{regexp.MustCompile(`YN0028:.*(The lockfile would have been modified by this install)`), faas.Invalid, outOfSync, "write the lock anew: yarn install"},

	{regexp.MustCompile(`npm error notsup Required: (.+)`), faas.Invalid, engine, fixEngine},
	{regexp.MustCompile(`ERR_PNPM_UNSUPPORTED_ENGINE\W+(.+)`), faas.Invalid, engine, fixEngine},
	{regexp.MustCompile(`error (\S+: The engine "\w+" is incompatible with this module.*)`), faas.Invalid, engine, fixEngine},
	{regexp.MustCompile(`npm error notsup (Unsupported platform for .+)`), faas.Invalid, engine, "choose a package for Linux and this server's processor"},
	{regexp.MustCompile(`npm error (ERESOLVE .+|Could not resolve dependency.*)`), faas.Invalid, "npm can't satisfy all packages at once: %s", "settle it where you write the code, and send the lock along; or put legacy-peer-deps=true into .npmrc"},

	{regexp.MustCompile(`\b(E401.*|E403.*|401 Unauthorized.*|403 Forbidden.*|ERR_PNPM_FETCH_40[13].*)`), faas.Unavailable, refused, fixRefuse},
	{regexp.MustCompile(`((?:ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ERR_SOCKET_TIMEOUT)\b.*)`), faas.Unavailable, away, fixAway},
	{regexp.MustCompile(`(?i)(self[- ]signed certificate.*|unable to get local issuer certificate.*|certificate has expired.*)`), faas.Unavailable, "the registry's certificate is not trusted: %s", "the server's operator sets registries.ca"},
	{regexp.MustCompile(`npm error path /node_modules/(\S+)[\s\S]*gyp ERR!`), faas.Failed, "%s has to be compiled, and that did not succeed", "choose a version that brings what is built, or have the operator install a compiler, make and Python on the server"},
	{regexp.MustCompile(`npm error path /node_modules/(\S+)\s+npm error command failed`), faas.Failed, "the install script of %s did not succeed", "look at what it wrote; without --install-scripts it is not run"},
}

// Explain tells what went wrong from the output of npm, pnpm or Yarn.
func (n npm) Explain(m *Manifest, output string) *faas.Error {
	for _, f := range npmFaults {
		found := f.says.FindStringSubmatch(output)
		if found == nil {
			continue
		}
		what := strings.TrimSpace(found[1])
		if strings.HasPrefix(what, "sha") { // npm names the hash alone; the lock says whose it is
			what = n.whose(m, what)
		}
		what = strings.NewReplacer(`" that matches "`, "@", publicNPM, "", publicYarn, "").Replace(what)
		return faas.Errorf(f.code, "install dependencies", f.message, clipLine(what)).WithFix("%s", f.fix)
	}
	return nil
}

// whose names the package that has a hash in the lock.
func (n npm) whose(m *Manifest, hash string) string {
	if m.Lock != "" {
		all, err := n.readLock(m)
		for _, p := range all {
			if err == nil && strings.Contains(p.Integrity, hash) {
				return p.String()
			}
		}
	}
	return "the package with the hash " + hash
}

func clipLine(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
