package deploy

import (
	"strings"
	"testing"
)

func TestBringAlong(t *testing.T) {
	for message, want := range map[string]string{
		"ModuleNotFoundError: No module named 'requests'":                     "vendor requests",
		"ModuleNotFoundError: No module named 'google.cloud'":                 "vendor google",
		"Error: Cannot find module 'lodash'\nRequire stack:\n- /code/a.js":    "npm install lodash",
		"Error: Cannot find package '@scope/pkg' imported from /code/a.mjs":   "npm install @scope/pkg",
		"Error: Cannot find module './lib'\nRequire stack:\n- /code/index.js": "",
		"ZeroDivisionError: division by zero":                                 "",
	} {
		if got := bringAlong(message); (want == "") != (got == "") || !strings.HasSuffix(got, want) {
			t.Errorf("%q: %q, want one that ends in %q", message, got, want)
		}
	}
}
