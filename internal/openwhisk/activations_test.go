package openwhisk_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/journal"
	"github.com/brasa-dev/brasa/internal/openwhisk"
)

// Whoever asks for whole records from far back and does not take them keeps nobody of the namespace from
// looking as far.
func TestListsThatAreNotTakenKeepNobodyWaiting(t *testing.T) {
	var log *journal.Journal
	w := open(t, func(c *openwhisk.Config) { log = c.Journal })
	keep := func(action string, records, size int) {
		body, err := json.Marshal(map[string]string{"text": strings.Repeat("x", size)})
		w.must(err)
		for range records {
			now := time.Now()
			log.Record(&faas.Activation{
				ID: faas.NewID(now), Namespace: "guest", Function: action, Kind: faas.KindInvoke, Attempt: 1, Outcome: faas.OK, Timing: faas.Timing{Begin: now},
				Answer: &faas.Answer{Status: http.StatusOK, Body: body, Bytes: faas.Bytes(len(body))},
			})
		}
	}
	const many = 24
	keep("large", many, 1<<20-100)
	keep("small", 600, 1) // more than are read at once
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/api/v1/namespaces/_/activations?name=large&docs=true", nil)
	w.must(err)
	request.SetBasicAuth(w.subjects["guest"].UUID, w.subjects["guest"].Key)
	res, err := http.DefaultClient.Do(request)
	w.must(err)
	defer func() { _ = res.Body.Close() }()
	w.play([]step{
		{item: 87, method: "GET", path: "_/activations?name=large&count=true", status: 200, want: `{"activations":24}`},
		{item: 87, method: "GET", path: "_/activations?name=none&docs=true", status: 200, want: `[]`},
	})
	var all []struct {
		Response struct {
			Result struct{ Text string } `json:"result"`
		} `json:"response"`
	}
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil || len(all) != many || len(all[0].Response.Result.Text) != 1<<20-100 {
		t.Errorf("item 88: %d records, %v", len(all), err)
	}
}

// An attempt that the server's stop has ended, and that another follows, is no record of its own.
func TestOneRecordOfACall(t *testing.T) {
	var log *journal.Journal
	w := open(t, func(c *openwhisk.Config) { log = c.Journal })
	begun := time.Now().Add(-time.Second)
	call := &faas.Activation{ID: faas.NewID(begun), Namespace: "guest", Function: "again", Kind: faas.KindInvoke, Attempt: 2, Outcome: faas.OK, Timing: faas.Timing{Begin: begun}}
	first := *call
	first.ID, first.Cause, first.Attempt, first.Outcome, first.Interim = faas.NewID(begun.Add(time.Millisecond)), call.ID, 1, faas.Canceled, true
	log.Record(&first)
	log.Record(call)
	w.must(log.Flush(t.Context()))
	w.play([]step{
		{item: 86, method: "GET", path: "_/activations?name=again&count=true", status: 200, want: `{"activations":1}`},
		{item: 89, method: "GET", path: "_/activations/" + string(call.ID), status: 200, want: `{"activationId":"` + string(call.ID) + `"}`},
	})
}
