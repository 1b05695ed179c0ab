package brokers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

// kafkaPartition tells of the messages of a partition in their order, at most so many ahead of the
// first whose functions are not done, and knows how far they are.
type kafkaPartition struct {
	r       *kafkaRun
	cl      *kgo.Client
	at      kafkaPlace
	stop    context.CancelFunc // begins nothing more
	cancel  context.CancelFunc // follows nothing more
	work    sync.WaitGroup
	slots   chan struct{} // one is taken for each message under way
	under   chan flight   // messages that were told, in order
	wake    chan struct{} // holds one token when there is something to tell
	drained chan struct{} // closed when nothing more begins and what was told is done

	mu     sync.Mutex
	wait   []flight         // guarded by mu; what was fetched and is not told
	bytes  int              // guarded by mu; of it
	paused bool             // guarded by mu; no more is fetched
	done   *kgo.EpochOffset // guarded by mu; up to where functions are done; nil: none was
	kept   *kgo.EpochOffset // guarded by mu; what of it the cluster knows
}

// flight is a message on its way, or a batch that cannot be unpacked.
type flight struct {
	record *kgo.Record
	large  *kgo.ErrDecompressTooLarge
	fired  trigger.Fired
	next   kgo.EpochOffset // the place behind it
}

func newKafkaPartition(r *kafkaRun, cl *kgo.Client, at kafkaPlace) *kafkaPartition {
	// What was told may still be followed when the run has ended.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.ctx))
	telling, stop := context.WithCancel(r.ctx)
	n := r.s.config.Parallel
	p := &kafkaPartition{
		r: r, cl: cl, at: at, cancel: cancel, stop: stop,
		slots: make(chan struct{}, n), under: make(chan flight, n), wake: make(chan struct{}, 1), drained: make(chan struct{}),
	}
	p.work.Go(func() { p.tell(ctx, telling) })
	p.work.Go(func() { p.follow(ctx) })
	return p
}

// recordCost is what a message takes besides its bytes, about.
const recordCost = 256

func sizeOf(f flight) int {
	if f.record == nil {
		return 0
	}
	return recordCost + len(f.record.Key) + len(f.record.Value)
}

// push takes what was fetched. It does not wait: what is too much is not fetched until there is room.
func (p *kafkaPartition) push(records []*kgo.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, rec := range records {
		f := flight{record: rec, next: kgo.EpochOffset{Epoch: rec.LeaderEpoch, Offset: rec.Offset + 1}}
		p.wait = append(p.wait, f)
		p.bytes += sizeOf(f)
	}
	if p.bytes > 4*p.r.s.config.MaxBytes && !p.paused {
		p.paused = true
		p.cl.PauseFetchPartitions(map[string][]int32{p.at.topic: {p.at.number}})
	}
	p.wakeUp()
}

// passOver takes note of a batch that will not be read.
func (p *kafkaPartition) passOver(large *kgo.ErrDecompressTooLarge) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wait = append(p.wait, flight{large: large, next: kgo.EpochOffset{Epoch: large.Epoch, Offset: large.NextOffset}})
	p.wakeUp()
}

func (p *kafkaPartition) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// next returns the next message to tell, and has more fetched when little is left.
func (p *kafkaPartition) next() (flight, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.wait) == 0 {
		return flight{}, false
	}
	f := p.wait[0]
	p.wait[0] = flight{}
	p.wait = p.wait[1:]
	p.bytes -= sizeOf(f)
	if p.paused && p.bytes < 2*p.r.s.config.MaxBytes {
		p.paused = false
		p.cl.ResumeFetchPartitions(map[string][]int32{p.at.topic: {p.at.number}})
	}
	return f, true
}

// tell tells of messages until telling ends.
func (p *kafkaPartition) tell(ctx, telling context.Context) {
	defer close(p.under)
	for {
		f, ok := p.next()
		if !ok {
			select {
			case <-p.wake:
				continue
			case <-telling.Done():
				return
			}
		}
		select {
		case p.slots <- struct{}{}:
		case <-telling.Done():
			return
		}
		if f.record != nil && !p.tellOne(telling, &f) {
			return
		}
		f.record = nil // its bytes are in the queue
		select {
		case p.under <- f:
		case <-ctx.Done():
			return
		}
	}
}

const (
	tellLeast = 100 * time.Millisecond
	tellMost  = 10 * time.Second
)

// tellOne tells of a message until it is taken; false when telling ended before.
func (p *kafkaPartition) tellOne(telling context.Context, f *flight) bool {
	rec, log := f.record, p.r.s.o.Log.With("topic", p.at.topic, "partition", p.at.number, "offset", f.record.Offset)
	if len(rec.Value) > int(trigger.MaxData) {
		p.r.s.o.PassOver(1, "message passed over: it is larger than an event may be",
			"topic", p.at.topic, "partition", p.at.number, "offset", rec.Offset, "bytes", len(rec.Value), "most", int(trigger.MaxData))
		return true
	}
	e := p.r.s.eventOf(rec)
	for wait := tellLeast; ; wait = min(2*wait, tellMost) {
		fired, err := trigger.Taken(p.r.fire(telling, e))
		if err == nil {
			f.fired = fired
			for _, c := range fired.Calls {
				if c.Err != nil {
					log.Warn("message not told to a function", "rule", c.Rule, "function", c.Function, "cause", c.Err)
				}
			}
			return true
		}
		if telling.Err() != nil {
			return false
		}
		log.Warn("message not taken; it is told again", "cause", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-telling.Done():
			timer.Stop()
			return false
		}
	}
}

// follow waits for the functions of one message after the other, and moves the place behind it.
func (p *kafkaPartition) follow(ctx context.Context) {
	for f := range p.under {
		if !p.settled(ctx, f.fired) {
			return
		}
		p.mu.Lock()
		next := f.next
		p.done = &next
		p.mu.Unlock()
		<-p.slots
		p.r.moved()
		if f.large != nil && !p.leap(ctx, f.large) {
			return
		}
	}
	close(p.drained)
}

// settled waits until all of an event's calls have come to their end; false when ctx ended before.
func (p *kafkaPartition) settled(ctx context.Context, fired trigger.Fired) bool {
	for i := range fired.Calls {
		one := fired
		one.Calls = fired.Calls[i : i+1]
		for {
			_, err := one.Settled(ctx)
			if err == nil || faas.CodeOf(err) == faas.NotFound { // what nobody knows any more has ended
				break
			}
			if ctx.Err() != nil {
				return false
			}
			p.r.s.o.Log.Warn("how a message's functions fare is not known; it is asked again", "topic", p.at.topic, "partition", p.at.number, "cause", err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return false
			}
		}
	}
	return true
}

// leap ends the run behind a batch that cannot be unpacked: the next one begins after it. It returns
// false if that was not to be.
func (p *kafkaPartition) leap(ctx context.Context, large *kgo.ErrDecompressTooLarge) bool {
	left, err := p.r.commit(ctx, p.cl, []*kafkaPartition{p})
	if err == nil && left > 0 {
		err = errors.New("the group is shared anew")
	}
	what := fmt.Sprintf("messages %d to %d of partition %d of the topic %q", large.Offset, large.NextOffset-1, p.at.number, p.at.topic)
	if err != nil {
		p.r.fail(fmt.Errorf("%s cannot be unpacked, and not be passed over either: %w", what, err))
		return false
	}
	p.r.s.o.PassOver(large.NextOffset-large.Offset, "messages passed over: they would be too much unpacked", "topic", p.at.topic, "partition", p.at.number,
		"first", large.Offset, "next", large.NextOffset, "most", kafkaUnpack)
	p.r.fail(fmt.Errorf("%s were passed over: they have more than %d bytes unpacked", what, kafkaUnpack))
	return true
}

// place returns how far functions are, if the cluster does not know it yet.
func (p *kafkaPartition) place() (kgo.EpochOffset, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil || p.kept != nil && *p.kept == *p.done {
		return kgo.EpochOffset{}, false
	}
	return *p.done, true
}

// keptAt notes what the cluster knows.
func (p *kafkaPartition) keptAt(at kgo.EpochOffset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = &at
}
