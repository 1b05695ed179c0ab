package openwhisk

import (
	"cmp"
	"fmt"
	"net/http"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// Limits are those of the API. Zero of a field means what OpenWhisk has. Sizes of memory and logs are
// told to clients in whole MiB, times in milliseconds.
type Limits struct {
	TimeoutMin, TimeoutStd, TimeoutMax             time.Duration
	MemoryMin, MemoryStd, MemoryMax                faas.Bytes
	LogsMin, LogsStd, LogsMax                      faas.Bytes
	ConcurrencyMin, ConcurrencyStd, ConcurrencyMax int
	Code                                           faas.Bytes    // of an action, as it is sent
	Parameters                                     faas.Bytes    // also of annotations, each
	Payload                                        faas.Bytes    // arguments and result, each
	Blocking                                       time.Duration // how long a caller may wait
	InvocationsPerMinute                           int           // of a namespace
	Concurrent                                     int           // of a namespace
	FiresPerMinute                                 int           // of a namespace
	Sequence                                       int           // atomic components of a sequence
}

const (
	listDefault = 30
	listMost    = 200
	maxBody     = 50 * faas.MiB // of any request
)

func (l *Limits) applyDefaults() {
	l.TimeoutMin = cmp.Or(l.TimeoutMin, 100*time.Millisecond)
	l.TimeoutStd = cmp.Or(l.TimeoutStd, time.Minute)
	l.TimeoutMax = cmp.Or(l.TimeoutMax, 5*time.Minute)
	l.MemoryMin = cmp.Or(l.MemoryMin, 128*faas.MiB)
	l.MemoryStd = cmp.Or(l.MemoryStd, 256*faas.MiB)
	l.MemoryMax = cmp.Or(l.MemoryMax, 512*faas.MiB)
	l.LogsStd = cmp.Or(l.LogsStd, 10*faas.MiB)
	l.LogsMax = cmp.Or(l.LogsMax, 10*faas.MiB)
	l.ConcurrencyMin = cmp.Or(l.ConcurrencyMin, 1)
	l.ConcurrencyStd = cmp.Or(l.ConcurrencyStd, 1)
	l.ConcurrencyMax = cmp.Or(l.ConcurrencyMax, 1)
	l.Code = cmp.Or(l.Code, 48*faas.MiB)
	l.Parameters = cmp.Or(l.Parameters, faas.MiB)
	l.Payload = cmp.Or(l.Payload, faas.MiB)
	l.Blocking = cmp.Or(l.Blocking, time.Minute)
	l.InvocationsPerMinute = cmp.Or(l.InvocationsPerMinute, 60)
	l.Concurrent = cmp.Or(l.Concurrent, 30)
	l.FiresPerMinute = cmp.Or(l.FiresPerMinute, 60)
	l.Sequence = cmp.Or(l.Sequence, faas.MaxSteps)
}

// namespaceLimits answers GET /namespaces/NS/limits.
func (s *Server) namespaceLimits(c *call, namespace string) error {
	if len(c.rest) > 0 {
		if c.r.Method == http.MethodGet {
			return reject(http.StatusBadRequest, "Limits have no parts of their own.")
		}
		return notAllowed("GET")
	}
	if c.r.Method != http.MethodGet {
		return notAllowed("GET")
	}
	if namespace != c.who.Namespace {
		return errForbidden
	}
	l, own := s.limitsOf(namespace), s.cfg.Subjects.Limits(namespace)
	answer := map[string]any{
		"invocationsPerMinute": l.InvocationsPerMinute, "concurrentInvocations": l.Concurrent, "firesPerMinute": l.FiresPerMinute,
		"minActionMemory": mib(l.MemoryMin), "maxActionMemory": mib(l.MemoryMax), "minActionTimeout": l.TimeoutMin.Milliseconds(), "maxActionTimeout": l.TimeoutMax.Milliseconds(),
		"minActionLogs": mib(l.LogsMin), "maxActionLogs": mib(l.LogsMax), "minActionConcurrency": l.ConcurrencyMin, "maxActionConcurrency": l.ConcurrencyMax,
		"maxParameterSize": fmt.Sprintf("%d B", int64(l.Parameters)), "storeActivations": !own.Hidden,
	}
	if len(own.Kinds) > 0 {
		answer["allowedKinds"] = own.Kinds
	}
	writeJSON(c.w, http.StatusOK, answer)
	return nil
}

// limitsOf are the limits of a namespace: the server's, save for what it has of its own.
func (s *Server) limitsOf(namespace string) *Limits {
	l, own := s.cfg.Limits, s.cfg.Subjects.Limits(namespace)
	for _, x := range []struct {
		to   *int
		from *int
	}{{&l.InvocationsPerMinute, own.Invocations}, {&l.Concurrent, own.Concurrent}, {&l.FiresPerMinute, own.Fires}} {
		if x.from != nil {
			*x.to = *x.from
		}
	}
	return &l
}

func mib(b faas.Bytes) int64 { return int64(b / faas.MiB) }
