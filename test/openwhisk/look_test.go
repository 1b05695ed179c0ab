package openwhisk_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// json PATH [VALUE] looks into the JSON of the last standard output, after a line of wsk if there is one.
// The path's parts are joined by dots: a field, the number of an element, or, in a list of things with a
// key or a name, that; "len" is a length. A value is JSON; one that is not is a string. Without one, and
// with "!", it is about whether there is such a thing.
func jsonCmd(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: json PATH [VALUE]")
	}
	got, found := lookUp(ts, args[0])
	if len(args) == 1 {
		if found == neg {
			ts.Fatalf("%s: there: %t, want %t, in\n%s", args[0], found, !neg, ts.ReadFile("stdout"))
		}
		return
	}
	var want any
	if json.Unmarshal([]byte(args[1]), &want) != nil {
		want = args[1]
	}
	if same := found && compact(got) == compact(want); same == neg {
		ts.Fatalf("%s is %s, want %s, in\n%s", args[0], compact(got), compact(want), ts.ReadFile("stdout"))
	}
}

func compact(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// lookUp finds a thing in the JSON of the last standard output.
func lookUp(ts *testscript.TestScript, path string) (any, bool) {
	text := ts.ReadFile("stdout")
	if strings.HasPrefix(text, "ok: ") { // a line of wsk before what it shows
		_, text, _ = strings.Cut(text, "\n")
	}
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		ts.Fatalf("standard output is not JSON: %v\n%s", err, text)
	}
	if path == "." {
		return v, true
	}
	for _, part := range strings.Split(path, ".") {
		var ok bool
		if v, ok = step(v, part); !ok {
			return nil, false
		}
	}
	return v, true
}

func step(v any, part string) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		if part == "len" {
			return len(v), true
		}
		next, ok := v[part]
		return next, ok
	case []any:
		if part == "len" {
			return len(v), true
		}
		if i, err := strconv.Atoi(part); err == nil {
			return at(v, i)
		}
		i := slices.IndexFunc(v, func(e any) bool {
			m, _ := e.(map[string]any)
			return m["key"] == part || m["name"] == part
		})
		e, ok := at(v, i)
		if m, _ := e.(map[string]any); ok && m["key"] == part {
			return m["value"], true
		}
		return e, ok
	}
	return nil, false
}

func at(list []any, i int) (any, bool) {
	if i < 0 || i >= len(list) {
		return nil, false
	}
	return list[i], true
}

// holds SUM OP SUM compares sums such as 3+4-5. OP is one of == < <=.
func holdsCmd(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: holds SUM OP SUM")
	}
	a, b := sumOf(ts, args[0]), sumOf(ts, args[2])
	got, known := map[string]bool{"==": a == b, "<": a < b, "<=": a <= b}[args[1]]
	if !known || got == neg {
		ts.Fatalf("%s %s %s: %t, for %d and %d", args[0], args[1], args[2], got, a, b)
	}
}

func sumOf(ts *testscript.TestScript, text string) (sum int) {
	for _, term := range regexp.MustCompile(`[+-]?[^+-]*`).FindAllString(text, -1) {
		n, err := strconv.Atoi(term)
		ts.Check(err)
		sum += n
	}
	return sum
}
