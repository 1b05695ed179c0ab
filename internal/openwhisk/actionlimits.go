package openwhisk

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// limitsPut are limits as clients send them: any of them.
type limitsPut struct {
	Timeout     *int64 `json:"timeout"`
	Memory      *int64 `json:"memory"`
	Logs        *int64 `json:"logs"`
	Concurrency *int64 `json:"concurrency"`
	Instances   *int64 `json:"instances"`
}

// readLimits returns the limits of a namespace's action after a change, or says which of those that were
// sent is out of its range.
func (s *Server) readLimits(namespace string, in *limitsPut, was *action) (actionLimits, error) {
	l := &s.cfg.Limits
	out := actionLimits{Timeout: l.TimeoutStd.Milliseconds(), Memory: mib(l.MemoryStd), Logs: mib(l.LogsStd), Concurrency: int64(l.ConcurrencyStd)}
	if was != nil {
		out = was.record.Limits
	}
	if in == nil {
		return out, nil
	}
	for _, f := range []struct {
		name, unit  string
		sent        *int64
		to          *int64
		least, most int64
	}{
		{"timeout", " ms", in.Timeout, &out.Timeout, l.TimeoutMin.Milliseconds(), l.TimeoutMax.Milliseconds()},
		{"memory", " MB", in.Memory, &out.Memory, mib(l.MemoryMin), mib(l.MemoryMax)},
		{"logs", " MB", in.Logs, &out.Logs, mib(l.LogsMin), mib(l.LogsMax)},
		{"concurrency", "", in.Concurrency, &out.Concurrency, int64(l.ConcurrencyMin), int64(l.ConcurrencyMax)},
	} {
		if f.sent == nil {
			continue
		}
		if err := inRange(f.name, f.unit, *f.sent, f.least, f.most); err != nil {
			return out, err
		}
		*f.to = *f.sent
	}
	if in.Instances != nil {
		if err := inRange("instances", "", *in.Instances, 1, int64(s.limitsOf(namespace).Concurrent)); err != nil {
			return out, err
		}
		n := *in.Instances
		out.Instances = &n
	}
	return out, nil
}

func inRange(name, unit string, sent, least, most int64) error {
	show := func(n int64) string { return fmt.Sprintf("%d%s", n, unit) }
	switch {
	case sent < least:
		return reject(http.StatusBadRequest, "The request content was malformed: limits.%s is %s, below the allowed threshold of %s.", name, show(sent), show(least))
	case sent > most:
		return reject(http.StatusBadRequest, "The request content was malformed: limits.%s is %s and exceeds the allowed threshold of %s.", name, show(sent), show(most))
	}
	return nil
}

// request is how large an input may be, with all parameters that are put beneath it.
func (s *Server) request() faas.Bytes { return s.cfg.Limits.Payload + 4*s.cfg.Limits.Parameters }

// nativeLimits are an action's limits as those of a revision, the rest as in l.
func (s *Server) nativeLimits(a actionLimits, l faas.Limits) faas.Limits {
	l.Timeout = faas.Duration(time.Duration(a.Timeout) * time.Millisecond)
	l.Memory = faas.Bytes(a.Memory) * faas.MiB
	l.Log = max(faas.Bytes(a.Logs)*faas.MiB, 1) // 0 would be the default
	l.Concurrency = int(a.Concurrency)
	if l.MaxInstances = 0; a.Instances != nil {
		l.MaxInstances = int(*a.Instances)
	}
	l.Request, l.Response = s.request(), s.cfg.Limits.Payload
	return l
}

// wireLimits are a revision's limits as clients see them.
func wireLimits(l faas.Limits) actionLimits {
	out := actionLimits{
		Timeout: l.Timeout.D().Milliseconds(), Memory: mib(l.Memory), Logs: mib(l.Log), Concurrency: int64(max(l.Concurrency, 1)),
	}
	if l.MaxInstances > 0 {
		n := int64(l.MaxInstances)
		out.Instances = &n
	}
	return out
}

// maxEnvironment is how large the environment may be that parameters make.
const maxEnvironment = 256 * faas.KiB

// checkEnvironment refuses parameters that can be no variables of an environment, or may not be.
func checkEnvironment(env map[string]string) error {
	size := 0
	for k, v := range env {
		size += len(k) + len(v)
		if len(k) > 255 || strings.ContainsAny(k, "=\x00") || strings.HasPrefix(k, "BRASA_") || strings.HasPrefix(k, "LD_") || strings.ContainsRune(v, 0) {
			return reject(http.StatusBadRequest, "The request content was malformed: the parameter %.80q is for initialization, and can't be a variable of the environment.", k)
		}
	}
	if size > int(maxEnvironment) {
		return tooLarge("The environment that parameters for initialization make", int64(size), int64(maxEnvironment))
	}
	return nil
}
