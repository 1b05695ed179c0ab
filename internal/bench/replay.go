package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/simulate"
)

// ReplayConfig says what is replayed where.
type ReplayConfig struct {
	Client    *api.Client
	Namespace string // in which the functions are deployed
	Prefix    string // of their names
	Trace     *simulate.Trace
	From      time.Duration // into the trace, where it begins
	For       time.Duration // of the trace; 0: to its end
	Speed     float64       // how many times faster than it was; calls take as much less time. 0: as it was
	Keep      bool          // leave the functions there when it is over
	// Told is called each second with how many calls have been sent and ended; nil: nobody is told.
	Told func(sent, ended, failed int)
}

// Replayed is what it came to.
type Replayed struct {
	Calls     int            `json:"calls"`
	Failed    int            `json:"failed"`
	Failures  map[string]int `json:"failures,omitempty"` // by code
	Cold      int            `json:"cold_starts"`
	ColdShare float64        `json:"cold_share"`
	// Latency is what a call took longer than the work that it was asked to do.
	P50 float64 `json:"added_p50_ms"`
	P99 float64 `json:"added_p99_ms"`
	Max float64 `json:"added_max_ms"`
	// ColdP50 and ColdP99 are the same of calls that waited for code to be loaded.
	ColdP50 float64         `json:"cold_added_p50_ms"`
	ColdP99 float64         `json:"cold_added_p99_ms"`
	Late    float64         `json:"sent_late_p99_ms"` // by which the replay itself was behind
	Seconds float64         `json:"seconds"`
	Apps    []ReplayedByApp `json:"apps"`
}

// ReplayedByApp is the same of one function.
type ReplayedByApp struct {
	App    string  `json:"app"`
	Calls  int     `json:"calls"`
	Failed int     `json:"failed"`
	Cold   int     `json:"cold_starts"`
	P50    float64 `json:"added_p50_ms"`
	P99    float64 `json:"added_p99_ms"`
}

// replayCode waits as long as it is told, as most functions do who wait for others.
const replayCode = `import time

def main(args):
    time.sleep(args["s"])
    return {"s": args["s"]}
`

// replayedCall is a call on its way and what became of it.
type replayedCall struct {
	app         int
	at          time.Duration // since the begin of the replay
	work        time.Duration
	late, added time.Duration
	cold        bool
	failed      faas.Code
}

// Replay deploys a function for each application of a trace that calls something in the piece that
// is replayed, calls them as the trace has it, and says how that went. The functions are removed
// when it is over, also when ctx ends before.
func Replay(ctx context.Context, cfg ReplayConfig) (*Replayed, error) {
	if cfg.Speed <= 0 {
		cfg.Speed = 1
	}
	end := cfg.Trace.Until
	if cfg.For > 0 {
		end = min(end, cfg.From+cfg.For)
	}
	faster := func(d time.Duration) time.Duration { return time.Duration(float64(d) / cfg.Speed) }
	var calls []*replayedCall
	longest := map[int]time.Duration{}
	for i := range cfg.Trace.Apps {
		for _, c := range cfg.Trace.Apps[i].Calls {
			if c.Begin < cfg.From || c.Begin >= end {
				continue
			}
			r := &replayedCall{app: i, at: faster(c.Begin - cfg.From), work: faster(c.End - c.Begin)}
			calls = append(calls, r)
			longest[i] = max(longest[i], r.work)
		}
	}
	if len(calls) == 0 {
		return nil, faas.Errorf(faas.Invalid, "replay trace", "nothing is called in this piece of the trace, which is %s long", cfg.Trace.Until.Round(time.Second)).
			WithFix("leave --from and --for out")
	}
	slices.SortStableFunc(calls, func(a, b *replayedCall) int { return cmp.Compare(a.at, b.at) })
	names := map[int]string{}
	defer func() {
		if !cfg.Keep {
			cfg.remove(ctx, names)
		}
	}()
	for i, work := range longest {
		name := cfg.name(i)
		names[i] = name
		if err := cfg.deploy(ctx, name, &cfg.Trace.Apps[i], work); err != nil {
			return nil, err
		}
	}
	took := cfg.send(ctx, calls, names)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return cfg.sum(calls, took), nil
}

// name makes a function's name of an application's.
func (cfg *ReplayConfig) name(app int) string {
	var b strings.Builder
	for _, c := range cfg.Trace.Apps[app].Name {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			b.WriteRune(c)
		}
	}
	s := b.String()
	return fmt.Sprintf("%s%d-%s", cfg.Prefix, app, s[:min(len(s), 12)])
}

// startAllowance is what a call may take longer than its work before it counts as failed.
const startAllowance = 30 * time.Second

func (cfg *ReplayConfig) deploy(ctx context.Context, name string, app *simulate.App, work time.Duration) error {
	limits := &faas.Limits{Timeout: faas.Duration((work + startAllowance).Round(time.Second))}
	const least, most = 32 * faas.MiB, 512 * faas.MiB // an interpreter needs some, and nothing here uses more
	if app.Memory > 0 {
		limits.Memory = min(max(app.Memory, least), most)
	}
	code := api.Code{Reader: strings.NewReader(replayCode), Filename: "replay.py"}
	_, err := cfg.Client.Deploy(ctx, cfg.Namespace, name, api.Spec{Language: "python", Limits: limits}, code)
	if err != nil {
		return fmt.Errorf("deploy %s: %w", name, err)
	}
	return nil
}

// remove deletes what was deployed, within a time of its own: ctx may have ended.
func (cfg *ReplayConfig) remove(ctx context.Context, names map[int]string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startAllowance)
	defer cancel()
	for _, name := range names {
		_ = cfg.Client.Delete(ctx, cfg.Namespace, name) // what could not be removed is seen in brasa ls
	}
}

// send sends each call when it is time, however many are under way.
func (cfg *ReplayConfig) send(ctx context.Context, calls []*replayedCall, names map[int]string) time.Duration {
	var mu sync.Mutex
	sent, ended, failed := 0, 0, 0
	var all sync.WaitGroup
	tell, stop := context.WithCancel(ctx)
	if cfg.Told != nil {
		all.Go(func() {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					mu.Lock()
					s, e, f := sent, ended, failed
					mu.Unlock()
					cfg.Told(s, e, f)
				case <-tell.Done():
					return
				}
			}
		})
	}
	began := time.Now()
	var under sync.WaitGroup
	for _, c := range calls {
		if wait := c.at - time.Since(began); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			break
		}
		c.late = time.Since(began) - c.at
		mu.Lock()
		sent++
		mu.Unlock()
		under.Go(func() {
			cfg.call(ctx, c, names[c.app])
			mu.Lock()
			defer mu.Unlock()
			ended++
			if c.failed != faas.OK {
				failed++
			}
		})
	}
	under.Wait()
	took := time.Since(began)
	stop()
	all.Wait()
	return took
}

func (cfg *ReplayConfig) call(ctx context.Context, c *replayedCall, name string) {
	input := fmt.Sprintf(`{"s":%.6f}`, c.work.Seconds())
	at := time.Now()
	reply, err := cfg.Client.Invoke(ctx, cfg.Namespace, name, api.CallOptions{}, io.Reader(strings.NewReader(input)))
	c.added = max(time.Since(at)-c.work, 0)
	if err != nil {
		c.failed = faas.CodeOf(err)
		return
	}
	var answer struct{ S *float64 }
	if json.Unmarshal(reply.Result, &answer) != nil || answer.S == nil {
		c.failed = faas.Failed
		return
	}
	a := faas.Activation{Timing: reply.Timing}
	c.cold = a.Cold()
}

// sum puts the figures together.
func (cfg *ReplayConfig) sum(calls []*replayedCall, took time.Duration) *Replayed {
	var all, cold, late Sample
	out := &Replayed{Calls: len(calls), Seconds: took.Seconds(), Failures: map[string]int{}}
	type sums struct {
		ReplayedByApp
		Sample
	}
	apps := map[int]*sums{}
	for _, c := range calls {
		a := apps[c.app]
		if a == nil {
			a = &sums{ReplayedByApp: ReplayedByApp{App: cfg.Trace.Apps[c.app].Name}}
			apps[c.app] = a
		}
		a.Calls++
		late.note(c.late, nil)
		if c.failed != faas.OK {
			out.Failed++
			a.ReplayedByApp.Failed++
			out.Failures[c.failed.String()]++
			continue
		}
		all.note(c.added, nil)
		a.note(c.added, nil)
		if c.cold {
			cold.note(c.added, nil)
			out.Cold++
			a.Cold++
		}
	}
	out.ColdShare = float64(out.Cold) / float64(max(len(all.took), 1))
	out.P50, out.P99, out.Max = ms(all.Quantile(.5)), ms(all.Quantile(.99)), ms(all.Quantile(1))
	out.ColdP50, out.ColdP99 = ms(cold.Quantile(.5)), ms(cold.Quantile(.99))
	out.Late = ms(late.Quantile(.99))
	for _, a := range apps {
		a.P50, a.P99 = ms(a.Quantile(.5)), ms(a.Quantile(.99))
		out.Apps = append(out.Apps, a.ReplayedByApp)
	}
	slices.SortFunc(out.Apps, func(a, b ReplayedByApp) int { return cmp.Or(b.Calls-a.Calls, cmp.Compare(a.App, b.App)) })
	return out
}
