package openwhisk_test

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/brasa-dev/brasa/test/program"
)

// patience is how long something that comes about by itself may take.
const patience = 60 * time.Second

var commands = map[string]func(*testscript.TestScript, bool, []string){
	"wsk":        programCmd("wsk"),
	"wskdeploy":  programCmd("wskdeploy"),
	"brasa":      programCmd("brasa"),
	"exits":      program.Exits,
	"eventually": eventuallyCmd,
	"server":     serverCmd,
	"killed":     killedCmd,
	"subject":    subjectCmd,
	"http":       httpCmd,
	"json":       jsonCmd,
	"holds":      holdsCmd,
	"header":     headerCmd,
	"save":       saveCmd,
	"large":      largeCmd,
	"base64":     base64Cmd,
	"repeat":     repeatCmd,
	"zip":        zipCmd,
	"modules":    modulesCmd,
	"replace":    replaceCmd,
}

func storyOf(ts *testscript.TestScript) *story { return ts.Value(storyKey{}).(*story) }

// wsk ARG..., wskdeploy ARG... and brasa ARG... run the program, which must end well; with a "!" it must not.
func programCmd(name string) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		err := ts.Exec(name, args...)
		if err == nil && neg {
			ts.Fatalf("%s ended well and should not\n%s%s", name, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		} else if err != nil && !neg {
			ts.Fatalf("%s: %v\n%s%s", name, err, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
	}
}

// eventually PATTERN PROGRAM [ARG...] runs a program until it ends well and what it writes matches.
func eventuallyCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN PROGRAM [ARG...]")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Since(began) > patience {
			ts.Fatalf("never matched %q; at last: %v\n%s%s", args[0], err, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
	}
}

// server [NAME=VALUE...] [ARG...] starts a server of the script's own, and makes a subject there.
func serverCmd(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	if neg || s.own != nil {
		ts.Fatalf("usage: server [ARG...], once")
	}
	if whyNot != nil {
		ts.Fatalf("no server on this machine: %v", whyNot)
	}
	own, err := program.Serve(brasa(), ts.MkAbs("data"), args...)
	ts.Check(err)
	s.own = own
	ts.Check(s.use(own))
	for _, name := range []string{"BRASA_SERVER", "BRASA_DATA", "APIHOST", "AUTH", "NAMESPACE", "BRASA_NAMESPACE"} {
		ts.Setenv(name, s.env.Getenv(name))
	}
}

// killed [ARG...] kills the script's own server, which has no time to do anything, and starts another on
// what it leaves.
func killedCmd(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	if neg || s.own == nil {
		ts.Fatalf("usage: killed [ARG...], after server")
	}
	s.own.Kill()
	own, err := program.Serve(brasa(), s.own.Data, args...)
	ts.Check(err)
	s.own = own
	ts.Check(s.point(own))
	for _, name := range []string{"BRASA_SERVER", "APIHOST"} {
		ts.Setenv(name, s.env.Getenv(name))
	}
}

// subject NAME makes another subject: its key is $NAME_AUTH and its namespace $NAME, in capitals.
func subjectCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: subject NAME")
	}
	s := storyOf(ts)
	namespace := s.name + "-" + args[0]
	key, err := makeSubject(s.at, namespace)
	ts.Check(err)
	s.keys[args[0]] = key
	ts.Setenv(strings.ToUpper(args[0]), namespace)
	ts.Setenv(strings.ToUpper(args[0])+"_AUTH", key)
}

// answer is what the server said at last.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// http [FLAG...] STATUS METHOD PATH makes a request, which must be answered with the status. The answer's
// body is on standard output. A path that begins with a slash is the server's; another one is below
// /api/v1/namespaces/_/.
//
//	-as WHO          a subject of this script, or UUID:KEY, or nobody; its own when left out
//	-h 'NAME: VALUE' a header
//	-d BODY, -f FILE what is sent; as JSON unless a header says otherwise
//	-until PATTERN   ask again until the status is right and the body matches
//
// Every refusal of the API must have the fields error and code.
func httpCmd(ts *testscript.TestScript, neg bool, args []string) {
	s := storyOf(ts)
	who, body, header := "", []byte(nil), http.Header{}
	var until *regexp.Regexp
	for len(args) > 1 && strings.HasPrefix(args[0], "-") {
		switch value := args[1]; args[0] {
		case "-as":
			who = value
		case "-h":
			k, v, _ := strings.Cut(value, ":")
			header.Add(k, strings.TrimSpace(v))
		case "-d":
			body = []byte(value)
		case "-f":
			body = []byte(ts.ReadFile(value))
		case "-until":
			re, err := regexp.Compile(value)
			ts.Check(err)
			until = re
		default:
			ts.Fatalf("unknown flag %s", args[0])
		}
		args = args[2:]
	}
	if neg || len(args) != 3 {
		ts.Fatalf("usage: http [FLAG...] STATUS METHOD PATH")
	}
	status, err := strconv.Atoi(args[0])
	ts.Check(err)
	path := args[2]
	if !strings.HasPrefix(path, "/") {
		path = "/api/v1/namespaces/_/" + path
	}
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		ts.Check(s.ask(who, args[1], path, header, body))
		if s.last.status == status && (until == nil || until.Match(s.last.body)) {
			break
		}
		if until == nil || time.Since(began) > patience {
			ts.Fatalf("%s %s: status %d, want %s; body:\n%s", args[1], path, s.last.status, strings.TrimSpace(args[0]+" "+patternText(until)), s.last.body)
		}
	}
	_, err = ts.Stdout().Write(s.last.body)
	ts.Check(err)
	refused := status >= 400 && strings.HasPrefix(path, "/api/") && args[1] != http.MethodHead
	if refused && !strings.HasPrefix(path, "/api/v1/web/") && status != http.StatusBadGateway {
		var shape struct{ Error, Code *string }
		if err := json.Unmarshal(s.last.body, &shape); err != nil || shape.Error == nil || shape.Code == nil {
			ts.Fatalf("%s %s: %d without the fields error and code: %s", args[1], path, status, s.last.body)
		}
	}
}

func patternText(p *regexp.Regexp) string {
	if p == nil {
		return ""
	}
	return "and " + p.String()
}

// ask makes a request.
func (s *story) ask(who, method, path string, header http.Header, body []byte) error {
	req, err := http.NewRequest(method, s.at.URL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if body == nil {
		req.Body, req.ContentLength = nil, 0
	}
	req.Header = header.Clone()
	if host := header.Get("Host"); host != "" {
		req.Host = host
	}
	if body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	key, ok := s.keys[who]
	if !ok {
		key = who
	}
	if who != "nobody" && req.Header.Get("Authorization") == "" {
		user, password, _ := strings.Cut(key, ":")
		req.SetBasicAuth(user, password)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	s.last = answer{status: res.StatusCode, header: res.Header, body: b}
	return nil
}

// header NAME [PATTERN] is about the headers of the last answer to http; with "!" there must be none such.
func headerCmd(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: header NAME [PATTERN]")
	}
	values := storyOf(ts).last.header.Values(args[0])
	matches := len(values) > 0
	if len(args) == 2 {
		pattern, err := regexp.Compile(args[1])
		ts.Check(err)
		matches = slices.ContainsFunc(values, pattern.MatchString)
	}
	if matches == neg {
		ts.Fatalf("header %s is %q", args[0], values)
	}
}

// save NAME PATTERN sets a variable to what the pattern's group matches in standard output; save NAME .PATH
// to what is there in its JSON.
func saveCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: save NAME PATTERN")
	}
	if path, ok := strings.CutPrefix(args[1], "."); ok {
		v, found := lookUp(ts, path)
		if !found {
			ts.Fatalf("no %s in\n%s", path, ts.ReadFile("stdout"))
		}
		if s, ok := v.(string); ok {
			ts.Setenv(args[0], s)
		} else {
			ts.Setenv(args[0], compact(v))
		}
		return
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	m := pattern.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) != 2 {
		ts.Fatalf("nothing matches %q in\n%s", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], m[1])
}

// large FILE BYTES PATTERN writes a file from a pattern in which "@" stands for that many letters.
func largeCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: large FILE BYTES PATTERN")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(args[2], "@", strings.Repeat("x", n), 1)), 0o644))
}

// base64 FILE NAME sets a variable to a file's content in base64.
func base64Cmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: base64 FILE NAME")
	}
	b, err := os.ReadFile(filepath.Clean(ts.MkAbs(args[0])))
	ts.Check(err)
	ts.Setenv(args[1], base64.StdEncoding.EncodeToString(b))
}

// repeat NAME COUNT TEXT sets a variable to a text so many times.
func repeatCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: repeat NAME COUNT TEXT")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Setenv(args[0], strings.Repeat(args[2], n))
}

// zip FILE DIR makes an archive of what is in a folder.
func zipCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: zip FILE DIR")
	}
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	z := zip.NewWriter(f)
	root := os.DirFS(ts.MkAbs(args[1]))
	ts.Check(fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() { // npm's links to programs are not needed
			return err
		}
		b, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		w, err := z.Create(path)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}))
	ts.Check(z.Close())
}

// modules DIR copies what the client for Node.js is made of into a folder.
func modulesCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: modules DIR")
	}
	ts.Check(os.CopyFS(ts.MkAbs(args[0]), os.DirFS(filepath.Join(modules, "node_modules"))))
}

// replace FILE OLD NEW edits a file.
func replaceCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not contain %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, args[1], args[2])), 0o644))
}
