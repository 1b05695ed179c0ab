package api

import (
	"context"
	"net/http"
	"time"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
)

// Caller is what the gateway found out about a request before a dialect sees it.
type Caller struct {
	ID       faas.ID   // of the request, and of the invocation it may lead to
	Begin    time.Time // when the door took it
	Identity auth.Identity
	Refused  error // why the key that was sent is not taken; nil if it is or if there was none
}

type callerKey struct{}

// WithCaller returns a context that carries the caller.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns the caller that ctx carries, and nobody if it carries none.
func CallerOf(ctx context.Context) Caller {
	c, ok := ctx.Value(callerKey{}).(Caller)
	if !ok {
		now := time.Now()
		c = Caller{ID: faas.NewID(now), Begin: now}
	}
	return c
}

// access is the rule of a route. Each route has one; it stands in the OpenAPI document under
// accessExtension, and is enforced from the same value.
type access string

const (
	accessOpen      access = "open"      // anybody
	accessKey       access = "key"       // whoever has a valid key
	accessNamespace access = "namespace" // a key of the namespace in the path, or an admin's
	accessAdmin     access = "admin"     // an admin's key
	accessFunction  access = "function"  // as namespace; a public function anybody

	accessExtension = "x-brasa-access"
)

// allow says whether the caller may use a route of the rule a; namespace is that of the path, ""
// if the path has none. Whoever may not know of a namespace is told that there is none.
func (s *Server) allow(c Caller, a access, namespace string) error {
	if a == accessOpen {
		return nil
	}
	if c.Identity.KeyID == "" {
		if c.Refused != nil {
			return c.Refused
		}
		return faas.Errorf(faas.Unauthenticated, "authenticate", "the request carries no key").
			WithFix("send the header Authorization: Bearer KEY; the command line reads BRASA_KEY or --key-file")
	}
	if namespace != "" {
		if err := faas.ValidateName("namespace", namespace); err != nil {
			return err
		}
		if err := c.Identity.May(namespace); err != nil {
			return err
		}
	}
	if a == accessAdmin && !c.Identity.Admin {
		return faas.Errorf(faas.Denied, "check access", "only an admin may do this").
			WithFix("use an admin's key; the server keeps one in admin.key in its data directory")
	}
	if namespace != "" {
		if _, err := s.cfg.Catalog.Namespace(namespace); err != nil {
			return err
		}
	}
	return nil
}

// functionHeaders are the headers that say to whom and how an answer of a call belongs.
func functionHeaders(h http.Header, id faas.ID, outcome faas.Code) {
	h.Set(HeaderInvocationID, string(id))
	h.Set(HeaderOutcome, outcome.String())
}
