package openwhisk

import (
	"html/template"
	"net/http"
)

// apiDocs answers GET /api/v1/api-docs with a description of the API in the form of Swagger 2.0.
func (s *Server) apiDocs(c *call) error {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return notAllowed("GET")
	}
	paths := map[string]any{}
	for _, d := range described {
		methods := map[string]any{}
		for method, summary := range d.methods {
			methods[method] = map[string]any{"summary": summary, "produces": []string{"application/json"}, "responses": map[string]any{
				"default": map[string]string{"description": "What the operation came to; an error has the fields error and code"},
			}}
		}
		paths[d.path] = methods
	}
	writeJSON(c.w, http.StatusOK, map[string]any{
		"swagger": "2.0", "basePath": base, "paths": paths,
		"info":                map[string]string{"title": "OpenWhisk REST API", "version": "0.1.0"},
		"securityDefinitions": map[string]any{"basic": map[string]string{"type": "basic"}},
	})
	return nil
}

// apiPage answers GET /api/v1/docs with the same for people.
func (s *Server) apiPage(c *call) error {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return notAllowed("GET")
	}
	rows := make([]struct {
		Path    string
		Methods map[string]string
	}, len(described))
	for i, d := range described {
		rows[i].Path, rows[i].Methods = base+d.path, d.methods
	}
	c.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = docsPage.Execute(c.w, rows) // an error means that nobody is left to hear of it
	return nil
}

var docsPage = template.Must(template.New("docs").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>OpenWhisk REST API</title></head>
<body><h1>OpenWhisk REST API</h1>
<p>The same <a href="/api/v1/api-docs">for programs</a>. An error has the fields error and code.</p>
<table>{{range .}}{{$path := .Path}}{{range $method, $what := .Methods}}
<tr><td>{{$method}}</td><td><code>{{$path}}</code></td><td>{{$what}}</td></tr>{{end}}{{end}}
</table></body></html>
`))

// described are the routes that there are.
var described = []struct {
	path    string
	methods map[string]string
}{
	{"/namespaces", map[string]string{"get": "List the caller's namespaces"}},
	{"/namespaces/{namespace}/limits", map[string]string{"get": "Read the namespace's limits"}},
	{"/namespaces/{namespace}/actions", map[string]string{"get": "List actions, those of packages too"}},
	{"/namespaces/{namespace}/actions/{action}", entityMethods("action", "Invoke an action")},
	{"/namespaces/{namespace}/actions/{package}/", map[string]string{"get": "List the actions of a package"}},
	{"/namespaces/{namespace}/actions/{package}/{action}", entityMethods("action of a package", "Invoke an action of a package")},
	{"/namespaces/{namespace}/packages", map[string]string{"get": "List packages, of another namespace those that it shares"}},
	{"/namespaces/{namespace}/packages/{package}", entityMethods("package", "")},
	{"/namespaces/{namespace}/triggers", map[string]string{"get": "List triggers"}},
	{"/namespaces/{namespace}/triggers/{trigger}", entityMethods("trigger", "Fire a trigger")},
	{"/namespaces/{namespace}/rules", map[string]string{"get": "List rules"}},
	{"/namespaces/{namespace}/rules/{rule}", entityMethods("rule", "Enable or disable a rule")},
	{"/namespaces/{namespace}/activations", map[string]string{"get": "List activations"}},
	{"/namespaces/{namespace}/activations/{id}", map[string]string{"get": "Read an activation"}},
	{"/namespaces/{namespace}/activations/{id}/logs", map[string]string{"get": "Read an activation's logs"}},
	{"/namespaces/{namespace}/activations/{id}/result", map[string]string{"get": "Read an activation's result"}},
}

// entityMethods describes what can be done with an entity; post is empty where that is no method of it.
func entityMethods(what, post string) map[string]string {
	m := map[string]string{"get": "Read " + article(what), "put": "Make or change " + article(what), "delete": "Delete " + article(what)}
	if post != "" {
		m["post"] = post
	}
	return m
}

func article(what string) string {
	if what[0] == 'a' {
		return "an " + what
	}
	return "a " + what
}
