package brokers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/brasa-dev/brasa/internal/trigger"
)

// kafkaSource tells of messages of topics. The group's place in a partition moves past a message when
// its functions, and those of all before it, have succeeded or were given up and lie with the dead
// letters. What comes again makes no second call, since its ID is its place.
type kafkaSource struct {
	o       trigger.Outside
	config  kafkaConfig
	brokers []string
	topics  []string
}

// group is the name of the consumer group.
func (s *kafkaSource) group() string {
	if s.config.Group != "" {
		return s.config.Group
	}
	return s.member()
}

// member is the trigger's name within its group. It stays the same, so that a server that was killed
// takes its place again at once; a member without a name would be waited for until its session ends.
func (s *kafkaSource) member() string { return "brasa-" + s.o.Trigger.UID }

// Run implements Source.
func (s *kafkaSource) Run(ctx context.Context, fire trigger.Fire) error {
	watch := newBrokerWatch()
	opts, err := s.options(ctx, watch)
	if err != nil {
		return err
	}
	start, topics, err := s.prepare(ctx, opts)
	if err != nil {
		return err
	}
	own, fail := context.WithCancelCause(ctx)
	life, kill := context.WithCancel(context.WithoutCancel(ctx)) // of the client, who has something to say after the end
	defer kill()
	r := &kafkaRun{
		s: s, fire: fire, ctx: own, fail: fail, watch: watch, topics: topics, parts: map[kafkaPlace]*kafkaPartition{}, dirty: make(chan struct{}, 1),
	}
	watch.refused = r.refused
	isolation := kgo.ReadCommitted() // what a producer took back is no event
	r.cl, err = kgo.NewClient(append(opts, kgo.WithContext(life), kgo.MetadataMinAge(time.Second),
		kgo.ConsumerGroup(s.group()), kgo.InstanceID(s.member()), kgo.ConsumeTopics(s.topics...), kgo.ConsumeStartOffset(start), kgo.FetchIsolationLevel(isolation),
		kgo.FetchMaxWait(kafkaFetchWait), kgo.FetchMaxPartitionBytes(int32(s.config.MaxBytes)), kgo.FetchMaxBytes(int32(max(8<<20, s.config.MaxBytes))), kgo.MaxDecompressBatchBytes(kafkaUnpack),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.KeepRetryableFetchErrors(), kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.OnPartitionsAssigned(r.assigned), kgo.OnPartitionsRevoked(r.revoked), kgo.OnPartitionsLost(r.lost),
	)...)
	if err != nil {
		fail(nil)
		return fmt.Errorf("set up the client: %w", err)
	}
	defer r.cl.CloseAllowingRebalance()
	r.work.Go(r.keepPlaces)
	r.work.Go(r.look)
	for own.Err() == nil {
		r.take(r.cl.PollFetches(own))
		r.cl.AllowRebalance()
	}
	cause := context.Cause(own)
	fail(nil)
	r.end(ctx.Err() != nil)
	kill() // closing would wait for a group that is being joined
	if ctx.Err() != nil {
		return nil
	}
	return cause
}

// prepare asks the cluster whether all is there, and sees to it that the group has a place in each
// partition that is to be read from now on. It returns where to begin in one without a place, and
// the topics with the names that the cluster itself gives them.
func (s *kafkaSource) prepare(ctx context.Context, opts []kgo.Opt) (kgo.Offset, map[string]kadm.TopicID, error) {
	oldest := kgo.NewOffset().AtStart()
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return oldest, nil, fmt.Errorf("set up the client: %w", err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, kafkaAsk)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		return oldest, nil, s.explain("the cluster does not answer", err)
	}
	adm := kadm.NewClient(cl)
	topics, err := s.known(ctx, adm)
	if err != nil {
		return oldest, nil, err
	}
	missing, err := s.placeless(ctx, adm, topics)
	if err != nil || len(missing) == 0 || s.config.From == "all" {
		return oldest, topics, err
	}
	ends, err := adm.ListEndOffsets(ctx, missing...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return oldest, nil, s.explain("look for the end of the topic", err)
	}
	// Who was killed is still a member for a while, and members' places are theirs to keep.
	if _, err := adm.LeaveGroup(ctx, kadm.LeaveGroup(s.group()).InstanceIDs(s.member())); err != nil && !errors.Is(err, kerr.UnknownMemberID) && !errors.Is(err, kerr.GroupIDNotFound) {
		return oldest, nil, s.explain("leave the group before joining it", err)
	}
	kept, err := adm.CommitOffsets(ctx, s.group(), ends.Offsets())
	if err == nil {
		err = kept.Error()
	}
	switch {
	case errors.Is(err, kerr.UnknownMemberID):
		return kgo.NewOffset().AtEnd(), topics, nil // others are at work in the group, and keep its places
	case err != nil:
		return oldest, nil, s.explain("keep the place in the group", err)
	}
	return oldest, topics, s.remember(ctx, topics)
}

// known returns the topics' own names within the cluster. All have to be there.
func (s *kafkaSource) known(ctx context.Context, adm *kadm.Client) (map[string]kadm.TopicID, error) {
	list, err := adm.ListTopics(ctx, s.topics...)
	if err != nil {
		return nil, s.explain("look for the topic", err)
	}
	ids := map[string]kadm.TopicID{}
	for _, name := range s.topics {
		t, ok := list[name]
		switch {
		case !ok || errors.Is(t.Err, kerr.UnknownTopicOrPartition):
			return nil, fmt.Errorf("topic: the cluster at %s has no topic %q; make it there, or mend the field topic", s.config.Brokers, name)
		case t.Err != nil:
			return nil, s.explain(fmt.Sprintf("topic %q", name), t.Err)
		}
		ids[name] = t.ID
	}
	return ids, nil
}

// kafkaMemory is what the source remembers: which topics the group had a place in. Of a topic that was
// deleted and made again everything is new.
type kafkaMemory struct {
	Group  string            `json:"group"`
	Topics map[string]string `json:"topics"`
}

func (s *kafkaSource) memory(ctx context.Context) (kafkaMemory, error) {
	m := kafkaMemory{}
	b, err := s.o.State.Get(ctx)
	if err == nil && b != nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return m, fmt.Errorf("read what the source remembers: %w", err)
	}
	if m.Group != s.group() || m.Topics == nil {
		m = kafkaMemory{Group: s.group(), Topics: map[string]string{}}
	}
	return m, nil
}

func (s *kafkaSource) remember(ctx context.Context, topics map[string]kadm.TopicID) error {
	m, err := s.memory(ctx)
	if err != nil {
		return err
	}
	for name, id := range topics {
		m.Topics[name] = id.String()
	}
	b, err := json.Marshal(m)
	if err == nil {
		err = s.o.State.Put(ctx, b)
	}
	if err != nil {
		return fmt.Errorf("remember the topics: %w", err)
	}
	return nil
}

// placeless returns the topics that the group has no place in and that it is to begin with at their
// end. A partition without a place beside others with one was added since: all that is in it is new.
func (s *kafkaSource) placeless(ctx context.Context, adm *kadm.Client, topics map[string]kadm.TopicID) ([]string, error) {
	places, err := adm.FetchOffsets(ctx, s.group())
	if err == nil {
		err = places.Error()
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, s.explain("look for the place in the group", err)
	}
	m, err := s.memory(ctx)
	if err != nil {
		return nil, err
	}
	var missing []string
	for name, id := range topics {
		has := false
		for _, p := range places[name] {
			has = has || p.At >= 0
		}
		if before := m.Topics[name]; !has && (before == "" || before == id.String()) {
			missing = append(missing, name)
		}
	}
	return missing, nil
}

const (
	leaveAsk = 2 * time.Second // for a word to the cluster at the end of a run
	// keepWait is how long the places may take to be kept.
	keepWait = 5 * time.Second
)

// end stops what is at work, keeps the places of what has been done, and leaves the group if the run
// was ended and did not fail.
func (r *kafkaRun) end(leave bool) {
	r.work.Wait()
	parts := r.all()
	there := r.soon(leaveAsk, r.cl.Ping) == nil
	if leave && there && r.s.config.Group != "" {
		drain(context.Background(), parts) // for another member it is another trigger's call, which nothing makes one with ours
	}
	quit(parts)
	if there {
		err := r.soon(keepWait, func(ctx context.Context) error {
			_, err := r.commit(ctx, r.cl, parts)
			return err
		})
		if err != nil {
			r.s.o.Log.Warn("places not kept; what was done since comes again, and makes no second call", "cause", err)
		}
	}
	r.mu.Lock()
	clear(r.parts)
	r.mu.Unlock()
	r.cl.AllowRebalance()
	if leave && there {
		// Without these the group waits for the end of the member's session.
		_ = r.soon(leaveAsk, r.cl.LeaveGroupContext)
		_ = r.soon(leaveAsk, func(ctx context.Context) error {
			_, err := kadm.NewClient(r.cl).LeaveGroup(ctx, kadm.LeaveGroup(r.s.group()).InstanceIDs(r.s.member()))
			return err
		})
	}
}

// soon does something that may take so long.
func (r *kafkaRun) soon(long time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), long)
	defer cancel()
	return do(ctx)
}
