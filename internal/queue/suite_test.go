package queue_test

import (
	"testing"

	"github.com/brasa-dev/brasa/internal/queue"
	"github.com/brasa-dev/brasa/internal/queue/queuetest"
)

func TestMemory(t *testing.T) {
	queuetest.Run(t, func(*testing.T) queue.Queue { return queue.Memory() })
}
