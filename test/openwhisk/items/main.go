// Command items prints which of the numbered behaviours of OpenWhisk's contract no test of the
// repository shows, and which the documentation excuses with a reason. It ends with 1 if a number has
// neither.
//
// A test names what it shows where it shows it: "item 12" or "items: 16 17, 20" in a comment.
// docs/openwhisk.md excuses in list items that begin with "item 79:" or "items 178, 180:".
package main

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// last is the highest number of the contract.
const last = 250

// tested are where tests name numbers.
var tested = []string{"internal/openwhisk", "internal/daemon", "runtimes", "test/contract", "test/openwhisk", "internal/dispatch", "internal/deploy"}

// document is where numbers are excused.
const document = "docs/openwhisk.md"

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	missing, err := report(os.Stdout, os.DirFS(root))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if missing > 0 {
		os.Exit(1)
	}
}

// report writes what has no test, and returns how many have no excuse either.
func report(w interface{ Write([]byte) (int, error) }, root fs.FS) (int, error) {
	shown, err := marked(root)
	if err != nil {
		return 0, err
	}
	text, err := fs.ReadFile(root, document)
	if err != nil {
		return 0, err
	}
	excused := excuses(string(text))
	var missing []int
	for n := 1; n <= last; n++ {
		if len(shown[n]) == 0 && excused[n] == "" {
			missing = append(missing, n)
		}
	}
	fmt.Fprintf(w, "%d of %d numbers have a test, %d are excused in %s\n", len(shown), last, len(excused), document)
	for _, n := range slices.Sorted(maps.Keys(excused)) {
		also := ""
		if len(shown[n]) > 0 {
			also = ", and has a test: " + strings.Join(shown[n], ", ")
		}
		fmt.Fprintf(w, "%d excused: %s%s\n", n, excused[n], also)
	}
	if len(missing) > 0 {
		fmt.Fprintf(w, "%d have neither: %s\n", len(missing), ranges(missing))
	}
	return len(missing), nil
}

// mark is how a test names numbers: "item 3", "items 3 and 4", "items: 16 17, 20-22".
var mark = regexp.MustCompile(`(?i)\bitems?:? +(\d+(?:(?:[ ,]+|[ ,]+and +|-|–| to )\d+)*)`)

// marked returns the files that name each number.
func marked(root fs.FS) (map[int][]string, error) {
	shown := map[int][]string{}
	for _, dir := range tested {
		if _, err := fs.Stat(root, dir); err != nil {
			return nil, err
		}
		err := fs.WalkDir(root, dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !isTest(path) {
				return err
			}
			b, err := fs.ReadFile(root, path)
			if err != nil {
				return err
			}
			for _, m := range mark.FindAllStringSubmatch(string(b), -1) {
				for _, n := range numbers(m[1]) {
					if !slices.Contains(shown[n], path) {
						shown[n] = append(shown[n], path)
					}
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return shown, nil
}

// isTest says whether a file holds tests: the functions of the runtimes' suite are in files of other names.
func isTest(path string) bool {
	if strings.HasPrefix(path, "test/openwhisk/items/") {
		return false
	}
	return strings.HasSuffix(path, "_test.go") || filepath.Ext(path) == ".txtar" || strings.HasPrefix(path, "test/contract/") && filepath.Ext(path) == ".go"
}

// numbers reads "16 17, 20-22 and 30".
func numbers(list string) []int {
	var all []int
	list = regexp.MustCompile(` to |–`).ReplaceAllString(list, "-")
	for _, field := range regexp.MustCompile(`[ ,]+(?:and +)?`).Split(list, -1) {
		from, to, span := strings.Cut(field, "-")
		if !span {
			to = from
		}
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(to)
		if errA != nil || errB != nil || b > last {
			continue
		}
		for n := max(a, 1); n <= b; n++ {
			all = append(all, n)
		}
	}
	return all
}

var excuse = regexp.MustCompile(`(?m)^[-*] +items? +([\d ,and–-]+): +(.+(?:\n  .+)*)`)

// excuses returns the reasons that the documentation gives, by number.
func excuses(text string) map[int]string {
	all := map[int]string{}
	for _, m := range excuse.FindAllStringSubmatch(text, -1) {
		for _, n := range numbers(m[1]) {
			all[n] = strings.Join(strings.Fields(m[2]), " ")
		}
	}
	return all
}

// ranges prints 1 2 3 5 as "1-3 5".
func ranges(list []int) string {
	var out []string
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		if j == i {
			out = append(out, strconv.Itoa(list[i]))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", list[i], list[j]))
		}
		i = j + 1
	}
	return strings.Join(out, " ")
}
