package api

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
)

// DeadLetter is a call that was given up.
type DeadLetter struct {
	ID       faas.ID       `json:"id"`
	Function string        `json:"function"`
	Kind     faas.Kind     `json:"kind" doc:"deliver: no call of a function, but of a web hook that was to be told of one"`
	Why      string        `json:"why" doc:"Why it was given up"`
	Died     time.Time     `json:"died" doc:"When"`
	Attempt  int           `json:"attempt" doc:"Attempts that were made"`
	Queued   time.Time     `json:"queued,omitzero" doc:"When it was accepted"`
	Priority faas.Priority `json:"priority,omitempty" enum:"high,normal,low"`
	Key      string        `json:"key,omitempty"`
	Order    string        `json:"order,omitempty"`
	Subject  string        `json:"subject,omitempty" doc:"Who asked"`
	Cause    faas.ID       `json:"cause,omitempty"`
	Bytes    faas.Bytes    `json:"bytes" doc:"Of its body"`
}

// DeadLetters is a page of them, oldest first, without their bodies.
type DeadLetters struct {
	Letters []DeadLetter `json:"dead_letters"`
	Cursor  string       `json:"cursor,omitempty" doc:"Send it as cursor for the next page; absent on the last"`
}

// DeadLetterInfo is a dead letter with all that the function would be called with.
type DeadLetterInfo struct {
	DeadLetter
	Method      string              `json:"method,omitempty"`
	Path        string              `json:"path,omitempty" doc:"Below the function's URL; of a web hook the URL itself"`
	Query       string              `json:"query,omitempty"`
	Header      map[string][]string `json:"headers,omitempty" doc:"Those that hold credentials are hidden"`
	ContentType string              `json:"content_type,omitempty"`
	Encoding    string              `json:"encoding,omitempty" enum:"base64" doc:"base64: the body is a string of that, because it is not UTF-8"`
	Body        json.RawMessage     `json:"body" doc:"A JSON value, or a string"`
}

// DeadQuery holds the parameters of lists of dead letters.
type DeadQuery struct {
	Function string `query:"function" doc:"Of this function only"`
	Limit    int    `query:"limit" minimum:"1" maximum:"1000" doc:"At most so many; 50 when left out"`
	Cursor   string `query:"cursor" maxLength:"64" doc:"From the page before"`
}

// DeadSpec says which dead letters are meant: exactly one of its fields is given.
type DeadSpec struct {
	ID       string `json:"id,omitempty" maxLength:"64" doc:"This one"`
	Function string `json:"function,omitempty" maxLength:"200" doc:"All of this function"`
	All      bool   `json:"all,omitempty" doc:"All of the namespace"`
}

func (d DeadSpec) filter(namespace string) (f queue.Filter, err error) {
	f.Namespace = namespace
	given := 0
	for _, is := range []bool{d.ID != "", d.Function != "", d.All} {
		if is {
			given++
		}
	}
	if given != 1 {
		return f, faas.Errorf(faas.Invalid, "choose dead letters", "exactly one of id, function and all says which are meant; here are %d", given)
	}
	if d.ID != "" {
		f.ID, err = faas.ParseID(d.ID)
	}
	if d.Function != "" {
		f.Function, err = pathOf(namespace, d.Function)
	}
	return f, err
}

func (s *Server) deadRoutes() {
	const base = inNamespace + "/dead-letters"
	manage(s, accessNamespace, operation("list-dead", http.MethodGet, base, "List the calls that were given up, oldest first", "queue"), func(ctx context.Context, in *struct {
		NamespacePath
		DeadQuery
	}) (DeadLetters, error) {
		f, err := QueueQuery{Function: in.Function, Limit: in.Limit, Cursor: in.Cursor}.filter(in.Namespace)
		if err == nil {
			err = s.queued()
		}
		if err != nil {
			return DeadLetters{}, err
		}
		return s.deadPage(ctx, f)
	})
	manage(s, accessNamespace, operation("get-dead", http.MethodGet, base+"/{id}", "Look at a call that was given up, with its body", "queue"), func(ctx context.Context, in *activationPath) (DeadLetterInfo, error) {
		id, err := faas.ParseID(in.ID)
		if err == nil {
			err = s.queued()
		}
		if err != nil {
			return DeadLetterInfo{}, err
		}
		dead, err := s.cfg.Queue.Buried(ctx, queue.Filter{Namespace: in.Namespace, ID: id, Limit: 1})
		if err != nil {
			return DeadLetterInfo{}, err
		}
		if len(dead) == 0 {
			return DeadLetterInfo{}, noDead(in.Namespace, id)
		}
		return deadInfo(&dead[0])
	})
	for _, c := range []struct {
		verb, summary string
		do            func(context.Context, queue.Filter) (int, error)
	}{
		{"redrive", "Queue calls anew that were given up, with the same ids and all attempts before them", func(ctx context.Context, f queue.Filter) (int, error) { return s.cfg.Queue.Redrive(ctx, f) }},
		{"purge", "Remove calls for good that were given up", func(ctx context.Context, f queue.Filter) (int, error) { return s.cfg.Queue.Purge(ctx, f) }},
	} {
		manage(s, accessNamespace, operation(c.verb+"-dead", http.MethodPost, base+"/"+c.verb, c.summary, "queue"), func(ctx context.Context, in *struct {
			NamespacePath
			Body DeadSpec
		}) (Cleared, error) {
			f, err := in.Body.filter(in.Namespace)
			if err == nil {
				err = s.queued()
			}
			if err != nil {
				return Cleared{}, err
			}
			n, err := c.do(ctx, f)
			if err == nil && n == 0 && f.ID != "" {
				err = noDead(in.Namespace, f.ID)
			}
			return Cleared{Count: n}, err
		})
	}
}

func noDead(namespace string, id faas.ID) error {
	return faas.Errorf(faas.NotFound, "look up dead letter", "there is no dead letter %q in namespace %q", id, namespace).WithFix("see which there are: brasa dlq ls")
}

// deadAtOnce is how many are fetched at once: each brings its body, of up to 8 MiB.
const deadAtOnce = 8

// deadPage fetches a page of them; f asks for one more than the page holds.
func (s *Server) deadPage(ctx context.Context, f queue.Filter) (DeadLetters, error) {
	out := DeadLetters{Letters: []DeadLetter{}}
	most := f.Limit - 1
	for {
		f.Limit = min(deadAtOnce, most+1-len(out.Letters))
		dead, err := s.cfg.Queue.Buried(ctx, f)
		if err != nil {
			return out, err
		}
		for i := range dead {
			if len(out.Letters) == most {
				out.Cursor = string(out.Letters[most-1].ID)
				return out, nil
			}
			out.Letters = append(out.Letters, wireDead(&dead[i]))
			f.After = dead[i].Invocation.ID
		}
		if len(dead) < f.Limit {
			return out, nil
		}
	}
}

func wireDead(d *queue.Dead) DeadLetter {
	inv := d.Invocation
	out := DeadLetter{
		ID: inv.ID, Function: inv.Function.Name.Path(), Kind: inv.Kind, Why: d.Why, Died: d.At.UTC(), Attempt: inv.Attempt,
		Queued: inv.ID.Time().UTC(), Subject: inv.Subject, Cause: inv.Cause, Bytes: faas.Bytes(inv.Length),
	}
	if w := inv.Wait; w != nil {
		out.Priority, out.Key, out.Order = w.Priority, w.Key, w.Order
		if !w.Since.IsZero() {
			out.Queued = w.Since.UTC()
		}
	}
	return out
}

// credentials are headers that are for the function and for nobody who looks at its calls.
var credentials = []string{"Authorization", "Cookie"}

func deadInfo(d *queue.Dead) (DeadLetterInfo, error) {
	inv := d.Invocation
	out := DeadLetterInfo{DeadLetter: wireDead(d), Method: inv.Method, Path: inv.Path, Query: inv.Query, Body: json.RawMessage("null")}
	if len(inv.Header) > 0 {
		out.Header = make(map[string][]string, len(inv.Header))
	}
	for k, v := range inv.Header {
		out.Header[k] = v
	}
	for _, k := range credentials {
		if _, said := out.Header[k]; said {
			out.Header[k] = []string{"(hidden)"}
		}
	}
	if v := inv.Header["Content-Type"]; len(v) > 0 {
		out.ContentType = v[0]
	}
	if inv.Body != nil {
		b, err := io.ReadAll(inv.Body)
		if err != nil {
			return out, err
		}
		out.Body, out.Encoding = value(b, out.ContentType)
	}
	return out, nil
}
