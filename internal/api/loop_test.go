package api_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/api"
	"github.com/brasa-dev/brasa/internal/dispatch"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/gateway/gatewaytest"
)

// A function that fires the trigger by which it is called is stopped as one is that calls itself.
func TestALoopThroughATriggerEnds(t *testing.T) {
	d := gatewaytest.Open(t, gatewaytest.Options{Dispatch: func(c *dispatch.Config) { c.Chain.Depth = 5 }})
	c, err := api.NewClient(d.URL, d.Green)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var mu sync.Mutex
	calls := 0
	refused := make(chan string, 1)
	d.Function("green", "f", false, func(ctx context.Context, inv *faas.Invocation) (*faas.Result, error) {
		mu.Lock()
		calls++
		mu.Unlock()
		fired, err := c.FireTrigger(ctx, "green", "again", "", http.Header{api.HeaderCause: {string(inv.ID)}}, strings.NewReader("{}"))
		if err != nil {
			return nil, err
		}
		if why := fired.Calls[0].Error; why != "" {
			refused <- why
		}
		return gatewaytest.Echo(ctx, inv)
	})
	if _, err := c.PutTrigger(t.Context(), "green", "again", api.TriggerSpec{}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutRule(t.Context(), "green", "r", api.RuleSpec{Trigger: "again", Function: "f"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.FireTrigger(t.Context(), "green", "again", "", nil, strings.NewReader("{}")); err != nil {
		t.Fatal(err)
	}
	select {
	case why := <-refused:
		mu.Lock()
		defer mu.Unlock()
		if calls != 5 || !strings.Contains(why, "f → f") {
			t.Errorf("after %d calls: %s", calls, why)
		}
	case <-time.After(time.Minute):
		t.Error("it goes on")
	}
}
