package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
)

const inNamespace = "/v1/namespaces/{namespace}"

type none struct{}

// NamespacePath is the part of a path that names a namespace. It is exported, as are those below
// that are embedded, because huma does not see into an embedded type that is not.
type NamespacePath struct {
	Namespace string `path:"namespace"`
}

type keyPath struct {
	NamespacePath
	ID string `path:"id" doc:"The key's id, the part between the underscores"`
}

// SecretPath names a secret.
type SecretPath struct {
	NamespacePath
	Name string `path:"name"`
}

func operation(id, method, path, summary, tag string) huma.Operation {
	return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Tags: []string{tag}}
}

func created(op huma.Operation) huma.Operation {
	op.DefaultStatus = http.StatusCreated
	return op
}

// routes adds every route there is.
func (s *Server) routes() {
	s.serverRoutes()
	s.namespaceRoutes()
	s.secretRoutes()
	s.functionRoutes()
	s.callRoutes()
	s.recordRoutes()
	s.standingRoutes()
	s.queueRoutes()
	s.triggerRoutes()
	if s.cfg.Subjects != nil {
		s.subjectRoutes()
		s.spaceRoutes()
	}
}

func (s *Server) serverRoutes() {
	ready := operation("ready", http.MethodGet, "/readyz", "Ask whether calls can be taken", "server")
	manage(s, accessOpen, ready, func(context.Context, *none) (Readiness, error) {
		if ok, why := s.cfg.Ready(); !ok {
			return Readiness{}, faas.Errorf(faas.Unavailable, "ask for readiness", "the server is not ready: %s", why)
		}
		return Readiness{Ready: true}, nil
	})
	manage(s, accessOpen, operation("health", http.MethodGet, "/healthz", "Ask whether the server is alive", "server"), func(context.Context, *none) (Done, error) {
		return Done{}, nil
	})
	manage(s, accessOpen, operation("version", http.MethodGet, "/v1/version", "Ask what the server is", "server"), func(context.Context, *none) (Version, error) {
		return s.cfg.Version, nil
	})
	manage(s, accessKey, operation("whoami", http.MethodGet, "/v1/whoami", "Ask whose key this is", "server"), func(ctx context.Context, _ *none) (Whoami, error) {
		id := CallerOf(ctx).Identity
		return Whoami{KeyID: id.KeyID, Subject: id.Subject, Admin: id.Admin, Namespaces: list(id.Namespaces)}, nil
	})
	manage(s, accessKey, operation("list-runtimes", http.MethodGet, "/v1/runtimes", "List the languages that functions can be written in", "server"), func(context.Context, *none) (Runtimes, error) {
		return Runtimes{Runtimes: list(s.cfg.Runtimes())}, nil
	})
	manage(s, accessAdmin, operation("doctor", http.MethodGet, "/v1/doctor", "Have the server examine its host", "server"), func(ctx context.Context, _ *none) (Doctor, error) {
		d := s.cfg.Doctor(ctx)
		d.Checks = list(d.Checks)
		return d, nil
	})
	manage(s, accessAdmin, operation("list-nodes", http.MethodGet, "/v1/nodes", "See what the machines that run functions hold", "server"), func(context.Context, *none) (Nodes, error) {
		out := Nodes{Nodes: []Node{}}
		for _, n := range s.cfg.Nodes() {
			out.Nodes = append(out.Nodes, nodeOf(&n))
		}
		return out, nil
	})
	s.documents()
}

// documents adds the routes of the OpenAPI document, which describes them too.
func (s *Server) documents() {
	for _, d := range []struct {
		name, media string
		bytes       *[]byte
	}{{"openapi.json", jsonType, &s.document}, {"openapi.yaml", "application/yaml", &s.yaml}} {
		op := operation(d.name, http.MethodGet, "/v1/"+d.name, "Read this description", "server")
		op.Responses = map[string]*huma.Response{"200": {Description: "The OpenAPI document, without envelope", Content: map[string]*huma.MediaType{d.media: {}}}}
		s.raw(accessOpen, op, func(w http.ResponseWriter, _ *http.Request, _ Caller) error {
			w.Header().Set("Content-Type", d.media)
			_, _ = w.Write(*d.bytes) // an error means that nobody is left to hear of it
			return nil
		})
	}
}

func (s *Server) namespaceRoutes() {
	manage(s, accessKey, operation("list-namespaces", http.MethodGet, "/v1/namespaces", "List the namespaces that the key may use", "namespaces"), func(ctx context.Context, _ *none) (Namespaces, error) {
		out := []Namespace{}
		id := CallerOf(ctx).Identity
		for _, ns := range s.cfg.Catalog.Namespaces() {
			if id.May(ns.Name) == nil {
				out = append(out, wireNamespace(ns))
			}
		}
		return Namespaces{Namespaces: out}, nil
	})
	manage(s, accessAdmin, created(operation("create-namespace", http.MethodPost, "/v1/namespaces", "Create a namespace", "namespaces")), func(ctx context.Context, in *struct{ Body NamespaceSpec }) (Namespace, error) {
		if err := faas.ValidateName("namespace", in.Body.Name); err != nil {
			return Namespace{}, err
		}
		if _, err := s.cfg.Catalog.Namespace(in.Body.Name); err != nil {
			// Keys that outlived a namespace of this name, because the server died while it was
			// deleted, must not open the new one.
			if err := s.cfg.Keys.RevokeAll(ctx, in.Body.Name); err != nil {
				return Namespace{}, err
			}
		}
		ns, err := s.cfg.Catalog.CreateNamespace(ctx, in.Body.Name)
		if err != nil {
			return Namespace{}, err
		}
		return wireNamespace(ns), nil
	})
	manage(s, accessNamespace, operation("get-namespace", http.MethodGet, inNamespace, "Look a namespace up", "namespaces"), func(_ context.Context, in *NamespacePath) (Namespace, error) {
		ns, err := s.cfg.Catalog.Namespace(in.Namespace)
		if err != nil {
			return Namespace{}, err
		}
		return wireNamespace(ns), nil
	})
	manage(s, accessAdmin, operation("delete-namespace", http.MethodDelete, inNamespace, "Delete an empty namespace, its secrets and keys", "namespaces"), func(ctx context.Context, in *NamespacePath) (Done, error) {
		if err := s.cfg.Catalog.DeleteNamespace(ctx, in.Namespace); err != nil {
			return Done{}, err
		}
		return Done{}, s.cfg.Keys.RevokeAll(ctx, in.Namespace)
	})
	manage(s, accessNamespace, operation("list-keys", http.MethodGet, inNamespace+"/keys", "List the keys of a namespace", "keys"), func(_ context.Context, in *NamespacePath) (Keys, error) {
		out := []Key{}
		for _, k := range s.cfg.Keys.List(in.Namespace) {
			out = append(out, wireKey(k))
		}
		return Keys{Keys: out}, nil
	})
	manage(s, accessNamespace, created(operation("create-key", http.MethodPost, inNamespace+"/keys", "Create a key for a namespace", "keys")), func(ctx context.Context, in *struct {
		NamespacePath
		Body KeySpec
	}) (NewKey, error) {
		key, info, err := s.cfg.Keys.Create(ctx, in.Body.Subject, in.Namespace, false)
		if err != nil {
			return NewKey{}, err
		}
		return NewKey{Key: wireKey(info), Secret: key}, nil
	})
	manage(s, accessNamespace, operation("delete-key", http.MethodDelete, inNamespace+"/keys/{id}", "Revoke a key", "keys"), func(ctx context.Context, in *keyPath) (Done, error) {
		return Done{}, s.cfg.Keys.Revoke(ctx, in.Namespace, in.ID)
	})
}

func (s *Server) secretRoutes() {
	manage(s, accessNamespace, operation("list-secrets", http.MethodGet, inNamespace+"/secrets", "List the names of secrets", "secrets"), func(_ context.Context, in *NamespacePath) (Secrets, error) {
		out := []Secret{}
		for _, sec := range s.cfg.Catalog.Secrets(in.Namespace) {
			out = append(out, Secret(sec))
		}
		return Secrets{Secrets: out}, nil
	})
	manage(s, accessNamespace, operation("put-secret", http.MethodPut, inNamespace+"/secrets/{name}", "Set a secret", "secrets"), func(ctx context.Context, in *struct {
		SecretPath
		Body SecretSpec
	}) (Secret, error) {
		if err := faas.ValidateName("secret", in.Name); err != nil {
			return Secret{}, err
		}
		info, err := s.cfg.Catalog.PutSecret(ctx, in.Namespace, in.Name, []byte(in.Body.Value))
		return Secret(info), err
	})
	manage(s, accessNamespace, operation("delete-secret", http.MethodDelete, inNamespace+"/secrets/{name}", "Delete a secret", "secrets"), func(ctx context.Context, in *SecretPath) (Done, error) {
		if err := faas.ValidateName("secret", in.Name); err != nil {
			return Done{}, err
		}
		return Done{}, s.cfg.Catalog.DeleteSecret(ctx, in.Namespace, in.Name)
	})
}

func wireNamespace(ns *catalog.Namespace) Namespace {
	return Namespace{Name: ns.Name, Created: ns.Created}
}

func wireKey(k auth.Info) Key {
	return Key{ID: k.ID, Subject: k.Subject, Admin: k.Admin, Namespaces: list(k.Namespaces), Created: k.Created}
}

// list makes an empty list of none, since on the wire a list is never null.
func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}
