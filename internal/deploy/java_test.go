package deploy_test

import (
	"archive/zip"
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

const javaMain = "import java.util.Map;\npublic class Pay {\n  public static Object main(Map<String, Object> args) { return args; }\n}\n"

func TestJavaSourceIsCompiledInASandbox(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: builds run in sandboxes of the initial user namespace")
	}
	s := newShop(t, func(d *deploy.Config) {
		rt, err := d.Runtimes.Lookup(runtimes.Java)
		if err != nil {
			t.Skip(err)
		}
		if rt.Compiler == "" {
			t.Skip("this host's Java has no compiler")
		}
		sandboxed(t, d, "jtest")
	})

	_, err := s.Deploy(t.Context(), request("Pay.java", strings.Replace(javaMain, "return args", "return absent", 1)), nil)
	if e := faas.AsError(err); e == nil || e.Code != faas.Failed || !strings.Contains(err.Error(), "Pay.java:3") || !strings.Contains(err.Error(), "absent") {
		t.Errorf("code that does not compile: %v; want the compiler's word with file and line", err)
	}
	_, err = s.Deploy(t.Context(), request("Pay.java", "import com.example.Absent;\n"+javaMain), nil)
	if e := faas.AsError(err); e == nil || e.Code != faas.Failed || !strings.Contains(e.Fix, "lib") {
		t.Errorf("code that lacks a jar: %v; want where to put it", err)
	}
	_, err = s.Deploy(t.Context(), request("Pay.java", "public class Pay { public static void main(String[] args) { } }\n"), nil)
	if e := faas.AsError(err); e == nil || e.Code != faas.Invalid || !strings.Contains(err.Error(), "main(String[])") {
		t.Errorf("a program: %v; want what a handler is", err)
	}

	// A file that came without the name that Java wants of it.
	out, err := s.Deploy(t.Context(), request("f.java", javaMain), nil)
	if err != nil {
		t.Fatal(err)
	}
	classes := s.tree(t, out.Revision)
	if len(classes) != 1 || classes["Pay.class"] == "" || out.Revision.Entry != "Pay.class" || out.Revision.Runtime != runtimes.Java {
		t.Errorf("revision %+v of %d files; want Pay.class alone", out.Revision, len(classes))
	}

	// A project with a jar and a resource; the jar is made of what was just compiled.
	var jar bytes.Buffer
	w := zip.NewWriter(&jar)
	f, err := w.Create("Pay.class")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(classes["Pay.class"])); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	out, err = s.Deploy(t.Context(), request("code.zip", zipOf(t, map[string]string{
		"src/main/java/app/Main.java":      "package app;\npublic class Main { static class Pay2 extends Lib { } public Object handle(brasa.Event e) { return Pay2.x(e); } }\n",
		"src/main/java/app/Lib.java":       "package app;\nclass Lib { static Object x(brasa.Event e) { return e.args(); } }\n",
		"src/main/resources/app/words.txt": "a",
		"src/test/java/app/MainTest.java":  "package app; this does not compile",
		"lib/pay.jar":                      jar.String(),
	})), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range s.tree(t, out.Revision) {
		names = append(names, name)
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "app/Lib.class app/Main$Pay2.class app/Main.class app/words.txt lib/pay.jar" || out.Revision.Entry != "app/Main.class" {
		t.Errorf("entry %q of %s", out.Revision.Entry, got)
	}

	// What was compiled elsewhere is deployed as it is.
	out, err = s.Deploy(t.Context(), request("pay.jar", zipOf(t, map[string]string{
		"META-INF/MANIFEST.MF": "Manifest-Version: 1.0\r\nMain-Class: Pay\r\n", "Pay.class": classes["Pay.class"],
	})), nil)
	if err != nil || out.Revision.Entry != "Pay.class" {
		t.Errorf("a jar: %+v, %v", out, err)
	}
	r := request("code.zip", zipOf(t, map[string]string{"brasa.json": `{"handler":"Pay::main"}`, "app.jar": jar.String()}))
	if out, err = s.Deploy(t.Context(), r, nil); err != nil || out.Revision.Entry != "app.jar" || out.Revision.Handler != "Pay::main" {
		t.Errorf("a jar in a directory: %+v, %v", out, err)
	}
}
