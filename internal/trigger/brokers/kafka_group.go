package brokers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/brasa-dev/brasa/internal/trigger"
)

// kafkaRun is a member of a group at work.
type kafkaRun struct {
	s      *kafkaSource
	fire   trigger.Fire
	cl     *kgo.Client
	ctx    context.Context
	fail   context.CancelCauseFunc // ends the run with an error
	watch  *brokerWatch
	topics map[string]kadm.TopicID // as they were at the start
	work   sync.WaitGroup

	mu    sync.Mutex
	parts map[kafkaPlace]*kafkaPartition // guarded by mu

	commits sync.Mutex    // held while places are kept, so that one that is given up is not written after it
	dirty   chan struct{} // holds one token when a place has moved
}

// kafkaPlace is a partition of a topic.
type kafkaPlace struct {
	topic  string
	number int32
}

func (r *kafkaRun) all() []*kafkaPartition {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*kafkaPartition, 0, len(r.parts))
	for _, p := range r.parts {
		all = append(all, p)
	}
	return all
}

// take hands what was fetched to the partitions. No partition is given up meanwhile.
func (r *kafkaRun) take(fetches kgo.Fetches) {
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		r.mu.Lock()
		p := r.parts[kafkaPlace{f.Topic, f.Partition}]
		r.mu.Unlock()
		if p != nil && len(f.Records) > 0 {
			p.push(f.Records)
		}
		if f.Err == nil || r.ctx.Err() != nil {
			return
		}
		var large *kgo.ErrDecompressTooLarge
		var loss *kgo.ErrDataLoss
		var group *kgo.ErrGroupSession
		switch {
		case errors.As(f.Err, &large):
			if p != nil {
				p.passOver(large)
			}
		case errors.As(f.Err, &loss):
			r.s.o.PassOver(0, "the cluster lost messages", "topic", loss.Topic, "partition", loss.Partition, "read_to", loss.ConsumedTo, "goes_on_at", loss.ResetTo)
		case errors.As(f.Err, &group):
			if benign(f.Err, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress) {
				r.s.o.Log.Warn("not in the group for a moment; it is joined again", "group", r.s.group(), "cause", group.Err)
				return
			}
			r.fail(r.s.explain(fmt.Sprintf("join the group %q", r.s.group()), group.Err))
		case kerr.IsRetriable(f.Err) || benign(f.Err, kerr.UnknownTopicID, kerr.UnknownTopicOrPartition):
			r.watch.note() // the client goes on by itself, unless the topic is gone
		default:
			r.fail(r.s.explain(fmt.Sprintf("read partition %d of the topic %q", f.Partition, f.Topic), f.Err))
		}
	})
}

// assigned begins with partitions.
func (r *kafkaRun) assigned(_ context.Context, cl *kgo.Client, which map[string][]int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for topic, numbers := range which {
		for _, n := range numbers {
			at := kafkaPlace{topic, n}
			if r.parts[at] == nil {
				r.parts[at] = newKafkaPartition(r, cl, at)
			}
		}
	}
}

// giveGrace is how long functions may take to end whose partition goes to another member, so that
// fewer messages are told twice.
const giveGrace = 5 * time.Second

// drain begins nothing more, and waits for a while until what was told is done.
func drain(ctx context.Context, parts []*kafkaPartition) {
	for _, p := range parts {
		p.stop()
	}
	grace := time.NewTimer(giveGrace)
	defer grace.Stop()
	for _, p := range parts {
		select {
		case <-p.drained:
		case <-grace.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// revoked gives partitions up: nothing more is begun, and the place of what was done is kept.
func (r *kafkaRun) revoked(ctx context.Context, cl *kgo.Client, which map[string][]int32) {
	parts := r.named(which)
	drain(r.ctx, parts)
	quit(parts)
	ctx, cancel := context.WithTimeout(ctx, kafkaAsk)
	defer cancel()
	if left, err := r.commit(ctx, cl, parts); err != nil || left > 0 {
		r.s.o.Log.Warn("places not kept of partitions that were given up; what was done since is told again", "partitions", left, "cause", err)
	}
	r.forget(cl, parts, which)
}

// lost hears of partitions that are somebody else's already.
func (r *kafkaRun) lost(_ context.Context, cl *kgo.Client, which map[string][]int32) {
	parts := r.named(which)
	quit(parts)
	r.forget(cl, parts, which)
}

func (r *kafkaRun) named(which map[string][]int32) []*kafkaPartition {
	r.mu.Lock()
	defer r.mu.Unlock()
	var parts []*kafkaPartition
	for topic, numbers := range which {
		for _, n := range numbers {
			if p := r.parts[kafkaPlace{topic, n}]; p != nil {
				parts = append(parts, p)
			}
		}
	}
	return parts
}

// quit ends partitions, and waits for it.
func quit(parts []*kafkaPartition) {
	for _, p := range parts {
		p.stop()
		p.cancel()
	}
	for _, p := range parts {
		p.work.Wait()
	}
}

func (r *kafkaRun) forget(cl *kgo.Client, parts []*kafkaPartition, which map[string][]int32) {
	r.commits.Lock() // so that none of them is being written
	defer r.commits.Unlock()
	r.mu.Lock()
	for _, p := range parts {
		delete(r.parts, p.at)
	}
	r.mu.Unlock()
	cl.ResumeFetchPartitions(which) // they may come back
}

// moved says that a place has moved.
func (r *kafkaRun) moved() {
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

const (
	commitEvery   = 100 * time.Millisecond // at the least
	commitRetries = 3
)

// keepPlaces tells the cluster of places that have moved.
func (r *kafkaRun) keepPlaces() {
	failures := 0
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-r.dirty:
		}
		// One that is cut off in the middle could be done after the next.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), keepWait)
		left, err := r.commit(ctx, r.cl, nil)
		cancel()
		wait := commitEvery
		switch {
		case r.ctx.Err() != nil:
			return
		case err != nil:
			if failures++; failures == commitRetries {
				r.fail(r.s.explain("keep the place in the group", err))
				return
			}
			fallthrough
		case left > 0: // the group is about to share anew
			wait = time.Second
			r.moved()
		default:
			failures = 0
		}
		select {
		case <-time.After(wait):
		case <-r.ctx.Done():
			return
		}
	}
}

// commit keeps the places of the partitions, or of all that there are. It returns how many are left
// that could not be kept now.
func (r *kafkaRun) commit(ctx context.Context, cl *kgo.Client, parts []*kafkaPartition) (left int, err error) {
	r.commits.Lock()
	defer r.commits.Unlock()
	if parts == nil {
		parts = r.all()
	}
	places := map[string]map[int32]kgo.EpochOffset{}
	dirty := map[kafkaPlace]*kafkaPartition{}
	for _, p := range parts {
		if done, ok := p.place(); ok {
			if places[p.at.topic] == nil {
				places[p.at.topic] = map[int32]kgo.EpochOffset{}
			}
			places[p.at.topic][p.at.number], dirty[p.at] = done, p
		}
	}
	if len(dirty) == 0 {
		return 0, nil
	}
	left = len(dirty)
	cl.CommitOffsetsSync(ctx, places, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, failed error) {
		if err = failed; err != nil {
			return
		}
		for _, t := range resp.Topics {
			for _, tp := range t.Partitions {
				p := dirty[kafkaPlace{t.Topic, tp.Partition}]
				switch e := kerr.ErrorForCode(tp.ErrorCode); {
				case p == nil:
				case e == nil:
					p.keptAt(places[t.Topic][tp.Partition])
					left--
				case !benign(e, kerr.RebalanceInProgress, kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.UnknownTopicID, kerr.UnknownTopicOrPartition):
					err = e
				}
			}
		}
	})
	return left, err
}
