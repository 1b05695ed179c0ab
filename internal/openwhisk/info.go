package openwhisk

import (
	"io"
	"net/http"
)

// info answers GET /: what wsk and wskdeploy read of limits and runtimes.
func (s *Server) info(c *call) error {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return notAllowed("GET")
	}
	l := &s.cfg.Limits
	writeJSON(c.w, http.StatusOK, map[string]any{
		"description": "OpenWhisk",
		"support":     map[string]string{"github": "https://github.com/brasa-dev/brasa/issues", "slack": ""},
		"api_paths":   []string{base},
		"limits": map[string]any{
			"actions_per_minute": l.InvocationsPerMinute, "triggers_per_minute": l.FiresPerMinute, "concurrent_actions": l.Concurrent,
			"sequence_length":     l.Sequence,
			"min_action_duration": l.TimeoutMin.Milliseconds(), "default_action_duration": l.TimeoutStd.Milliseconds(), "max_action_duration": l.TimeoutMax.Milliseconds(),
			"min_action_memory": l.MemoryMin, "default_action_memory": l.MemoryStd, "max_action_memory": l.MemoryMax,
			"min_action_logs": l.LogsMin, "default_action_logs": l.LogsStd, "max_action_logs": l.LogsMax,
		},
		"runtimes": s.manifest(),
	})
	return nil
}

// ping answers GET /ping, by which balancers ask whether somebody is there.
func (s *Server) ping(c *call) error {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return notAllowed("GET")
	}
	c.w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	_, _ = io.WriteString(c.w, "pong") // an error means that nobody is left to hear of it
	return nil
}

// apiInfo answers GET /api/v1.
func (s *Server) apiInfo(c *call) error {
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return notAllowed("GET")
	}
	writeJSON(c.w, http.StatusOK, map[string]any{
		"description": "OpenWhisk API", "api_version": "1.0.0", "api_version_path": "v1", "build": s.cfg.Version, "buildno": s.cfg.Version,
		"swagger_paths": map[string]string{"ui": "/docs", "api-docs": "/api-docs"},
	})
	return nil
}
