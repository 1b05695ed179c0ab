package bench

import (
	"context"
	"fmt"
	"strconv"
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
	const functions = 100
	sides := []*Side{p.side("100 functions", b.batches["python-many"].names(0, functions)...), p.side("1 function", "default/python")}
	// What a hundred processes cost that two do not, whoever calls them.
	for _, n := range []int{functions, 1} {
		floor, err := b.floor("python", n)
		if err != nil {
			return err
		}
		defer floor.stop()
		side := floor.side(fmt.Sprintf("%d bare", n))
		side.Path = nil
		for i := range n {
			side.Path = append(side.Path, "/"+strconv.Itoa(i))
		}
		sides = append(sides, side)
	}
	got, err := Compare(ctx, sides, loadCalls, loadClient, 8)
	if err != nil {
		return err
	}
	b.result.table(fmt.Sprintf("many functions, %d clients", loadClient), got...)
	for i, key := range []string{"many_functions", "one_function"} {
		b.result.note(key+"_cpu_server_us", got[i].OwnCPU().Microseconds())
	}
	b.result.set("many_functions_ratio", got[0].Rate()/got[1].Rate())
	b.result.note("many_functions_bare_ratio", got[2].Rate()/got[3].Rate())
	return nil
}
