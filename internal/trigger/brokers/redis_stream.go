package brokers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

// redisSource tells of entries of a stream, as a consumer of a group. An entry is acknowledged when
// its functions have succeeded, or were given up and lie with the dead letters. Until then the time
// that it has been idle is set back again and again, so that no other consumer takes it; what a
// consumer that died has left is taken when it has been idle for long enough.
type redisSource struct {
	o      trigger.Outside
	config redisConfig
}

// redisMemory is what a source remembers.
type redisMemory struct {
	Consumer string `json:"consumer"` // that the server has made up
	Of       string `json:"of"`       // which group the rest is about
	Last     string `json:"last"`     // the last entry that was read: from there a group that was removed is made again
}

// redisRun is a source at work.
type redisRun struct {
	*redisSource
	client   *redis.Client
	fire     trigger.Fire
	group    string
	consumer string
	slots    chan struct{} // holds one for each entry under way
	failed   chan error
	work     sync.WaitGroup

	mu     sync.Mutex
	memory redisMemory     // guarded by mu
	busy   map[string]bool // guarded by mu; the entries under way
}

// Run implements Source.
func (s *redisSource) Run(ctx context.Context, fire trigger.Fire) error {
	c := &s.config
	client, err := c.connect(ctx, s.o)
	if err != nil {
		return err
	}
	defer client.Close()
	r := &redisRun{
		redisSource: s, client: client, fire: fire, group: cmp.Or(c.Group, "brasa-"+s.o.Trigger.UID),
		slots: make(chan struct{}, c.Parallel), failed: make(chan error, 1), busy: map[string]bool{},
	}
	if err := r.remember(ctx); err != nil {
		return err
	}
	if err := r.makeGroup(ctx); err != nil {
		return fmt.Errorf("make the group %q of stream %q: %w", r.group, c.Stream, c.explain(err))
	}
	ctx, cancel := context.WithCancel(ctx)
	// The library does not look at ctx while it waits for an answer.
	stop := context.AfterFunc(ctx, func() { client.Close() })
	defer stop()
	r.work.Go(func() { r.fail(ctx, r.read(ctx)) })
	r.work.Go(func() { r.fail(ctx, r.keep(ctx)) })
	select {
	case <-ctx.Done():
		err = nil
	case err = <-r.failed:
	}
	cancel()
	r.work.Wait()
	own, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer done()
	if saveErr := r.save(own); saveErr != nil {
		s.o.Log.Warn("the place in the stream is not saved", "cause", saveErr)
	}
	if err != nil {
		return fmt.Errorf("stream %q: %w", c.Stream, c.explain(err))
	}
	return nil
}

// fail ends the run with an error.
func (r *redisRun) fail(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	select {
	case r.failed <- err:
	default:
	}
}

func (r *redisRun) remember(ctx context.Context) error {
	b, err := r.o.State.Get(ctx)
	if err != nil {
		return fmt.Errorf("read what the trigger remembers: %w", err)
	}
	if b != nil {
		if err := json.Unmarshal(b, &r.memory); err != nil {
			return fmt.Errorf("read what the trigger remembers: %w", err)
		}
	}
	if r.memory.Consumer == "" {
		r.memory.Consumer = "brasa-" + string(faas.NewID(time.Now()))
	}
	if of := r.config.URL + " " + r.config.Stream + " " + r.group; r.memory.Of != of {
		r.memory.Of, r.memory.Last = of, ""
	}
	r.consumer = cmp.Or(r.config.Consumer, r.memory.Consumer)
	// Before anything is read: what is pending for a name that nobody remembers has to wait.
	return r.save(ctx)
}

func (r *redisRun) save(ctx context.Context) error {
	r.mu.Lock()
	b, err := json.Marshal(r.memory)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	return r.o.State.Put(ctx, b)
}

// makeGroup makes the group, and the stream, where there is none. A group that there was before
// begins where the trigger had come to.
func (r *redisRun) makeGroup(ctx context.Context) error {
	from := "$"
	if r.config.From == "all" {
		from = "0"
	}
	if r.memory.Last != "" {
		from = r.memory.Last
	}
	err := r.client.XGroupCreateMkStream(ctx, r.config.Stream, r.group, from).Err()
	if err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") {
		return err
	}
	if r.memory.Last != "" {
		return nil
	}
	// Where it begins is known from now on, whatever comes to be of it.
	groups, err := r.client.XInfoGroups(ctx, r.config.Stream).Result()
	if err != nil {
		return err
	}
	for _, g := range groups {
		if g.Name == r.group {
			r.memory.Last = g.LastDeliveredID
		}
	}
	return r.save(ctx)
}

const (
	redisBatch = 16 // entries of an answer at most: they are held in memory
	redisBlock = 5 * time.Second
)

// read reads entries: first those that this consumer had before, then again and again those of
// consumers that are silent, and new ones.
func (r *redisRun) read(ctx context.Context) error {
	c := &r.config
	own := "0"           // the last one of what was pending that was read; empty: all are
	cursor := "0-0"      // of the search for what others have left
	var search time.Time // when it is due
	for ctx.Err() == nil {
		n := r.take(ctx)
		if n == 0 {
			return nil
		}
		var entries []redis.XMessage
		var err error
		switch wait := time.Until(search); {
		case own != "":
			entries, err = r.group1(ctx, own, n, -1)
			own = ""
			if len(entries) > 0 {
				own = entries[len(entries)-1].ID
			}
		case wait <= 0:
			var gone []string
			entries, cursor, gone, err = r.client.XAutoClaimWithDeleted(ctx, &redis.XAutoClaimArgs{
				Stream: c.Stream, Group: r.group, Consumer: r.consumer, MinIdle: c.Idle.D(), Start: cursor, Count: int64(n),
			}).Result()
			for _, id := range gone {
				r.trimmed(id)
			}
			if cursor == "0-0" {
				search = time.Now().Add(c.Idle.D() / 2)
			}
		default:
			entries, err = r.group1(ctx, ">", n, max(min(wait, redisBlock), time.Millisecond))
			if len(entries) > 0 {
				r.mu.Lock()
				r.memory.Last = entries[len(entries)-1].ID
				r.mu.Unlock()
			}
		}
		if err != nil {
			return err
		}
		used := 0
		for _, m := range entries {
			if used < n && r.begin(ctx, m, len(entries) > 1) {
				used++
			}
		}
		for range n - used {
			<-r.slots
		}
	}
	return nil
}

// take waits for a free place, and takes those that are free besides, up to a batch. It returns 0
// when ctx ends.
func (r *redisRun) take(ctx context.Context) int {
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return 0
	}
	for n := 1; n < redisBatch; n++ {
		select {
		case r.slots <- struct{}{}:
		default:
			return n
		}
	}
	return redisBatch
}

// group1 reads at most n entries of the stream after one.
func (r *redisRun) group1(ctx context.Context, after string, n int, block time.Duration) ([]redis.XMessage, error) {
	streams, err := r.client.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: r.group, Consumer: r.consumer, Streams: []string{r.config.Stream, after}, Count: int64(n), Block: block,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil || len(streams) == 0 {
		return nil, err
	}
	return streams[0].Messages, nil
}

// begin has an entry's functions called; false if that is so already.
func (r *redisRun) begin(ctx context.Context, m redis.XMessage, among bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[m.ID] {
		return false
	}
	r.busy[m.ID] = true
	r.work.Go(func() {
		r.fail(ctx, r.entry(ctx, m, among))
		r.mu.Lock()
		delete(r.busy, m.ID)
		r.mu.Unlock()
		<-r.slots
	})
	return true
}

func (r *redisRun) trimmed(id string) {
	r.o.PassOver(1, "an entry was removed from the stream before its functions were called", "stream", r.config.Stream, "entry", id)
}

// entry has the functions called and acknowledges it. An error ends the run.
func (r *redisRun) entry(ctx context.Context, m redis.XMessage, among bool) error {
	if among && isCut(m) {
		// It may have room in an answer of its own.
		alone, err := r.client.XRangeN(ctx, r.config.Stream, m.ID, m.ID, 1).Result()
		if err != nil {
			return err
		}
		m.Values = nil
		if len(alone) == 1 {
			m = alone[0]
		}
	}
	e, err := r.config.eventOf(m)
	switch {
	case m.Values == nil:
		r.trimmed(m.ID)
	case err != nil:
		r.o.PassOver(1, "an entry is passed by", "stream", r.config.Stream, "entry", m.ID, "cause", err)
	default:
		if _, err := trigger.Settle(ctx, r.o, r.fire, e); err != nil {
			return nil // it stays pending
		}
	}
	return r.client.XAck(ctx, r.config.Stream, r.group, m.ID).Err()
}

// keep says again and again that the entries under way are worked on, and saves the place in the
// stream.
func (r *redisRun) keep(ctx context.Context) error {
	tick := time.NewTicker(r.config.Idle.D() / 4)
	defer tick.Stop()
	saved := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := r.touch(ctx); err != nil {
			return err
		}
		r.mu.Lock()
		last := r.memory.Last
		r.mu.Unlock()
		if last != saved {
			if err := r.save(ctx); err != nil {
				return fmt.Errorf("save the place in the stream: %w", err)
			}
			saved = last
		}
	}
}

// touch sets back how long the entries under way have been idle. One that another consumer has
// taken meanwhile stays with that.
func (r *redisRun) touch(ctx context.Context) error {
	r.mu.Lock()
	n := len(r.busy)
	r.mu.Unlock()
	if n == 0 {
		return nil
	}
	pending, err := r.client.XPendingExt(ctx, &redis.XPendingExtArgs{
		Stream: r.config.Stream, Group: r.group, Start: "-", End: "+", Count: int64(r.config.Parallel + redisBatch), Consumer: r.consumer,
	}).Result()
	if err != nil {
		return err
	}
	var ours []string
	r.mu.Lock()
	for _, p := range pending {
		if r.busy[p.ID] {
			ours = append(ours, p.ID)
		}
	}
	r.mu.Unlock()
	if len(ours) == 0 {
		return nil
	}
	return r.client.XClaimJustID(ctx, &redis.XClaimArgs{Stream: r.config.Stream, Group: r.group, Consumer: r.consumer, Messages: ours}).Err()
}
