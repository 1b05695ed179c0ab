package importer

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// hostile is an installation that answers lists as it likes.
func hostile(t *testing.T, lists map[string]func(w http.ResponseWriter, r *http.Request)) *Endpoint {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for path, answer := range lists {
			if strings.HasPrefix(r.URL.Path, path) {
				answer(w, r)
				return
			}
		}
		fmt.Fprint(w, `[]`)
	}))
	t.Cleanup(s.Close)
	return &Endpoint{URL: s.URL, Auth: "u:k"}
}

func TestAListWithoutEndIsGivenUp(t *testing.T) {
	page, _ := json.Marshal(make([]listed, 200))
	e := hostile(t, map[string]func(http.ResponseWriter, *http.Request){own: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) }})
	if all, err := e.list(t.Context(), "actions"); err == nil || !strings.Contains(err.Error(), "no end") {
		t.Errorf("%d entities, %v", len(all), err)
	}
}

func TestTheSourceSendsNowhereElse(t *testing.T) {
	asked := false
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked = true
		fmt.Fprint(w, `["inside"]`)
	}))
	defer inside.Close()
	e := hostile(t, map[string]func(http.ResponseWriter, *http.Request){
		"/there": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `["mine"]`) },
		api: func(w http.ResponseWriter, r *http.Request) {
			to := "/there"
			if strings.HasSuffix(r.URL.Path, "out") {
				to = inside.URL
			}
			http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		},
	})
	if name, err := Namespace(t.Context(), e); err != nil || name != "mine" {
		t.Errorf("namespace %q, %v", name, err)
	}
	if err := e.do(t.Context(), http.MethodPost, own+"out", map[string]string{"authKey": "secret"}, nil); err == nil || asked {
		t.Errorf("another server was asked: %v, error %v", asked, err)
	}
}

func TestNamesThatLeadElsewhereAreSkipped(t *testing.T) {
	written := ""
	to := hostile(t, map[string]func(http.ResponseWriter, *http.Request){own: func(_ http.ResponseWriter, r *http.Request) { written += r.Method + " " + r.URL.Path }})
	from := hostile(t, map[string]func(http.ResponseWriter, *http.Request){own: func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) }})
	im := &importing{Config: Config{From: *from, To: *to}}
	for _, name := range []string{"../packages/p", "..", ".", "p/..", "", "a//b"} {
		if _, copied := im.entity(t.Context(), "triggers", name, "trigger", func(*document, func(string, ...any)) error { return nil }); copied || written != "" {
			t.Errorf("%q was copied: %s", name, written)
		}
	}
	if n := im.report.Count(Skipped); n != 6 {
		t.Errorf("%d skipped", n)
	}
}
