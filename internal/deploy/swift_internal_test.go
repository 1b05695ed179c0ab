package deploy

import (
	"testing"
	"testing/fstest"
)

func TestWhereTheMainOfAnActionInSwiftIs(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		want  string // empty: none
	}{
		{"one file", []string{"main.swift"}, "main.swift"},
		{"files", []string{"main.swift", "more.swift"}, "main.swift"},
		{"sources", []string{"Sources/main.swift", "main.swift"}, "Sources/main.swift"},
		{"a package", []string{"Package.swift", "Sources/main.swift"}, "Sources/main.swift"},
		{"a package by its target", []string{"Package.swift", "Sources/Action/main.swift"}, "Sources/Action/main.swift"},
		{"a package is no file at the top", []string{"Package.swift", "main.swift"}, ""},
		{"nothing", []string{"hello.swift"}, ""},
	} {
		tree := fstest.MapFS{}
		for _, f := range c.files {
			tree[f] = &fstest.MapFile{}
		}
		if got, err := swiftMain(tree); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}

func TestWhichActionsInSwiftCallTheirPlatform(t *testing.T) {
	for source, want := range map[string]bool{
		`Whisk.invoke(actionNamed: "a", withParameters: [:])`: true,
		"try await Whisk\n  .trigger(eventNamed: e)":          true,
		"catch let e as WhiskError":                           true,
		"Whisk.jsonEncoder = JSONEncoder()":                   false,
		"func invoke() {}":                                    false,
	} {
		if got := swiftCalls.MatchString(source); got != want {
			t.Errorf("%s: %t, want %t", source, got, want)
		}
	}
}
