package runtimes

import (
	"io/fs"
	"path"
	"slices"
	"strings"
)

// typeScriptNames are what a file of TypeScript may end with. Its compiler takes each for what
// Node.js takes the same with "js".
var typeScriptNames = []string{".ts", ".mts", ".cts", ".tsx"}

// isTypeScript says whether a file is TypeScript by its name, and not a declaration of types alone.
func isTypeScript(name string) bool {
	ext := path.Ext(name)
	return slices.Contains(typeScriptNames, ext) && path.Ext(strings.TrimSuffix(name, ext)) != ".d"
}

func isFile(tree fs.FS, name string) bool {
	info, err := fs.Stat(tree, name)
	return fs.ValidPath(name) && err == nil && info.Mode().IsRegular()
}

// sourceOfBuilt finds the TypeScript that a file which is not there would be made of: dist/index.js of
// src/index.ts, lib/a.mjs of lib/a.mts or a.mts; "" if there is none.
func sourceOfBuilt(tree fs.FS, built string) string {
	ext := path.Ext(built)
	stem := strings.TrimSuffix(built, ext)
	stems := []string{stem}
	if _, rest, ok := strings.Cut(stem, "/"); ok {
		stems = append(stems, "src/"+rest, rest, "src/"+stem)
	} else {
		stems = append(stems, "src/"+stem)
	}
	for _, s := range stems {
		for _, ts := range typeScriptNames {
			if isFile(tree, s+ts) {
				return s + ts
			}
		}
	}
	return ""
}

// typeScriptTree looks for an entry in TypeScript by its usual names, at the top or in src.
func typeScriptTree(tree fs.FS, files []string) (candidate, bool) {
	for _, dir := range []string{"", "src/"} {
		if dir != "" && !slices.Contains(files, "tsconfig.json") && !slices.Contains(files, "package.json") {
			continue
		}
		for _, name := range nodeNames {
			for _, ext := range typeScriptNames {
				if file := dir + name + ext; isFile(tree, file) {
					return candidate{Node, file, file + " is TypeScript by its extension"}, true
				}
			}
		}
	}
	return candidate{}, false
}
