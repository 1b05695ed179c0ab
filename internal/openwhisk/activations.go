package openwhisk

import (
	"context"
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

// listing is what a list of records was asked for.
type listing struct {
	limit, skip int
	count, docs bool
	since, upto time.Time // of the start as records tell it; zero: any
	name        string    // "action", or "package/action"; empty: any
}

// readListing reads what a list was asked for.
func readListing(c *call) (l listing, err error) {
	if l.limit, l.skip, l.count, err = paging(c); err != nil {
		return l, err
	}
	if l.docs, err = flag(c, "docs"); err != nil {
		return l, err
	}
	if l.docs && l.count {
		return l, reject(http.StatusBadRequest, "The parameters docs and count exclude each other.")
	}
	if l.since, err = millis(c, "since"); err != nil {
		return l, err
	}
	if l.upto, err = millis(c, "upto"); err != nil {
		return l, err
	}
	l.name = c.query.Get("name")
	if l.name != "" && (strings.Count(l.name, "/") > 1 || !validNames(strings.Split(l.name, "/"))) {
		return l, reject(http.StatusBadRequest, "The name of activations is an action's, or a package's and an action's with a slash between them.")
	}
	return l, nil
}

// wants says whether a record is one of those that were asked for.
func (l *listing) wants(act *faas.Activation) bool {
	if act.Interim { // clients know one record of a call, which is that of its end
		return false
	}
	start := timesOf(act).start
	return (l.since.IsZero() || start >= l.since.UnixMilli()) && (l.upto.IsZero() || start <= l.upto.UnixMilli()) && named(act, l.name)
}

// listActivations answers the list of records, newest first; an empty one where they are hidden.
func (s *Server) listActivations(c *call, namespace string, hidden bool) error {
	l, err := readListing(c)
	if err != nil {
		return err
	}
	var found []*faas.Activation
	n := 0
	if !hidden {
		if found, n, err = s.search(c.ctx, namespace, &l); err != nil {
			return err
		}
	}
	switch {
	case l.count:
		writeJSON(c.w, http.StatusOK, map[string]int{"activations": max(n-l.skip, 0)})
	case l.docs:
		return s.tellWhole(c, found)
	default:
		out := []*activation{}
		for _, act := range found {
			out = append(out, s.summary(act))
		}
		writeJSON(c.w, http.StatusOK, out)
	}
	return nil
}

// search finds the records that a list tells, and how many it has looked at that were asked for. With
// count it looks at all of them and returns none.
func (s *Server) search(ctx context.Context, namespace string, l *listing) (found []*faas.Activation, n int, err error) {
	q := journal.Query{Namespace: faas.NativeName(namespace), Calls: true, NoLogs: true, Limit: scan}
	// The journal knows when a call came, and the bounds are of the start, which is after the time that it waited.
	if !l.since.IsZero() {
		q.Since = l.since.Add(-mostWait)
	}
	if !l.upto.IsZero() {
		q.Until = l.upto.Add(time.Millisecond)
	}
	for {
		page, next, err := s.cfg.Journal.Find(ctx, q)
		if err != nil {
			return nil, 0, err
		}
		for _, act := range page {
			if !l.wants(act) {
				continue
			}
			if n++; l.count || n <= l.skip {
				continue
			}
			if found = append(found, act); len(found) == l.limit {
				return found, n, nil
			}
		}
		if next == "" {
			return found, n, nil
		}
		if q.Cursor == "" { // one at a time of a namespace looks further, so that none keeps all processors at it
			release, err := s.slots.take(ctx, "search "+namespace, 1)
			if err != nil {
				return nil, 0, err
			}
			defer release()
		}
		q.Cursor = next
	}
}

// tellWhole answers with whole records, of which those that were found may lack long answers and logs. They are
// read and written one by one: each may have megabytes of logs.
func (s *Server) tellWhole(c *call, found []*faas.Activation) error {
	sep := "["
	for _, act := range found {
		act, err := s.cfg.Journal.Get(c.ctx, act.Namespace, act.ID)
		switch {
		case faas.CodeOf(err) == faas.NotFound:
			continue // it was too old in the meantime
		case err != nil && sep == "[":
			return err
		case err != nil: // too late for another status: a list that breaks off is taken for none
			s.cfg.Logger.Error("list of activations broken off", "transaction", c.transaction, "cause", err)
			panic(http.ErrAbortHandler)
		}
		b, err := json.Marshal(s.record(act, true))
		if err != nil { // not possible: all that is written was built here or read from JSON
			continue
		}
		if sep == "[" {
			c.w.Header().Set("Content-Type", "application/json")
		}
		if _, err := c.w.Write(append([]byte(sep), b...)); err != nil {
			return nil // nobody is left to hear of it
		}
		sep = ","
	}
	if sep == "[" {
		writeJSON(c.w, http.StatusOK, []string{})
		return nil
	}
	_, _ = c.w.Write([]byte("]")) // the same
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
