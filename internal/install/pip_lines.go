package install

import (
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/brasa-dev/brasa/internal/faas"
)

// What is handed to pip or uv are lines that were read here and written anew, never a file as the code
// has it. They run where the credentials of registries are, and their form of requirements can include
// any file, put the environment into an address, and switch on what the command line has switched off;
// and what is one line for one reader, or a comment, is two lines for another.

// requirementOptions are those that a line of a file of requirements may be, besides includes.
var requirementOptions = []string{
	"-i", "--index-url", "--extra-index-url", "-f", "--find-links", "--no-index", "--trusted-host", "--pre", "--prefer-binary",
	"--require-hashes", "--only-binary", noBinary, "--use-feature",
}

const noBinary = "--no-binary"

// checkOption refuses an option that is none of these, or that leads somewhere else than to a registry.
// They have to be written out: pip takes every beginning of a word for the word.
func checkOption(file string, n int, name, value string) error {
	if !slices.Contains(requirementOptions, name) {
		return faas.Errorf(faas.Invalid, op, "%s line %d has the option %s, which is not known here", file, n, clip(name, 40)).WithFix("leave the line out, or write the option in full")
	}
	if slices.Contains([]string{"-i", "--index-url", "--extra-index-url", "-f", "--find-links"}, name) && !isURL(value) {
		return faas.Errorf(faas.Invalid, op, "%s line %d names %q, which is not the address of a registry", file, n, clip(value, 80)).
			WithFix("name wheels that the code brings along one by one: ./wheels/x-1.0-py3-none-any.whl")
	}
	return nil
}

var (
	requirementHash  = regexp.MustCompile(`\s--hash(?:=|\s+)([a-z0-9]+):([0-9a-fA-F]+)`)
	laterOption      = regexp.MustCompile(`\s(--?[A-Za-z][A-Za-z-]*)`)
	buildSettings    = []string{"-C", "--config-settings", "--config-setting", "--global-option", "--install-option"}
	repositoryScheme = regexp.MustCompile(`^(?:git|hg|svn|bzr)\+`)
	address          = regexp.MustCompile(`[A-Za-z][A-Za-z0-9+.-]*:[^\s;]*`)
)

// strongHashes are those of which nobody can make a second file with the same.
var strongHashes = []string{"sha256", "sha384", "sha512"}

// strong says whether a hash of a lock, algorithm:digits, vouches for what it is of.
func strong(hash string) bool {
	algorithm, digits, _ := strings.Cut(hash, ":")
	return slices.Contains(strongHashes, algorithm) && hexDigits.MatchString(digits)
}

var hexDigits = regexp.MustCompile(`^[0-9a-fA-F]+$`)

// plainText refuses text that another reader would divide otherwise, or replace by what its
// environment says.
func plainText(where, text string) error {
	if !utf8.ValidString(text) {
		return faas.Errorf(faas.Invalid, op, "%s is not UTF-8", where)
	}
	for _, c := range text {
		if unicode.IsControl(c) && c != '\t' || c == '\u2028' || c == '\u2029' {
			return faas.Errorf(faas.Invalid, op, "%s has the control character %U", where, c)
		}
	}
	if strings.Contains(text, "${") {
		return faas.Errorf(faas.Invalid, op, "%s names a variable of the environment, %q; there is none of the function's where packages are installed", where, clip(text[strings.Index(text, "${"):], 40))
	}
	return nil
}

// checkPackage refuses what is not the name of a package, and says whether it has to be built, which
// runs its code. where names the line for people.
func checkPackage(where, line string) (built bool, err error) {
	if err := plainText(where, line); err != nil {
		return false, err
	}
	if strings.HasPrefix(strings.TrimSpace(line), "-") {
		return false, faas.Errorf(faas.Invalid, op, "%s is an option, %q, and not the name of a package", where, clip(line, 80))
	}
	rest := requirementHash.ReplaceAllString(line, "")
	for _, x := range laterOption.FindAllStringSubmatch(rest, -1) {
		if !slices.Contains(buildSettings, x[1]) {
			return false, faas.Errorf(faas.Invalid, op, "%s has the option %s behind the name of a package", where, clip(x[1], 40)).WithFix("leave it out")
		}
		built = true
	}
	if localFile.MatchString(rest) {
		return built || path.Ext(strings.Fields(rest)[0]) != ".whl", nil
	}
	spec, _, _ := strings.Cut(rest, ";") // the marker
	at := address.FindString(spec)
	if at == "" {
		return built, nil
	}
	if repositoryScheme.MatchString(at) {
		return true, nil
	}
	u, err := url.Parse(at)
	if err != nil || !isURL(at) {
		return false, faas.Errorf(faas.Invalid, op, "%s names %q, which is not an address that packages are got from", where, clip(at, 80)).
			WithFix("name https://…; a wheel that the code brings along by its path: ./wheels/x-1.0-py3-none-any.whl")
	}
	return built || path.Ext(u.Path) != ".whl", nil
}

// hasHash says whether a line has a hash that vouches for what it names.
func hasHash(line string) bool {
	return slices.ContainsFunc(requirementHash.FindAllStringSubmatch(" "+line, -1), func(x []string) bool { return slices.Contains(strongHashes, x[1]) })
}
