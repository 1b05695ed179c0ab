package deploy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

func TestInstancesThatStandAreAskedForByTheRequestThenTheManifest(t *testing.T) {
	s := newShop(t, nil)
	code := func(manifest string) string {
		return zipOf(t, map[string]string{"main.py": good, "brasa.json": manifest})
	}
	const manifest = `{"limits": {"min_instances": 1, "max_instances": 3}, "warm": [{"at": "0 8 * * MON-FRI", "zone": "Europe/Berlin", "for_ms": "10h"}]}`
	out, err := s.Deploy(t.Context(), request("f.zip", code(manifest)), nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := out.Revision; r.Limits.MinInstances != 1 || len(r.Warm) != 1 || r.Warm[0].For.D() != 10*time.Hour {
		t.Errorf("revision %+v", r)
	}
	req := request("f.zip", code(manifest))
	req.Limits.MinInstances, req.Warm = 2, []faas.WarmWindow{}
	if out, err = s.Deploy(t.Context(), req, nil); err != nil || out.Revision.Limits.MinInstances != 2 || len(out.Revision.Warm) != 0 {
		t.Errorf("the request does not win: %+v, %v", out, err)
	}
	for text, key := range map[string]string{
		`{"limits": {"min_instances": 4, "max_instances": 3}}`:                 "min_instances",
		`{"limits": {"min_instances": 100000}}`:                                "min_instances",
		`{"limits": {"target": 7, "concurrency": 4}}`:                          "target",
		`{"warm": [{"at": "8 o'clock", "for_ms": "10h"}]}`:                     "warm",
		`{"warm": [{"at": "0 8 * * *", "zone": "Mars", "for_ms": "10h"}]}`:     "warm",
		`{"warm": [{"at": "0 8 * * *", "for_ms": "10h", "instances": 10000}]}`: "warm",
	} {
		_, err := s.Deploy(t.Context(), request("f.zip", code(text)), nil)
		if e := faas.AsError(err); e == nil || e.Code != faas.Invalid || !strings.Contains(e.Error(), key) && e.Limit != key {
			t.Errorf("%s: %v, want one that names %s", text, err, key)
		}
	}
}
