package bench

import (
	"context"
	"fmt"
	"math"
	"time"
)

const (
	warmCalls  = 4000  // of each side with one client
	loadCalls  = 16000 // of each side with many
	loadClient = 32    // as many as keep two processors busy all the time
)

// warm measures calls of instances that stand.
func (b *bench) warm(ctx context.Context) error {
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	p.settle(ctx, time.Second)
	var added, cpu, rate []float64
	for _, lang := range []string{"python", "node", "java"} {
		if !b.langs[lang] {
			continue
		}
		sides := []*Side{p.side("brasa "+lang, "default/"+lang), b.plain.side("plain net/http")}
		switch {
		case lang == "python" && b.python != nil:
			sides = append(sides, b.python.side("python http.server"))
		case lang == "node" && b.node != nil:
			sides = append(sides, b.node.side("node http"))
		}
		floor, err := b.floor(lang, 1)
		if err != nil {
			return err
		}
		if floor != nil {
			sides = append(sides, floor.side("bare "+lang+" process"))
		}
		one, many, err := b.warmSides(ctx, lang, sides)
		if floor != nil {
			floor.stop()
		}
		if err != nil {
			return err
		}
		b.result.note("warm_"+lang+"_added_cpu_server_us", (many[0].OwnCPU() - many[1].CPU()).Microseconds())
		if lang == "java" {
			continue // the keys are of Python and Node
		}
		added = append(added, float64((one[0].Quantile(.5) - one[1].Quantile(.5)).Microseconds()))
		cpu = append(cpu, float64((many[0].CPU() - many[1].CPU()).Microseconds()))
		rate = append(rate, many[0].Rate())
		b.result.note("warm_"+lang+"_added_p50_us", added[len(added)-1])
		b.result.note("warm_"+lang+"_added_cpu_us", cpu[len(cpu)-1])
	}
	worst, slowest := added[0], rate[0]
	dearest := cpu[0]
	for i := range added {
		worst, dearest, slowest = math.Max(worst, added[i]), math.Max(dearest, cpu[i]), math.Min(slowest, rate[i])
	}
	b.result.set("warm_added_p50_us", worst)
	b.result.set("warm_added_cpu_us", dearest)
	b.result.set("warm_requests_per_s", slowest)
	return nil
}

// warmSides measures with one client and with many.
func (b *bench) warmSides(ctx context.Context, lang string, sides []*Side) (one, many []*Sample, err error) {
	if one, err = Compare(ctx, sides, warmCalls, 1, 8); err != nil {
		return nil, nil, err
	}
	b.result.table("warm "+lang+", 1 client", one...)
	if many, err = Compare(ctx, sides, loadCalls, loadClient, 8); err != nil {
		return nil, nil, err
	}
	b.result.table(fmt.Sprintf("warm %s, %d clients", lang, loadClient), many...)
	return one, many, nil
}

// wasm measures a module of which each call has an instance of its own.
func (b *bench) wasm(ctx context.Context) error {
	if err := b.need("wasm"); err != nil {
		return err
	}
	p, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	p.settle(ctx, time.Second)
	sides := []*Side{p.side("brasa wasm", "default/wasm"), b.plain.side("plain net/http")}
	one, err := Compare(ctx, sides, warmCalls, 1, 8)
	if err != nil {
		return err
	}
	b.result.table("wasm, 1 client", one...)
	many, err := Compare(ctx, sides, loadCalls, loadClient, 8)
	if err != nil {
		return err
	}
	b.result.table(fmt.Sprintf("wasm, %d clients", loadClient), many...)
	b.result.set("wasm_added_p50_us", float64((one[0].Quantile(.5) - one[1].Quantile(.5)).Microseconds()))
	b.result.set("wasm_instances_per_s", many[0].Rate())
	return nil
}
