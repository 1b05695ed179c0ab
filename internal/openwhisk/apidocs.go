package openwhisk

import "net/http"

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

// described are the routes that there are.
var described = []struct {
	path    string
	methods map[string]string
}{
	{"/namespaces", map[string]string{"get": "List the caller's namespaces"}},
	{"/namespaces/{namespace}/limits", map[string]string{"get": "Read the namespace's limits"}},
}
