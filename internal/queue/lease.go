package queue

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/brasa-dev/brasa/internal/faas"
)

// fault is called between any two steps that a crash may separate; tests stop the process there.
var fault = func(string) {}

// lease is a Lease on a message of the engine.
type lease struct {
	queue   *Durable
	msg     jetstream.Msg
	inv     *faas.Invocation
	settled atomic.Bool
}

func (l *lease) Invocation() *faas.Invocation { return l.inv }

func (l *lease) Done(ctx context.Context) error {
	return l.settle("finish", func() error { return l.msg.DoubleAck(ctx) })
}

func (l *lease) Retry(ctx context.Context, after time.Duration, why error) error {
	return l.settle("put off", func() error {
		if after <= l.queue.config.later {
			// Should this be lost the invocation comes back when the lease ends, which is soon enough.
			if err := l.msg.NakWithDelay(max(after, 0)); err != nil {
				return err
			}
			l.wakeAfter(after)
			return nil
		}
		due := time.Now().Add(after)
		m := &nats.Msg{Subject: "later." + strings.TrimPrefix(l.msg.Subject(), "invoke."), Data: l.msg.Data(), Header: nats.Header{
			attemptHeader: {strconv.Itoa(l.inv.Attempt)}, dueHeader: {strconv.FormatInt(due.UnixMilli()+1, 10)},
		}}
		if err := l.queue.publish(ctx, m, jetstream.WithMsgID(fmt.Sprintf("later-%s-%d", l.inv.ID, l.inv.Attempt))); err != nil {
			return err
		}
		fault("retry: copied")
		return l.msg.DoubleAck(ctx)
	})
}

// bringBack takes a message of the stream of those that were put off for long: it goes back to its
// partition if it is due, else the consumer is told when to deliver it again. After a restart the
// consumer delivers early and is told again.
func (q *Durable) bringBack(ctx context.Context, m jetstream.Msg) {
	ms, err := strconv.ParseInt(m.Headers().Get(dueHeader), 10, 64)
	if err != nil {
		ms = 0 // better early than never
	}
	wait := time.Until(time.UnixMilli(ms))
	if wait <= 0 {
		attempt := m.Headers().Get(attemptHeader)
		back := &nats.Msg{Subject: "invoke." + strings.TrimPrefix(m.Subject(), "later."), Data: m.Data(), Header: nats.Header{attemptHeader: {attempt}}}
		id := "back-" + attempt
		if inv, err := decode(m.Data()); err == nil {
			id = fmt.Sprintf("back-%s-%s", inv.ID, attempt)
		}
		if err = q.publish(ctx, back, jetstream.WithMsgID(id)); err == nil {
			fault("bring back: copied")
			err = m.DoubleAck(ctx)
			q.tell()
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		q.config.Logger.Warn("invocation not brought back", "subject", m.Subject(), "cause", err)
		wait = pollInterval
	}
	if err := m.NakWithDelay(wait); err != nil && ctx.Err() == nil {
		q.config.Logger.Warn("invocation not put off again", "subject", m.Subject(), "cause", err) // it comes when the lease ends
	}
}

// wakeAfter wakes those who wait in Pull when the invocation is due. The timer ends by itself; a
// Pull that is woken for nothing looks and waits on.
func (l *lease) wakeAfter(after time.Duration) {
	const slack = 5 * time.Millisecond // the engine's clock starts after ours
	time.AfterFunc(after+slack, l.queue.tell)
}

func (l *lease) Bury(ctx context.Context, why error) error {
	return l.settle("bury", func() error {
		_, place, _ := strings.Cut(strings.TrimPrefix(l.msg.Subject(), "invoke."), ".")
		text := strings.Map(func(r rune) rune {
			if r < ' ' {
				return ' ' // a header is one line
			}
			return r
		}, why.Error())
		m := &nats.Msg{Subject: "dlq." + place, Data: l.msg.Data(), Header: nats.Header{
			attemptHeader: {strconv.Itoa(l.inv.Attempt)}, whyHeader: {strings.ToValidUTF8(text[:min(len(text), maxWhy)], "")},
		}}
		// First the copy, then the removal: a crash in between buries it twice, and the second time
		// is dropped for its ID.
		if err := l.queue.publish(ctx, m, jetstream.WithMsgID("bury-"+string(l.inv.ID))); err != nil {
			return err
		}
		fault("bury: copied")
		return l.msg.DoubleAck(ctx)
	})
}

func (l *lease) settle(op string, f func() error) error {
	if l.settled.Swap(true) {
		return ErrSettled
	}
	// From here on the lease is not kept alive: if f fails the invocation comes back.
	l.queue.mu.Lock()
	delete(l.queue.leases, l)
	l.queue.mu.Unlock()
	if err := f(); err != nil {
		return &faas.Error{Code: codeOf(err), Op: op + " invocation", Err: l.queue.config.Engine.Classify(err)}
	}
	return nil
}
