package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/cli"
	"github.com/brasa-dev/brasa/internal/faas"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", file, got, want)
	}
}

func printer(format cli.Format) (*cli.Printer, *bytes.Buffer, *bytes.Buffer) {
	var out, err bytes.Buffer
	return &cli.Printer{Out: &out, Err: &err, Format: format, Width: 80, Now: time.Now}, &out, &err
}

func TestEveryOutcomeHasItsExitCode(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{faas.Errorf(faas.Failed, "", "x"), 1},
		{faas.Errorf(faas.Crashed, "", "x"), 1},
		{faas.Errorf(faas.Invalid, "", "x"), 2},
		{cli.Usagef("x"), 2},
		{os.ErrNotExist, 2},
		{&cli.UnreachableError{Server: "s", Err: io.EOF}, 3},
		{faas.Errorf(faas.Unauthenticated, "", "x"), 4},
		{faas.Errorf(faas.Denied, "", "x"), 4},
		{faas.Errorf(faas.NotFound, "", "x"), 5},
		{faas.Errorf(faas.Conflict, "", "x"), 6},
		{faas.Errorf(faas.TooLarge, "", "x"), 7},
		{faas.Errorf(faas.Overloaded, "", "x"), 7},
		{faas.Errorf(faas.Timeout, "", "x"), 8},
		{context.DeadlineExceeded, 8},
		{faas.Errorf(faas.Unavailable, "", "x"), 9},
		{faas.Errorf(faas.Internal, "", "x"), 9},
		{&cli.QuietError{Exit: 10}, 10},
		{context.Canceled, 130},
	} {
		p, _, _ := printer(cli.Table)
		if got := p.Fail(cli.While(fmt.Errorf("wrapped: %w", c.err), "try")); got != c.want {
			t.Errorf("exit code of %v: got %d, want %d", c.err, got, c.want)
		}
	}
}

func TestErrorsOfTLSSayWhatToDo(t *testing.T) {
	nothing := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	secure, plain := httptest.NewTLSServer(nothing), httptest.NewServer(nothing)
	defer secure.Close()
	defer plain.Close()
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	for _, c := range []struct{ server, fix string }{
		{secure.URL, "SSL_CERT_FILE="},
		{strings.Replace(plain.URL, "http:", "https:", 1), "--server " + plain.URL},
		{"http://127.0.0.1:1", "brasa serve"},
	} {
		res, err := (&http.Client{}).Get(c.server)
		if err == nil {
			_ = res.Body.Close()
			t.Fatalf("%s answers", c.server)
		}
		f := cli.Explain(&cli.UnreachableError{Server: c.server, Err: err})
		if len(f.Fix) != 1 || !strings.Contains(f.Fix[0], c.fix) {
			t.Errorf("%v: fix %q, want %q in it", err, f.Fix, c.fix)
		}
	}
}

func TestErrorSaysWhatBecauseAndFix(t *testing.T) {
	p, out, talk := printer(cli.Table)
	err := faas.Errorf(faas.NotFound, "resolve", `no function "helo" in namespace "default"`).WithFix("did you mean hello?")
	p.Fail(cli.While(err, "invoke %q", "helo"))
	failed := faas.Errorf(faas.Failed, "run", "ZeroDivisionError: division by zero")
	failed.Trace = "Traceback:\n  File \"/code/f.py\", line 3, in main"
	failed.Limit = "memory_bytes"
	p.Fail(failed)
	p.Fail(cli.Usagef("no such flag").WithFix("brasa deploy --help"))
	if out.Len() > 0 {
		t.Errorf("an error without --json wrote to stdout: %q", out)
	}
	golden(t, "errors.txt", talk.Bytes())
}

func TestJSONErrorGoesToStdoutInAnEnvelope(t *testing.T) {
	p, out, talk := printer(cli.JSON)
	p.Fail(faas.Errorf(faas.Conflict, "create", "it exists").WithFix("brasa rm it"))
	if talk.Len() > 0 {
		t.Errorf("--json also wrote to stderr: %q", talk)
	}
	golden(t, "error.json", out.Bytes())
}

func TestDataHasTheSameEnvelopeAlways(t *testing.T) {
	for _, format := range []cli.Format{cli.JSON, cli.YAML} {
		p, out, _ := printer(format)
		if err := p.Data(map[string]any{"b": []int{1, 2}, "a": "x: y"}, nil); err != nil {
			t.Fatal(err)
		}
		golden(t, "data."+string(format), out.Bytes())
	}
	p, out, _ := printer(cli.JSON)
	if err := p.Data(nil, nil); err != nil {
		t.Fatal(err)
	}
	var e struct {
		OK   bool
		Data *json.RawMessage
	}
	if err := json.Unmarshal(out.Bytes(), &e); err != nil || !e.OK || !bytes.Contains(out.Bytes(), []byte(`"data":null`)) {
		t.Errorf("nothing as data: got %s, %v; want an envelope with null", out, err)
	}
}

func TestQuietSilencesTalkButNotWarningsAndErrors(t *testing.T) {
	p, _, talk := printer(cli.Table)
	p.Quiet, p.Verbose = true, true
	p.Say("said")
	p.Detail("detailed")
	if talk.Len() > 0 {
		t.Errorf("quiet, but said %q", talk)
	}
	p.Warn("careful")
	p.Fail(errors.New("broken"))
	if got := talk.String(); got != "warning: careful\nError[usage] broken\n  docs: brasa help usage\n" {
		t.Errorf("got %q", got)
	}
}

func TestTableHasNoBordersAndNoEmptyCells(t *testing.T) {
	g := cli.NewGrid("NAME", "RUNTIME", "UPDATED")
	g.Row("hello", "python 3.11", "2m ago")
	g.Row("größer", "", "now")
	g.Row("x")
	var b bytes.Buffer
	if err := g.Write(&b, cli.NewStyles(false), 0); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.txt", b.Bytes())

	for width, want := range map[int]string{
		28: "NAME    RUNTIME      UPDATED\n", 27: "NAME    RUNTIME\n", 5: "NAME    RUNTIME\n",
	} {
		b.Reset()
		if err := g.Write(&b, cli.NewStyles(false), width); err != nil {
			t.Fatal(err)
		}
		if head, _, _ := strings.Cut(b.String(), "\n"); head+"\n" != want {
			t.Errorf("in %d columns the head is %q, want %q", width, head, want)
		}
	}
}

func timing() faas.Timing {
	var t faas.Timing
	t.Begin = time.UnixMilli(0)
	for _, p := range []struct {
		phase faas.Phase
		ms    float64
		cpu   float64
	}{
		{faas.PhaseResolve, 0.02, 0}, {faas.PhaseQueue, 1, 0}, {faas.PhaseProvisioning, 12, 3},
		{faas.PhaseFetch, 1, 0}, {faas.PhaseCgroup, 2, 0}, {faas.PhaseSpawn, 9, 0},
		{faas.PhaseRuntimeLoad, 25, 24}, {faas.PhaseDependencies, 140.4, 120}, {faas.PhaseCodeLoad, 3, 3},
		{faas.PhaseExecution, 60, 5.5}, {faas.PhaseReturn, 0.4, 0},
	} {
		t.Add(p.phase, time.Duration(p.ms*float64(time.Millisecond)))
		t.AddCPU(p.phase, time.Duration(p.cpu*float64(time.Millisecond)))
	}
	t.Total = 255 * time.Millisecond
	return t
}

func TestWaterfall(t *testing.T) {
	var b bytes.Buffer
	for _, width := range []int{80, 40} {
		if err := cli.Waterfall(&b, timing(), cli.NewStyles(false), width); err != nil {
			t.Fatal(err)
		}
	}
	var warm faas.Timing
	warm.Add(faas.PhaseResolve, 3*time.Microsecond)
	warm.Add(faas.PhaseExecution, 800*time.Microsecond)
	warm.Total = 810 * time.Microsecond
	if err := cli.Waterfall(&b, warm, cli.NewStyles(false), 80); err != nil {
		t.Fatal(err)
	}
	if err := cli.Waterfall(&b, faas.Timing{}, cli.NewStyles(false), 80); err != nil {
		t.Fatal(err)
	}
	golden(t, "waterfall.txt", b.Bytes())
}

func TestStripIsExactlyAsWideAsAsked(t *testing.T) {
	for _, width := range []int{1, 7, 20, 33} {
		if got := cli.Strip(timing(), cli.NewStyles(false), width); len(got) != width {
			t.Errorf("strip %q has %d cells, want %d", got, len(got), width)
		}
	}
	if got, want := cli.Strip(timing(), cli.NewStyles(false), 20), "prrdddddddddddxxxxx."; got != want {
		t.Errorf("strip: got %q, want %q", got, want)
	}
}

func TestSuggest(t *testing.T) {
	names := []string{"deploy", "describe", "invoke", "logs", "ls"}
	for in, want := range map[string]string{"delpoy": "deploy", "invok": "invoke", "lgos": "logs", "l": "ls", "zzz": "", "deplyo": "deploy"} {
		if got := cli.Suggest(in, names); got != want {
			t.Errorf("for %q: got %q, want %q", in, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	for in, want := range map[faas.Bytes]string{0: "0B", 268: "268B", 1024: "1KiB", 3584 * faas.KiB: "3.5MiB", 10 * faas.MiB: "10MiB", 3*faas.GiB/2 + 7: "1.5GiB"} {
		if got := cli.Size(in); got != want {
			t.Errorf("%d: got %q, want %q", in, got, want)
		}
	}
}
