package api

import (
	"context"
	"errors"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/brasa-dev/brasa/internal/deploy"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/install"
)

const aFunction = inNamespace + "/functions/{name}"

// FunctionPath names a function.
type FunctionPath struct {
	NamespacePath
	Name string `path:"name"`
}

func (p FunctionPath) name() (faas.Name, error) {
	n := faas.Name{Namespace: p.Namespace, Function: p.Name}
	return n, n.Validate()
}

func (s *Server) functionRoutes() {
	manage(s, accessNamespace, operation("list-functions", http.MethodGet, inNamespace+"/functions", "List functions with the figures of the last hour", "functions"), func(ctx context.Context, in *NamespacePath) (Functions, error) {
		all := s.cfg.Journal.Figures(in.Namespace)
		out := []Summary{}
		for _, fn := range s.cfg.Catalog.Functions(in.Namespace) {
			out = append(out, s.summary(ctx, fn, figures(all[fn.Name.Path()])))
		}
		return Functions{Functions: out}, nil
	})
	manage(s, accessNamespace, operation("get-function", http.MethodGet, aFunction, "Look a function up", "functions"), func(ctx context.Context, in *FunctionPath) (Function, error) {
		name, err := in.name()
		if err != nil {
			return Function{}, err
		}
		return s.function(ctx, name)
	})
	manage(s, accessNamespace, operation("delete-function", http.MethodDelete, aFunction, "Delete a function and its revisions", "functions"), func(ctx context.Context, in *FunctionPath) (Done, error) {
		name, err := in.name()
		if err != nil {
			return Done{}, err
		}
		return Done{}, s.cfg.Catalog.Delete(ctx, name)
	})
	manage(s, accessNamespace, operation("list-revisions", http.MethodGet, aFunction+"/revisions", "List a function's revisions, newest first", "functions"), func(_ context.Context, in *FunctionPath) (Revisions, error) {
		name, err := in.name()
		if err != nil {
			return Revisions{}, err
		}
		fn, err := s.cfg.Catalog.Function(name)
		if err != nil {
			return Revisions{}, err
		}
		revs, err := s.cfg.Catalog.Revisions(name)
		if err != nil {
			return Revisions{}, err
		}
		out := []RevisionInfo{}
		for _, rev := range revs {
			out = append(out, RevisionInfo{Active: rev.ID == fn.Active, Revision: *rev})
		}
		return Revisions{Revisions: out}, nil
	})
	manage(s, accessNamespace, operation("activate", http.MethodPost, aFunction+"/activate", "Make a revision the one that calls run", "functions"), func(ctx context.Context, in *struct {
		FunctionPath
		Body ActivateSpec
	}) (Function, error) {
		name, err := in.name()
		if err != nil {
			return Function{}, err
		}
		if _, err := s.cfg.Catalog.Activate(ctx, name, faas.RevisionID(in.Body.Revision)); err != nil {
			return Function{}, err
		}
		return s.function(ctx, name)
	})
	s.deployRoute()
	s.sequenceRoutes()
	s.buildRoutes()
}

func (s *Server) deployRoute() {
	op := operation("deploy", http.MethodPut, aFunction, "Deploy code as the function's active revision", "functions")
	op.RequestBody = s.codeBody(reflect.TypeFor[SourceSpec](), false)
	op.Responses = map[string]*huma.Response{
		"200": s.json(reflect.TypeFor[Answer[Outcome]](), "Deployed; the function existed before"),
		"201": s.json(reflect.TypeFor[Answer[Outcome]](), "Deployed; the function is new"),
	}
	op.Description = "With Accept: application/x-ndjson the answer is a stream of lines that tell what happens; the last has the outcome or the error."
	op.Responses["200"].Content[ndjson] = &huma.MediaType{Schema: s.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[DeployEvent](), true, "")}
	s.raw(accessNamespace, op, s.deploy)
}

// codeBody describes a request that brings code.
func (s *Server) codeBody(document reflect.Type, run bool) *huma.RequestBody {
	registry := s.huma.OpenAPI().Components.Schemas
	form := &huma.Schema{Type: huma.TypeObject, Required: []string{"code"}, Properties: map[string]*huma.Schema{
		"spec": registry.Schema(reflect.TypeFor[Spec](), true, ""),
		"code": {Type: huma.TypeString, Format: "binary", Description: "An archive (zip, tar, tar.gz), one file of source or an executable, with its file name"},
	}}
	encoding := map[string]*huma.Encoding{"spec": {ContentType: jsonType}, "code": {ContentType: "application/octet-stream"}}
	if !run {
		form.Required = nil
		form.Properties["image"] = &huma.Schema{Type: huma.TypeString, Format: "binary", Description: "The image that is the function's root, as docker save writes it or a tar of an OCI layout; code may be left out then"}
		encoding["image"] = &huma.Encoding{ContentType: "application/octet-stream"}
	}
	if run {
		form.Properties["input"] = &huma.Schema{Type: huma.TypeString, Format: "binary", Description: "What the code is called with; the last part"}
	}
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"multipart/form-data": {Schema: form, Encoding: encoding},
		jsonType:              {Schema: registry.Schema(document, true, "")},
	}}
}

func (s *Server) deploy(w http.ResponseWriter, r *http.Request, c Caller) error {
	name := faas.Name{Namespace: r.PathValue("namespace"), Function: r.PathValue("name")}
	if err := name.Validate(); err != nil {
		return err
	}
	release, err := s.uploads.take(r.Context(), name.Namespace)
	if err != nil {
		return err
	}
	defer release()
	up, err := s.receive(r, false)
	if err != nil {
		return err
	}
	defer up.Close()
	if a := up.spec.Async; a != nil { // functions that it names may be deployed after it
		if err := errors.Join(s.cfg.Dispatcher.CheckHook("async.on_success", a.OnSuccess), s.cfg.Dispatcher.CheckHook("async.on_failure", a.OnFailure)); err != nil {
			return err
		}
	}
	if accepts(r, ndjson) {
		s.followDeploy(w, r, c, name, up)
		return nil
	}
	out, err := s.cfg.Deployer.Deploy(r.Context(), up.request(name, r.Host), nil)
	if err != nil {
		return err
	}
	fn, err := s.function(context.WithValue(r.Context(), requestKey{}, r), name)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if out.Created {
		status = http.StatusCreated
	}
	writeJSON(w, status, Answer[Outcome]{OK: true, Data: outcome(out, fn)})
	return nil
}

// request is what the deployer is asked for; host is what the caller calls this server.
func (u *upload) request(name faas.Name, host string) deploy.Request {
	req := deploy.Request{
		Name: name, Code: u.code, Filename: u.filename, Language: u.spec.Language, Entry: u.spec.Entry,
		Handler: u.spec.Handler, Command: u.spec.Command, Env: u.spec.Env, Secrets: u.spec.Secrets,
		Network: faas.Network(u.spec.Network), Reuse: faas.Reuse(u.spec.Reuse), State: faas.State(u.spec.State), Public: u.spec.Public, Async: u.spec.Async, Warm: u.spec.Warm,
		Install: install.Options{With: u.spec.With, Scripts: u.spec.InstallScripts, Strict: u.spec.Strict}, Prefetch: u.spec.Prefetch, Conductor: u.spec.Conductor,
	}
	if u.spec.Limits != nil {
		req.Limits = *u.spec.Limits
	}
	switch {
	case u.image != nil:
		req.Image = &deploy.Source{Archive: u.image, Name: u.spec.Image, Filename: u.archive}
	case u.spec.Image != "":
		req.Image = &deploy.Source{Reference: u.spec.Image, Host: host}
	}
	return req
}

func outcome(out *deploy.Outcome, fn Function) Outcome {
	o := Outcome{
		Function: fn, Revision: out.Revision.ID, Previous: out.Previous, Created: out.Created, Same: out.Same,
		Detected: Detected(out.Detected), Sent: out.Sent, Code: out.Revision.CodeBytes, Proof: out.Proof,
		URL: fn.URL, Steps: []Step{}, TotalUS: out.Total.Microseconds(),
	}
	for _, st := range out.Steps {
		o.Steps = append(o.Steps, Step{Name: st.Name, US: st.US, Install: st.Install, Image: st.Image, Code: st.Code})
	}
	return o
}

// function describes a function in full.
func (s *Server) function(ctx context.Context, name faas.Name) (Function, error) {
	fn, rev, err := s.cfg.Catalog.Resolve(faas.Ref{Name: name})
	if err != nil {
		return Function{}, err
	}
	f := figures(s.cfg.Journal.Figures(name.Namespace)[name.Path()])
	return Function{Summary: s.summary(ctx, fn, f), UID: fn.UID, Active: *rev}, nil
}

// summary describes a function for a list. Its active revision may be missing from the catalog;
// then what it would say is left out.
func (s *Server) summary(ctx context.Context, fn *faas.Function, f Figures) Summary {
	r, _ := ctx.Value(requestKey{}).(*http.Request)
	out := Summary{
		Name: fn.Name.Path(), Namespace: fn.Name.Namespace, Revision: fn.Active, Public: fn.Public,
		URL: s.base(r) + functionPrefix + fn.Name.String(), Created: fn.Created, Updated: fn.Updated, Figures: f,
	}
	if _, rev, err := s.cfg.Catalog.Resolve(faas.Ref{Name: fn.Name}); err == nil {
		out.Runtime, out.Version = rev.Runtime, rev.Version
		if rev.Sequence != nil {
			for _, step := range rev.Sequence.Steps {
				name := step.Path()
				if step.Namespace != fn.Name.Namespace { // a dialect's may lead elsewhere
					name = "/" + step.String()
				}
				out.Steps = append(out.Steps, name)
			}
		}
	}
	return out
}
