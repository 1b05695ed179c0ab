package api

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/brasa-dev/brasa/internal/faas"
)

// maxDocument bounds the body of requests that are one JSON document.
const maxDocument = 1 * faas.MiB

// output is what huma writes: our envelope.
type output[T any] struct {
	Body Answer[T]
}

// manage adds a route of the management API: described, validated and answered by huma, allowed
// by the rule a.
func manage[I, T any](s *Server, a access, op huma.Operation, handle func(context.Context, *I) (T, error)) {
	secure(&op, a)
	op.MaxBodyBytes = int64(maxDocument) + 1 // huma takes less than this
	op.BodyReadTimeout = -1                  // the gateway watches how fast a body comes
	op.Middlewares = huma.Middlewares{func(ctx huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(ctx)
		caller := CallerOf(ctx.Context())
		if err := s.allow(caller, a, ctx.Param("namespace")); err != nil {
			WriteError(w, r, s.cfg.Logger, err)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next(huma.WithValue(ctx, requestKey{}, r))
	}}
	huma.Register(s.huma, op, func(ctx context.Context, in *I) (*output[T], error) {
		data, err := handle(ctx, in)
		if err != nil {
			return nil, refuse(s.cfg.Logger, CallerOf(ctx).ID, err)
		}
		return &output[T]{Body: Answer[T]{OK: true, Data: data}}, nil
	})
}

// handler is a route that is written by hand. An error that it returns is answered with the
// envelope; it returns none once it has begun to answer.
type handler func(w http.ResponseWriter, r *http.Request, c Caller) error

// raw adds a route that streams. What huma would find out from types is said in op.
func (s *Server) raw(a access, op huma.Operation, handle handler) {
	s.documented(a, &op)
	known := map[string]bool{}
	for _, p := range op.Parameters {
		if p.In == "query" {
			known[p.Name] = true
		}
	}
	s.mux.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, r *http.Request) {
		c := CallerOf(r.Context())
		err := s.allow(c, a, r.PathValue("namespace"))
		if err == nil {
			err = knownQuery(r, known)
		}
		if err == nil {
			err = handle(w, r, c)
		}
		if err != nil {
			WriteError(w, r, s.cfg.Logger, err)
		}
	})
}

// documented adds an operation to the OpenAPI document without a handler.
func (s *Server) documented(a access, op *huma.Operation) {
	secure(op, a)
	for _, segment := range strings.Split(op.Path, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			name = strings.TrimSuffix(name, "}")
			op.Parameters = append([]*huma.Param{{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}}}, op.Parameters...)
		}
	}
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	if op.Responses["default"] == nil {
		op.Responses["default"] = s.json(reflect.TypeFor[refusal](), "Error")
	}
	s.huma.OpenAPI().AddOperation(op)
}

// json describes an answer of a type.
func (s *Server) json(t reflect.Type, description string) *huma.Response {
	schema := s.huma.OpenAPI().Components.Schemas.Schema(t, true, "")
	return &huma.Response{Description: description, Content: map[string]*huma.MediaType{jsonType: {Schema: schema}}}
}

func secure(op *huma.Operation, a access) {
	op.Extensions = map[string]any{accessExtension: string(a)}
	op.Security = []map[string][]string{{"key": {}}}
	switch a {
	case accessOpen:
		op.Security = []map[string][]string{{}}
	case accessFunction:
		op.Security = append(op.Security, map[string][]string{})
	case accessKey, accessNamespace, accessAdmin:
	default:
		panic("route without a rule: " + op.Method + " " + op.Path)
	}
}

func knownQuery(r *http.Request, known map[string]bool) error {
	if r.URL.RawQuery == "" {
		return nil
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return faas.Errorf(faas.Invalid, "read query", "the query is not well formed")
	}
	for k := range q {
		if !known[k] {
			names := make([]string, 0, len(known))
			for n := range known {
				names = append(names, n)
			}
			slices.Sort(names)
			return faas.Errorf(faas.Invalid, "read query", "unknown query parameter %.80q", k).WithFix("there are: %s", strings.Join(names, ", "))
		}
	}
	return nil
}

func query(name, kind, doc string) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: doc, Schema: &huma.Schema{Type: kind}}
}

func headerParam(name, doc string) *huma.Param {
	return &huma.Param{Name: name, In: "header", Description: doc, Schema: &huma.Schema{Type: huma.TypeString}}
}
