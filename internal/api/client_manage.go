package api

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

const jsonType = "application/json"

func (c *Client) ns(namespace string, rest ...string) []string {
	return append([]string{"v1", "namespaces", namespace}, rest...)
}

// Ready asks whether the server can take calls. A server that is up but not ready is an answer,
// not an error.
func (c *Client) Ready(ctx context.Context) (Readiness, error) {
	r, err := call[Readiness](ctx, c, request{op: "ask for readiness", method: http.MethodGet, path: []string{"readyz"}})
	if e, ok := errors.AsType[*Remote](err); ok && e.Status == http.StatusServiceUnavailable {
		return Readiness{Why: e.Text}, nil
	}
	return r, err
}

// Version asks what the server is. It needs no key.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return call[Version](ctx, c, request{op: "ask for version", method: http.MethodGet, path: []string{"v1", "version"}})
}

// Whoami asks whose key the client has.
func (c *Client) Whoami(ctx context.Context) (Whoami, error) {
	return call[Whoami](ctx, c, request{op: "ask who I am", method: http.MethodGet, path: []string{"v1", "whoami"}})
}

// Runtimes lists the languages the server knows.
func (c *Client) Runtimes(ctx context.Context) ([]Runtime, error) {
	r, err := call[Runtimes](ctx, c, request{op: "list runtimes", method: http.MethodGet, path: []string{"v1", "runtimes"}})
	return r.Runtimes, err
}

// Doctor asks the server to examine itself and its host.
func (c *Client) Doctor(ctx context.Context) (Doctor, error) {
	return call[Doctor](ctx, c, request{op: "examine server", method: http.MethodGet, path: []string{"v1", "doctor"}})
}

// Nodes says what the machines that run functions hold.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	r, err := call[Nodes](ctx, c, request{op: "list nodes", method: http.MethodGet, path: []string{"v1", "nodes"}})
	return r.Nodes, err
}

// Namespaces lists those that the key may see.
func (c *Client) Namespaces(ctx context.Context) ([]Namespace, error) {
	r, err := call[Namespaces](ctx, c, request{op: "list namespaces", method: http.MethodGet, path: []string{"v1", "namespaces"}})
	return r.Namespaces, err
}

// Namespace asks for one.
func (c *Client) Namespace(ctx context.Context, namespace string) (Namespace, error) {
	return call[Namespace](ctx, c, request{op: "look up namespace", method: http.MethodGet, path: c.ns(namespace)})
}

// CreateNamespace makes one.
func (c *Client) CreateNamespace(ctx context.Context, namespace string) (Namespace, error) {
	return call[Namespace](ctx, c, request{
		op: "create namespace", method: http.MethodPost, path: []string{"v1", "namespaces"},
		contentType: jsonType, body: jsonBody(NamespaceSpec{Name: namespace}),
	})
}

// DeleteNamespace removes one with all that is in it.
func (c *Client) DeleteNamespace(ctx context.Context, namespace string) error {
	_, err := call[Done](ctx, c, request{op: "delete namespace", method: http.MethodDelete, path: c.ns(namespace)})
	return err
}

// Keys lists the keys of a namespace, without their secret parts.
func (c *Client) Keys(ctx context.Context, namespace string) ([]Key, error) {
	r, err := call[Keys](ctx, c, request{op: "list keys", method: http.MethodGet, path: c.ns(namespace, "keys")})
	return r.Keys, err
}

// CreateKey makes a key for a namespace. Its secret part is in this answer and nowhere else.
func (c *Client) CreateKey(ctx context.Context, namespace, subject string) (NewKey, error) {
	return call[NewKey](ctx, c, request{
		op: "create key", method: http.MethodPost, path: c.ns(namespace, "keys"),
		contentType: jsonType, body: jsonBody(KeySpec{Subject: subject}),
	})
}

// DeleteKey revokes a key at once.
func (c *Client) DeleteKey(ctx context.Context, namespace, id string) error {
	_, err := call[Done](ctx, c, request{op: "revoke key", method: http.MethodDelete, path: c.ns(namespace, "keys", id)})
	return err
}

// Functions lists the functions of a namespace with the figures of the last hour.
func (c *Client) Functions(ctx context.Context, namespace string) ([]Summary, error) {
	r, err := call[Functions](ctx, c, request{op: "list functions", method: http.MethodGet, path: c.ns(namespace, "functions")})
	return r.Functions, err
}

// Function asks for one with its active revision.
func (c *Client) Function(ctx context.Context, namespace, name string) (Function, error) {
	return call[Function](ctx, c, request{op: "look up function", method: http.MethodGet, path: c.ns(namespace, "functions", name)})
}

// Revisions lists a function's revisions, newest first.
func (c *Client) Revisions(ctx context.Context, namespace, name string) ([]RevisionInfo, error) {
	r, err := call[Revisions](ctx, c, request{op: "list revisions", method: http.MethodGet, path: c.ns(namespace, "functions", name, "revisions")})
	return r.Revisions, err
}

// Activate makes a revision, given by its id or the first digits of it, the one that calls run.
func (c *Client) Activate(ctx context.Context, namespace, name, revision string) (Function, error) {
	return call[Function](ctx, c, request{
		op: "activate revision", method: http.MethodPost, path: c.ns(namespace, "functions", name, "activate"),
		contentType: jsonType, body: jsonBody(ActivateSpec{Revision: revision}),
	})
}

// Delete removes a function and its revisions.
func (c *Client) Delete(ctx context.Context, namespace, name string) error {
	_, err := call[Done](ctx, c, request{op: "delete function", method: http.MethodDelete, path: c.ns(namespace, "functions", name)})
	return err
}

// Secrets lists the names of a namespace's secrets.
func (c *Client) Secrets(ctx context.Context, namespace string) ([]Secret, error) {
	r, err := call[Secrets](ctx, c, request{op: "list secrets", method: http.MethodGet, path: c.ns(namespace, "secrets")})
	return r.Secrets, err
}

// PutSecret sets a secret. Instances that hold an older value are replaced.
func (c *Client) PutSecret(ctx context.Context, namespace, name, value string) (Secret, error) {
	return call[Secret](ctx, c, request{
		op: "set secret", method: http.MethodPut, path: c.ns(namespace, "secrets", name),
		contentType: jsonType, body: jsonBody(SecretSpec{Value: value}),
	})
}

// DeleteSecret removes a secret.
func (c *Client) DeleteSecret(ctx context.Context, namespace, name string) error {
	_, err := call[Done](ctx, c, request{op: "delete secret", method: http.MethodDelete, path: c.ns(namespace, "secrets", name)})
	return err
}

// OpenAPI fetches the document that describes the API, as JSON.
func (c *Client) OpenAPI(ctx context.Context) ([]byte, error) {
	return c.document(ctx, "openapi.json")
}

// URL returns the own URL of a function at this server.
func (c *Client) URL(namespace, name string) string {
	return strings.Join([]string{c.base, "f", url.PathEscape(namespace), url.PathEscape(name)}, "/")
}

// codeOfStatus guesses a code where the answer has none.
func codeOfStatus(status int) faas.Code {
	for code, s := range statuses {
		if s == status && faas.Code(code) != faas.OK {
			return faas.Code(code)
		}
	}
	switch {
	case status >= 500:
		return faas.Unavailable
	case status >= 400:
		return faas.Invalid
	}
	return faas.Internal
}

// PutSequence makes a function of others, or changes it.
func (c *Client) PutSequence(ctx context.Context, namespace, name string, spec SequenceSpec) (Function, error) {
	return call[Function](ctx, c, request{
		op: "create sequence", method: http.MethodPut, path: c.ns(namespace, "sequences", name), contentType: jsonType, body: jsonBody(spec),
	})
}
