package worker

import (
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/runtimes"
)

// strayLog collects the lines of an instance that belong to no single call. They are handed on
// once a second rather than one by one, up to what one call may write.
type strayLog struct {
	limit faas.Bytes
	mu    sync.Mutex
	log   *runtimes.Log // guarded by mu; nil: nothing since the last take
}

// Log implements runtimes.LogSink.
func (s *strayLog) Log(line faas.LogLine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == nil {
		s.log = runtimes.NewLog(s.limit, nil)
	}
	s.log.Log(line)
}

// Full says that nothing more is kept before the next take.
func (s *strayLog) Full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log != nil && s.log.Full()
}

// bound changes how much is kept between two takes.
func (s *strayLog) bound(limit faas.Bytes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit
}

func (s *strayLog) take() []faas.LogLine {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log == nil {
		return nil
	}
	lines, _ := s.log.Lines()
	s.log = nil
	return lines
}

func platformLine(text string) faas.LogLine {
	return faas.LogLine{Time: time.Now(), Stream: runtimes.Platform, Text: text}
}

// tellStray hands on what the instance wrote that belongs to no call.
func (in *instance) tellStray(rev *faas.Revision, tell func(*faas.Revision, string, []faas.LogLine)) {
	if lines := in.stray.take(); len(lines) > 0 {
		tell(rev, in.id, lines)
	}
}
