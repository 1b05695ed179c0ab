package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
)

// Subject is who has keys of OpenWhisk's kind.
type Subject struct {
	Subject    string       `json:"subject"`
	Blocked    bool         `json:"blocked" doc:"Its keys are not taken"`
	Namespaces []SubjectKey `json:"namespaces" doc:"That it has keys of"`
	Created    time.Time    `json:"created"`
}

// SubjectKey is a key of a subject, without its secret part.
type SubjectKey struct {
	Namespace string    `json:"namespace"`
	UUID      string    `json:"uuid" doc:"The user part of what OpenWhisk's clients authenticate with"`
	Created   time.Time `json:"created"`
}

// Subjects is a list of them.
type Subjects struct {
	Subjects []Subject `json:"subjects"`
}

// SubjectSpec asks for a key of a subject.
type SubjectSpec struct {
	Namespace string `json:"namespace,omitempty" doc:"What the key opens, made if absent; the subject's name when left out"`
	UUID      string `json:"uuid,omitempty" doc:"With key: taken over from another installation"`
	Key       string `json:"key,omitempty" doc:"64 characters"`
	Replace   bool   `json:"replace,omitempty" doc:"Take the place of the key that the subject has for the namespace"`
}

// NewSubject is a key at the one time its secret part is shown.
type NewSubject struct {
	Subject   string `json:"subject"`
	Namespace string `json:"namespace"`
	UUID      string `json:"uuid"`
	Key       string `json:"key" doc:"Shown this once; wsk takes UUID:KEY as --auth"`
}

// SubjectBlock blocks a subject or takes that back.
type SubjectBlock struct {
	Blocked bool `json:"blocked"`
}

// SubjectPath names a subject.
type SubjectPath struct {
	Subject string `path:"subject"`
}

func (s *Server) subjectRoutes() {
	const all, one = "/v1/subjects", "/v1/subjects/{subject}"
	manage(s, accessAdmin, operation("list-subjects", http.MethodGet, all, "List who has keys of OpenWhisk's kind", "subjects"), func(context.Context, *none) (Subjects, error) {
		out := Subjects{Subjects: []Subject{}}
		for _, i := range s.cfg.Subjects.List() {
			out.Subjects = append(out.Subjects, wireSubject(i))
		}
		return out, nil
	})
	manage(s, accessAdmin, operation("get-subject", http.MethodGet, one, "Look a subject up", "subjects"), func(_ context.Context, in *SubjectPath) (Subject, error) {
		i, err := s.cfg.Subjects.Get(in.Subject)
		return wireSubject(i), err
	})
	manage(s, accessAdmin, created(operation("create-subject", http.MethodPost, one, "Make a key of OpenWhisk's kind, and its subject and namespace where they are absent", "subjects")), func(ctx context.Context, in *struct {
		SubjectPath
		Body SubjectSpec
	}) (NewSubject, error) {
		namespace := in.Body.Namespace
		if namespace == "" {
			namespace = in.Subject
		}
		s.subjects.Lock()
		defer s.subjects.Unlock()
		native := faas.NativeName(namespace)
		_, there := s.cfg.Catalog.CreateNamespace(ctx, native)
		if there != nil && faas.CodeOf(there) != faas.Conflict {
			return NewSubject{}, there
		}
		made, err := s.cfg.Subjects.Put(ctx, in.Subject, namespace, in.Body.UUID, in.Body.Key, in.Body.Replace)
		if err != nil {
			if there == nil { // nobody asked for the namespace alone
				err = errors.Join(err, s.cfg.Catalog.DeleteNamespace(context.WithoutCancel(ctx), native))
			}
			return NewSubject{}, err
		}
		if _, err := s.cfg.Catalog.PutSecret(ctx, native, auth.SubjectSecret, []byte(made.UUID+":"+made.Key)); err != nil {
			return NewSubject{}, err
		}
		return NewSubject{Subject: made.Name, Namespace: made.Namespace, UUID: made.UUID, Key: made.Key}, nil
	})
	manage(s, accessAdmin, operation("block-subject", http.MethodPatch, one, "Have a subject's keys not taken, or taken again", "subjects"), func(ctx context.Context, in *struct {
		SubjectPath
		Body SubjectBlock
	}) (Subject, error) {
		if err := s.cfg.Subjects.Block(ctx, in.Subject, in.Body.Blocked); err != nil {
			return Subject{}, err
		}
		i, err := s.cfg.Subjects.Get(in.Subject)
		return wireSubject(i), err
	})
	manage(s, accessAdmin, operation("delete-subject", http.MethodDelete, one, "Delete a subject, or its key of one namespace; namespaces stay", "subjects"), func(ctx context.Context, in *struct {
		SubjectPath
		Namespace string `query:"namespace" doc:"Of which the key is deleted; all when left out"`
	}) (Done, error) {
		s.subjects.Lock()
		defer s.subjects.Unlock()
		was, err := s.cfg.Subjects.Get(in.Subject)
		if err != nil {
			return Done{}, err
		}
		if err := s.cfg.Subjects.Delete(ctx, in.Subject, in.Namespace); err != nil {
			return Done{}, err
		}
		for _, key := range was.Keys {
			if in.Namespace == "" || in.Namespace == key.Namespace {
				err = errors.Join(err, s.forgetKey(ctx, key))
			}
		}
		return Done{}, err
	})
}

// forgetKey deletes the secret in which a namespace keeps a key, if it is this one.
func (s *Server) forgetKey(ctx context.Context, key auth.SubjectKey) error {
	native := faas.NativeName(key.Namespace)
	if !slices.ContainsFunc(s.cfg.Catalog.Secrets(native), func(i catalog.SecretInfo) bool { return i.Name == auth.SubjectSecret }) {
		return nil
	}
	values, _, err := s.cfg.Catalog.OpenSecrets(ctx, native, []string{auth.SubjectSecret})
	if err != nil || !strings.HasPrefix(values[auth.SubjectSecret], key.UUID+":") {
		return err
	}
	return s.cfg.Catalog.DeleteSecret(ctx, native, auth.SubjectSecret)
}

// SpaceLimits are what a namespace of OpenWhisk has in place of the server's limits. What is left out is
// the server's.
type SpaceLimits struct {
	Invocations *int     `json:"invocations_per_minute,omitempty" minimum:"0" maximum:"1000000"`
	Concurrent  *int     `json:"concurrent_invocations,omitempty" minimum:"0" maximum:"1000000"`
	Fires       *int     `json:"fires_per_minute,omitempty" minimum:"0" maximum:"1000000" doc:"Of triggers"`
	Kinds       []string `json:"kinds,omitempty" maxItems:"100" doc:"Kinds of actions that it may make and call; all when left out"`
	Hidden      bool     `json:"hide_activations,omitempty" doc:"Records of its calls are not shown by OpenWhisk's API"`
}

// SpacePath names a namespace as OpenWhisk's clients do.
type SpacePath struct {
	Space string `path:"space"`
}

func (s *Server) spaceRoutes() {
	const one = "/v1/subject-namespaces/{space}/limits"
	known := func(space string) error {
		_, err := s.cfg.Catalog.Namespace(faas.NativeName(space))
		return err
	}
	manage(s, accessAdmin, operation("get-space-limits", http.MethodGet, one, "Read the limits that a namespace of OpenWhisk has of its own", "subjects"), func(_ context.Context, in *SpacePath) (SpaceLimits, error) {
		return SpaceLimits(s.cfg.Subjects.Limits(in.Space)), known(in.Space)
	})
	manage(s, accessAdmin, operation("put-space-limits", http.MethodPut, one, "Set them", "subjects"), func(ctx context.Context, in *struct {
		SpacePath
		Body SpaceLimits
	}) (SpaceLimits, error) {
		if err := known(in.Space); err != nil {
			return SpaceLimits{}, err
		}
		if s.cfg.CheckKinds != nil {
			if err := s.cfg.CheckKinds(in.Body.Kinds); err != nil {
				return SpaceLimits{}, err
			}
		}
		return in.Body, s.cfg.Subjects.PutLimits(ctx, in.Space, auth.NamespaceLimits(in.Body))
	})
}

func wireSubject(i auth.SubjectInfo) Subject {
	out := Subject{Subject: i.Name, Blocked: i.Blocked, Created: i.Created, Namespaces: []SubjectKey{}}
	for _, k := range i.Keys {
		out.Namespaces = append(out.Namespaces, SubjectKey(k))
	}
	return out
}

// Subjects lists who has keys of OpenWhisk's kind.
func (c *Client) Subjects(ctx context.Context) ([]Subject, error) {
	r, err := call[Subjects](ctx, c, request{op: "list subjects", method: http.MethodGet, path: []string{"v1", "subjects"}})
	return r.Subjects, err
}

// Subject looks one up.
func (c *Client) Subject(ctx context.Context, name string) (Subject, error) {
	return call[Subject](ctx, c, request{op: "look up subject", method: http.MethodGet, path: []string{"v1", "subjects", name}})
}

// CreateSubject makes a key of OpenWhisk's kind. Its secret part is in this answer and nowhere else.
func (c *Client) CreateSubject(ctx context.Context, name string, spec SubjectSpec) (NewSubject, error) {
	return call[NewSubject](ctx, c, request{op: "create subject", method: http.MethodPost, path: []string{"v1", "subjects", name}, contentType: jsonType, body: jsonBody(spec)})
}

// BlockSubject has a subject's keys not taken, or taken again.
func (c *Client) BlockSubject(ctx context.Context, name string, blocked bool) (Subject, error) {
	return call[Subject](ctx, c, request{op: "block subject", method: http.MethodPatch, path: []string{"v1", "subjects", name}, contentType: jsonType, body: jsonBody(SubjectBlock{Blocked: blocked})})
}

// SpaceLimits reads the limits that a namespace of OpenWhisk has of its own.
func (c *Client) SpaceLimits(ctx context.Context, space string) (SpaceLimits, error) {
	return call[SpaceLimits](ctx, c, request{op: "read limits", method: http.MethodGet, path: []string{"v1", "subject-namespaces", space, "limits"}})
}

// PutSpaceLimits sets them.
func (c *Client) PutSpaceLimits(ctx context.Context, space string, l SpaceLimits) (SpaceLimits, error) {
	return call[SpaceLimits](ctx, c, request{
		op: "set limits", method: http.MethodPut, path: []string{"v1", "subject-namespaces", space, "limits"}, contentType: jsonType, body: jsonBody(l),
	})
}

// DeleteSubject deletes a subject, or its key of one namespace.
func (c *Client) DeleteSubject(ctx context.Context, name, namespace string) error {
	q := url.Values{}
	if namespace != "" {
		q.Set("namespace", namespace)
	}
	_, err := call[Done](ctx, c, request{op: "delete subject", method: http.MethodDelete, path: []string{"v1", "subjects", name}, query: q})
	return err
}
