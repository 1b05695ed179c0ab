package runtimes

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// oldestSwift is the first version of Swift whose functions may wait, as the program around an action does.
var oldestSwift = [2]int{5, 5}

var swiftVersion = regexp.MustCompile(`Swift version ((\d+)\.(\d+)[\d.]*)`)

// findSwift finds the toolchain. What it builds needs its libraries to run, so a directory outside of /usr that
// it lies in is one that every sandbox sees.
func findSwift(ctx context.Context, _ Config, _ string) (*Runtime, error) {
	why := fmt.Errorf("no swiftc in /usr/bin, /usr/local/bin, /opt or PATH")
	more := []string{"/usr/libexec/swift/bin/swiftc", "/opt/swift/usr/bin/swiftc", "/usr/local/swift/usr/bin/swiftc"}
	if home, err := os.UserHomeDir(); err == nil {
		found, _ := filepath.Glob(filepath.Join(home, ".local/share/swiftly/toolchains/*/usr/bin/swiftc")) // the pattern is well formed
		more = append(more, found...)
	}
	for _, p := range append(candidates("", "swiftc"), more...) {
		if !exists(p) {
			continue
		}
		rt, err := swiftOf(ctx, p)
		if err == nil {
			return rt, nil
		}
		why = err
	}
	return nil, why
}

// swiftOf asks a compiler where it really lies: a swiftc in PATH may be a link, or a shim that chooses one.
func swiftOf(ctx context.Context, swiftc string) (*Runtime, error) {
	out, err := probe(ctx, swiftc, "-print-target-info")
	if err != nil {
		return nil, err
	}
	var info struct {
		Version string `json:"compilerVersion"`
		Paths   struct {
			Resources string `json:"runtimeResourcePath"` // PREFIX/lib/swift
		} `json:"paths"`
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return nil, fmt.Errorf("ask %s for its version: %w", swiftc, err)
	}
	m := swiftVersion.FindStringSubmatch(info.Version)
	if m == nil || info.Paths.Resources == "" {
		return nil, fmt.Errorf("ask %s for its version: %q", swiftc, clip(info.Version))
	}
	major, _ := strconv.Atoi(m[2]) // digits
	minor, _ := strconv.Atoi(m[3])
	if major < oldestSwift[0] || major == oldestSwift[0] && minor < oldestSwift[1] {
		return nil, fmt.Errorf("%s is Swift %s; %d.%d or newer is needed", swiftc, m[1], oldestSwift[0], oldestSwift[1])
	}
	prefix, err := filepath.EvalSymlinks(filepath.Dir(filepath.Dir(info.Paths.Resources)))
	if err != nil {
		return nil, err
	}
	rt := &Runtime{Version: m[1], Style: styleOf(Swift), Compiler: filepath.Join(prefix, "bin", "swiftc"), RootDir: rootOf(prefix)}
	rt.Program = rt.Compiler
	if !exists(rt.Compiler) {
		return nil, fmt.Errorf("the toolchain in %s has no swiftc", prefix)
	}
	return rt, nil
}
