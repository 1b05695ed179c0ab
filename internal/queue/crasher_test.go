package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/faulttest"
	"github.com/brasa-dev/brasa/internal/store"
)

// crasher does all that a queue can do, in a loop, and says before and after what is acknowledged.
type crasher struct {
	q    *Durable
	ctx  context.Context
	fail func(error)
}

func child(p *faulttest.Child) {
	fault = p.Reach
	e, err := store.Open(store.Config{Dir: p.Dir, MaxBytes: 1 << 30})
	p.Must(err)
	ctx := context.Background()
	q, err := Open(ctx, Config{Engine: e, Partitions: 4, cleanAt: 10, alone: 1, together: 2})
	p.Must(err)
	go func() { p.Must(q.Run(ctx)) }()
	c := &crasher{q: q, ctx: ctx, fail: p.Must}
	p.Ready()
	only := os.Getenv(onlyEnv) != ""
	for i := 0; ; i++ {
		c.push(i)
		if !only {
			c.settle(i)
			c.others(i)
		}
	}
}

func (c *crasher) pushOne(function string, w faas.Wait) faas.ID {
	inv := invocation(function, w)
	fmt.Println("pushing", inv.ID)
	id, err := c.q.Push(c.ctx, inv)
	c.fail(err)
	if id != inv.ID {
		fmt.Println("other", inv.ID)
	} else {
		fmt.Println("pushed", id)
	}
	if w.Key != "" {
		fmt.Println("key", id, w.Key)
	}
	return id
}

// push pushes from several goroutines: plain ones, some in a row, some with a key that others use
// at the same time, some for later.
func (c *crasher) push(i int) {
	var wg sync.WaitGroup
	f := fmt.Sprintf("f%d", i%5)
	for k := range 6 {
		wg.Go(func() {
			switch k {
			case 0:
				c.pushOne(f, faas.Wait{Order: fmt.Sprint("row", i%3)})
			case 1, 2:
				key := fmt.Sprintf("key-%s-%d", f, i/10)
				if i/10%2 == 1 { // else it may be long until one comes that no child had before
					key += fmt.Sprint("-", os.Getpid())
				}
				c.pushOne(f, faas.Wait{Key: key})
			case 3:
				c.pushOne(f, faas.Wait{NotBefore: time.Now().Add(time.Hour), Priority: faas.PriorityHigh})
			default:
				c.pushOne(f, faas.Wait{})
			}
		})
	}
	wg.Wait()
}

func (c *crasher) settle(i int) {
	leases, err := c.q.Pull(c.ctx, name(fmt.Sprintf("f%d", (i+2)%5)), 5)
	c.fail(err)
	var wg sync.WaitGroup
	for k, l := range leases {
		wg.Go(func() {
			id := l.Invocation().ID
			switch (i + k) % 6 {
			case 0, 1:
				fmt.Println("finishing", id)
				c.fail(l.Done(c.ctx))
				fmt.Println("finished", id)
			case 2:
				c.fail(l.Retry(c.ctx, 0, errors.New("once more")))
			case 3:
				fmt.Println("burying", id)
				c.fail(l.Bury(c.ctx, errors.New("on purpose")))
				fmt.Println("buried", id)
			case 4:
				c.fail(l.Retry(c.ctx, time.Hour, errors.New("much later")))
			case 5:
				c.fail(l.Retry(c.ctx, time.Millisecond, nil))
			}
		})
	}
	wg.Wait()
}

func (c *crasher) others(i int) {
	f := name(fmt.Sprintf("f%d", i%5))
	if i%2 == 0 {
		waiting, err := c.q.List(c.ctx, Filter{Namespace: "default", Function: f.Function, Stage: faas.StageQueued, Limit: 3})
		c.fail(err)
		if len(waiting) == 3 {
			id := waiting[2].ID
			fmt.Println("cancelling", id)
			_, err := c.q.Cancel(c.ctx, "default", id)
			c.fail(err)
			fmt.Println("cancelled", id)
		}
	}
	if i%3 == 0 {
		dead, err := c.q.Buried(c.ctx, Filter{Namespace: "default", Function: f.Function, Limit: 2})
		c.fail(err)
		for k, d := range dead {
			id := d.Invocation.ID
			if k == 0 {
				fmt.Println("redriving", id)
				_, err = c.q.Redrive(c.ctx, Filter{Namespace: "default", ID: id})
				c.fail(err)
				fmt.Println("pushed", id)
			} else if i%6 == 0 {
				fmt.Println("finishing", id)
				_, err = c.q.Purge(c.ctx, Filter{Namespace: "default", ID: id})
				c.fail(err)
				fmt.Println("finished", id)
			}
		}
	}
	paused := i%4 < 2
	fmt.Println("pausing")
	c.fail(c.q.Pause(c.ctx, name("p"), paused))
	fmt.Println("paused", paused)
	if i%9 == 8 { // what is cleared, and one that is handed out meanwhile
		kept := c.pushOne("c", faas.Wait{})
		leases, err := c.q.Pull(c.ctx, name("c"), 1000)
		c.fail(err)
		gone := c.pushOne("c", faas.Wait{})
		fmt.Println("finishing", gone)
		_, err = c.q.Clear(c.ctx, name("c"))
		c.fail(err)
		fmt.Println("finished", gone)
		_ = kept
		for _, l := range leases {
			c.fail(l.Retry(c.ctx, 0, nil))
		}
	}
	if i%2 == 1 { // of one function nothing is left, so that its messages can go together
		for range 4 {
			c.pushOne("all", faas.Wait{})
		}
		leases, err := c.q.Pull(c.ctx, name("all"), 1000)
		c.fail(err)
		var wg sync.WaitGroup
		for _, l := range leases {
			wg.Go(func() {
				fmt.Println("finishing", l.Invocation().ID)
				c.fail(l.Done(c.ctx))
				fmt.Println("finished", l.Invocation().ID)
			})
		}
		wg.Wait()
	}
	if i%11 == 10 {
		id := c.pushOne("d", faas.Wait{})
		fmt.Println("finishing", id)
		c.fail(c.q.Drop(c.ctx, name("d")))
		fmt.Println("finished", id)
	}
}
