package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/queue"
)

// Queue is how much of a function's calls waits whose callers do not.
type Queue struct {
	Function string    `json:"function"`
	Waiting  int       `json:"waiting" doc:"For their turn, for the time when they are due, or to be tried again"`
	Running  int       `json:"running"`
	Dead     int       `json:"dead" doc:"Given up, and kept as dead letters"`
	Paused   bool      `json:"paused" doc:"None is begun until it is resumed"`
	Oldest   time.Time `json:"oldest,omitzero" doc:"When the oldest that waits was accepted"`
}

// Queues is a list of them: of the functions of which something waits, runs, is dead or paused.
type Queues struct {
	Queues []Queue `json:"queues"`
}

// WaitingCall is a call in the queue.
type WaitingCall struct {
	ID       faas.ID       `json:"id"`
	Function string        `json:"function"`
	Stage    faas.Stage    `json:"stage" enum:"queued,running,retrying"`
	Priority faas.Priority `json:"priority,omitempty" enum:"high,normal,low"`
	Key      string        `json:"key,omitempty"`
	Order    string        `json:"order,omitempty"`
	Subject  string        `json:"subject,omitempty" doc:"Who asked"`
	Cause    faas.ID       `json:"cause,omitempty"`
	Queued   time.Time     `json:"queued" doc:"When it was accepted"`
	Due      time.Time     `json:"due,omitzero" doc:"When it may next be handed out"`
	Attempt  int           `json:"attempt" doc:"Attempts begun"`
	Error    string        `json:"error,omitempty" doc:"Of the last attempt"`
}

// WaitingCalls is a page of them, oldest first.
type WaitingCalls struct {
	Calls  []WaitingCall `json:"calls"`
	Cursor string        `json:"cursor,omitempty" doc:"Send it as cursor for the next page; absent on the last"`
}

// Cleared says how many calls were removed.
type Cleared struct {
	Count int `json:"count"`
}

// QueueQuery holds the parameters of lists of what waits.
type QueueQuery struct {
	Function string `query:"function" doc:"Of this function only"`
	Stage    string `query:"stage" enum:"queued,running,retrying" doc:"In this stage only"`
	Limit    int    `query:"limit" minimum:"1" maximum:"1000" doc:"At most so many; 50 when left out"`
	Cursor   string `query:"cursor" maxLength:"64" doc:"From the page before"`
}

// filter makes the queue's question of it, for one more than the page holds, so that the last page
// is known.
func (q QueueQuery) filter(namespace string) (queue.Filter, error) {
	f := queue.Filter{Namespace: namespace, Stage: faas.Stage(q.Stage), Limit: q.Limit + 1}
	if q.Limit == 0 {
		f.Limit = defaultPage + 1
	}
	var err error
	if q.Function != "" {
		f.Function, err = pathOf(namespace, q.Function)
	}
	if q.Cursor != "" && err == nil {
		if f.After, err = faas.ParseID(q.Cursor); err != nil {
			err = faas.Errorf(faas.Invalid, "read query", "cursor is not one that a page before gave")
		}
	}
	return f, err
}

// pathOf reads what somebody calls a function of a namespace.
func pathOf(namespace, s string) (string, error) {
	name, err := faas.ParseName("/"+namespace+"/"+s, "")
	return name.Path(), err
}

func (s *Server) queueRoutes() {
	manage(s, accessNamespace, operation("list-queues", http.MethodGet, inNamespace+"/queue", "See, function by function, how many calls wait", "queue"), func(ctx context.Context, in *NamespacePath) (Queues, error) {
		out := Queues{Queues: []Queue{}}
		depths, err := s.depths(ctx, in.Namespace)
		if err != nil {
			return out, err
		}
		for _, d := range depths {
			out.Queues = append(out.Queues, wireQueue(d))
		}
		slices.SortFunc(out.Queues, func(a, b Queue) int { return strings.Compare(a.Function, b.Function) })
		return out, nil
	})
	manage(s, accessNamespace, operation("list-waiting", http.MethodGet, inNamespace+"/queue/calls", "List the calls in the queue, oldest first", "queue"), func(ctx context.Context, in *struct {
		NamespacePath
		QueueQuery
	}) (WaitingCalls, error) {
		out := WaitingCalls{Calls: []WaitingCall{}}
		f, err := in.filter(in.Namespace)
		if err == nil {
			err = s.queued()
		}
		if err != nil {
			return out, err
		}
		found, err := s.cfg.Queue.List(ctx, f)
		if err != nil {
			return out, err
		}
		if len(found) == f.Limit {
			found = found[:len(found)-1]
			out.Cursor = string(found[len(found)-1].ID)
		}
		for _, w := range found {
			out.Calls = append(out.Calls, wireWaiting(w))
		}
		return out, nil
	})
	s.functionQueueRoutes()
	s.deadRoutes()
}

func (s *Server) functionQueueRoutes() {
	manage(s, accessNamespace, operation("get-queue", http.MethodGet, aFunction+"/queue", "See how many calls of a function wait", "queue"), func(ctx context.Context, in *FunctionPath) (Queue, error) {
		return s.queueOf(ctx, in)
	})
	for _, c := range []struct {
		verb, summary string
		paused        bool
	}{
		{"pause", "Begin none of a function's calls that wait; new ones are accepted", true},
		{"resume", "Begin a function's calls that wait again", false},
	} {
		manage(s, accessNamespace, operation(c.verb+"-queue", http.MethodPost, aFunction+"/queue/"+c.verb, c.summary, "queue"), func(ctx context.Context, in *FunctionPath) (Queue, error) {
			if _, err := s.queueOf(ctx, in); err != nil {
				return Queue{}, err
			}
			if err := s.cfg.Queue.Pause(ctx, faas.Name{Namespace: in.Namespace, Function: in.Name}, c.paused); err != nil {
				return Queue{}, err
			}
			return s.queueOf(ctx, in)
		})
	}
	manage(s, accessNamespace, operation("clear-queue", http.MethodDelete, aFunction+"/queue", "Remove for good what waits of a function; what runs goes on, dead letters stay", "queue"), func(ctx context.Context, in *FunctionPath) (Cleared, error) {
		if _, err := s.queueOf(ctx, in); err != nil {
			return Cleared{}, err
		}
		n, err := s.cfg.Queue.Clear(ctx, faas.Name{Namespace: in.Namespace, Function: in.Name})
		return Cleared{Count: n}, err
	})
}

// queueOf finds the queue of a function that exists, or did and has left something there.
func (s *Server) queueOf(ctx context.Context, in *FunctionPath) (Queue, error) {
	name, err := in.name()
	if err != nil {
		return Queue{}, err
	}
	depths, err := s.depths(ctx, in.Namespace)
	if err != nil {
		return Queue{}, err
	}
	for _, d := range depths {
		if d.Function == name {
			return wireQueue(d), nil
		}
	}
	_, err = s.cfg.Catalog.Function(name)
	return Queue{Function: name.Path()}, err
}

func (s *Server) depths(ctx context.Context, namespace string) ([]queue.Depth, error) {
	if err := s.queued(); err != nil {
		return nil, err
	}
	return s.cfg.Queue.Depths(ctx, namespace)
}

// queued says that there is a queue.
func (s *Server) queued() error {
	if s.cfg.Queue == nil {
		return faas.Errorf(faas.Unavailable, "look at queue", "this server has no queue")
	}
	return nil
}

func wireQueue(d queue.Depth) Queue {
	q := Queue{Function: d.Function.Path(), Waiting: d.Waiting, Running: d.Running, Dead: d.Dead, Paused: d.Paused}
	if !d.Oldest.IsZero() {
		q.Oldest = d.Oldest.UTC()
	}
	return q
}

func wireWaiting(w faas.Waiting) WaitingCall {
	c := WaitingCall{
		ID: w.ID, Function: w.Function.Path(), Stage: w.Stage, Priority: w.Priority, Key: w.Key, Order: w.Order, Subject: w.Subject,
		Cause: w.Cause, Queued: w.Queued.UTC(), Attempt: w.Attempt, Error: w.Error,
	}
	if !w.Due.IsZero() {
		c.Due = w.Due.UTC()
	}
	return c
}
