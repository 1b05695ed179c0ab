package openwhisk

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/brasa-dev/brasa/internal/faas"
)

// triggers answers what is asked of a namespace's triggers.
func (s *Server) triggers(c *call, namespace string) error {
	if namespace != c.who.Namespace {
		return errForbidden
	}
	p, all, err := c.entity(namespace)
	if err != nil {
		return err
	}
	if all {
		return s.listTriggers(c, namespace)
	}
	switch c.r.Method {
	case http.MethodGet:
		t, err := s.findTrigger(p)
		if err != nil {
			return err
		}
		writeJSON(c.w, http.StatusOK, s.triggerAnswer(p, &t.record))
		return nil
	case http.MethodPut:
		return c.answer(s.putTrigger(c, p))
	case http.MethodDelete:
		return c.answer(s.deleteTrigger(c, p))
	case http.MethodPost:
		return s.fireTrigger(c, p)
	}
	return notAllowed("DELETE, GET, POST, PUT")
}

// trig is a trigger as it lies in the catalog.
type trig struct {
	trigger *faas.Trigger
	record  triggerRecord
}

// findTrigger finds a trigger, or says that there is none, or that the name is of something else.
func (s *Server) findTrigger(p path) (*trig, error) {
	t, err := s.cfg.Catalog.Trigger(faas.NativeName(p.namespace), faas.NativeName(p.name))
	if err != nil {
		if faas.CodeOf(err) == faas.NotFound {
			if other := s.otherKind(p, entityTrigger); other != nil {
				return nil, other
			}
			return nil, errNotFound
		}
		return nil, err
	}
	return &trig{t, s.triggerRecord(p.namespace, t)}, nil
}

// triggerRecord is what is kept of a trigger; of one that was not made through this API it is made up.
func (s *Server) triggerRecord(namespace string, t *faas.Trigger) triggerRecord {
	var r triggerRecord
	if !readOrigin(t.Origin, &r) || r.Name == "" {
		r = triggerRecord{header: header{Name: t.Name, Version: firstVersion, Updated: t.Updated.UnixMilli()}, Parameters: argumentList(t.Params)}
	}
	r.Namespace = namespace
	return r
}

// triggerAnswer is a trigger as clients see it.
func (s *Server) triggerAnswer(p path, r *triggerRecord) any {
	type link struct {
		Action entityRef `json:"action"`
		Status string    `json:"status"`
	}
	rules := map[string]link{}
	for _, rule := range s.cfg.Catalog.RulesOf(faas.NativeName(p.namespace), faas.NativeName(p.name)) {
		record := s.ruleRecord(p.namespace, rule)
		rules[p.namespace+"/"+record.Name] = link{record.Action, s.statusOf(rule)}
	}
	return struct {
		header
		Parameters parameters      `json:"parameters"`
		Limits     struct{}        `json:"limits"`
		Rules      map[string]link `json:"rules,omitempty"`
	}{r.header, r.Parameters, struct{}{}, rules}
}

// triggerPut is what clients send to make or change a trigger.
type triggerPut struct {
	Version     *string     `json:"version"`
	Publish     *bool       `json:"publish"`
	Annotations *parameters `json:"annotations"`
	Parameters  *parameters `json:"parameters"`
}

func (s *Server) putTrigger(c *call, p path) (any, error) {
	overwrite, err := flag(c, "overwrite")
	if err != nil {
		return nil, err
	}
	var in triggerPut
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := s.checkSizes(in.Parameters, in.Annotations); err != nil {
		return nil, err
	}
	if in.Annotations != nil {
		if err := checkFeed(*in.Annotations, p.namespace); err != nil {
			return nil, err
		}
	}
	defer s.locks.lock(p)()
	if err := s.otherKind(p, entityTrigger); err != nil {
		return nil, err
	}
	var before triggerRecord
	t := &faas.Trigger{Namespace: faas.NativeName(p.namespace), Name: faas.NativeName(p.name)}
	was, err := s.findTrigger(p)
	switch {
	case err == nil && !overwrite:
		return nil, errExists
	case err == nil:
		before, t.Source, t.Paused = was.record, was.trigger.Source, was.trigger.Paused
	case err != errNotFound:
		return nil, err
	}
	r := before
	r.Namespace, r.Name, r.Updated = p.namespace, p.name, s.touch(before.Updated)
	if r.Version, err = nextVersion(before.Version, in.Version); err != nil {
		return nil, err
	}
	if in.Publish != nil {
		r.Publish = *in.Publish
	}
	if in.Annotations != nil {
		r.Annotations = *in.Annotations
	}
	if in.Parameters != nil {
		r.Parameters = *in.Parameters
	}
	if err := s.keepTrigger(c, t, &r, was != nil); err != nil {
		return nil, err
	}
	return s.triggerAnswer(p, &r), nil
}

// keepTrigger writes a trigger with its record.
func (s *Server) keepTrigger(c *call, t *faas.Trigger, r *triggerRecord, replace bool) error {
	t.Params = r.Parameters.arguments()
	var err error
	if t.Origin, err = origin(r); err != nil {
		return err
	}
	return s.cfg.Catalog.PutTrigger(c.ctx, t, replace)
}

// checkFeed refuses an annotation feed that names no action.
func checkFeed(annotations parameters, own string) error {
	raw := annotations.get("feed")
	if raw == nil {
		return nil
	}
	var name string
	if json.Unmarshal(raw, &name) == nil {
		if _, ok := parsePath(name, own); ok {
			return nil
		}
	}
	return reject(http.StatusBadRequest, "Feed name is not valid.")
}

func (s *Server) deleteTrigger(c *call, p path) (any, error) {
	defer s.locks.lock(p)()
	t, err := s.findTrigger(p)
	if err != nil {
		return nil, err
	}
	answer := s.triggerAnswer(p, &t.record)
	if err := s.cfg.Catalog.DeleteTrigger(c.ctx, t.trigger.Namespace, t.trigger.Name); err != nil {
		return nil, err
	}
	return answer, nil
}

func (s *Server) listTriggers(c *call, namespace string) error {
	var all []header
	for _, t := range s.cfg.Catalog.Triggers(faas.NativeName(namespace)) {
		all = append(all, s.triggerRecord(namespace, t).header)
	}
	slices.SortStableFunc(all, func(a, b header) int { return newest(&a, &b) })
	return answerList(c, "triggers", all)
}
