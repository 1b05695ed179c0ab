package bench

import (
	"context"
	"fmt"
	"time"
)

// many measures calls of instances that stand, of a hundred functions and of one.
func (b *bench) many(ctx context.Context) error {
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	p.settle(ctx, time.Second)
	sides := []*Side{p.side("100 functions", b.batches["python-many"].names(0, 100)...), p.side("1 function", "default/python")}
	got, err := Compare(ctx, sides, loadCalls, loadClient, 8)
	if err != nil {
		return err
	}
	b.result.table(fmt.Sprintf("many functions, %d clients", loadClient), got...)
	for i, key := range []string{"many_functions", "one_function"} {
		b.result.note(key+"_cpu_server_us", got[i].OwnCPU().Microseconds())
	}
	b.result.set("many_functions_ratio", got[0].Rate()/got[1].Rate())
	return nil
}
