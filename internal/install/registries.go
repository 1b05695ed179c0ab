package install

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Registries say where packages come from. The zero value means the public ones. An address may hold
// user:password@; credentials reach steps with Network alone.
type Registries struct {
	Python PythonRegistry `koanf:"python"`
	NPM    NPMRegistry    `koanf:"npm"`
	Go     GoProxy        `koanf:"go"`
	Cargo  CargoRegistry  `koanf:"cargo"`
	Maven  MavenMirror    `koanf:"maven"`
	Ruby   RubyRegistry   `koanf:"ruby"`
	PHP    PHPRegistry    `koanf:"php"`
	NuGet  NuGetSource    `koanf:"nuget"`
	CA     string         `koanf:"ca"` // file of the certificates that registries are trusted by; empty: the host's bundle
}

// PythonRegistry is an index as pip knows it. A file: address is a directory of this machine.
type PythonRegistry struct {
	Index string   `koanf:"index"` // instead of https://pypi.org/simple
	Extra []string `koanf:"extra"` // asked besides
	Links []string `koanf:"links"` // directories of this machine with wheels, or pages that link to some
}

// NPMRegistry is a registry as npm knows it.
type NPMRegistry struct {
	Registry string   `koanf:"registry"` // instead of https://registry.npmjs.org
	Token    string   `koanf:"token"`    // bearer token for it
	Scopes   []string `koanf:"scopes"`   // of others: @scope=address, with the token as @scope=address#token
}

// GoProxy is how Go gets modules.
type GoProxy struct {
	Proxy   string `koanf:"proxy"`   // GOPROXY; a list
	Sum     string `koanf:"sum"`     // GOSUMDB; off, or another database
	Private string `koanf:"private"` // GOPRIVATE: patterns of modules that are asked of no public place
}

// CargoRegistry stands in for crates.io.
type CargoRegistry struct {
	Registry string `koanf:"registry"` // sparse+https://…
	Token    string `koanf:"token"`
}

// MavenMirror stands in for Maven Central.
type MavenMirror struct {
	Mirror   string `koanf:"mirror"`
	User     string `koanf:"user"`
	Password string `koanf:"password"`
}

// RubyRegistry is where gems come from. A file: address is a directory of this machine.
type RubyRegistry struct {
	Source string   `koanf:"source"` // instead of https://rubygems.org
	Extra  []string `koanf:"extra"`  // others that Gemfiles name, with user:password@
}

// PHPRegistry is where packages of Composer come from. A file: address is a directory of this machine.
type PHPRegistry struct {
	Repository string   `koanf:"repository"` // instead of https://repo.packagist.org
	Extra      []string `koanf:"extra"`      // others that are asked besides
}

// NuGetSource is where packages of .NET come from.
type NuGetSource struct {
	Source string `koanf:"source"` // instead of https://api.nuget.org/v3/index.json
}

// Validate says which key is wrong.
func (r Registries) Validate() error {
	check := func(key string, schemes string, all ...string) error {
		for _, s := range all {
			if s == "" {
				continue
			}
			u, err := url.Parse(s)
			if err != nil || !strings.Contains(schemes, u.Scheme+" ") || u.Host == "" && u.Scheme != "file" || u.Scheme == "file" && !filepath.IsAbs(u.Path) {
				return fmt.Errorf("registries.%s: %q is not an address such as https://packages.example/simple", key, redact(s))
			}
		}
		return nil
	}
	const web = "https http "
	for _, err := range []error{
		check("python.index", web+"file ", r.Python.Index),
		check("python.extra", web+"file ", r.Python.Extra...),
		check("npm.registry", web, r.NPM.Registry),
		check("maven.mirror", web, r.Maven.Mirror),
		check("ruby.source", web+"file ", r.Ruby.Source),
		check("ruby.extra", web, r.Ruby.Extra...),
		check("php.repository", web+"file ", r.PHP.Repository),
		check("php.extra", web+"file ", r.PHP.Extra...),
		check("nuget.source", web+"file ", r.NuGet.Source),
		check("cargo.registry", web+"sparse+https sparse+http ", r.Cargo.Registry),
	} {
		if err != nil {
			return err
		}
	}
	for _, s := range r.NPM.Scopes {
		scope, address, ok := strings.Cut(s, "=")
		if !ok || !strings.HasPrefix(scope, "@") {
			return fmt.Errorf("registries.npm.scopes: %q is not of the form @scope=https://packages.example", redact(s))
		}
		if err := check("npm.scopes", web, address); err != nil {
			return err
		}
	}
	if u, err := url.Parse(r.NuGet.Source); err == nil && u.User != nil {
		return fmt.Errorf("registries.nuget.source: a password cannot be given, since projects of .NET are code and would see it")
	}
	if r.CA != "" {
		if _, err := os.Stat(r.CA); err != nil {
			return fmt.Errorf("registries.ca: %w", err)
		}
	}
	return nil
}

// Redact takes user and password, and what stands for a token, out of an address.
func Redact(s string) string { return redact(s) }

func redact(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "…"
	}
	if u.User != nil {
		u.User = url.User("***")
	}
	u.Fragment = ""
	return u.String()
}

// caBundles are where systems keep the certificates that they trust, as one file.
var caBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
}

// CABundle returns the certificates that registries are trusted by, nil if there are none to be
// read; then the tool's own count.
func (r Registries) CABundle() []byte {
	files := caBundles
	if r.CA != "" {
		files = []string{r.CA}
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && len(b) > 0 {
			return b
		}
	}
	return nil
}

// CAFile is where a step finds CABundle, if it is among its Access.Files.
const CAFile = AccessDir + "/ca.pem"
