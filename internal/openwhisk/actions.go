package openwhisk

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
)

// actions answers what is asked of a namespace's actions.
func (s *Server) actions(c *call, namespace string) error {
	if err := s.bring(c.ctx, namespace); err != nil {
		return err
	}
	p := path{namespace: namespace}
	switch {
	case len(c.rest) == 0:
		if c.r.Method != http.MethodGet {
			return notAllowed("GET")
		}
		return s.listActions(c, namespace)
	case len(c.rest) == 1 && c.slash:
		if c.r.Method != http.MethodGet {
			return errNotFound
		}
		return s.listPackage(c, namespace, c.rest[0])
	case len(c.rest) == 1:
		p.name = c.rest[0]
	case len(c.rest) == 2 && !c.slash:
		p.pkg, p.name = c.rest[0], c.rest[1]
	default:
		return errNotFound
	}
	if err := checkNames(p); err != nil {
		return err
	}
	switch c.r.Method {
	case http.MethodGet:
		return s.getAction(c, p)
	case http.MethodPut:
		return c.answer(s.putAction(c, p))
	case http.MethodDelete:
		return c.answer(s.deleteAction(c, p))
	case http.MethodPost:
		if p.pkg == "" && p.namespace == c.who.Namespace {
			if err := s.otherKind(p, entityAction); err != nil {
				return err
			}
		}
		return s.invokeAction(c, p)
	}
	return notAllowed("DELETE, GET, POST, PUT")
}

// checkNames refuses what can be no name.
func checkNames(p path) error {
	for _, name := range []string{p.pkg, p.name} {
		if name != "" && !validName(name) || name == "" && name == p.name {
			return reject(http.StatusBadRequest, "The name %.80q is not valid: it has from 1 to %d word characters, spaces and any of @ . - &, begins with a word character and does not end with a space.", name, maxName)
		}
	}
	return nil
}

func (s *Server) getAction(c *call, p path) error {
	withCode, err := flagOr(c, "code", true)
	if err != nil {
		return err
	}
	a, err := s.findAction(c.ctx, c.who.Namespace, p)
	if err != nil {
		return err
	}
	if s.cfg.Sealed && a.path.namespace != c.who.Namespace {
		return errForbidden
	}
	if withCode {
		if err := s.withCode(c.ctx, a); err != nil {
			return err
		}
	}
	a.record.Parameters = a.inherited.with(a.record.Parameters, nil)
	writeJSON(c.w, http.StatusOK, a.shown())
	return nil
}

// actionPut is what clients send to make or change an action.
type actionPut struct {
	Exec        json.RawMessage `json:"exec"`
	Version     *string         `json:"version"`
	Publish     *bool           `json:"publish"`
	Annotations *parameters     `json:"annotations"`
	Gone        []string        `json:"delAnnotations"`
	Parameters  *parameters     `json:"parameters"`
	Limits      *limitsPut      `json:"limits"`
}

func (s *Server) putAction(c *call, p path) (any, error) {
	if p.namespace != c.who.Namespace {
		return nil, errForbidden
	}
	overwrite, err := flag(c, "overwrite")
	if err != nil {
		return nil, err
	}
	var in actionPut
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := s.checkSizes(in.Parameters, in.Annotations); err != nil {
		return nil, err
	}
	if p.pkg != "" {
		defer s.locks.share(path{namespace: p.namespace, name: p.pkg})() // nobody deletes it meanwhile
		if err := s.changesIn(p); err != nil {
			return nil, err
		}
	}
	defer s.locks.lock(p)()
	if p.pkg == "" {
		if err := s.otherKind(p, entityAction); err != nil {
			return nil, err
		}
	}
	was, err := s.actionAt(p)
	switch {
	case err == nil && !overwrite:
		return nil, errExists
	case err != nil && err != errNotFound:
		return nil, err
	}
	a, err := s.changeAction(c.ctx, c.who.Namespace, p, was, &in)
	if err != nil {
		return nil, err
	}
	if err := s.withCode(c.ctx, a); err != nil {
		return nil, err
	}
	return a.shown(), nil
}

var errExists = reject(http.StatusConflict, "The resource already exists.")

// changeAction makes an action, or a new revision of was. own is the namespace of who asks.
func (s *Server) changeAction(ctx context.Context, own string, p path, was *action, in *actionPut) (*action, error) {
	a := &action{path: p}
	r := &a.record
	if string(bytes.TrimSpace(in.Exec)) == "null" { // as clients write one that they don't have
		in.Exec = nil
	}
	var before actionRecord
	if was != nil {
		before = was.record
	} else if in.Exec == nil {
		return nil, reject(http.StatusBadRequest, "The request content was malformed: 'exec' is missing, and there is no action yet.")
	}
	r.header = header{Namespace: p.space(), Name: p.name, Publish: before.Publish, Updated: s.touch(before.Updated)}
	var err error
	if r.Version, err = nextVersion(before.Version, in.Version); err != nil {
		return nil, err
	}
	if in.Publish != nil {
		r.Publish = *in.Publish
	}
	if r.Limits, err = s.readLimits(own, in.Limits, was); err != nil {
		return nil, err
	}
	var code *code
	r.Exec, r.NoCode = before.Exec, before.NoCode
	if in.Exec != nil {
		if code, err = s.readExec(in.Exec, own); err != nil {
			return nil, err
		}
		r.Exec, r.NoCode = code.exec, code.none
	} else if k, ok := findKind(r.Exec.Kind); ok && k.Deprecated {
		return nil, reject(http.StatusBadRequest, "The kind %s is deprecated: an action of it can be read and deleted, and neither made nor changed nor called.", k.Name)
	}
	if !s.mayUse(p.namespace, r.Exec.Kind) {
		return nil, reject(http.StatusForbidden, "Actions of kind %s are not allowed in this namespace.", r.Exec.Kind)
	}
	switch {
	case in.Parameters != nil:
		r.Parameters = *in.Parameters
	case was == nil || code != nil && before.Exec.Kind == kindSequence && r.Exec.Kind != kindSequence:
		r.Parameters = parameters{}
	default:
		r.Parameters = before.Parameters
	}
	if err := checkEnvironment(r.Parameters.environment()); err != nil {
		return nil, err
	}
	r.Annotations = annotate(before.Annotations, in, r.Exec.Kind, was == nil)
	if code != nil && code.exec.Kind == kindSequence {
		err = s.publishSequence(ctx, own, a, code)
	} else if code != nil {
		err = s.publishCode(ctx, a, code)
	} else {
		err = s.publishSettings(ctx, a, was)
	}
	return a, err
}

// annotate are an action's annotations after a change.
func annotate(before parameters, in *actionPut, kind string, made bool) parameters {
	var more parameters
	if in.Annotations != nil {
		more = *in.Annotations
	}
	out := before.with(more, in.Gone)
	if made && out.get("provide-api-key") == nil {
		out = append(out, parameter{Key: "provide-api-key", Value: quoted(false)})
	}
	out.set(parameter{Key: "exec", Value: quoted(kind)})
	return out
}

// noRetries has each call made once, whatever becomes of it.
func noRetries() *faas.Async {
	none := 0
	return &faas.Async{Retries: &none}
}

// publishCode has an action's code deployed. What can't be built or started is published all the same:
// each call of it fails with why.
func (s *Server) publishCode(ctx context.Context, a *action, code *code) error {
	r := &a.record
	o, err := origin(r)
	if err != nil {
		return err
	}
	req := deploy.Request{
		Name: a.path.function(), Code: bytes.NewReader(code.bytes), Language: code.language, Handler: r.Exec.Main,
		Env: r.Parameters.environment(), Limits: s.nativeLimits(r.Limits, faas.Limits{}), Network: faas.NetworkEgress, Async: noRetries(),
		Contract: faas.ContractOpenWhisk, Params: r.Parameters.arguments(), Origin: o, Conductor: r.Annotations.truthy("conductor"), Unproved: true,
	}
	if r.Exec.Kind == kindBlackbox && code.language == "" {
		req.Image = &deploy.Source{Reference: r.Exec.Image}
		if code.none {
			req.Code = nil
		}
	}
	out, err := s.cfg.Deployer.Deploy(ctx, req, nil)
	if err != nil {
		return err
	}
	a.fn, a.rev = out.Function, out.Revision
	return nil
}

// publishSettings makes a revision of the same code with other settings.
func (s *Server) publishSettings(ctx context.Context, a *action, was *action) error {
	r := &a.record
	rev := *was.rev
	rev.ID, rev.Created = "", time.Time{}
	rev.Env = map[string]string{}
	old := was.record.Parameters.environment()
	for k, v := range was.rev.Env {
		if _, parameter := old[k]; !parameter {
			rev.Env[k] = v
		}
	}
	for k, v := range r.Parameters.environment() {
		rev.Env[k] = v
	}
	rev.Params = r.Parameters.arguments()
	rev.Conductor = rev.Contract == faas.ContractOpenWhisk && rev.Sequence == nil && r.Annotations.truthy("conductor")
	if rev.Sequence == nil {
		rev.Limits = s.nativeLimits(r.Limits, rev.Limits)
	}
	var err error
	if rev.Origin, err = origin(r); err != nil {
		return err
	}
	a.rev = &rev
	a.fn, err = s.cfg.Catalog.Publish(ctx, &rev, catalog.PublishOptions{})
	return err
}

// sequenceTimeout bounds a sequence as a whole; each of its actions has a timeout of its own.
const sequenceTimeout = faas.Duration(time.Hour)

// publishSequence checks the actions of a sequence and publishes it.
func (s *Server) publishSequence(ctx context.Context, own string, a *action, code *code) error {
	seq := &faas.Sequence{ErrorField: true, Lenient: true}
	for _, p := range code.steps {
		if _, err := s.findAction(ctx, own, p); err != nil {
			if asRejection(err).status == http.StatusForbidden {
				return err
			}
			if p != a.path {
				return reject(http.StatusBadRequest, "Sequence component does not exist: /%s.", p)
			}
		}
		seq.Steps = append(seq.Steps, p.function())
	}
	steps, err := s.cfg.Catalog.Steps(a.path.function(), seq)
	if err != nil {
		return reject(http.StatusBadRequest, "The sequence can't be made: %s.", faas.AsError(err).Message())
	}
	if most := s.cfg.Limits.Sequence; len(steps) > most {
		return reject(http.StatusBadRequest, "Too many actions in the sequence: %d, those of sequences within it included, and %d are allowed.", len(steps), most)
	}
	rev := &faas.Revision{
		Name: a.path.function(), Runtime: faas.RuntimeSequence, Sequence: seq, Network: faas.NetworkNone, Async: noRetries(),
		Contract: faas.ContractOpenWhisk, Params: a.record.Parameters.arguments(), Created: now().UTC(),
	}
	limits := faas.DefaultLimits()
	limits.Timeout, limits.Request, limits.Response = sequenceTimeout, s.request(), s.cfg.Limits.Payload
	rev.Limits = limits
	if rev.Origin, err = origin(&a.record); err != nil {
		return err
	}
	a.rev = rev
	a.fn, err = s.cfg.Catalog.Publish(ctx, rev, catalog.PublishOptions{})
	return err
}

func (s *Server) deleteAction(c *call, p path) (any, error) {
	if p.namespace != c.who.Namespace {
		return nil, errForbidden
	}
	if p.pkg != "" {
		if err := s.changesIn(p); err != nil {
			return nil, err
		}
	} else if err := s.otherKind(p, entityAction); err != nil {
		return nil, err
	}
	defer s.locks.lock(p)()
	a, err := s.actionAt(p)
	if err != nil {
		return nil, err
	}
	if err := s.withCode(c.ctx, a); err != nil {
		s.cfg.Logger.Warn("code of deleted action not shown", "action", p.String(), "cause", err)
	}
	if err := s.cfg.Catalog.Delete(c.ctx, p.function()); err != nil {
		return nil, err
	}
	return a.shown(), nil
}

// mayUse says whether a namespace may make and call actions of a kind.
func (s *Server) mayUse(namespace, kind string) bool {
	allowed := s.cfg.Subjects.Limits(namespace).Kinds
	return len(allowed) == 0 || slices.Contains(allowed, kind)
}

// flagOr is flag for a parameter that has another value where it is absent.
func flagOr(c *call, name string, absent bool) (bool, error) {
	if !c.query.Has(name) {
		return absent, nil
	}
	return flag(c, name)
}
