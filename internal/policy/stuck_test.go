package policy

import (
	"fmt"
	"testing"

	"github.com/brasa-dev/brasa/internal/faas"
)

func TestStuck(t *testing.T) {
	const mib = faas.MiB
	line := Line{Namespace: "a", Need: 100 * mib}
	full := Line{Namespace: "a", Need: 100 * mib, Full: true}
	waits := func(l int, asked ...Asked) Holder {
		return Holder{Namespace: "a", Line: l, Held: 100 * mib, Calls: 1, Asked: asked}
	}
	inLine := func(l int) Asked { return Asked{Holder: -1, Line: l} }
	for name, c := range map[string]struct {
		holders []Holder
		lines   []Line
		tenants int
		want    string
	}{
		"nobody":                                {},
		"room for the call":                     {[]Holder{waits(0, inLine(1))}, []Line{line, line}, 1, "[false]"},
		"no room, and all wait":                 {[]Holder{waits(0, inLine(1)), waits(0, inLine(1))}, []Line{line, line}, 1, "[true true]"},
		"no room, and one goes on":              {[]Holder{waits(0, inLine(1)), waits(0)}, []Line{line, line}, 1, "[false false]"},
		"no room, and an instance is made":      {[]Holder{waits(0, inLine(1)), waits(0, inLine(1))}, []Line{line, {Namespace: "a", Need: 100 * mib, Making: true}}, 1, "[false false]"},
		"an idle instance that can't grow":      {[]Holder{waits(0, inLine(1)), waits(0, inLine(1))}, []Line{line, {Namespace: "a", Need: 100 * mib, Idle: true}}, 1, "[true true]"},
		"an idle instance, and no more may be":  {[]Holder{waits(0, inLine(1))}, []Line{line, {Namespace: "a", Need: 100 * mib, Idle: true, Full: true}}, 1, "[false]"},
		"itself, alone":                         {[]Holder{waits(0, inLine(0))}, []Line{full}, 1, "[true]"},
		"itself, beside one that goes on":       {[]Holder{waits(0, inLine(0)), waits(0)}, []Line{full}, 1, "[false false]"},
		"through another that waits for itself": {[]Holder{waits(0, Asked{Holder: 1}), waits(1, inLine(1))}, []Line{line, full}, 1, "[true true]"},
		"through another that goes on":          {[]Holder{waits(0, Asked{Holder: 1}), waits(1)}, []Line{line, full}, 1, "[false false]"},
		"one of two calls waits":                {[]Holder{{Namespace: "a", Held: 200 * mib, Calls: 2, Asked: []Asked{inLine(0)}}}, []Line{full}, 1, "[false]"},
		"both calls wait":                       {[]Holder{{Namespace: "a", Held: 200 * mib, Calls: 2, Asked: []Asked{inLine(0), inLine(0)}}}, []Line{full}, 1, "[true]"},
		"one of its two asks gets on":           {[]Holder{waits(0, inLine(0), inLine(1))}, []Line{full, line}, 1, "[false]"},
		"what is left belongs to others":        {[]Holder{waits(0, inLine(1))}, []Line{line, line}, 2, "[true]"},
		"of two that hold all, one helps other": {[]Holder{waits(0, Asked{Holder: 1}), waits(1, Asked{Holder: 2}), waits(2)}, []Line{line, line, line}, 1, "[false false false]"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Stuck(c.holders, c.lines, 200*mib, max(c.tenants, 1))
			if c.want == "" {
				c.want = "[]"
			}
			if fmt.Sprint(got) != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}
