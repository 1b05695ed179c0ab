package store

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"
)

// serverLog hands the engine's log on. It never ends the process: the engine's fatal errors come
// while it starts and are returned by Open.
type serverLog struct {
	logger *slog.Logger
	fatal  atomic.Pointer[error]
	broken atomic.Bool // a stream could not write
}

func (l *serverLog) Noticef(format string, v ...any) {
	l.logger.Debug(fmt.Sprintf(format, v...), "from", "engine")
}
func (l *serverLog) Warnf(format string, v ...any) {
	// That our largest message is larger than the usual is meant, and nobody can act on it.
	if strings.HasPrefix(format, "Maximum payloads over") {
		l.Noticef(format, v...)
		return
	}
	l.logger.Warn(fmt.Sprintf(format, v...), "from", "engine")
}
func (l *serverLog) Errorf(format string, v ...any) {
	// The engine tells of a failed write here and nowhere else: the writer gets no answer.
	if text := fmt.Sprintf(format, v...); strings.Contains(text, "failed to store a msg") || strings.Contains(text, "no space left on device") {
		l.broken.Store(true)
	}
	l.logger.Error(fmt.Sprintf(format, v...), "from", "engine")
}
func (l *serverLog) Debugf(string, ...any) {}
func (l *serverLog) Tracef(string, ...any) {}

func (l *serverLog) Fatalf(format string, v ...any) {
	err := fmt.Errorf(format, v...)
	l.fatal.CompareAndSwap(nil, &err)
	l.logger.Error(err.Error(), "from", "engine")
}

// isFull recognises the ways in which the engine says that there is no room: a stream's limit,
// the server's, or the disk. Two of them have no code of their own, only words.
func isFull(api *jetstream.APIError) bool {
	const storageExceeded, memoryExceeded = 10047, 10028
	if api.ErrorCode == storageExceeded || api.ErrorCode == memoryExceeded {
		return true
	}
	for _, words := range []string{"maximum bytes exceeded", "maximum messages exceeded", "no space left on device"} {
		if strings.Contains(api.Description, words) {
			return true
		}
	}
	return false
}
