package api

import (
	"context"
	"io"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
)

// Builds is a list of them, newest first.
type Builds struct {
	Builds []install.BuildInfo `json:"builds"`
}

func (s *Server) buildRoutes() {
	manage(s, accessNamespace, operation("list-builds", http.MethodGet, inNamespace+"/builds", "List what was installed and built in the last week, newest first", "functions"), func(_ context.Context, in *NamespacePath) (Builds, error) {
		uid, err := s.namespaceUID(in.Namespace)
		if err != nil {
			return Builds{}, err
		}
		all, err := s.cfg.Builds.List(uid)
		return Builds{Builds: all}, err
	})
	op := operation("build-log", http.MethodGet, inNamespace+"/builds/{id}/log", "Read all that was written while a function was installed and built", "functions")
	op.Responses = map[string]*huma.Response{"200": {
		Description: "Text as the tools wrote it; of a build under way, what there is so far",
		Content:     map[string]*huma.MediaType{"text/plain": {Schema: s.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[string](), true, "")}},
	}}
	s.raw(accessNamespace, op, s.buildLog)
}

func (s *Server) buildLog(w http.ResponseWriter, r *http.Request, _ Caller) error {
	uid, err := s.namespaceUID(r.PathValue("namespace"))
	if err != nil {
		return err
	}
	_, log, err := s.cfg.Builds.Log(uid, r.PathValue("id"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	_, _ = io.Copy(w, log) // an error means that nobody is left to hear of it
	return nil
}

func (s *Server) namespaceUID(namespace string) (string, error) {
	if s.cfg.Builds == nil {
		return "", faas.Errorf(faas.Unavailable, "read builds", "this server keeps no logs of builds")
	}
	ns, err := s.cfg.Catalog.Namespace(namespace)
	return ns.UID, err
}
