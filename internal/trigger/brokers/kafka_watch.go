package brokers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/brasa-dev/brasa/internal/faas"
)

// brokerWatch notices what the client keeps to itself while it tries again: brokers that are gone or
// cannot be reached.
type brokerWatch struct {
	// refused hears at once of a connection that is not allowed; nil: nobody does.
	refused func(error)
	odd     chan struct{} // holds one token when a connection ended or failed

	mu      sync.Mutex
	failing map[string]dialFailure // guarded by mu; by address
}

type dialFailure struct {
	since time.Time
	err   error
}

func newBrokerWatch() *brokerWatch {
	return &brokerWatch{odd: make(chan struct{}, 1), failing: map[string]dialFailure{}}
}

// OnBrokerDisconnect implements kgo.HookBrokerDisconnect.
func (w *brokerWatch) OnBrokerDisconnect(kgo.BrokerMetadata, net.Conn) { w.note() }

func (w *brokerWatch) note() {
	select {
	case w.odd <- struct{}{}:
	default:
	}
}

// dialed hears of each attempt to connect.
func (w *brokerWatch) dialed(address string, err error) {
	if errors.Is(err, context.Canceled) {
		return // the client had no more use for it
	}
	w.mu.Lock()
	if err == nil {
		delete(w.failing, address)
	} else if _, ok := w.failing[address]; !ok {
		w.failing[address] = dialFailure{time.Now(), err}
	}
	w.mu.Unlock()
	if err == nil {
		return
	}
	if w.refused != nil && faas.CodeOf(err) == faas.Denied {
		w.refused(err)
		return
	}
	w.note()
}

// unreached are the brokers' addresses that have been out of reach for so long, and why.
func (w *brokerWatch) unreached(long time.Duration) map[string]error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all map[string]error
	for address, f := range w.failing {
		if time.Since(f.since) > long {
			if all == nil {
				all = map[string]error{}
			}
			all[address] = f.err
		}
	}
	return all
}

const (
	lookEvery   = time.Second
	lookTimeout = 5 * time.Second
	// unreachedFor is how long a broker may be out of reach that the cluster counts among its own. Of one
	// that is gone it takes nine seconds to know.
	unreachedFor = 10 * time.Second
)

func (r *kafkaRun) refused(err error) { r.fail(r.s.explain("read", err)) }

// look ends the run when the cluster is gone, or when a topic is. The client by itself would try for
// ever, and nobody would hear of it.
func (r *kafkaRun) look() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-r.ctx.Done():
			return
		case <-r.watch.odd:
			err = r.whole()
		case <-tick.C:
		}
		if err == nil {
			err = r.cutOff()
		}
		if err != nil && r.ctx.Err() == nil {
			r.fail(err)
			return
		}
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C: // no more often than that
		}
	}
}

// whole returns what the cluster lacks.
func (r *kafkaRun) whole() error {
	ctx, cancel := context.WithTimeout(r.ctx, lookTimeout)
	defer cancel()
	if err := r.cl.Ping(ctx); err != nil {
		return r.s.explain("connection lost", err)
	}
	now, err := r.s.known(ctx, kadm.NewClient(r.cl))
	if err != nil {
		return err
	}
	for _, name := range r.s.topics {
		if now[name] != r.topics[name] {
			return fmt.Errorf("topic %q was deleted and made again: it is read from its beginning", name)
		}
	}
	return nil
}

// cutOff returns why a broker is out of reach that the cluster still counts among its own.
func (r *kafkaRun) cutOff() error {
	unreached := r.watch.unreached(unreachedFor)
	if unreached == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.ctx, lookTimeout)
	defer cancel()
	brokers, err := kadm.NewClient(r.cl).ListBrokers(ctx)
	if err != nil {
		return r.s.explain("look for the cluster's brokers", err)
	}
	for _, b := range brokers {
		if err := unreached[net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))]; err != nil {
			return r.s.explain("read", err)
		}
	}
	return nil
}

// benign says whether the group goes on by itself after an error.
func benign(err error, list ...error) bool {
	return slices.ContainsFunc(list, func(e error) bool { return errors.Is(err, e) })
}
