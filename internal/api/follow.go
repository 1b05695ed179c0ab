package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/journal"
)

// Forms of a stream of lines.
const (
	ndjson      = "application/x-ndjson"
	eventStream = "text/event-stream"
)

// signOfLife is how often an idle stream says something, so that proxies keep it and a caller
// that is gone is noticed.
const signOfLife = 15 * time.Second

// follow streams the lines of calls as they end, until the caller goes away; with past, those of
// calls that have ended come first.
func (s *Server) follow(w http.ResponseWriter, r *http.Request, c Caller, q journal.Query, past bool) error {
	ctx := r.Context()
	tail, err := s.cfg.Journal.Tail(ctx, q) // before the past is read, so that nothing falls between
	if err != nil {
		return err
	}
	var found []*faas.Activation
	if past {
		if found, _, err = s.cfg.Journal.Find(ctx, q); err != nil {
			return err
		}
	}
	out := lineWriter{w: w, control: http.NewResponseController(w), events: accepts(r, eventStream)}
	out.begin()
	told := map[faas.ID]bool{} // the past, some of which the tail may bring again
	for _, a := range slices.Backward(found) {
		told[a.ID] = true
		if out.write(a) != nil {
			return nil
		}
	}
	tick := time.NewTicker(signOfLife)
	defer tick.Stop()
	ends := func() error {
		err := faas.Errorf(faas.Unavailable, "follow logs", "the server is shutting down").WithFix("follow again in a few seconds")
		out.fail(refuse(s.cfg.Logger, c.ID, err).Fault)
		return nil
	}
	for {
		select {
		case a, ok := <-tail:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return ends()
			}
			if told[a.ID] {
				delete(told, a.ID)
				continue
			}
			if out.write(a) != nil {
				return nil
			}
		case <-tick.C:
			if out.alive() != nil {
				return nil
			}
		case <-s.drained:
			return ends()
		case <-ctx.Done():
			return nil
		}
	}
}

func accepts(r *http.Request, media string) bool {
	for _, v := range r.Header["Accept"] {
		for m := range strings.SplitSeq(v, ",") {
			m, _, _ = strings.Cut(m, ";")
			if strings.EqualFold(strings.TrimSpace(m), media) {
				return true
			}
		}
	}
	return false
}

// lineWriter writes a stream of lines, each at once.
type lineWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	events  bool // server-sent events; else one JSON object a line
}

func (l lineWriter) begin() {
	h := l.w.Header()
	h.Set("Content-Type", ndjson)
	if l.events {
		h.Set("Content-Type", eventStream)
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	l.w.WriteHeader(http.StatusOK)
	_ = l.control.Flush() // the next write tells if nobody is there
}

func (l lineWriter) write(a *faas.Activation) error {
	for _, e := range entries(a) {
		if err := l.send(e); err != nil {
			return err
		}
	}
	return l.control.Flush()
}

func (l lineWriter) send(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if l.events {
		b = append([]byte("data: "), b...)
		b = append(b, '\n')
	}
	_, err = l.w.Write(append(b, '\n'))
	return err
}

func (l lineWriter) alive() error {
	sign := "\n"
	if l.events {
		sign = ":\n\n"
	}
	if _, err := l.w.Write([]byte(sign)); err != nil {
		return err
	}
	return l.control.Flush()
}

// fail ends the stream with what went wrong.
func (l lineWriter) fail(f *Fault) {
	_ = l.send(struct {
		Fault *Fault `json:"error"`
	}{f})
	_ = l.control.Flush()
}
