package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/daemon"
)

const docs = "../../docs"

// pages returns the text of each page by its path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"../../README.md", docs + "/*.md", docs + "/runtimes/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", pattern, files, err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			all[f] = string(text)
		}
	}
	return all
}

// What there is is told: each command, each language that can be named, each key of the configuration.
func TestTheDocsTellOfAllThereIs(t *testing.T) {
	var all strings.Builder
	for _, text := range pages(t) {
		all.WriteString(text)
	}
	told := all.String()
	for _, c := range newRoot(newApp(nil)).Commands() {
		if c.IsAvailableCommand() && !strings.Contains(told, "`"+c.Name()) && !strings.Contains(told, "brasa "+c.Name()) {
			t.Errorf("no page tells of brasa %s", c.Name())
		}
	}
	for _, l := range append(append([]string{}, languages...), templateNames...) {
		if !strings.Contains(told, l) {
			t.Errorf("no page tells of the language %s", l)
		}
	}
	config, err := daemon.Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range config.Values() {
		key := v.Key
		if group, _, _ := strings.Cut(key, "."); group == "limits" || group == "ceiling" {
			key = group + ".KEY"
			if name := strings.TrimPrefix(v.Key, group+"."); !strings.Contains(told, "`"+name+"`") {
				t.Errorf("no page tells of the limit %s", name)
			}
		}
		if !strings.Contains(told, key) {
			t.Errorf("no page tells of the configuration's key %s", key)
		}
	}
}

var (
	links    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headings = regexp.MustCompile(`(?m)^#+ (.+)$`)
	unslug   = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// slugs are the names by which the headings of a page are linked to.
func slugs(text string) map[string]bool {
	all := map[string]bool{}
	for _, x := range headings.FindAllStringSubmatch(text, -1) {
		all[strings.ReplaceAll(unslug.ReplaceAllString(strings.ToLower(x[1]), ""), " ", "-")] = true
	}
	return all
}

func TestLinksOfTheDocsLeadSomewhere(t *testing.T) {
	all := pages(t)
	for page, text := range all {
		for _, x := range links.FindAllStringSubmatch(text, -1) {
			file, heading, _ := strings.Cut(x[1], "#")
			if strings.Contains(file, "://") {
				continue
			}
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which is not there", page, x[1])
			} else if heading != "" && !slugs(all[target])[heading] {
				t.Errorf("%s links to %s, which has no such heading", page, x[1])
			}
		}
	}
}
