package install

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// retryTool is how long it is remembered that there is no tool.
const retryTool = 10 * time.Second

// sought is what was found out about a tool of the host: for good if it is there, and for a while that
// it is not, since it is asked for at each deploy. The zero value knows nothing yet.
type sought[T any] struct {
	mu    sync.Mutex
	found bool      // guarded by mu
	tool  T         // guarded by mu
	asked time.Time // guarded by mu; when none was found last
	none  error     // guarded by mu
}

// get has look find the tool, unless that is known. One look at a time is under way.
func (s *sought[T]) get(ctx context.Context, look func() (T, error)) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var zero T
	if s.found {
		return s.tool, nil
	}
	if s.none != nil && time.Since(s.asked) < retryTool {
		return zero, s.none
	}
	tool, err := look()
	switch {
	case err == nil:
		s.tool, s.found = tool, true
		return tool, nil
	case ctx.Err() != nil: // it was not given the time to answer
		return zero, context.Cause(ctx)
	}
	s.asked, s.none = time.Now(), err
	return zero, err
}

// ask runs a program of the host for what it says of itself.
func ask(ctx context.Context, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent", "LANG=C.UTF-8"}
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if e, ok := errors.AsType[*exec.ExitError](err); ok && len(e.Stderr) > 0 {
		err = fmt.Errorf("%w: %s", err, clip(strings.TrimSpace(string(e.Stderr)), 200))
	}
	return string(out), err
}
