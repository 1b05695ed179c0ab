package runtimes

import (
	"io/fs"
	"slices"
	"strings"
)

// rubyNames are usual names of a function's file, the first the most telling: a config.ru beside an
// app.rb is what makes an application of it.
var rubyNames = []string{"main.rb", "handler.rb", "function.rb", "lambda_function.rb", "index.rb", "config.ru", "app.rb"}

func rubyTree(_ fs.FS, files []string) (candidate, bool, error) {
	return scriptTree(Ruby, files, []string{"Gemfile", "gems.rb"}, rubyNames, ".rb")
}

var phpNames = []string{"main.php", "handler.php", "function.php", "index.php", "app.php"}

func phpTree(_ fs.FS, files []string) (candidate, bool, error) {
	return scriptTree(PHP, files, []string{"composer.json"}, phpNames, ".php")
}

// scriptTree finds a tree's entry by its name, or where a manifest says the language, the only file
// there is in it.
func scriptTree(language string, files, manifests, usual []string, extension string) (candidate, bool, error) {
	why := ""
	for _, f := range manifests {
		if slices.Contains(files, f) {
			why = f + " says that it is " + spoken[language]
			break
		}
	}
	for _, name := range usual {
		if slices.Contains(files, name) {
			return candidate{language, name, orElse(why, name+" is "+spoken[language]+" by its extension")}, true, nil
		}
	}
	if why == "" {
		return candidate{}, false, nil
	}
	only := slices.DeleteFunc(slices.Clone(files), func(f string) bool { return !strings.HasSuffix(f, extension) || slices.Contains(manifests, f) })
	if len(only) == 1 {
		return candidate{language, only[0], why}, true, nil
	}
	return candidate{}, false, nil
}
