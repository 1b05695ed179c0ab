package install

import (
	"fmt"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// What pip and uv write where the caller must mend something. uv breaks lines as it likes, so what
// is looked for in its output is looked for with single spaces.
var (
	pipNoVersion  = regexp.MustCompile(`Could not find a version that satisfies the requirement (.+?) \(from versions: ([^)]*)\)`)
	pipBare       = regexp.MustCompile(`No matching distribution found for ([^\s]+)`)
	pipHash       = regexp.MustCompile(`(?s)DO NOT MATCH THE HASHES.*?\n\s+(\S+) from .*?Expected sha256 (\S+)\s+(?:Expected\s+or \S+\s+)*Got\s+(\S+)`)
	pipUnpinned   = regexp.MustCompile(`In --require-hashes mode, all requirements must have their versions pinned with ==. These do not:\s+(\S+)`)
	pipMissing    = regexp.MustCompile(`(?s)Hashes are required in --require-hashes mode, but they are missing from some requirements.*?\n\s+(\S+)`)
	pipConflict   = regexp.MustCompile(`Cannot install (.+?) because these package versions have conflicting dependencies`)
	pipCause      = regexp.MustCompile(`(?s)The conflict is caused by:\n(.*?)\n\n`)
	pipInvalid    = regexp.MustCompile(`Invalid requirement: (.+)|no such option: (\S+)`)
	pipYanked     = regexp.MustCompile(`is a yanked version: '([^']+)' candidate \(version (\S+) at`)
	pipYankWhy    = regexp.MustCompile(`Reason for being yanked: (.+)`)
	pipPlatform   = regexp.MustCompile(`(\S+\.whl) is not a supported wheel on this platform|A path \((\S+\.whl)\) dependency is incompatible with the current platform`)
	pipPython     = regexp.MustCompile(`Package '?([^'\s]+)'? requires a different Python: (\S+) not in '([^']+)'`)
	pipBadWheel   = regexp.MustCompile(`Wheel '([^']+)' located at .* is invalid|(\S+) has an invalid wheel|Invalid wheel filename[^:]*: '?([^'\s]+)`)
	pipOutside    = regexp.MustCompile(`The wheel '([^']+)' has a file '([^']+)' trying to install outside the target directory`)
	pipSourceOnly = regexp.MustCompile(`(?i)(?:Failed building wheel for|Getting requirements to build wheel did not run successfully|metadata-generation-failed|Failed to build) ?(\S*)`)

	uvUnsolvable = regexp.MustCompile(`(?s)No solution found when resolving dependencies.*?(?:cause|╰─▶): ?(.*?)(?:\n\n|hint:|$)`)
	uvNoPackage  = regexp.MustCompile(`Because (\S+) was not found in the (?:package registry|provided package locations)`)
	uvNoVersion  = regexp.MustCompile(`there (?:is no version of|are no versions of) (\S+?)(?: and|,|$)`)
	uvNoWheel    = regexp.MustCompile(`(\S+) has no usable wheels|(\S+) has no wheels with a matching`)
	uvHash       = regexp.MustCompile("(?s)Hash mismatch for `([^`]+)`.*?Expected:\\s+(\\S+).*?Computed:\\s+(\\S+)")
	uvNoHash     = regexp.MustCompile("In `--require-hashes` mode, all requirements must have (?:a hash|their versions pinned with `==`), but (?:none were provided for: |found: )(\\S+)")
	uvYanked     = regexp.MustCompile("warning: `([^`]+)` is yanked(?: \\(reason: \"?(.+?)\"?\\))?(?:\n|$)")
	uvLine       = regexp.MustCompile(`error: (Unexpected .+): (\S+):(\d+):\d+`)
	uvParse      = regexp.MustCompile("(?s)Couldn't parse requirement in `[^`]+/([^/`]+)`[^\n]*\n\\s*(?:cause|Caused by): (.*)")
)

// Explain says what the caller must mend, as far as pip or uv have said it.
func (p *pip) Explain(m *Manifest, output string) *faas.Error {
	if strings.Contains(output, "after connection broken by") && strings.Contains(output, "(from versions: none)") {
		return nil // it found nothing because it could not ask
	}
	flat := strings.Join(strings.Fields(output), " ")
	if e := explainHash(output); e != nil {
		return e
	}
	if e := p.review(m, output); e != nil {
		return e
	}
	for _, re := range []*regexp.Regexp{pipUnpinned, pipMissing, uvNoHash} {
		if f := re.FindStringSubmatch(output); f != nil {
			return bad("%s has no hash, and others in %s have: then each package needs its version and hash", trimPoint(f[1]), m.name(Options{})).
				WithFix("make the lock anew: uv pip compile --generate-hashes requirements.in -o requirements.txt")
		}
	}
	if f := pipConflict.FindStringSubmatch(output); f != nil {
		why := strings.TrimSpace(place.ReplaceAllString(f[1], ""))
		if c := pipCause.FindStringSubmatch(output + "\n\n"); c != nil {
			why = strings.Join(strings.Fields(strings.ReplaceAll(strings.TrimSpace(c[1]), "\n", ";")), " ")
		}
		return bad("no versions go together: %s", clip(why, 400)).WithFix("ask for a wider range of versions, or pin ones that go together")
	}
	if e := p.explainVersion(m, output, flat); e != nil {
		return e
	}
	switch {
	case pipOutside.MatchString(output):
		f := pipOutside.FindStringSubmatch(output)
		return bad("the package in %s holds the file %q, which lies outside of where packages go; it is refused", f[1], clip(f[2], 80)).
			WithFix("use another version or package: this one is broken, or hostile")
	case pipPlatform.MatchString(output):
		return bad("%s is for another machine than this one (%s)", firstOf(pipPlatform.FindStringSubmatch(output)), machine).
			WithFix("name the package and its version instead of the file, or take the file for this machine")
	case pipPython.MatchString(output):
		f := pipPython.FindStringSubmatch(output)
		return bad("%s is for Python %s; this server has %s", f[1], f[3], f[2]).WithFix("name a version of it that goes with Python %s", m.Runtime)
	case pipBadWheel.MatchString(output):
		return bad("%s is no whole wheel", firstOf(pipBadWheel.FindStringSubmatch(output))).WithFix("build or fetch it anew")
	case pipInvalid.MatchString(output):
		return bad("%s: %q is not understood", m.name(Options{}), clip(firstOf(pipInvalid.FindStringSubmatch(output)), 120)).WithFix("mend that line")
	case uvLine.MatchString(output):
		f := uvLine.FindStringSubmatch(output)
		return bad("%s line %s: %s", path.Base(f[2]), f[3], clip(f[1], 120)).WithFix("mend that line")
	case uvParse.MatchString(output):
		f := uvParse.FindStringSubmatch(output)
		first, _, _ := strings.Cut(f[2], "\n")
		return bad("%s: %s", m.name(Options{}), clip(first, 200)).WithFix("mend that line")
	case pipSourceOnly.MatchString(output):
		name := pipSourceOnly.FindStringSubmatch(output)[1]
		e := faas.Errorf(faas.Failed, "", "the package %s could not be built from its source", trimPoint(name))
		return e.WithFix("name a version that has a wheel for Python %s, or bring a wheel of it with the code", m.Runtime)
	}
	return nil
}

// Review refuses packages that were withdrawn: they install, with a warning that nobody would see.
func (p *pip) Review(m *Manifest, output string) *faas.Error { return p.review(m, output) }

func (p *pip) review(m *Manifest, output string) *faas.Error {
	what, why := "", ""
	if f := pipYanked.FindStringSubmatch(output); f != nil {
		what = f[1] + "==" + f[2]
		if w := pipYankWhy.FindStringSubmatch(output); w != nil {
			why = w[1]
		}
	} else if f := uvYanked.FindStringSubmatch(output); f != nil {
		what, why = f[1], f[2]
	}
	// Who has locked it with its hash has it as it was, and knows what he does.
	if what == "" || m.Lock != "" {
		return nil
	}
	if why = strings.TrimSpace(why); why != "" && why != "<none given>" {
		why = ": " + clip(why, 200)
	} else {
		why = ""
	}
	return bad("%s was withdrawn by its authors (yanked)%s", what, why).
		WithFix("name another version of %s; or, to have this very file, lock it with its hash", requirementName(what))
}

func explainHash(output string) *faas.Error {
	f := pipHash.FindStringSubmatch(output)
	if f == nil {
		f = uvHash.FindStringSubmatch(output)
	}
	if f == nil {
		return nil
	}
	short := func(s string) string { return clip(strings.TrimPrefix(s, "sha256:"), 12) }
	return bad("%s is not what the lock says: its hash is %s and should be %s", f[1], short(f[3]), short(f[2])).
		WithFix("if you trust the new file, lock again; if nothing should have changed, do not: someone may have tampered with it")
}

// explainVersion is for what no version, or no file for this machine, was found of.
func (p *pip) explainVersion(m *Manifest, output, flat string) *faas.Error {
	where := "for Python " + m.Runtime + " on " + machine
	if f := pipNoVersion.FindStringSubmatch(output); f != nil {
		what := place.ReplaceAllString(f[1], "")
		if f[2] == "none" {
			return bad("there is no %s %s", what, where).
				WithFix("check its name and version; if it comes as source alone, let that be built: --install-scripts")
		}
		all := strings.Split(f[2], ", ")
		newest := all[max(0, len(all)-5):]
		slices.Reverse(newest)
		return bad("there is no %s %s; the newest are %s", what, where, strings.Join(newest, ", ")).
			WithFix("name a version that there is; if it comes as source alone, let that be built: --install-scripts")
	}
	if f := uvNoPackage.FindStringSubmatch(flat); f != nil {
		return bad("there is no package %s", f[1]).WithFix("check its name")
	}
	if f := uvNoWheel.FindStringSubmatch(flat); f != nil {
		return bad("there is no %s %s that is built already", firstOf(f), where).
			WithFix("name another version of it, or let its source be built: --install-scripts")
	}
	if f := uvUnsolvable.FindStringSubmatch(output); f != nil {
		why := strings.Join(strings.Fields(f[1]), " ")
		if v := uvNoVersion.FindStringSubmatch(flat); v != nil {
			return bad("there is no %s: %s", v[1], clip(why, 400)).WithFix("name a version of %s that there is", requirementName(v[1]))
		}
		return bad("no versions go together: %s", clip(why, 500)).WithFix("ask for a wider range of versions, or pin ones that go together")
	}
	if f := pipBare.FindStringSubmatch(output); f != nil {
		return bad("there is no %s %s", f[1], where).WithFix("check its name and version")
	}
	return nil
}

// place is how pip says in which line it found something, in paths of the sandbox.
var place = regexp.MustCompile(`-r \S+ \(line \d+\)|\(from [^)]*\)`)

func bad(format string, args ...any) *faas.Error {
	return &faas.Error{Code: faas.Invalid, Err: fmt.Errorf(format, args...)}
}

// firstOf returns the first group that was found.
func firstOf(groups []string) string {
	for _, g := range groups[1:] {
		if g != "" {
			return strings.TrimSpace(g)
		}
	}
	return ""
}

func trimPoint(s string) string { return strings.Trim(s, " .,:;'\"`") }

// machine is what packages with native code must be for.
const machine = runtime.GOOS + "/" + runtime.GOARCH
