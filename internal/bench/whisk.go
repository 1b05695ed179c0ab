package bench

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
)

const (
	whiskActions = 100
	whiskClients = 16
	whiskCalls   = 4000 // of each side in each round
	whiskRounds  = 5
	whiskCold    = 60 // first calls of each language
)

// whiskCode is the same action in the languages of OpenWhisk that are measured, by kind.
var whiskCode = map[string]string{
	"python": "def main(args):\n    return {\"greeting\": \"Hello, \" + args[\"name\"] + \"!\"}\n",
	"nodejs": "function main(args) { return { greeting: `Hello, ${args.name}!` }; }\n",
}

// whisk measures blocking calls through the API of OpenWhisk: of one action and of a hundred under the
// same load, beside the same function called natively, and first calls.
func (b *bench) whisk(ctx context.Context) error {
	if err := b.need("python"); err != nil {
		return err
	}
	p, err := b.start(ctx, "BRASA_OPENWHISK_INVOCATIONS_PER_MINUTE=100000000", "BRASA_OPENWHISK_CONCURRENT_INVOCATIONS=100000")
	if err != nil {
		return err
	}
	defer p.stop()
	made, err := p.client.CreateSubject(ctx, fmt.Sprintf("bench-%d", time.Now().UnixNano()), api.SubjectSpec{})
	if err != nil {
		return err
	}
	auth := "Basic " + base64.StdEncoding.EncodeToString([]byte(made.UUID+":"+made.Key))
	put := func(name, kind string) error {
		body := fmt.Sprintf(`{"exec":{"kind":"%s:default","code":%q},"limits":{"memory":128}}`, kind, whiskCode[kind])
		r, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+p.addr+"/api/v1/namespaces/_/actions/"+name+"?overwrite=true", strings.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", auth)
		r.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if text, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK {
			return fmt.Errorf("make action %s: status %d, %w: %.300s", name, res.StatusCode, err, text)
		}
		return nil
	}
	call := func(name string) []byte {
		return fmt.Appendf(nil, "POST /api/v1/namespaces/_/actions/%s?blocking=true&result=true HTTP/1.1\r\nHost: %s\r\nAuthorization: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			name, p.addr, auth, len(Input), Input)
	}
	callers := sync.Pool{New: func() any {
		c, err := dial(ctx, p.addr)
		if err != nil {
			return err
		}
		return c
	}}
	do := func(request []byte) error {
		c, ok := callers.Get().(*caller)
		if !ok {
			return fmt.Errorf("no connection to %s", p.addr)
		}
		a, err := c.do(request)
		if err != nil {
			return err
		}
		callers.Put(c)
		return a.want()
	}
	requests := make([][]byte, whiskActions)
	for i := range requests {
		name := fmt.Sprint("warm-", i)
		if err := put(name, "python"); err != nil {
			return err
		}
		requests[i] = call(name)
	}
	native := post(p.addr, "/f/default/python/", "", Input)
	sides := []struct {
		s  *Sample
		do func(i int) error
	}{
		{&Sample{Name: fmt.Sprint(whiskActions, " actions")}, func(i int) error { return do(requests[i%whiskActions]) }},
		{&Sample{Name: "1 action"}, func(int) error { return do(requests[0]) }},
		{&Sample{Name: "1 function, natively"}, func(int) error { return do(native) }},
	}
	var ratios []float64
	for round := range whiskRounds + 1 { // the first warms up
		var rates []float64
		for _, side := range sides {
			got, err := together(ctx, whiskCalls, whiskClients, side.do)
			if err != nil {
				return fmt.Errorf("%s: %w", side.s.Name, err)
			}
			if round > 0 {
				side.s.join(got)
				rates = append(rates, got.Rate())
			}
		}
		if round > 0 {
			ratios = append(ratios, rates[0]/rates[1])
		}
	}
	b.result.table(fmt.Sprintf("blocking calls through OpenWhisk's API, %d clients", whiskClients), sides[0].s, sides[1].s, sides[2].s)
	slices.Sort(ratios)
	b.result.set("whisk_actions_ratio", ratios[len(ratios)/2])
	b.result.note("whisk_requests_per_s", int(sides[1].s.Rate()))
	one, bare := &Sample{Name: "1 action"}, &Sample{Name: "1 function, natively"}
	for block := range 20 {
		for _, x := range []struct {
			s       *Sample
			request []byte
		}{{one, requests[0]}, {bare, native}} {
			for range 40 {
				at := time.Now()
				if err := do(x.request); err != nil {
					return err
				}
				if block > 0 {
					x.s.note(time.Since(at), nil)
					x.s.busy += time.Since(at)
				}
			}
		}
	}
	b.result.table("blocking calls through OpenWhisk's API, 1 client", one, bare)
	b.result.set("whisk_warm_p50_ms", ms(one.Quantile(.5)))
	b.result.note("whisk_warm_added_us", (one.Quantile(.5) - bare.Quantile(.5)).Microseconds())
	for _, kind := range []string{"python", "nodejs"} {
		if kind == "nodejs" && b.need("node") != nil {
			continue
		}
		cold := &Sample{Name: kind}
		for i := range whiskCold {
			name := fmt.Sprintf("cold-%s-%d", kind, i)
			if err := put(name, kind); err != nil {
				return err
			}
			time.Sleep(200 * time.Millisecond) // for the platform to make ready what the last call took
			at := time.Now()
			if err := do(call(name)); err != nil {
				return err
			}
			if i >= 5 { // the first of a language warm the server
				cold.note(time.Since(at), nil)
				cold.busy += time.Since(at)
			}
		}
		b.result.table("first calls of actions, "+kind, cold)
		b.result.set("whisk_"+kind+"_cold_p50_ms", ms(cold.Quantile(.5)))
		b.result.note("whisk_"+kind+"_cold_p99_ms", ms(cold.Quantile(.99)))
	}
	return nil
}
