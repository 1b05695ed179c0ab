package openwhisk

import (
	"cmp"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
)

// systemNamespace is that of the packages which an installation of OpenWhisk brings.
const systemNamespace = "whisk.system"

//go:embed system
var systemFiles embed.FS

// system is what is known of the packages that the server brings. They are made when somebody first names
// their namespace, so that a server whom nobody asks for them has none.
type system struct {
	mu      sync.Mutex
	brought bool // guarded by mu
}

// systemPackage is one that the server brings.
type systemPackage struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Parameters  json.RawMessage `json:"parameters"`
	Builtin     bool            `json:"builtin"` // its actions are answered by the server itself
	Actions     []systemAction  `json:"actions"`
}

type systemAction struct {
	Name         string          `json:"name"`
	Description  string          `json:"description"`
	Parameters   json.RawMessage `json:"parameters"`
	SampleInput  json.RawMessage `json:"sampleInput"`
	SampleOutput json.RawMessage `json:"sampleOutput"`
	Feed         bool            `json:"feed"`
	Key          bool            `json:"key"` // it is given its caller's key
}

// systemKind is that of the actions which are code.
const systemKind = "python:default"

// bring makes the packages of the server if it is their namespace that somebody names.
func (s *Server) bring(ctx context.Context, namespace string) error {
	if namespace != systemNamespace {
		return nil
	}
	s.system.mu.Lock()
	defer s.system.mu.Unlock()
	if s.system.brought {
		return nil
	}
	// Whoever asked may go away: others wait for the same.
	ctx = context.WithoutCancel(ctx)
	if _, err := s.cfg.Catalog.CreateNamespace(ctx, systemNamespace); err != nil && faas.CodeOf(err) != faas.Conflict {
		return err
	}
	b, err := systemFiles.ReadFile("system/packages.json")
	if err != nil {
		return err
	}
	var all []systemPackage
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	for _, pkg := range all {
		if err := s.bringPackage(ctx, &pkg); err != nil {
			return err
		}
	}
	s.system.brought = true
	return nil
}

// bringPackage makes a package of the server, or changes one that another version of it has made.
func (s *Server) bringPackage(ctx context.Context, sys *systemPackage) error {
	if k, _ := findKind(systemKind); !sys.Builtin && s.lacks(k) != nil {
		s.cfg.Logger.Warn("package of the server left out", "package", sys.Name, "cause", s.lacks(k))
		return nil
	}
	made, codes, err := sys.digest()
	if err != nil {
		return err
	}
	p := path{namespace: systemNamespace, name: sys.Name}
	was, err := s.packageAt(p.namespace, p.name)
	switch {
	case err == errNotFound:
		was = &pack{}
	case err != nil:
		return err
	case was.record.System == made:
		return nil
	}
	// The package comes last of all: one that is there is whole.
	for _, a := range sys.Actions {
		if err := s.bringAction(ctx, sys, &a, codes[a.Name]); err != nil {
			return err
		}
	}
	shared := true
	annotations := parameters{{Key: "description", Value: quoted(sys.Description)}}
	if sys.Parameters != nil {
		annotations = append(annotations, parameter{Key: "parameters", Value: sys.Parameters})
	}
	was.record.System = made
	_, err = s.changePackage(ctx, p, was, &packagePut{Publish: &shared, Annotations: &annotations})
	if faas.CodeOf(err) == faas.Conflict { // another node was faster
		return nil
	}
	return err
}

// digest tells versions of a package apart, and returns the code of its actions.
func (sys *systemPackage) digest() (string, map[string]string, error) {
	sum := sha256.New()
	if err := json.NewEncoder(sum).Encode(sys); err != nil {
		return "", nil, err
	}
	codes := map[string]string{}
	for _, a := range sys.Actions {
		if sys.Builtin {
			continue
		}
		b, err := systemFiles.ReadFile("system/" + sys.Name + "/" + a.Name + ".py")
		if err != nil {
			return "", nil, err
		}
		codes[a.Name] = string(b)
		_, _ = sum.Write(b) // never fails
	}
	return hex.EncodeToString(sum.Sum(nil)[:8]), codes, nil
}

// bringAction makes an action of the server.
func (s *Server) bringAction(ctx context.Context, sys *systemPackage, sa *systemAction, code string) error {
	p := path{systemNamespace, sys.Name, sa.Name}
	var annotations parameters
	for _, v := range []parameter{
		{Key: "description", Value: quoted(sa.Description)}, {Key: "parameters", Value: sa.Parameters},
		{Key: "sampleInput", Value: sa.SampleInput}, {Key: "sampleOutput", Value: sa.SampleOutput},
	} {
		if v.Value != nil {
			annotations = append(annotations, v)
		}
	}
	if sa.Feed {
		annotations = append(annotations, parameter{Key: "feed", Value: quoted(true)})
	}
	annotations = append(annotations, parameter{Key: "provide-api-key", Value: quoted(sa.Key)})
	was, err := s.actionAt(p)
	if err != nil && err != errNotFound {
		return err
	}
	if sys.Builtin {
		return s.publishBuiltin(ctx, p, was, annotations)
	}
	exec, err := json.Marshal(map[string]string{"kind": systemKind, "code": code})
	if err != nil {
		return err
	}
	_, err = s.changeAction(ctx, systemNamespace, p, was, &actionPut{Exec: exec, Annotations: &annotations})
	return err
}

// publishBuiltin makes an action that the server answers by itself.
func (s *Server) publishBuiltin(ctx context.Context, p path, was *action, annotations parameters) error {
	r := actionRecord{
		header: header{Namespace: p.space(), Name: p.name, Annotations: annotations}, Parameters: parameters{}, NoCode: true,
		Exec: execution{Kind: kindBlackbox, Image: "brasa/" + p.pkg},
	}
	before := ""
	if was != nil {
		before = was.record.Version
		r.Updated = was.record.Updated
	}
	r.Updated = s.touch(r.Updated)
	r.Annotations.set(parameter{Key: "exec", Value: quoted(r.Exec.Kind)})
	var err error
	if r.Version, err = nextVersion(before, nil); err != nil {
		return err
	}
	if r.Limits, err = s.readLimits(r.Namespace, nil, nil); err != nil {
		return err
	}
	rev := &faas.Revision{
		Name: p.function(), Runtime: faas.RuntimeBuiltin, Entry: p.pkg + "/" + p.name, Contract: faas.ContractOpenWhisk, Network: faas.NetworkNone,
		Limits: s.nativeLimits(r.Limits, faas.DefaultLimits()), Async: noRetries(), Created: now().UTC(),
	}
	if rev.Origin, err = origin(r); err != nil {
		return err
	}
	_, err = s.cfg.Catalog.Publish(ctx, rev, catalog.PublishOptions{})
	return err
}

// answerBuiltin is dispatch.Builtin for the actions that this package answers by itself.
func (s *Server) answerBuiltin(ctx context.Context, rev *faas.Revision, inv *faas.Invocation) (*faas.Result, error) {
	begin := time.Now()
	inv.Report.Start, inv.Report.Node = faas.StartWarm, "builtin"
	defer func() { inv.Timing.Add(faas.PhaseExecution, time.Since(begin)) }()
	args := map[string]json.RawMessage{}
	if inv.Body != nil {
		b, err := io.ReadAll(inv.Body)
		if err != nil {
			return nil, faas.AsError(err)
		}
		if len(b) > 0 && (json.Unmarshal(b, &args) != nil || args == nil) {
			return appError("the arguments are no JSON object")
		}
	}
	var answer any
	var err error
	switch rev.Name.Package {
	case "alarms":
		caller := cmp.Or(inv.Owner, rev.Name.Namespace)
		answer, err = s.lifecycle(ctx, rev.Name.Function, caller, args)
	default:
		return nil, faas.Errorf(faas.Unavailable, "call built-in action", "this version of the server has no %s", rev.Entry)
	}
	if err != nil {
		if e, ok := errors.AsType[*feedError](err); ok {
			return appError(e.message)
		}
		return nil, faas.AsError(err)
	}
	return jsonResult(http.StatusOK, answer)
}

// appError is an error of the application, as actions return them.
func appError(message string) (*faas.Result, error) {
	return jsonResult(applicationCode, map[string]string{"error": message})
}

func jsonResult(status int, v any) (*faas.Result, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, faas.AsError(err)
	}
	return &faas.Result{Status: status, Header: map[string][]string{"Content-Type": {"application/json"}}, Body: faas.NewBytesBody(b)}, nil
}
