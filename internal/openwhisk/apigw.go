package openwhisk

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/store"
)

// gatewayAPI is an API of a namespace: web actions behind paths of the namespace's own.
type gatewayAPI struct {
	Namespace string     `json:"namespace"` // as OpenWhisk calls it
	Doc       swaggerDoc `json:"doc"`
	// Secrets are those with which actions are called that ask for one, by "METHOD PATH". Clients are not
	// shown them.
	Secrets map[string]string `json:"secrets,omitempty"`
	size    int               // of what is kept of it
	version store.Version     // of that; store.Absent: nothing is kept
}

// swaggerDoc is the description of an API in the form of Swagger 2.0. Fields that are not known here are
// kept.
type swaggerDoc struct {
	Swagger  string                 `json:"swagger"`
	BasePath string                 `json:"basePath"`
	Info     swaggerInfo            `json:"info"`
	Paths    map[string]swaggerPath `json:"paths"`
	more     map[string]json.RawMessage
}

type swaggerInfo struct {
	Title   string `json:"title"`
	Version string `json:"version"`
}

// swaggerPath has an operation for each method in lower case, and parameters.
type swaggerPath map[string]json.RawMessage

// operation is what is read of an operation.
type operation struct {
	Whisk *struct {
		Action    string `json:"action"`
		Namespace string `json:"namespace"`
		Package   string `json:"package"`
		URL       string `json:"url"`
	} `json:"x-openwhisk"`
}

// MarshalJSON writes what is not known here too.
func (d swaggerDoc) MarshalJSON() ([]byte, error) {
	type plain swaggerDoc
	b, err := json.Marshal(plain(d))
	if err != nil || len(d.more) == 0 {
		return b, err
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	for k, v := range d.more {
		if _, known := all[k]; !known {
			all[k] = v
		}
	}
	return json.Marshal(all)
}

// UnmarshalJSON keeps what is not known here.
func (d *swaggerDoc) UnmarshalJSON(b []byte) error {
	type plain swaggerDoc
	if err := json.Unmarshal(b, (*plain)(d)); err != nil {
		return err
	}
	if err := json.Unmarshal(b, &d.more); err != nil {
		return err
	}
	for _, known := range []string{"swagger", "basePath", "info", "paths"} {
		delete(d.more, known)
	}
	return nil
}

// apiManagement answers the web actions of whisk.system/apimgmt, by which clients make APIs.
func (s *Server) apiManagement(c *call, action string) error {
	if s.apis.store == nil {
		return errNotFound
	}
	if err := s.authenticate(c); err != nil {
		return err
	}
	switch {
	case action == "createApi" && c.r.Method == http.MethodPost:
		return c.answer(s.createAPI(c))
	case action == "getApi" && c.r.Method == http.MethodGet:
		return s.getAPI(c)
	case action == "deleteApi" && (c.r.Method == http.MethodDelete || c.r.Method == http.MethodPost):
		return c.answer(s.deleteAPI(c))
	}
	return errNotFound
}

var verbs = []string{"get", "put", "post", "delete", "patch", "head", "options"}

func badAPI(format string, args ...any) error {
	return reject(http.StatusBadRequest, "The API can't be made: "+format+".", args...)
}

func (s *Server) createAPI(c *call) (any, error) {
	b, err := c.body(s.cfg.Limits.Payload)
	if err != nil {
		return nil, err
	}
	d, err := readAPI(b)
	if err != nil {
		return nil, err
	}
	namespace := c.who.Namespace
	defer s.locks.lock(apiLock(namespace))()
	var doc swaggerDoc
	if len(d.Swagger) > 0 {
		if doc, err = readSwagger(unquoted(d.Swagger)); err != nil {
			return nil, err
		}
		whole := &gatewayAPI{Namespace: namespace, Doc: doc}
		if was := s.apis.at(namespace, doc.BasePath); was != nil {
			whole.version = was.version
		}
		return s.putAPI(c, whole)
	}
	method := strings.ToLower(d.Method)
	switch {
	case !strings.HasPrefix(d.BasePath, "/"):
		return nil, badAPI("the base path %.80q does not begin with a slash", d.BasePath)
	case !strings.HasPrefix(d.Path, "/"):
		return nil, badAPI("the path %.80q does not begin with a slash", d.Path)
	case !slices.Contains(verbs, method):
		return nil, badAPI("%.20q is no method; there are %s", d.Method, strings.Join(verbs, ", "))
	case d.Action.Name == "" || d.Action.BackendURL == "":
		return nil, badAPI("the action is missing, or its URL")
	}
	pkg, name, packaged := strings.Cut(d.Action.Name, "/")
	if !packaged {
		pkg, name = "", d.Action.Name
	}
	owner := d.Action.Namespace // a web action may be another's: its URL is open to all
	if owner == "" || owner == "_" {
		owner = namespace
	}
	api := &gatewayAPI{Namespace: namespace, Doc: swaggerDoc{Swagger: "2.0", BasePath: d.BasePath, Info: swaggerInfo{Title: d.BasePath, Version: "1.0.0"}}}
	if was := s.apis.at(namespace, d.BasePath); was != nil {
		if api, err = was.clone(); err != nil {
			return nil, err
		}
	}
	if d.Name != "" {
		api.Doc.Info.Title = d.Name
	}
	if api.Doc.Paths == nil {
		api.Doc.Paths = map[string]swaggerPath{}
	}
	path := api.Doc.Paths[d.Path]
	if path == nil {
		path = swaggerPath{}
		api.Doc.Paths[d.Path] = path
	}
	backend := withResponseType(strings.Replace(d.Action.BackendURL, "/web/_/", "/web/"+url.PathEscape(owner)+"/", 1), c.query.Get("responsetype"))
	path[method], err = json.Marshal(map[string]any{
		"operationId": operationID(method, d.Path), "responses": map[string]any{"default": map[string]string{"description": "Default response"}},
		"x-openwhisk": map[string]string{"action": name, "namespace": owner, "package": pkg, "url": backend},
	})
	if err != nil {
		return nil, err
	}
	if len(d.Params) > 0 {
		if path["parameters"], err = json.Marshal(d.Params); err != nil {
			return nil, err
		}
	}
	api.Doc.forgetAssembly()
	if d.Action.Secret != nil {
		if api.Secrets == nil {
			api.Secrets = map[string]string{}
		}
		api.Secrets[method+" "+d.Path] = secretText(d.Action.Secret)
	}
	return s.putAPI(c, api)
}

// withResponseType gives the URL of a web action the extension that a response type asks for.
func withResponseType(backend, kind string) string {
	slash := strings.LastIndexByte(backend, '/')
	_, ext := splitExtension("x." + kind)
	if slash < 0 || ext != "."+kind { // none, or one that there is not
		return backend
	}
	name, _ := splitExtension(backend[slash+1:])
	return backend[:slash+1] + name + ext
}

func (a *gatewayAPI) clone() (*gatewayAPI, error) {
	b, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	out := &gatewayAPI{version: a.version}
	return out, json.Unmarshal(b, out)
}

// apiLock is what those who change the APIs of a namespace lock: an operation is added to what is there.
func apiLock(namespace string) path { return path{namespace: namespace, pkg: "/api"} }

// What a namespace may have of APIs. Each of their requests looks through them, and a list tells all.
const (
	maxAPIs     = 500
	maxAPIBytes = 16 * faas.MiB // of all their descriptions
	maxBasePath = 1 << 10
)

// mayKeepAPI refuses what is more than a namespace may have.
func (s *Server) mayKeepAPI(api *gatewayAPI, size int) error {
	if n := len(api.Doc.BasePath); n > maxBasePath {
		return tooLarge("The base path", int64(n), maxBasePath)
	}
	if size > int(s.cfg.Limits.Payload) {
		return tooLarge("The API's description", int64(size), int64(s.cfg.Limits.Payload))
	}
	n, all := 1, size
	for _, other := range s.apis.of(faas.NativeName(api.Namespace)) {
		if other.Doc.BasePath != api.Doc.BasePath {
			n, all = n+1, all+other.size
		}
	}
	if n > maxAPIs {
		return reject(http.StatusTooManyRequests, "The namespace has %d APIs, and may have no more.", maxAPIs)
	}
	if all > int(maxAPIBytes) {
		return tooLarge("What describes the namespace's APIs", int64(all), int64(maxAPIBytes))
	}
	return nil
}

func (s *Server) putAPI(c *call, api *gatewayAPI) (any, error) {
	b, err := json.Marshal(api)
	if err != nil {
		return nil, err
	}
	if err := s.mayKeepAPI(api, len(b)); err != nil {
		return nil, err
	}
	if err := s.apis.put(c.ctx, api, b); err != nil {
		return nil, err
	}
	shown, err := s.showAPI(api)
	if err != nil {
		return nil, err
	}
	return shown, nil
}

// shownAPI is an API as clients see it.
type shownAPI struct {
	Namespace string     `json:"namespace"`
	URL       string     `json:"gwApiUrl"`
	Activated bool       `json:"gwApiActivated"`
	Tenant    string     `json:"tenantId"`
	Doc       swaggerDoc `json:"apidoc"`
}

func (s *Server) showAPI(api *gatewayAPI) (*shownAPI, error) {
	ns, err := s.cfg.Catalog.Namespace(faas.NativeName(api.Namespace))
	if err != nil {
		return nil, err
	}
	return &shownAPI{
		Namespace: api.Namespace, URL: s.cfg.APIHost + "/api/" + ns.UID + strings.TrimSuffix(api.Doc.BasePath, "/"), Activated: true, Tenant: ns.UID,
		Doc: api.Doc.withAssembly(),
	}, nil
}

// findAPI returns the API of a base path, or of a name; nil if there is none.
func (s *Server) findAPI(namespace, base string) *gatewayAPI {
	if api := s.apis.at(namespace, base); api != nil {
		return api
	}
	for _, api := range s.apis.of(faas.NativeName(namespace)) {
		if api.Doc.Info.Title == base {
			return api
		}
	}
	return nil
}

func (s *Server) getAPI(c *call) error {
	type item struct {
		ID    string    `json:"id"`
		Key   string    `json:"key"`
		Value *shownAPI `json:"value"`
	}
	items := []item{}
	base := c.query.Get("basepath")
	for _, api := range s.apis.of(faas.NativeName(c.who.Namespace)) {
		if base != "" && api.Doc.BasePath != base && api.Doc.Info.Title != base {
			continue
		}
		one, err := api.clone()
		if err != nil {
			return err
		}
		one.keep(c.query.Get("relpath"), c.query.Get("operation"))
		shown, err := s.showAPI(one)
		if err != nil {
			return err
		}
		id := "API:" + c.who.Namespace + ":" + api.Doc.BasePath
		items = append(items, item{ID: id, Key: id, Value: shown})
	}
	writeJSON(c.w, http.StatusOK, map[string]any{"apis": items})
	return nil
}

// keep removes all operations but those of a path and a method; empty: any.
func (a *gatewayAPI) keep(path, method string) {
	for p, ops := range a.Doc.Paths {
		if path != "" && p != path {
			delete(a.Doc.Paths, p)
			continue
		}
		for m := range ops {
			if method != "" && m != "parameters" && m != strings.ToLower(method) {
				delete(ops, m)
			}
		}
		if method != "" && ops[strings.ToLower(method)] == nil {
			delete(a.Doc.Paths, p)
		}
	}
}

func (s *Server) deleteAPI(c *call) (any, error) {
	base, path, method := c.query.Get("basepath"), c.query.Get("relpath"), strings.ToLower(c.query.Get("operation"))
	defer s.locks.lock(apiLock(c.who.Namespace))()
	if method != "" && path == "" { // it would else be all of the API
		return nil, reject(http.StatusBadRequest, "The path is missing whose operation is to be deleted.")
	}
	was := s.findAPI(c.who.Namespace, base)
	if was == nil {
		return nil, reject(http.StatusNotFound, "API does not exist for the base path %s.", base)
	}
	api, err := was.clone()
	if err != nil {
		return nil, err
	}
	if path != "" {
		ops, ok := api.Doc.Paths[path]
		if !ok || method != "" && ops[method] == nil {
			return nil, reject(http.StatusNotFound, "API has no operation %s of the path %s.", method, path)
		}
		if method != "" {
			delete(ops, method)
			delete(api.Secrets, method+" "+path)
		}
		if method == "" || len(ops) == 0 || len(ops) == 1 && ops["parameters"] != nil {
			delete(api.Doc.Paths, path)
		}
	}
	if path == "" || len(api.Doc.Paths) == 0 {
		if err := s.apis.remove(c.ctx, api); err != nil {
			return nil, err
		}
	} else {
		b, err := json.Marshal(api)
		if err != nil {
			return nil, err
		}
		if err := s.apis.put(c.ctx, api, b); err != nil {
			return nil, err
		}
	}
	return map[string]any{}, nil
}
