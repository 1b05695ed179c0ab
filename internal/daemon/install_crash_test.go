package daemon

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brasa-dev/brasa/internal/api"
)

// withPackage is a function and the wheel that it needs.
func withPackage(t *testing.T) api.Code {
	t.Helper()
	var wheel bytes.Buffer
	z := zip.NewWriter(&wheel)
	for _, f := range [][2]string{
		{"brought.py", "TEXT = 'brought'\n"},
		{"brought-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n"},
		{"brought-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{"brought-1.0.dist-info/RECORD", "brought.py,,\n"},
	} {
		w, err := z.Create(f[0])
		if err == nil {
			_, err = w.Write([]byte(f[1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	var code bytes.Buffer
	w := tar.NewWriter(&code)
	for _, f := range [][2]string{
		{"main.py", "import brought\ndef main(args):\n    return brought.TEXT\n"},
		{"requirements.txt", "./brought-1.0-py3-none-any.whl\n"},
		{"brought-1.0-py3-none-any.whl", wheel.String()},
	} {
		err := w.WriteHeader(&tar.Header{Name: f[0], Mode: 0o644, Size: int64(len(f[1]))})
		if err == nil {
			_, err = w.Write([]byte(f[1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return api.Code{Filename: "code.tar", Reader: &code}
}

// TestKillInTheMiddleOfAnInstallation kills the server at each moment of an installation and starts
// it again: nothing is left of it but a record that says so, and the next deploy installs anew, unless
// the layer had been kept.
func TestKillInTheMiddleOfAnInstallation(t *testing.T) {
	needSandboxes(t)
	for _, at := range []string{"install", "stored", "kept"} {
		t.Run(at, func(t *testing.T) {
			dir := t.TempDir()
			v := startVictim(t, dir, "install: "+at)
			_, err := v.client.Deploy(t.Context(), "default", "f", api.Spec{}, withPackage(t))
			if err != nil && strings.Contains(err.Error(), "neither uv nor pip") {
				t.Skip(err)
			}
			if _, ok := errors.AsType[*api.Unreachable](err); !ok {
				t.Fatalf("the deploy ended with %v, want a lost connection", err)
			}
			<-v.dead
			v = startVictim(t, dir, "")
			if left, err := os.ReadDir(filepath.Join(dir, "install", "work")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			builds, err := v.client.Builds(t.Context(), "default")
			if err != nil || len(builds) != 1 || builds[0].Outcome != "unavailable" || builds[0].Message != "the server was stopped" {
				t.Errorf("builds %+v, %v; want one that was cut off", builds, err)
			}
			out, err := v.client.Deploy(t.Context(), "default", "f", api.Spec{}, withPackage(t))
			if err != nil {
				t.Fatal(err)
			}
			for _, st := range out.Steps {
				if st.Install != nil && st.Install.Cached != (at == "kept") {
					t.Errorf("found installed: %v", st.Install.Cached)
				}
			}
			if got := v.answer(t); got != "brought" {
				t.Errorf("it answers %q", got)
			}
			v.kill()
		})
	}
}
