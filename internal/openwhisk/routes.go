package openwhisk

import (
	"net/http"
	"net/url"
	"strings"
	"time"
)

var now = time.Now

// collections are what a namespace has; each answers what is asked below it.
var collections = map[string]func(*Server, *call, string) error{
	"limits":      (*Server).namespaceLimits,
	"activations": (*Server).activations,
	"actions":     (*Server).actions,
	"packages":    (*Server).packages,
	"triggers":    (*Server).triggers,
	"rules":       (*Server).rules,
}

// route finds who answers.
func (s *Server) route(c *call) error {
	segments, slash, err := split(c.r.URL)
	if err != nil {
		return reject(http.StatusBadRequest, "The request's path is malformed.")
	}
	c.rest, c.slash = segments, slash
	if len(segments) == 0 {
		return s.info(c)
	}
	if len(segments) == 1 && segments[0] == "ping" {
		return s.ping(c)
	}
	if len(segments) < 2 || segments[0] != "api" {
		return errNotFound
	}
	if segments[1] != "v1" {
		return s.gateway(c, segments[1], segments[2:])
	}
	c.rest = segments[2:]
	if c.r.Method == http.MethodOptions && (len(c.rest) == 0 || c.rest[0] != "web") {
		preflight(c)
		return nil
	}
	if len(c.rest) == 0 || c.rest[0] != "web" {
		allowOrigin(c)
	}
	switch {
	case len(c.rest) == 0:
		return s.apiInfo(c)
	case c.rest[0] == "api-docs" && len(c.rest) == 1:
		return s.apiDocs(c)
	case c.rest[0] == "docs" && (len(c.rest) == 1 || len(c.rest) == 2 && c.rest[1] == "index.html"):
		return s.apiPage(c)
	case c.rest[0] == "web":
		return s.web(c)
	case c.rest[0] == "namespaces":
		if err := s.authenticate(c); err != nil {
			return err
		}
		return s.namespaces(c)
	}
	return errNotFound
}

// namespaces answers what is asked of namespaces and of what is in them.
func (s *Server) namespaces(c *call) error {
	c.rest = c.rest[1:]
	if len(c.rest) == 0 {
		if c.r.Method != http.MethodGet {
			return notAllowed("GET")
		}
		writeJSON(c.w, http.StatusOK, []string{c.who.Namespace})
		return nil
	}
	if len(c.rest) == 1 {
		return errNotFound
	}
	namespace := c.rest[0]
	if namespace == "_" {
		namespace = c.who.Namespace
	}
	if !validName(namespace) {
		return reject(http.StatusBadRequest, "The namespace's name is not valid.")
	}
	answer := collections[c.rest[1]]
	if answer == nil {
		return errNotFound
	}
	if c.r.Method == http.MethodPut || c.rest[1] == "actions" && len(c.rest) > 2 && c.r.Method != http.MethodPost {
		release, err := s.slots.take(c.ctx, c.r.Method+" "+c.who.Namespace, atOnce)
		if err != nil {
			return err
		}
		defer release()
	}
	c.rest = c.rest[2:]
	return answer(s, c, namespace)
}

// entity is what the rest of a path names of a collection without folders: one entity, or all of them,
// which can only be listed.
func (c *call) entity(namespace string) (p path, all bool, err error) {
	switch {
	case len(c.rest) == 0:
		if c.r.Method != http.MethodGet {
			return path{}, false, notAllowed("GET")
		}
		return path{}, true, nil
	case len(c.rest) > 1 || c.slash:
		return path{}, false, errNotFound
	}
	p = path{namespace: namespace, name: c.rest[0]}
	return p, false, checkNames(p)
}

// split returns the decoded segments of a path. A slash that is encoded stays in its segment.
func split(u *url.URL) (segments []string, slash bool, err error) {
	p := strings.TrimPrefix(u.EscapedPath(), "/")
	if p == "" {
		return nil, true, nil
	}
	if strings.HasSuffix(p, "/") {
		p, slash = strings.TrimSuffix(p, "/"), true
	}
	for _, s := range strings.Split(p, "/") {
		d, err := url.PathUnescape(s)
		if err != nil {
			return nil, false, err
		}
		segments = append(segments, d)
	}
	return segments, slash, nil
}

const (
	corsHeaders = "Authorization, Origin, X-Requested-With, Content-Type, Accept, User-Agent"
	corsMethods = "GET, DELETE, POST, PUT, HEAD"
)

func allowOrigin(c *call) {
	h := c.w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Headers", corsHeaders)
	h.Set("Access-Control-Allow-Methods", corsMethods)
}

// preflight answers what a browser asks before it sends a request of another page.
func preflight(c *call) {
	allowOrigin(c)
	c.w.WriteHeader(http.StatusOK)
}
