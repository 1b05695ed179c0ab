package brokers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

// A broker that is killed while messages come and functions work is connected to again. No message is lost
// that it had taken, and one with an ID is not told twice. A message without one may be: the broker
// forgets with its death who had it, and some of what was acknowledged.
func amqpComesBack(t *testing.T, r *rabbit) {
	const messages, parallel = 300, 10
	ch := amqpClient(t, r)
	queue(t, ch, "back-again", nil)
	r.wantWritten(t, "back-again")
	h := amqpHouse(t)
	work := hold(t, h, "0", "1", "2", "3") // these work while the broker dies
	h.Run()
	h.Trigger("t", "amqp", r.config("back-again", "declare", true, "parallel", parallel), "LOGIN")
	published := make(chan error, 1)
	go func() { published <- r.publish(t.Context(), "back-again", messages) }()
	triggertest.Until(t, "work, done and under way", func() bool { all := made(h); return len(all) > messages/3 && all["0"] == 1 && all["3"] == 1 })
	r.kill()
	wantStatus(t, h, "t", "127.0.0.1:"+r.port, "refused")
	r.again(t)
	for n := range 4 {
		work.release(fmt.Sprint(n))
	}
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	ch = amqpClient(t, r)
	patiently(t, h, "all called", func() bool { return len(made(h)) == messages })
	patiently(t, h, "all settled", func() bool { n, _ := depth(t, ch, "back-again"); return n == 0 && running(h, "t") })
	h.Run()() // what is in nobody's hands any more comes again now, if it does
	twice := 0
	for n := range messages {
		switch times := made(h)[fmt.Sprint(n)]; {
		case times == 1:
		case times == 0:
			t.Errorf("message %d is lost", n)
		case hasID(n):
			t.Errorf("message %d, which has an ID, made %d calls", n, times)
		default:
			twice++
		}
	}
	t.Logf("%d of %d messages without an ID made second calls", twice, messages/2)
}

// hasID says which of the published messages have an ID: those of even numbers.
func hasID(n int) bool { return n%2 == 0 }

// publish publishes messages, each until the broker has taken it, over the broker's death.
func (r *rabbit) publish(ctx context.Context, queue string, messages int) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for n := 0; n < messages; {
		err := func() error {
			conn, err := amqp.Dial("amqp://brasa:s3cret@127.0.0.1:" + r.port)
			if err != nil {
				return err
			}
			defer conn.Close()
			ch, err := conn.Channel()
			if err != nil {
				return err
			}
			if err := ch.Confirm(false); err != nil {
				return err
			}
			returned := ch.NotifyReturn(make(chan amqp.Return, messages))
			for ; n < messages; n++ {
				p := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(fmt.Sprint(n))}
				if hasID(n) {
					p.MessageId = fmt.Sprint(n)
				}
				c, err := ch.PublishWithDeferredConfirmWithContext(ctx, "", queue, true, false, p)
				if err != nil {
					return err
				}
				select {
				case <-c.Done():
				case r, ok := <-returned:
					if !ok {
						return errors.New("the connection is lost")
					}
					return fmt.Errorf("%w: %s", errForgotten, r.ReplyText)
				case <-ctx.Done():
					return ctx.Err()
				}
				if !c.Acked() {
					return errors.New("the broker did not take it")
				}
				if len(returned) > 0 {
					return errForgotten
				}
			}
			return nil
		}()
		if errors.Is(err, errForgotten) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			pauseFor(ctx)
		}
	}
	return nil
}

var errForgotten = errors.New("the broker has forgotten the queue")

func pauseFor(ctx context.Context) {
	select {
	case <-time.After(20 * time.Millisecond):
	case <-ctx.Done():
	}
}

// wantWritten waits until the broker has a queue on the disk: it writes that down a while after it has
// said that there is one.
func (r *rabbit) wantWritten(t testing.TB, queue string) {
	t.Helper()
	triggertest.Until(t, "the queue is on the disk", func() bool {
		found := false
		_ = filepath.WalkDir(filepath.Join(r.dir, "mnesia"), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() { // it may be gone again
				return nil
			}
			switch filepath.Ext(path) {
			case ".LOG", ".DCD", ".DCL":
				b, err := os.ReadFile(path)
				found = found || err == nil && bytes.Contains(b, []byte("rabbit_durable_queue")) && bytes.Contains(b, []byte(queue)) ||
					err == nil && filepath.Base(path) == "rabbit_durable_queue.DCL" && bytes.Contains(b, []byte(queue))
			}
			return nil
		})
		return found
	})
}
