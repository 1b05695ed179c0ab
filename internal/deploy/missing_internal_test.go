package deploy

import "testing"

func TestWhatIsMissingIsNamed(t *testing.T) {
	for message, want := range map[string]string{
		"ModuleNotFoundError: No module named 'yaml'":                                           "name the package in requirements.txt beside the code, or with: --with PyYAML",
		"Error: Cannot find module '@scope/x'":                                                  "name the package in package.json beside the code, or with: --with @scope/x",
		"main.py defines none of the functions main, handle or handler; it defines greet, part": "call it main, or say what is called: --handler greet",
		"main.py defines none of the functions main, handle or handler; it defines no function": "",
		"KeyError: 'x'": "",
	} {
		if got := nameIt(message); got != want {
			t.Errorf("%q: got %q, want %q", message, got, want)
		}
	}
}
