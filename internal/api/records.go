package api

import (
	"context"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/journal"
)

type activationPath struct {
	NamespacePath
	ID string `path:"id"`
}

// Bounds of one page.
const (
	defaultPage = 50
	largestPage = 1000
)

// RecordQuery holds the parameters of lists of what happened.
type RecordQuery struct {
	Function string `query:"function" doc:"Of this function only"`
	Outcome  string `query:"outcome" doc:"With this outcome only: a code's name, or error for all but ok"`
	Since    string `query:"since" doc:"Begun at or after this time (RFC 3339), or this long ago, such as 15m"`
	Until    string `query:"until" doc:"Begun before this time, or this long ago"`
	Limit    int    `query:"limit" minimum:"1" doc:"At most this many calls, of up to 1000; 50 when left out"`
	Cursor   string `query:"cursor" maxLength:"200" doc:"From the page before"`
}

// query makes the journal's question of it.
func (q RecordQuery) query(namespace string) (journal.Query, error) {
	out := journal.Query{Namespace: namespace, Function: q.Function, Limit: q.Limit, Cursor: q.Cursor}
	if out.Limit == 0 {
		out.Limit = defaultPage
	}
	if out.Limit < 1 || out.Limit > largestPage {
		return out, faas.Errorf(faas.Invalid, "read query", "limit is %d; it must be from 1 to %d", q.Limit, largestPage).WithLimit("page")
	}
	if q.Function != "" {
		name, err := faas.ParseName("/"+namespace+"/"+q.Function, "")
		if err != nil {
			return out, err
		}
		out.Function = name.Path()
	}
	if err := setOutcome(&out, q.Outcome); err != nil {
		return out, err
	}
	var err error
	if out.Since, err = moment("since", q.Since); err != nil {
		return out, err
	}
	out.Until, err = moment("until", q.Until)
	return out, err
}

func setOutcome(q *journal.Query, s string) error {
	if s == "" || s == "error" {
		q.Outcome = s
		return nil
	}
	var code faas.Code
	if err := code.UnmarshalText([]byte(s)); err != nil {
		return faas.Errorf(faas.Invalid, "read query", "outcome is %.40q; it is a code's name such as failed, or error for all but ok", s)
	}
	q.Outcome = s
	return nil
}

// moment reads a time, or how long ago it was.
func moment(name, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return time.Now().Add(-d), nil
	}
	return time.Time{}, faas.Errorf(faas.Invalid, "read query", "%s is %.40q; write a time as 2006-01-02T15:04:05Z or how long ago, as 15m", name, s)
}

func (s *Server) recordRoutes() {
	manage(s, accessNamespace, operation("list-activations", http.MethodGet, inNamespace+"/activations", "List what happened, newest first", "records"), func(ctx context.Context, in *struct {
		NamespacePath
		RecordQuery
	}) (Activations, error) {
		q, err := in.query(in.Namespace)
		if err != nil {
			return Activations{}, err
		}
		if q.Since, err = s.ofThis(in.Namespace, q.Since); err != nil {
			return Activations{}, err
		}
		q.NoLogs, q.Calls = true, true
		found, cursor, err := s.cfg.Journal.Find(ctx, q)
		if err != nil {
			return Activations{}, err
		}
		out := Activations{Activations: []faas.Activation{}, Cursor: cursor}
		for _, a := range found {
			out.Activations = append(out.Activations, *a)
		}
		return out, nil
	})
	manage(s, accessNamespace, operation("get-activation-logs", http.MethodGet, inNamespace+"/activations/{id}/logs", "Read what one call wrote", "records"), func(ctx context.Context, in *activationPath) (Logs, error) {
		a, err := s.activation(ctx, in)
		if err != nil {
			return Logs{}, err
		}
		return Logs{Lines: entries(a)}, nil
	})
	op := operation("logs", http.MethodGet, inNamespace+"/logs", "Read what functions wrote, oldest line first, or follow it", "records")
	op.Parameters = []*huma.Param{
		query("function", huma.TypeString, "Of this function only"),
		query("outcome", huma.TypeString, "Of calls with this outcome only: a code's name, or error for all but ok"),
		query("since", huma.TypeString, "Of calls begun at or after this time (RFC 3339), or this long ago, such as 15m"),
		query("until", huma.TypeString, "Of calls begun before this time, or this long ago"),
		query("limit", huma.TypeInteger, "Of at most this many calls, of up to 1000; 50 when left out"),
		query("cursor", huma.TypeString, "From the page before"),
		query("follow", huma.TypeBoolean, "Go on with the lines of calls as they end, one JSON object a line, or as server-sent events if that is accepted"),
	}
	ok := s.json(reflect.TypeFor[Answer[Logs]](), "Lines; with follow=true a stream of them")
	entry := &huma.MediaType{Schema: s.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[LogEntry](), true, "")}
	ok.Content[ndjson], ok.Content[eventStream] = entry, &huma.MediaType{}
	op.Responses = map[string]*huma.Response{"200": ok}
	s.raw(accessNamespace, op, s.logs)
}

func (s *Server) activation(ctx context.Context, in *activationPath) (*faas.Activation, error) {
	id, err := faas.ParseID(in.ID)
	if err != nil {
		return nil, err
	}
	a, err := s.cfg.Journal.Get(ctx, in.Namespace, id)
	if err != nil {
		return nil, err
	}
	if since, err := s.ofThis(in.Namespace, time.Time{}); err != nil || a.Timing.Begin.Before(since) {
		return nil, faas.Errorf(faas.NotFound, "look up activation", "there is no activation %q in namespace %q", id, in.Namespace)
	}
	return a, nil
}

// ofThis returns the later of since and the making of a namespace: what happened in an older one
// of the same name is not its keepers' to see.
func (s *Server) ofThis(namespace string, since time.Time) (time.Time, error) {
	ns, err := s.cfg.Catalog.Namespace(namespace)
	if err != nil {
		return since, err
	}
	// An ID tells its time to the millisecond: a call of the namespace's first one is not of an older.
	if made := ns.Created.Truncate(time.Millisecond); since.Before(made) {
		since = made
	}
	return since, nil
}

func entries(a *faas.Activation) []LogEntry {
	out := make([]LogEntry, 0, len(a.Logs))
	for _, l := range a.Logs {
		out = append(out, LogEntry{Activation: a.ID, Function: a.Function, Time: l.Time, Stream: l.Stream, Text: l.Text})
	}
	return out
}

// figures returns those of one function.
func figures(f journal.Figures) Figures {
	return Figures{Calls: f.Calls, Errors: f.Errors, P50: f.P50.Microseconds(), P95: f.P95.Microseconds(), Cold: f.Cold}
}

// logs answers with lines, or a stream of them.
func (s *Server) logs(w http.ResponseWriter, r *http.Request, c Caller) error {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return faas.Errorf(faas.Invalid, "read query", "the query is not well formed")
	}
	rq := RecordQuery{
		Function: values.Get("function"), Outcome: values.Get("outcome"), Since: values.Get("since"),
		Until: values.Get("until"), Cursor: values.Get("cursor"),
	}
	if v := values.Get("limit"); v != "" {
		if rq.Limit, err = strconv.Atoi(v); err != nil || rq.Limit == 0 {
			return faas.Errorf(faas.Invalid, "read query", "limit is %.40q; it is a number from 1 to %d", v, largestPage)
		}
	}
	q, err := rq.query(r.PathValue("namespace"))
	if err != nil {
		return err
	}
	if q.Since, err = s.ofThis(r.PathValue("namespace"), q.Since); err != nil {
		return err
	}
	switch v := values.Get("follow"); v {
	case "true", "1":
		return s.follow(w, r, c, q, values.Has("limit") || values.Has("since"))
	case "", "false", "0":
	default:
		return faas.Errorf(faas.Invalid, "read query", "follow is %.40q; it is true or false", v)
	}
	found, cursor, err := s.cfg.Journal.Find(r.Context(), q)
	if err != nil {
		return err
	}
	out := Logs{Lines: []LogEntry{}, Cursor: cursor}
	for _, a := range slices.Backward(found) {
		out.Lines = append(out.Lines, entries(a)...)
	}
	writeJSON(w, http.StatusOK, Answer[Logs]{OK: true, Data: out})
	return nil
}
