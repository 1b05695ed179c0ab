package openwhisk

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// gateway answers a request to a path of an API: /api/TENANT/BASE/PATH.
func (s *Server) gateway(c *call, tenant string, rest []string) error {
	var api *gatewayAPI
	var relative []string // rest without the API's base path
	for _, native := range s.apis.namespaces() {
		ns, err := s.cfg.Catalog.Namespace(native)
		if err != nil || ns.UID != tenant {
			continue
		}
		longest := -1
		for _, a := range s.apis.of(ns.Name) {
			base := segments(a.Doc.BasePath)
			if len(base) > longest && len(base) <= len(rest) && slices.Equal(base, rest[:len(base)]) {
				api, relative, longest = a, rest[len(base):], len(base)
			}
		}
	}
	if api == nil {
		return errNotFound
	}
	template, params := matchPath(api.Doc.Paths, relative)
	if template == "" {
		return errNotFound
	}
	method := strings.ToLower(c.r.Method)
	ops := api.Doc.Paths[template]
	raw, ok := ops[method]
	if method == "options" && !ok {
		webOrigin(c)
		c.w.WriteHeader(http.StatusOK)
		return nil
	}
	if !ok {
		var have []string
		for m := range ops {
			if m != "parameters" {
				have = append(have, strings.ToUpper(m))
			}
		}
		slices.Sort(have)
		return notAllowed(strings.Join(have, ", "))
	}
	var op operation
	if json.Unmarshal(raw, &op) != nil || op.Whisk == nil || op.Whisk.Action == "" {
		return reject(http.StatusBadGateway, "The API's operation names no action.")
	}
	ext := ".http"
	if u, err := url.Parse(op.Whisk.URL); err == nil {
		_, ext = splitExtension(u.Path[strings.LastIndexByte(u.Path, '/')+1:])
	}
	pkg := op.Whisk.Package
	if pkg == "" {
		pkg = "default"
	}
	r := c.r.Clone(c.ctx)
	r.Header.Del("Authorization") // meant for the API's owner, if for anybody
	r.Header.Del(webSecret)
	if secret := api.Secrets[method+" "+template]; secret != "" {
		r.Header.Set(webSecret, secret)
	}
	query := r.URL.Query()
	for k, v := range params {
		query.Set(k, v)
	}
	if len(params) > 0 {
		r.URL.RawQuery = query.Encode()
	}
	web := *c
	web.r, web.query = r, query
	namespace := op.Whisk.Namespace
	if namespace == "" || namespace == "_" {
		namespace = api.Namespace
	}
	web.rest = []string{"web", namespace, pkg, op.Whisk.Action + ext}
	if len(params) > 0 { // as upstream's gateway: the path with its base, and none where it says nothing
		web.rest = append(web.rest, rest...)
	}
	return s.web(&web)
}

// segments are those of a path, without empty ones.
func segments(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// matchPath finds the path of an API that a request is for, and what stands in its parameters. One
// without parameters goes before one with.
func matchPath(paths map[string]swaggerPath, rest []string) (template string, params map[string]string) {
	fewest := -1
	for p := range paths {
		parts := segments(p)
		if len(parts) != len(rest) {
			continue
		}
		found := map[string]string{}
		ok := true
		for i, part := range parts {
			if name, isParam := strings.CutPrefix(part, "{"); isParam && strings.HasSuffix(name, "}") {
				found[strings.TrimSuffix(name, "}")] = rest[i]
			} else if part != rest[i] {
				ok = false
				break
			}
		}
		if ok && (fewest < 0 || len(found) < fewest || len(found) == fewest && p < template) {
			template, params, fewest = p, found, len(found)
		}
	}
	return template, params
}
