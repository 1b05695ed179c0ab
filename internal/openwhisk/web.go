package openwhisk

import (
	"crypto/subtle"
	"fmt"
	"net/http"
	"strings"

	"github.com/brasa-dev/brasa/internal/auth"
	"github.com/brasa-dev/brasa/internal/faas"
)

// What a web action takes and answers with.
const (
	webMethods = "OPTIONS, GET, DELETE, POST, PUT, HEAD, PATCH"
	webSecret  = "X-Require-Whisk-Auth"
)

// web answers a request to an action's own URL: /web/NS/PKG/ACTION[.EXT][/REST].
func (s *Server) web(c *call) error {
	c.rest = c.rest[1:]
	if len(c.rest) < 3 {
		return errNotFound
	}
	switch c.r.Method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions:
	default:
		return notAllowed(webMethods)
	}
	name, ext := splitExtension(c.rest[2])
	if c.rest[0] == "whisk.system" && c.rest[1] == "apimgmt" && len(c.rest) == 3 {
		return s.apiManagement(c, name)
	}
	p := path{namespace: c.rest[0], pkg: c.rest[1], name: name}
	if p.pkg == "default" {
		p.pkg = ""
	}
	if !validName(p.namespace) || !validName(c.rest[1]) || !validName(p.name) {
		return errNotFound
	}
	owner := auth.Subject{Name: p.namespace, Namespace: p.namespace}
	t, err := s.resolve(owner, p)
	if err != nil {
		if r := asRejection(err); r.status == http.StatusForbidden || r.status == http.StatusNotFound {
			return errNotFound // which of the two is nobody's business
		}
		return err
	}
	if exported, _ := t.meta.annotation("web-export").(bool); !exported {
		return errNotFound
	}
	if !s.mayUse(p.namespace, t.meta.Exec.Kind) {
		return reject(http.StatusForbidden, "Actions of kind %s are not allowed in this namespace.", t.meta.Exec.Kind)
	}
	custom, _ := t.meta.annotation("web-custom-options").(bool)
	if !custom {
		webOrigin(c)
		if c.r.Method == http.MethodOptions {
			c.w.WriteHeader(http.StatusOK)
			return nil
		}
	}
	user, err := s.webCaller(c, t)
	if err != nil && (!custom || c.r.Method != http.MethodOptions) {
		return err
	}
	args, err := s.webArguments(c, t, user, c.rest[3:])
	if err != nil {
		return err
	}
	inv := s.invocation(owner, t, args)
	ofRequest(inv, c.transaction)
	act, err := s.call(c.ctx, p.namespace, inv, s.cfg.Limits.Blocking)
	if err != nil {
		return err
	}
	c.w.Header().Set(activationHeader, string(inv.ID))
	if act == nil {
		return reject(http.StatusAccepted, "The response is not ready yet; the activation is %s.", inv.ID)
	}
	return s.webAnswer(c, act, ext)
}

// splitExtension takes a known extension from the name of a web action; without one it is .http.
func splitExtension(s string) (name, ext string) {
	for _, e := range []string{".http", ".json", ".html", ".svg", ".text"} {
		if n, ok := strings.CutSuffix(s, e); ok && n != "" {
			return n, e
		}
	}
	return s, ".http"
}

// webCaller finds out who calls a web action, as far as it wants to know: the caller's namespace, or
// nothing.
func (s *Server) webCaller(c *call, t *target) (user string, err error) {
	known := false
	if c.r.Header.Get("Authorization") != "" && s.authenticate(c) == nil {
		user, known = c.who.Namespace, true
		if faas.NativeName(user) != t.rev.Name.Namespace {
			c.r.Header.Del("Authorization") // it opens all of the caller's namespace, and is not for the code of others
		}
	}
	want := t.meta.annotation("require-whisk-auth")
	switch v := want.(type) {
	case nil:
		return user, nil
	case bool:
		if v && !known {
			return "", errUnknown
		}
		return user, nil
	case string, float64:
		secret := secretText(v)
		got := c.r.Header.Get(webSecret)
		if got == "" || subtle.ConstantTimeCompare([]byte(got), []byte(secret)) != 1 {
			return "", errUnknown
		}
		return user, nil
	}
	return "", errUnknown
}

// secretText is a secret that may have been given as a number.
func secretText(v any) string {
	if f, ok := v.(float64); ok && f == float64(int64(f)) {
		return fmt.Sprint(int64(f))
	}
	return fmt.Sprint(v)
}

// webOrigin lets pages of others call a web action.
func webOrigin(c *call) {
	h := c.w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", webMethods)
	allowed := c.r.Header.Get("Access-Control-Request-Headers")
	if allowed == "" {
		allowed = corsHeaders
	}
	h.Set("Access-Control-Allow-Headers", allowed)
}

// webAnswer renders what a web action has answered with.
func (s *Server) webAnswer(c *call, act *faas.Activation, ext string) error {
	r := responseOf(act, s.cfg.Limits.Payload)
	value := r.Result
	switch r.StatusCode {
	case 0:
	case 1: // the value of the error is rendered as a result would be
		if e := errorField(r.Result); e != nil {
			value = e
		}
	default:
		return reject(http.StatusBadRequest, "There was an error processing your request.")
	}
	p, err := render(value, ext)
	if err != nil {
		return err
	}
	if !acceptable(c.r.Header.Get("Accept"), p.contentType) {
		return reject(http.StatusNotAcceptable, "The resource identified by the request is only capable of generating response of type %s.", p.contentType)
	}
	h := c.w.Header()
	for k, v := range p.header {
		h[k] = v
	}
	if p.contentType != "" {
		h.Set("Content-Type", p.contentType)
	} else {
		h["Content-Type"] = nil // else one is guessed
	}
	c.w.WriteHeader(p.status)
	if len(p.body) > 0 && p.status != http.StatusNoContent && p.status != http.StatusNotModified {
		_, _ = c.w.Write(p.body) // an error means that nobody is left to hear of it
	}
	return nil
}
