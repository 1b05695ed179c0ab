package install

import (
	"bytes"
	"strings"
	"testing"
)

func TestSecretsAreNotWrittenOn(t *testing.T) {
	r := Registries{
		Python: PythonRegistry{Index: "https://user:first%20secret@a.example/simple", Extra: []string{"https://b.example"}},
		NPM:    NPMRegistry{Token: "second-secret", Scopes: []string{"@s=https://c.example#third-secret"}},
		Go:     GoProxy{Proxy: "https://u:fourth-secret@d.example,direct"},
		Maven:  MavenMirror{Mirror: "https://e.example", Password: "fifth-secret"},
		Cargo:  CargoRegistry{Token: "tiny"},
	}
	const text = "a first secret, a first%20secret, a first+secret, dXNlcjpmaXJzdCBzZWNyZXQ=; second-secret third-secret\nfourth-secretfifth-secret, a tiny second-se"
	const want = "a ***, a ***, a ***, ***; *** ***\n******, a tiny second-se"
	for _, size := range []int{1, 2, 3, 7, len(text)} {
		var got bytes.Buffer
		h := &hider{to: &got, secrets: r.secrets()}
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			if _, err := h.Write([]byte(rest[:n])); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if strings.Contains(got.String(), "second-se") {
			t.Errorf("in pieces of %d: the beginning of a secret was written on", size)
		}
		h.flush()
		if got.String() != want {
			t.Errorf("in pieces of %d: %q, want %q", size, got.String(), want)
		}
	}
}
