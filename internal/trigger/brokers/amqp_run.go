package brokers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

// amqpRun is one connection to a broker.
type amqpRun struct {
	s     *amqpSource
	ctx   context.Context
	fire  trigger.Fire
	guard *amqpConn

	mu sync.Mutex // held while the channel is spoken on: it is not safe for concurrent use
}

// Run implements Source.
func (s *amqpSource) Run(ctx context.Context, fire trigger.Fire) error {
	c := &s.config
	conn, guard, err := s.connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	gone := conn.NotifyClose(make(chan *amqp.Error, 1))
	own, cancel := context.WithCancel(ctx)
	r := &amqpRun{s: s, ctx: own, fire: fire, guard: guard}
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	// What is not acknowledged comes again, to us or to another.
	defer func() { _ = conn.CloseDeadline(time.Now().Add(2 * time.Second)) }() // it is over either way
	stop := context.AfterFunc(ctx, func() { _ = conn.CloseDeadline(time.Now().Add(2 * time.Second)) })
	defer stop()

	deliveries, closed, canceled, err := s.consume(conn)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	hands := make(chan struct{}, 2*c.Parallel) // a broker may be a step ahead of what it has been told
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-gone:
			return fmt.Errorf("connection lost: %w", r.because(err))
		case err := <-closed:
			select {
			case err := <-gone:
				return fmt.Errorf("connection lost: %w", r.because(err))
			case <-time.After(100 * time.Millisecond): // it was the channel alone
			}
			return fmt.Errorf("the broker ended what was read of queue %q: %w", c.Queue, r.because(err))
		case <-canceled:
			return fmt.Errorf("queue: the broker ended what was read of %q: the queue was deleted, or moved", c.Queue)
		case d, ok := <-deliveries:
			if !ok {
				deliveries = nil // why is told on another of these
				continue
			}
			select {
			case hands <- struct{}{}:
			default:
				return fmt.Errorf("the broker has sent more than the %d messages that it may before one is acknowledged", c.Parallel)
			}
			work.Go(func() {
				defer func() { <-hands }()
				r.message(d)
			})
		}
	}
}

// because says why a connection or a channel ended.
func (r *amqpRun) because(err *amqp.Error) error {
	if cause := r.guard.refused(); cause != nil {
		return cause
	}
	if err == nil {
		return errors.New("the broker closed it")
	}
	if err.Code == amqp.PreconditionFailed {
		return fmt.Errorf("%s: %s; a function that runs longer than the broker waits for an acknowledgement needs a longer consumer_timeout there", codeName(err), err.Reason)
	}
	return amqpReason(err, "")
}

// consume has the broker send the queue's messages.
func (s *amqpSource) consume(conn *amqp.Connection) (deliveries <-chan amqp.Delivery, closed <-chan *amqp.Error, canceled <-chan string, err error) {
	c := &s.config
	// The library waits for answers without an end; a broker that gives none ends the connection.
	timer := time.AfterFunc(brokerConnect, func() { _ = conn.CloseDeadline(time.Now()) })
	defer timer.Stop()
	ch, err := conn.Channel()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open a channel: %w", amqpReason(err, ""))
	}
	closed = ch.NotifyClose(make(chan *amqp.Error, 1))
	canceled = ch.NotifyCancel(make(chan string, 1))
	if err := ch.Qos(c.Parallel, 0, false); err != nil {
		return nil, nil, nil, fmt.Errorf("parallel: ask for %d messages at once: %w", c.Parallel, amqpReason(err, ""))
	}
	if c.Declare {
		args := amqp.Table{}
		if c.DeadLetter != "" {
			args["x-dead-letter-exchange"] = c.DeadLetter
		}
		if _, err := ch.QueueDeclare(c.Queue, true, false, false, false, args); err != nil {
			return nil, nil, nil, fmt.Errorf("queue: make %q: %w", c.Queue, s.explain(err))
		}
		if c.Exchange != "" {
			keys := c.Keys
			if len(keys) == 0 {
				keys = topics{""}
			}
			for _, k := range keys {
				if err := ch.QueueBind(c.Queue, k, c.Exchange, false, nil); err != nil {
					return nil, nil, nil, fmt.Errorf("exchange: bind queue %q to %q with the key %q: %w", c.Queue, c.Exchange, k, s.explain(err))
				}
			}
		}
	}
	deliveries, err = ch.Consume(c.Queue, "brasa-"+s.o.Trigger.UID, false, false, false, false, nil)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("queue: read %q: %w", c.Queue, s.explain(err))
	}
	return deliveries, closed, canceled, nil
}

// message tells the functions of a message, and the broker how they fared.
func (r *amqpRun) message(d amqp.Delivery) {
	log := r.s.o.Log.With("queue", r.s.config.Queue, "routing_key", d.RoutingKey, "message_id", d.MessageId)
	if size, large := r.guard.large(d.DeliveryTag); large {
		r.s.o.PassOver(1, "message rejected: it is larger than an event may be", "queue", r.s.config.Queue, "routing_key", d.RoutingKey, "message_id", d.MessageId, "bytes", size, "limit", int64(trigger.MaxData))
		r.answer(log, func() error { return d.Reject(false) })
		return
	}
	fired, err := trigger.Taken(r.fire(r.ctx, r.s.eventOf(&d)))
	if err != nil {
		if r.ctx.Err() != nil || !pause(r.ctx, giveBack) {
			return // it comes again
		}
		log.Warn("message given back", "cause", err)
		r.answer(log, func() error { return d.Nack(false, true) })
		return
	}
	d.Body = nil // its functions may take hours
	refused := 0
	for _, c := range fired.Calls {
		if c.Err != nil {
			refused++
		}
	}
	if refused > 0 && refused == len(fired.Calls) {
		log.Warn("message rejected: no function can be called with it", "cause", fired.Calls[0].Err)
		r.answer(log, func() error { return d.Reject(false) })
		return
	}
	if settled(r.ctx, fired) == nil {
		r.answer(log, func() error { return d.Ack(false) })
	}
}

// answer tells the broker how a message fared.
func (r *amqpRun) answer(log interface{ Warn(string, ...any) }, say func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := say(); err != nil && r.ctx.Err() == nil {
		log.Warn("message not settled; it comes again", "cause", err)
	}
}

func codeName(e *amqp.Error) string {
	switch e.Code {
	case amqp.AccessRefused:
		return "access refused"
	case amqp.NotFound:
		return "not found"
	case amqp.PreconditionFailed:
		return "precondition failed"
	case amqp.ResourceLocked:
		return "locked"
	case amqp.NotAllowed:
		return "not allowed"
	}
	return fmt.Sprintf("code %d", e.Code)
}

// explain says what to do about a broker's refusal of a queue.
func (s *amqpSource) explain(err error) error {
	var e *amqp.Error
	if !errors.As(err, &e) {
		return err
	}
	fix := ""
	switch {
	case e.Code == amqp.NotFound && s.config.Declare:
		fix = "; exchanges are not made by the trigger: make it in the broker"
	case e.Code == amqp.NotFound:
		fix = "; make the queue in the broker, or set declare to true"
	case e.Code == amqp.AccessRefused && s.config.Declare:
		fix = "; give the user of the secret the rights to configure, write and read the queue and to read the exchange, or leave out declare"
	case e.Code == amqp.AccessRefused:
		fix = "; give the user of the secret the right to read the queue"
	case e.Code == amqp.PreconditionFailed && s.config.Declare:
		fix = "; the queue exists and has other properties: leave out declare, exchange, binding_key and dead_letter_exchange to read it as it is"
	case e.Code == amqp.ResourceLocked:
		fix = "; another connection has the queue for itself"
	default:
		return amqpReason(err, "")
	}
	return fmt.Errorf("%s: %s%s", codeName(e), e.Reason, fix)
}

// amqpReason says in words why a broker let us not in, or ended a connection.
func amqpReason(err error, vhost string) error {
	var e *amqp.Error
	switch {
	case errors.Is(err, amqp.ErrCredentials):
		return errors.New("the broker lets us not in: it refuses the user and the password; see the secret of the field secret")
	case errors.Is(err, amqp.ErrVhost):
		return fmt.Errorf("url: the broker has no vhost %q, or the user may not use it; see what follows the port in url", vhost)
	case errors.Is(err, amqp.ErrSASL):
		return errors.New("the broker lets us not in: it takes neither user and password nor a certificate in the way that was offered")
	case errors.Is(err, amqp.ErrFrame), errors.Is(err, amqp.ErrSyntax):
		return errors.New("what answers does not speak AMQP 0.9.1; brokers of AMQP 1.0 alone are not understood. See the port in url")
	case errors.As(err, &e) && e.Code == amqp.NotAllowed && vhost != "":
		return fmt.Errorf("url: the broker does not allow the vhost %q: %s; see what follows the port in url", vhost, e.Reason)
	case errors.As(err, &e):
		return fmt.Errorf("%s: %s", codeName(e), e.Reason)
	}
	return err
}

// settled waits until all calls of an event have come to their end, however long that takes. It
// returns an error only when ctx ends.
func settled(ctx context.Context, fired trigger.Fired) error {
	for again := false; ; again = true {
		_, err := fired.Settled(ctx)
		if err == nil || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if again && faas.CodeOf(err) == faas.NotFound {
			return nil // somebody removed what there was to know of it
		}
		if !pause(ctx, giveBack) {
			return context.Cause(ctx)
		}
	}
}

// pause waits, and says whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
