package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/fstest"
)

func TestReport(t *testing.T) {
	root := fstest.MapFS{
		"internal/dispatch/x_test.go":  {Data: []byte("// item 1 and more")},
		"internal/deploy/x_test.go":    {},
		"internal/daemon/x_test.go":    {},
		"internal/openwhisk/x_test.go": {Data: []byte("// items: 2 3, 5-7 and 9\n// items 240 to 250")},
		"internal/openwhisk/x.go":      {Data: []byte("// item 11: not a test")},
		"runtimes/x_test.go":           {Data: []byte("// this item has 3 parts\n// items 999")},
		"test/contract/calls.go":       {Data: []byte("item(12) // Item 12")},
		"test/openwhisk/a.txtar":       {Data: []byte("# items: 13–15\n")},
		document:                       {Data: []byte("- item 16: the reason,\n  which goes on\n- items 17, 18 and 20: another\n- item 1: needless\n")},
	}
	var out bytes.Buffer
	missing, err := report(&out, root)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"22 of 250 numbers have a test, 5 are excused",
		"16 excused: the reason, which goes on\n",
		"20 excused: another\n",
		"1 excused: needless, and has a test: internal/dispatch/x_test.go\n",
		"224 have neither: 4 8 10-11 19 21-239\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if missing != 224 {
		t.Errorf("%d are missing, want 224", missing)
	}
}
