package deploy

import (
	"strings"
	"testing"
)

func TestNameIt(t *testing.T) {
	for message, want := range map[string]string{
		"ModuleNotFoundError: No module named 'requests'":                     "--with requests",
		"ModuleNotFoundError: No module named 'yaml'":                         "--with PyYAML",
		"Error: Cannot find module 'lodash'\nRequire stack:\n- /code/a.js":    "--with lodash",
		"Error: Cannot find package '@scope/pkg' imported from /code/a.mjs":   "--with @scope/pkg",
		"Error: Cannot find module './lib'\nRequire stack:\n- /code/index.js": "",
		"Error: Cannot find module '/node_modules/bcrypt/lib/bcrypt.node'":    "--install-scripts",
		"ZeroDivisionError: division by zero":                                 "",
	} {
		if got := nameIt(message); (want == "") != (got == "") || !strings.HasSuffix(got, want) {
			t.Errorf("%q: %q, want one that ends in %q", message, got, want)
		}
	}
}
