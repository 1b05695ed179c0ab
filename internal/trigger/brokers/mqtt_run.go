package brokers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

// mqttRun is one connection to a broker.
type mqttRun struct {
	s       *mqttSource
	ctx     context.Context
	fire    trigger.Fire
	session *mqttSession
	conn    *mqttConn     // set before anything is received
	resumed chan struct{} // closed when the broker's answer is known
	failed  chan error    // holds the first failure
	cancel  context.CancelFunc
	work    sync.WaitGroup

	mu    sync.Mutex
	order []*mqttMessage // guarded by mu; not acknowledged, in the order in which they came
	bytes int            // guarded by mu; of those that are not begun
}

// mqttMessage is one that was not acknowledged.
type mqttMessage struct {
	number uint16 // in the session
	qos    byte
	event  faas.Event // guarded by mqttRun.mu; until it is begun
	begun  bool       // guarded by mqttRun.mu; its functions are told of it
	done   bool       // guarded by mqttRun.mu; they have settled
}

// A broker may send so many messages, and bytes of them, more than it may before one is acknowledged.
// Mosquitto does, where a session goes on.
const (
	mqttAhead      = 1000
	mqttAheadBytes = 16 * int(trigger.MaxData)
)

// mqttTaken is a message that was taken and not acknowledged. The protocol has no ID of messages: its
// numbers are used again and again. But until a number is acknowledged it is one message's, so a
// message that is sent again in the same session, under a number that was not acknowledged, is known.
// What it holds is compared for brokers that are not that exact.
type mqttTaken struct {
	ID  string `json:"id"`
	Sum []byte `json:"sum"`
}

func mqttSum(p *packets.Publish) []byte {
	h := sha256.New()
	_ = binary.Write(h, binary.BigEndian, uint64(len(p.Topic))) // a hash takes all
	h.Write([]byte(p.Topic))
	h.Write(p.Payload)
	return h.Sum(nil)[:16]
}

// Run implements Source.
func (s *mqttSource) Run(ctx context.Context, fire trigger.Fire) error {
	memory, err := s.remembered(ctx)
	if err != nil {
		return fmt.Errorf("read what the trigger remembers: %w", err)
	}
	if s.hand == nil {
		s.hand = memory.Hand
	}
	defer func() {
		// What is in hand is known again when the trigger is started again, by this server or the next.
		if ctx.Err() == nil || len(s.hand) == 0 {
			return
		}
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		memory.Hand = s.hand
		if err := s.remember(late, memory); err != nil {
			s.o.Log.Warn("messages in hand are not remembered; they make second calls", "messages", len(s.hand), "cause", err)
		}
	}()

	own, cancel := context.WithCancel(ctx)
	r := &mqttRun{s: s, ctx: own, fire: fire, session: &mqttSession{State: state.NewInMemory()}, resumed: make(chan struct{}), failed: make(chan error, 1), cancel: cancel}
	defer r.work.Wait()
	defer cancel()
	client, ack, where, err := s.connect(ctx, r)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer func() {
		_ = client.Disconnect(&paho.Disconnect{}) // the connection goes anyway
	}()
	session := where + " " + s.clientID()
	if !ack.SessionPresent || memory.Session != session {
		s.hand = nil // of another session
	}
	close(r.resumed)
	if err := s.subscribe(own, client, &memory, session, ack.SessionPresent); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return r.because(err)
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-r.failed:
		return fmt.Errorf("connection lost: %w", err)
	}
}

// because prefers the reason for which the connection was lost to what its loss brought about.
func (r *mqttRun) because(err error) error {
	if errors.Is(err, paho.ErrConnectionLost) || r.session.isLost() || r.ctx.Err() != nil {
		select {
		case lost := <-r.failed:
			return fmt.Errorf("connection lost: %w", lost)
		case <-time.After(time.Second):
		}
	}
	return err
}

func (r *mqttRun) fail(err error) {
	select {
	case r.failed <- err:
	default: // the first is the reason
	}
	r.cancel()
}

// subscribe has the session be subscribed to what the trigger asks for, and to nothing else.
func (s *mqttSource) subscribe(ctx context.Context, client *paho.Client, memory *mqttMemory, session string, resumed bool) error {
	c := &s.config
	if memory.Session == session {
		var stale []string
		for _, t := range memory.Topics {
			if resumed && !slices.Contains(c.Topics, t) {
				stale = append(stale, t)
			}
		}
		if len(stale) > 0 {
			if _, err := client.Unsubscribe(ctx, &paho.Unsubscribe{Topics: stale}); err != nil {
				return fmt.Errorf("leave the topics %q: %w", stale, err)
			}
		}
		if !resumed && *c.QoS > 0 && len(memory.Topics) > 0 {
			s.o.PassOver(0, "the broker has forgotten the session: messages that came meanwhile are lost", "client_id", s.clientID())
		}
	}
	// It is remembered before: what is subscribed to and not remembered would never be left.
	if *c.QoS > 0 && (memory.Session != session || !slices.Equal(memory.Topics, c.Topics)) {
		memory.Session, memory.Topics = session, c.Topics
		if err := s.remember(ctx, *memory); err != nil {
			return fmt.Errorf("remember the topics: %w", err)
		}
	}
	ask := &paho.Subscribe{}
	for _, t := range c.Topics {
		ask.Subscriptions = append(ask.Subscriptions, paho.SubscribeOptions{Topic: t, QoS: *c.QoS, RetainHandling: retainHandling(c.Retained)})
	}
	granted, err := client.Subscribe(ctx, ask)
	if granted == nil {
		if errors.Is(err, paho.ErrInvalidArguments) {
			return fmt.Errorf("topic: the broker does not do what is asked: %w", err)
		}
		return fmt.Errorf("subscribe to %q: %w", c.Topics, err)
	}
	if len(granted.Reasons) != len(c.Topics) {
		return fmt.Errorf("subscribe: the broker answered for %d of %d topics", len(granted.Reasons), len(c.Topics))
	}
	for i, code := range granted.Reasons {
		switch {
		case code >= 0x80:
			return fmt.Errorf("topic: the broker does not grant %q: %s", c.Topics[i], subscribeReason(code))
		case code == 0 && *c.QoS > 0:
			return fmt.Errorf("qos: the broker grants %q with 0 alone, with which messages can be lost; if that may be, set qos to 0", c.Topics[i])
		case code < *c.QoS:
			s.o.Log.Info("the broker grants a lower quality", "topic", c.Topics[i], "qos", code, "asked", *c.QoS)
		}
	}
	return nil
}

// take is told of each message by the client, one after the other.
func (r *mqttRun) take(in paho.PublishReceived) (bool, error) {
	select {
	case <-r.resumed: // a message may be here before the one who connected has seen the answer
	case <-r.ctx.Done():
		return true, nil
	}
	p := in.Packet.Packet()
	large := r.conn.large(p)
	if large != "" {
		r.s.o.PassOver(1, "message left out: it is larger than an event may be", "topic", p.Topic, "bytes", large, "limit", int64(trigger.MaxData))
	}
	e := r.s.eventOf(p)
	if p.QoS == 0 {
		if large != "" {
			return true, nil
		}
		if _, err := r.fire(r.ctx, e); err != nil && r.ctx.Err() == nil {
			r.s.o.PassOver(1, "message lost: it was not accepted", "topic", p.Topic, "cause", err)
		}
		return true, nil
	}
	if err := r.inHand(p, e, large != ""); err != nil {
		r.fail(err)
	}
	return true, nil
}

// inHand writes down a message, and begins it if not too many are under way. One that is over needs
// no function.
func (r *mqttRun) inHand(p *packets.Publish, e faas.Event, over bool) error {
	sum := mqttSum(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if over := len(r.order) - r.s.config.Parallel; over >= mqttAhead || over >= 0 && r.bytes+len(e.Data) > mqttAheadBytes {
		return fmt.Errorf("the broker has sent many more than the %d messages that it may before one is acknowledged", r.s.config.Parallel)
	}
	if slices.ContainsFunc(r.order, func(m *mqttMessage) bool { return m.number == p.PacketID }) {
		return fmt.Errorf("the broker has sent two messages with the number %d", p.PacketID)
	}
	known, ok := r.s.hand[p.PacketID]
	if !ok || !p.Duplicate || !bytes.Equal(known.Sum, sum) {
		known = mqttTaken{ID: string(faas.NewID(r.s.o.Now())), Sum: sum}
	}
	if r.s.hand == nil {
		r.s.hand = map[uint16]mqttTaken{}
	}
	r.s.hand[p.PacketID] = known
	if e.ID == "" {
		e.ID = known.ID
	}
	r.order = append(r.order, &mqttMessage{number: p.PacketID, qos: p.QoS, event: e, begun: over, done: over})
	r.bytes += len(e.Data)
	r.goOn()
	return nil
}

// goOn acknowledges the messages that are settled, as soon as those before them are (the protocol asks
// for the order in which they came), and begins those that may be. The lock is held.
func (r *mqttRun) goOn() {
	for len(r.order) > 0 && r.order[0].done {
		first := r.order[0]
		err := r.session.acknowledge(&packets.Publish{PacketID: first.number, QoS: first.qos})
		if errors.Is(err, errMQTTLost) {
			return // it stays in hand, so that it is known when it comes again
		}
		delete(r.s.hand, first.number)
		r.order = r.order[1:]
		if err != nil {
			r.fail(fmt.Errorf("acknowledge a message: %w", err))
			return
		}
	}
	for _, m := range r.order[:min(len(r.order), r.s.config.Parallel)] {
		if !m.begun {
			e := m.event
			m.begun, m.event = true, faas.Event{}
			r.bytes -= len(e.Data)
			r.work.Go(func() { r.message(m, e) })
		}
	}
}

// message tells the functions of a message. The protocol has no way to give one back: one that can't
// be queued now is told again later, and meanwhile the broker sends no more than it may.
func (r *mqttRun) message(m *mqttMessage, e faas.Event) {
	if _, err := trigger.Settle(r.ctx, r.s.o, r.fire, e); err != nil {
		return // it comes again
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m.done = true
	r.goOn()
}
