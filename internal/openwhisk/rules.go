package openwhisk

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
)

// States of rules.
const (
	ruleActive   = "active"
	ruleInactive = "inactive"
)

// rules answers what is asked of a namespace's rules.
func (s *Server) rules(c *call, namespace string) error {
	if namespace != c.who.Namespace {
		return errForbidden
	}
	p, all, err := c.entity(namespace)
	if err != nil {
		return err
	}
	if all {
		return s.listRules(c, namespace)
	}
	switch c.r.Method {
	case http.MethodGet:
		rule, err := s.findRule(p)
		if err != nil {
			return err
		}
		writeJSON(c.w, http.StatusOK, s.ruleAnswer(namespace, rule))
		return nil
	case http.MethodPut:
		return c.answer(s.putRule(c, p))
	case http.MethodDelete:
		return c.answer(s.deleteRule(c, p))
	case http.MethodPost:
		return s.setRule(c, p)
	}
	return notAllowed("DELETE, GET, POST, PUT")
}

// findRule finds a rule, or says that there is none, or that the name is of something else.
func (s *Server) findRule(p path) (*faas.Rule, error) {
	rule, err := s.cfg.Catalog.Rule(faas.NativeName(p.namespace), faas.NativeName(p.name))
	if err != nil {
		if faas.CodeOf(err) == faas.NotFound {
			if other := s.otherKind(p, entityRule); other != nil {
				return nil, other
			}
			return nil, errNotFound
		}
		return nil, err
	}
	return rule, nil
}

// ruleRecord is what is kept of a rule; of one that was not made through this API it is made up.
func (s *Server) ruleRecord(namespace string, rule *faas.Rule) ruleRecord {
	var r ruleRecord
	if readOrigin(rule.Origin, &r) && r.Name != "" {
		return r
	}
	r.header = header{Namespace: namespace, Name: rule.Name, Version: firstVersion, Updated: rule.Updated.UnixMilli()}
	trigger := rule.Trigger
	if t, err := s.cfg.Catalog.Trigger(rule.Namespace, rule.Trigger); err == nil {
		trigger = s.triggerRecord(namespace, t).Name
	}
	r.Trigger = entityRef{namespace, trigger}
	r.Action = entityRef{namespace, rule.Function}
	if name, err := faas.ParseName(rule.Function, rule.Namespace); err == nil {
		r.Action = entityRef{namespace, name.Function}
		if name.Package != "" {
			r.Action.Path += "/" + s.packageName(rule.Namespace, name.Package)
		}
		if fn, rev, err := s.cfg.Catalog.Resolve(faas.Ref{Name: name}); err == nil {
			r.Action.Name = s.actionRecord(namespace, fn, rev).Name
		}
	}
	return r
}

// statusOf says whether a rule leads from its trigger to its action: it does not if the trigger is gone.
func (s *Server) statusOf(rule *faas.Rule) string {
	if rule.Disabled {
		return ruleInactive
	}
	if _, err := s.cfg.Catalog.Trigger(rule.Namespace, rule.Trigger); err != nil {
		return ruleInactive
	}
	return ruleActive
}

// ruleAnswer is a rule as clients see it.
func (s *Server) ruleAnswer(namespace string, rule *faas.Rule) any {
	return struct {
		ruleRecord
		Status string `json:"status"`
	}{s.ruleRecord(namespace, rule), s.statusOf(rule)}
}

// reference is how a request names a trigger or an action: in full, as a string or as an object.
type reference string

// UnmarshalJSON reads either form.
func (r *reference) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*r = reference(text)
		return nil
	}
	var object entityRef
	if err := json.Unmarshal(b, &object); err != nil || object.Name == "" || object.Path == "" {
		return reject(http.StatusBadRequest, "The request content was malformed: a trigger and an action are named as /_/name, or as an object with path and name.")
	}
	*r = reference("/" + strings.TrimPrefix(object.Path, "/") + "/" + object.Name)
	return nil
}

// parse reads a name that has at least a namespace, "_" being own. The slash before that may be left out.
func (r reference) parse(own string) (path, bool) {
	if !strings.Contains(string(r), "/") {
		return path{}, false
	}
	return parsePath("/"+strings.TrimPrefix(string(r), "/"), own)
}

func (r reference) path(what, own string) (path, error) {
	if p, ok := r.parse(own); ok && (what == entityAction || p.pkg == "") {
		return p, nil
	}
	return path{}, reject(http.StatusBadRequest, "The request content was malformed: %.80q does not name the %s in full, as /_/name does.", string(r), what)
}

// rulePut is what clients send to make or change a rule.
type rulePut struct {
	Version     *string     `json:"version"`
	Publish     *bool       `json:"publish"`
	Annotations *parameters `json:"annotations"`
	Trigger     *reference  `json:"trigger"`
	Action      *reference  `json:"action"`
	Status      *string     `json:"status"` // not looked at: it is set by POST
}

func (s *Server) putRule(c *call, p path) (any, error) {
	overwrite, err := flag(c, "overwrite")
	if err != nil {
		return nil, err
	}
	var in rulePut
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := s.checkSizes(nil, in.Annotations); err != nil {
		return nil, err
	}
	defer s.locks.lock(p)()
	if err := s.otherKind(p, entityRule); err != nil {
		return nil, err
	}
	var r ruleRecord
	rule := &faas.Rule{Namespace: faas.NativeName(p.namespace), Name: faas.NativeName(p.name)}
	was, err := s.findRule(p)
	switch {
	case err == nil && !overwrite:
		return nil, errExists
	case err == nil:
		r, rule.Disabled = s.ruleRecord(p.namespace, was), was.Disabled
	case err != errNotFound:
		return nil, err
	}
	r.Namespace, r.Name, r.Updated = p.namespace, p.name, s.touch(r.Updated)
	if r.Version, err = nextVersion(r.Version, in.Version); err != nil {
		return nil, err
	}
	if in.Publish != nil {
		r.Publish = *in.Publish
	}
	if in.Annotations != nil {
		r.Annotations = *in.Annotations
	}
	if was == nil && (in.Trigger == nil || in.Action == nil) {
		return nil, reject(http.StatusBadRequest, "The request content was malformed: a rule needs a trigger and an action.")
	}
	if err := s.linkRule(c, rule, &r, &in); err != nil {
		return nil, err
	}
	if rule.Origin, err = origin(r); err != nil {
		return nil, err
	}
	if err := s.cfg.Catalog.PutRule(c.ctx, rule, was != nil); err != nil {
		return nil, err
	}
	return s.ruleAnswer(p.namespace, rule), nil
}

// linkRule puts into a rule what it links after a change. Both must exist and may be used by who asks.
func (s *Server) linkRule(c *call, rule *faas.Rule, r *ruleRecord, in *rulePut) error {
	own := c.who.Namespace
	for _, link := range []struct {
		what string
		sent *reference
		to   *entityRef
		find func(path) error
	}{
		{entityTrigger, in.Trigger, &r.Trigger, func(p path) error {
			if p.namespace != own {
				return errForbidden
			}
			_, err := s.findTrigger(p)
			return err
		}},
		{entityAction, in.Action, &r.Action, func(p path) error {
			_, err := s.findAction(c.ctx, own, p)
			return err
		}},
	} {
		name := reference("/" + link.to.Path + "/" + link.to.Name)
		if link.sent != nil {
			name = *link.sent
		}
		p, err := name.path(link.what, own)
		if err != nil {
			return err
		}
		if err := link.find(p); err != nil {
			if asRejection(err).status == http.StatusNotFound {
				return reject(http.StatusBadRequest, "The %s '%s' does not exist.", link.what, p)
			}
			return err
		}
		*link.to = entityRef{p.space(), p.name}
		if link.what == entityTrigger {
			rule.Trigger = faas.NativeName(p.name)
		} else if rule.Function = p.function().Path(); p.namespace != own {
			rule.Function = "/" + p.function().String()
		}
	}
	return nil
}

// setRule has a rule lead to its action, or no longer.
func (s *Server) setRule(c *call, p path) error {
	var in struct {
		Status *string `json:"status"`
	}
	if err := c.decode(&in); err != nil {
		return err
	}
	if in.Status == nil || *in.Status != ruleActive && *in.Status != ruleInactive {
		return reject(http.StatusBadRequest, "The request content was malformed: 'status' is %q or %q.", ruleActive, ruleInactive)
	}
	defer s.locks.lock(p)()
	was, err := s.findRule(p)
	if err != nil {
		return err
	}
	rule := *was
	rule.Disabled = *in.Status == ruleInactive
	if !rule.Disabled {
		if _, err := s.cfg.Catalog.Trigger(rule.Namespace, rule.Trigger); faas.CodeOf(err) == faas.NotFound {
			return errNotFound
		} else if err != nil {
			return err
		}
	}
	if rule.Disabled != was.Disabled {
		if rule.Origin == nil { // only then it may outlive what it links
			r := s.ruleRecord(p.namespace, was)
			if rule.Origin, err = origin(r); err != nil {
				return err
			}
		}
		if err := s.cfg.Catalog.PutRule(c.ctx, &rule, true); err != nil {
			return err
		}
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) deleteRule(c *call, p path) (any, error) {
	defer s.locks.lock(p)()
	rule, err := s.findRule(p)
	if err != nil {
		return nil, err
	}
	gone := *rule
	gone.Disabled = true // it no longer leads anywhere
	answer := s.ruleAnswer(p.namespace, &gone)
	if err := s.cfg.Catalog.DeleteRule(c.ctx, rule.Namespace, rule.Name); err != nil {
		return nil, err
	}
	return answer, nil
}

// listRules answers rules without their status, which each of them tells.
func (s *Server) listRules(c *call, namespace string) error {
	var all []ruleRecord
	for _, rule := range s.cfg.Catalog.Rules(faas.NativeName(namespace)) {
		all = append(all, s.ruleRecord(namespace, rule))
	}
	slices.SortStableFunc(all, func(a, b ruleRecord) int { return newest(&a.header, &b.header) })
	return answerList(c, "rules", all)
}
