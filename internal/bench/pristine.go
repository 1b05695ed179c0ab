package bench

import (
	"context"
	"errors"
	"time"
)

// pristine measures what it costs that each call finds the process as it was just after load.
func (b *bench) pristine(ctx context.Context) error {
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	p.settle(ctx, 2*time.Second)
	for _, lang := range []string{"python", "node", "java"} {
		key := "pristine_" + lang + "_us"
		if err := b.need(lang + "-pristine"); err != nil {
			b.result.skip(err.Error(), key)
			continue
		}
		took, err := b.rewinds(ctx, p, lang+"-pristine")
		if err != nil {
			b.result.skip(err.Error(), key)
		} else {
			b.result.set(key, float64(took.Quantile(.5).Microseconds()))
			b.result.set("pristine_"+lang+"_p99_us", float64(took.Quantile(.99).Microseconds()))
			b.result.table("after the answer, pristine "+lang, took)
		}
		// The same seen from outside: calls back to back of one instance each.
		got, err := Compare(ctx, []*Side{p.side("pristine", "default/"+lang+"-pristine"), p.side("kept", "default/"+lang)}, 400, 1, 4)
		if err != nil {
			b.result.printf("%s: %v\n", lang, err)
			continue
		}
		b.result.table("calls back to back, "+lang, got...)
		b.result.note("pristine_"+lang+"_period_added_us", (got[0].busy/time.Duration(max(1, len(got[0].took))) - got[1].busy/time.Duration(max(1, len(got[1].took)))).Microseconds())
	}
	got, err := Compare(ctx, []*Side{p.side("pristine", "default/work-pristine"), p.side("kept", "default/work-kept")}, 1200, 4, 6)
	if err != nil {
		b.result.skip(err.Error(), "pristine_throughput_loss_pct")
		return nil
	}
	b.result.table("10 ms of work, 4 clients", got...)
	b.result.set("pristine_throughput_loss_pct", 100*(1-got[0].Rate()/got[1].Rate()))
	return nil
}

// rewinds calls a function with pauses and asks the node after each call how long its instance
// took to be as it was.
func (b *bench) rewinds(ctx context.Context, p *platform, function string) (*Sample, error) {
	c, err := dial(ctx, p.addr)
	if err != nil {
		return nil, err
	}
	defer c.close()
	request := post(p.addr, "/f/default/"+function+"/", "", Input)
	out := &Sample{Name: "rewind"}
	seen := map[string]int64{}
	const warmUp, calls = 20, 220
	for i := range calls {
		a, err := c.do(request)
		if err == nil {
			err = a.want()
		}
		if err != nil {
			return nil, err
		}
		time.Sleep(5 * time.Millisecond)
		nodes, err := p.client.Nodes(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range nodes {
			for _, in := range n.Instances {
				if in.Function == function && in.Rewinds > seen[in.ID] {
					seen[in.ID] = in.Rewinds
					if i >= warmUp {
						out.note(time.Duration(in.RewindUS)*time.Microsecond, nil)
						out.busy += time.Duration(in.RewindUS) * time.Microsecond
					}
				}
			}
		}
	}
	if len(out.took) < calls/4 {
		return nil, errors.New("its processes are not rewound but replaced")
	}
	return out, nil
}
