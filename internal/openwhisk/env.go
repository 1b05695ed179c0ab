package openwhisk

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
)

// platformVariable is how the names of variables begin that tell an action of its call: nobody else sets them.
const platformVariable = "__OW_"

// Env is what an action finds in its environment during a call besides what its runtime knows by
// itself. The key of the namespace is there only if the action asks for it with the annotation
// provide-api-key: it opens all of the namespace.
func (s *Server) Env(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (map[string]string, error) {
	m := s.metaOf(rev)
	env := map[string]string{
		"__OW_API_HOST": s.apiHost(), "__OW_NAMESPACE": s.namespaceName(inv.Owner, rev),
		"__OW_ACTION_NAME": "/" + m.Namespace + "/" + m.Name, "__OW_ACTION_VERSION": m.Version,
	}
	if id := inv.Header[transactionHeader]; len(id) > 0 {
		env["__OW_TRANSACTION_ID"] = id[0]
	}
	for k, v := range s.packageEnvironment(inv.Function.Name) {
		if _, own := rev.Env[k]; !own && !strings.HasPrefix(k, platformVariable) {
			env[k] = v
		}
	}
	if m.truthy("provide-api-key") {
		env["__OW_API_KEY"] = "" // else its process would keep the one of the call before
		owner := inv.Owner
		if owner == "" {
			owner = rev.Name.Namespace
		}
		has := func(i catalog.SecretInfo) bool { return i.Name == auth.SubjectSecret }
		if slices.ContainsFunc(s.cfg.Catalog.Secrets(owner), has) { // else nobody has a key of this namespace
			values, _, err := s.cfg.Catalog.OpenSecrets(ctx, owner, []string{auth.SubjectSecret})
			if err != nil {
				return nil, err
			}
			value := values[auth.SubjectSecret]
			uuid, key, _ := strings.Cut(value, ":")
			// One of a blocked subject, say, would only have the action refused.
			if who, ok := s.cfg.Subjects.Whose(uuid, key); ok && faas.NativeName(who.Namespace) == owner {
				env["__OW_API_KEY"] = value
			}
		}
	}
	return env, nil
}

// apiHost is where actions call this server.
func (s *Server) apiHost() string {
	if s.cfg.Inside == nil {
		return s.cfg.APIHost
	}
	return cmp.Or(s.cfg.Inside(), s.cfg.APIHost)
}

// Next finds the action that a conductor names, as its caller may call it.
func (s *Server) Next(ctx context.Context, inv *faas.Invocation, action string) (faas.Name, error) {
	who := auth.Subject{Name: inv.Subject, Namespace: s.cfg.Subjects.NamespaceName(cmp.Or(inv.Owner, inv.Function.Name.Namespace))}
	p, ok := parsePath(action, who.Namespace)
	if !ok {
		return faas.Name{}, faas.Errorf(faas.Invalid, "find action", "it is no name of an action")
	}
	if err := s.bring(ctx, p.namespace); err != nil {
		return faas.Name{}, err
	}
	if _, err := s.resolve(who, p); err != nil {
		if r, ok := err.(*rejection); ok {
			code := faas.NotFound
			if r.status == http.StatusForbidden {
				code = faas.Denied
			}
			return faas.Name{}, faas.Errorf(code, "find action", "%s", r.message)
		}
		return faas.Name{}, err
	}
	return p.function(), nil
}
