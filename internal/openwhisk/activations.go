package openwhisk

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/journal"
)

const activationLength = 32 // hexadecimal digits

// activations answers what is asked of a namespace's records.
func (s *Server) activations(c *call, namespace string) error {
	if c.r.Method != http.MethodGet {
		return notAllowed("GET")
	}
	if namespace != c.who.Namespace {
		return errForbidden
	}
	hidden := s.cfg.Subjects.Limits(namespace).Hidden
	if len(c.rest) == 0 {
		return s.listActivations(c, namespace, hidden)
	}
	if len(c.rest) > 2 {
		return errNotFound
	}
	id := c.rest[0]
	if len(id) != activationLength {
		return reject(http.StatusBadRequest, "The activation id has %d characters and must have %d.", len(id), activationLength)
	}
	if strings.Trim(id, "0123456789abcdefABCDEF") != "" {
		return reject(http.StatusBadRequest, "The activation id is not a hexadecimal number.")
	}
	part := ""
	if len(c.rest) == 2 {
		if part = c.rest[1]; part != "logs" && part != "result" {
			return errNotFound
		}
	}
	if hidden {
		return errNotFound
	}
	act, err := s.cfg.Journal.Get(c.ctx, faas.NativeName(namespace), faas.ID(strings.ToLower(id)))
	if err != nil {
		if code := faas.CodeOf(err); code == faas.NotFound || code == faas.Invalid {
			return errNotFound
		}
		return err
	}
	r := s.record(act, true)
	switch part {
	case "logs":
		writeJSON(c.w, http.StatusOK, map[string]any{"logs": r.Logs})
	case "result":
		writeJSON(c.w, http.StatusOK, r.Response)
	default:
		writeJSON(c.w, http.StatusOK, r)
	}
	return nil
}

// mostWait is how long a call waits at the most before it starts, for those who look for it by its start.
const mostWait = time.Hour

// scan is how many records are read at once to find those that are asked for.
const scan = 500

// listActivations answers the list of records, newest first; an empty one where they are hidden.
func (s *Server) listActivations(c *call, namespace string, hidden bool) error {
	limit, skip, count, err := paging(c)
	if err != nil {
		return err
	}
	docs, err := flag(c, "docs")
	if err != nil {
		return err
	}
	if docs && count {
		return reject(http.StatusBadRequest, "The parameters docs and count exclude each other.")
	}
	q := journal.Query{Namespace: faas.NativeName(namespace), Calls: true, Limit: scan}
	since, err := millis(c, "since")
	if err != nil {
		return err
	}
	upto, err := millis(c, "upto")
	if err != nil {
		return err
	}
	// The bounds are of the start as records tell it, which is after the time that a call waited.
	if !since.IsZero() {
		q.Since = since.Add(-mostWait)
	}
	if !upto.IsZero() {
		q.Until = upto.Add(time.Millisecond)
	}
	name := c.query.Get("name")
	if name != "" && (strings.Count(name, "/") > 1 || !validNames(strings.Split(name, "/"))) {
		return reject(http.StatusBadRequest, "The name of activations is an action's, or a package's and an action's with a slash between them.")
	}
	out := []*activation{}
	var whole []faas.ID // those that are told with docs
	n := 0
search:
	for !hidden {
		page, next, err := s.cfg.Journal.Find(c.ctx, q)
		if err != nil {
			return err
		}
		for _, act := range page {
			if start := timesOf(act).start; !named(act, name) || !since.IsZero() && start < since.UnixMilli() || !upto.IsZero() && start > upto.UnixMilli() {
				continue
			}
			n++
			if count || n <= skip {
				continue
			}
			if docs {
				whole = append(whole, act.ID)
			} else {
				out = append(out, s.summary(act))
			}
			if len(out)+len(whole) == limit {
				break search
			}
		}
		if next == "" {
			break
		}
		if q.Cursor == "" { // one at a time of a namespace looks further, so that none keeps all processors at it
			defer s.locks.lock(path{namespace: namespace, pkg: "/activations"})()
		}
		q.Cursor = next
	}
	if count {
		writeJSON(c.w, http.StatusOK, map[string]int{"activations": max(n-skip, 0)})
		return nil
	}
	if docs {
		return s.tellWhole(c, q.Namespace, whole)
	}
	writeJSON(c.w, http.StatusOK, out)
	return nil
}

// tellWhole answers with whole records. They are read and written one by one: each may have megabytes of logs.
func (s *Server) tellWhole(c *call, native string, ids []faas.ID) error {
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(http.StatusOK)
	sep := "["
	for _, id := range ids {
		act, err := s.cfg.Journal.Get(c.ctx, native, id) // lists leave long answers and logs out
		if err != nil {
			continue // it was too old in the meantime
		}
		b, err := json.Marshal(s.record(act, true))
		if err != nil { // not possible: all that is written was built here or read from JSON
			continue
		}
		if _, err := c.w.Write(append([]byte(sep), b...)); err != nil {
			return nil // nobody is left to hear of it
		}
		sep = ","
	}
	if sep == "[" {
		sep = "[]"
	} else {
		sep = "]"
	}
	_, _ = c.w.Write([]byte(sep)) // the same
	return nil
}

// named says whether a record is of what a list was asked for: "action", or "package/action".
func named(a *faas.Activation, name string) bool {
	if name == "" {
		return true
	}
	n := noteOf(a)
	pkg, action, packaged := strings.Cut(name, "/")
	if !packaged {
		return n.Name == name
	}
	if n.Name != action {
		return false
	}
	if n.Binding != "" && strings.HasSuffix(n.Binding, "/"+pkg) {
		return true
	}
	parts := strings.Split(n.Path, "/")
	return len(parts) == 3 && parts[1] == pkg
}

func validNames(names []string) bool {
	return !slices.ContainsFunc(names, func(n string) bool { return !validName(n) })
}

// millis reads a time in the query, in milliseconds since 1970; zero if there is none.
func millis(c *call, name string) (time.Time, error) {
	v := c.query.Get(name)
	if v == "" {
		return time.Time{}, nil
	}
	ms, err := strconv.ParseInt(v, 10, 64)
	if err != nil || ms < 0 {
		return time.Time{}, reject(http.StatusBadRequest, "The parameter %s is a time in milliseconds since 1970, and not %.40q.", name, v)
	}
	return time.UnixMilli(ms), nil
}

// paging reads which part of a list is asked for. With count only its length is.
func paging(c *call) (limit, skip int, count bool, err error) {
	if count, err = flag(c, "count"); err != nil {
		return
	}
	limit = listDefault
	if v := c.query.Get("limit"); v != "" {
		if limit, err = strconv.Atoi(v); err != nil || limit < 0 || limit > listMost {
			return 0, 0, false, reject(http.StatusBadRequest, "The parameter limit is a number from 0 to %d, and not %.40q.", listMost, v)
		}
		if limit == 0 {
			limit = listMost
		}
	}
	if v := c.query.Get("skip"); v != "" {
		if skip, err = strconv.Atoi(v); err != nil || skip < 0 {
			return 0, 0, false, reject(http.StatusBadRequest, "The parameter skip is a number from 0 up, and not %.40q.", v)
		}
	}
	return limit, skip, count, nil
}
