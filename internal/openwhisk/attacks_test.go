package openwhisk_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/openwhisk"
)

// One who sends as many annotations as a request holds keeps no processor at work for long: each is
// looked at once.
func TestManyAnnotationsAreReadOnce(t *testing.T) {
	w := open(t, nil)
	var list, gone strings.Builder
	for i := range 500_000 {
		fmt.Fprintf(&list, `,{"key":"%x","value":1}`, i)
		if i < 150_000 {
			fmt.Fprintf(&gone, `,"%x"`, i)
		}
	}
	many := list.String()[1:]
	some := many[:strings.Index(many, `,{"key":"8000"`)]
	w.play([]step{
		{item: 29, method: "PUT", path: "_/actions/a", body: with(nodeCode, `"annotations":[`+many+`]`), status: 413},
		{item: 29, method: "PUT", path: "_/actions/a", body: with(nodeCode, `"annotations":[`+some+`]`), status: 200},
		{item: 34, method: "PUT", path: "_/actions/a?overwrite=true", body: `{"annotations":[` + some + `],"delAnnotations":[` + gone.String()[1:] + `]}`, status: 200},
		{item: 111, method: "PUT", path: "_/packages/p", body: `{"parameters":[` + some + `]}`, status: 200},
		{item: 111, method: "PUT", path: "_/packages/b", body: `{"binding":{"namespace":"_","name":"p"},"parameters":[` + some + `]}`, status: 200},
		{item: 111, method: "GET", path: "_/packages/b", status: 200},
	})
}

// Of two entries with a key the last counts, in the place of the first.
func TestTheLastOfEqualKeysCounts(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{method: "PUT", path: "_/packages/p", body: `{"annotations":[{"key":"a","value":1},{"key":"b","value":2},{"key":"a","value":3}]}`, status: 200,
			want: `{"annotations":[{"key":"a","value":3},{"key":"b","value":2}]}`},
	})
}

func TestTextThatIsNotUTF8IsRefused(t *testing.T) {
	w := open(t, nil)
	bad := "{\"a\":\"\xff\"}"
	w.play([]step{
		{method: "PUT", path: "_/actions/a", body: with(nodeCode, `"annotations":[{"key":"web-export","value":true}]`), status: 200},
		{method: "POST", path: "_/actions/a?blocking=true", body: bad, status: 400},
		{method: "POST", path: "/api/v1/web/guest/default/a", body: bad, status: 400},
		{method: "PUT", path: "_/packages/p", body: "{\"annotations\":[{\"key\":\"a\",\"value\":\"\xff\"}]}", status: 400},
	})
}

func TestVersionsAreDigits(t *testing.T) {
	w := open(t, nil)
	for _, v := range []string{"+1.0.0", "-0.0.0", "9223372036854775807.0.0", "0.0.9223372036854775807", "1..0"} {
		w.play([]step{{method: "PUT", path: "_/packages/p", body: `{"version":"` + v + `"}`, status: 400}})
	}
}

// A package that is no longer shared is closed to those whose sequences lead into it.
func TestSequencesKeepOutOfWhatIsNoLongerShared(t *testing.T) {
	w := open(t, nil)
	w.play([]step{
		{item: 116, who: "other", method: "PUT", path: "_/packages/p", body: `{"publish":true}`, status: 200},
		{item: 116, who: "other", method: "PUT", path: "_/actions/p/a", body: nodeCode, status: 200},
		{item: 116, who: "other", method: "PUT", path: "_/actions/own", body: sequence("/_/p/a"), status: 200},
		{item: 116, method: "PUT", path: "_/actions/s", body: sequence("/other/p/a"), status: 200},
		{item: 116, method: "PUT", path: "_/actions/around", body: sequence("/_/s"), status: 200},
		{item: 116, method: "POST", path: "_/actions/s?blocking=true", body: `{}`, status: 200},
		{item: 116, who: "other", method: "PUT", path: "_/packages/p?overwrite=true", body: `{"publish":false}`, status: 200},
		{item: 116, method: "POST", path: "_/actions/s?blocking=true", body: `{}`, status: 403},
		{item: 116, method: "POST", path: "_/actions/around?blocking=true", body: `{}`, status: 502},
		{item: 116, who: "other", method: "POST", path: "_/actions/own?blocking=true", body: `{}`, status: 200},
	})
	if n := len(w.calls("other/p/a")); n != 2 {
		t.Errorf("the action was called %d times, want 2", n)
	}
}

// Whoever binds a package of another namespace does not say what its actions find in their environment,
// save for what that package lets be said; nobody says in whose name a call is.
func TestBindingsDoNotSetTheEnvironmentOfOthers(t *testing.T) {
	w := open(t, nil)
	param := func(key, value string) string { return fmt.Sprintf(`{"key":%q,"value":%q,"init":true}`, key, value) }
	w.play([]step{
		{who: "other", method: "PUT", path: "_/packages/p", body: `{"publish":true,"parameters":[` + param("MODE", "plain") + `]}`, status: 200},
		{who: "other", method: "PUT", path: "_/actions/p/a", body: nodeCode, status: 200},
		{method: "PUT", path: "_/packages/b", status: 200, body: `{"binding":{"namespace":"other","name":"p"},"parameters":[` +
			param("MODE", "mine") + "," + param("PATH", "/tmp") + "," + param("NODE_OPTIONS", "--require /tmp/x") + "," + param("__OW_NAMESPACE", "other") + "," + param("__OW_API_KEY", "x") + `]}`},
		{method: "POST", path: "_/actions/b/a?blocking=true", body: `{}`, status: 200},
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	env := w.envs["other/p/a"]
	for k, want := range map[string]string{"MODE": "mine", "PATH": "", "NODE_OPTIONS": "", "__OW_NAMESPACE": "guest", "__OW_API_KEY": ""} {
		if env[k] != want {
			t.Errorf("%s is %q, want %q", k, env[k], want)
		}
	}
}

// The key with which somebody calls another's web action opens more than that: its code does not see it.
func TestWebActionsOfOthersDoNotSeeKeys(t *testing.T) {
	w := open(t, nil)
	w.play([]step{{item: 186, who: "other", method: "PUT", path: "_/actions/a", status: 200,
		body: with(nodeCode, `"annotations":[{"key":"web-export","value":true},{"key":"require-whisk-auth","value":true}]`)}})
	for who, sees := range map[string]bool{"guest": false, "other": true} {
		a := w.send(who, "GET", "/api/v1/web/other/default/a.json", "")
		var args struct {
			User    string            `json:"__ow_user"`
			Headers map[string]string `json:"__ow_headers"`
		}
		if err := json.Unmarshal([]byte(a.body), &args); a.status != 200 || err != nil || args.User != who {
			t.Fatalf("%s: status %d: %s", who, a.status, a.body)
		}
		if got := args.Headers["authorization"] != ""; got != sees {
			t.Errorf("%s: the action sees the key: %v, want %v", who, got, sees)
		}
	}
}

// Alarms are fires as all others: a namespace has no more of them in a minute by having many alarms.
func TestAlarmsCountAsFires(t *testing.T) {
	w := open(t, func(c *openwhisk.Config) { c.Limits.FiresPerMinute = 1 })
	w.server.StopClock()
	w.play([]step{{item: 180, method: "PUT", path: "_/actions/a", body: nodeCode, status: 200}})
	for i := range 8 {
		name := fmt.Sprintf("t%d", i)
		w.play([]step{
			{item: 180, method: "PUT", path: "_/triggers/" + name, body: `{}`, status: 200},
			{item: 180, method: "PUT", path: "_/rules/r" + name, body: `{"trigger":"/_/` + name + `","action":"/_/a"}`, status: 200},
		})
		if a := w.feed("alarm", "CREATE", "/_/"+name, map[string]any{"cron": "* * * * * *"}); a.status != 200 {
			t.Fatalf("alarm %d: status %d: %s", i, a.status, a.body)
		}
	}
	w.until("an alarm has fired", func() bool { return len(w.calls("guest/a")) > 0 })
	time.Sleep(1500 * time.Millisecond) // in which each of them is due
	if n := len(w.calls("guest/a")); n != 1 {
		t.Errorf("%d calls in a minute, want one", n)
	}
}

// atOnce makes requests at the same time, and returns the statuses.
func (w *world) atOnce(n int, request func(i int) (method, path, body string)) []int {
	out := make([]int, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			method, path, body := request(i)
			out[i] = w.send("guest", method, path, body).status
		})
	}
	wg.Wait()
	return out
}

// Of several who make entities of one name at the same time, of whatever kinds, one succeeds.
func TestANameIsOfOneEntity(t *testing.T) {
	w := open(t, nil)
	for i := range 20 {
		got := w.atOnce(6, func(j int) (string, string, string) {
			switch j % 3 {
			case 0:
				return "PUT", fmt.Sprintf("_/actions/n%d", i), nodeCode
			case 1:
				return "PUT", fmt.Sprintf("_/packages/n%d", i), `{}`
			}
			return "PUT", fmt.Sprintf("_/triggers/n%d", i), `{}`
		})
		slices.Sort(got)
		if want := []int{200, 409, 409, 409, 409, 409}; !slices.Equal(got, want) {
			t.Errorf("name %d: statuses %v, want %v", i, got, want)
		}
	}
}

// An action that is made while its package is deleted goes with it, or is refused.
func TestNoActionIsLeftOfADeletedPackage(t *testing.T) {
	w := open(t, nil)
	for range 10 {
		w.play([]step{{item: 99, method: "PUT", path: "_/packages/p", body: `{}`, status: 200}})
		got := w.atOnce(5, func(j int) (string, string, string) {
			if j == 4 {
				return "DELETE", "_/packages/p?force=true", ""
			}
			return "PUT", fmt.Sprintf("_/actions/p/a%d", j), nodeCode
		})
		if a := w.send("guest", "GET", "_/packages/p", ""); got[4] != 200 || a.status != 404 {
			t.Fatalf("statuses %v; the package then: %d: %s", got, a.status, a.body)
		}
	}
}

// Operations that are added to an API at the same time are all there, and there are no more APIs than
// requests can be looked up in.
func TestAPIsAreBounded(t *testing.T) {
	w := open(t, func(c *openwhisk.Config) { c.Limits.Payload = 64 << 10 })
	const create, list = "/api/v1/web/whisk.system/apimgmt/createApi.http", "/api/v1/web/whisk.system/apimgmt/getApi.http"
	body := func(base, path string) string {
		return fmt.Sprintf(`{"apidoc":{"namespace":"guest","gatewayBasePath":%q,"gatewayPath":%q,"gatewayMethod":"GET","id":"API:guest:x","action":{"name":"a","namespace":"guest","backendMethod":"GET","backendUrl":"http://example.test/api/v1/web/guest/default/a.http","authkey":"x"}}}`, base, path)
	}
	for _, status := range w.atOnce(20, func(i int) (string, string, string) { return "POST", create, body("/base", fmt.Sprintf("/p%d", i)) }) {
		if status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	var all struct {
		APIs []struct {
			Value struct {
				Doc struct {
					Paths map[string]any `json:"paths"`
				} `json:"apidoc"`
			} `json:"value"`
		} `json:"apis"`
	}
	a := w.send("guest", "GET", list, "")
	if err := json.Unmarshal([]byte(a.body), &all); err != nil || len(all.APIs) != 1 || len(all.APIs[0].Value.Doc.Paths) != 20 {
		t.Errorf("%d paths, want 20: %v", len(all.APIs[0].Value.Doc.Paths), err)
	}
	w.play([]step{
		{item: 226, method: "POST", path: create, body: body("/"+strings.Repeat("b", 2000), "/p"), status: 413},
		{item: 226, method: "POST", path: create, body: body("/"+strings.Repeat("b", 1000), "/p"), status: 200},
		{item: 225, method: "DELETE", path: "/api/v1/web/whisk.system/apimgmt/deleteApi.http?basepath=/" + strings.Repeat("b", 1000), status: 200},
		{item: 226, method: "POST", path: create, body: body("/long", "/"+strings.Repeat("p", 20<<10)), status: 200},
		{item: 226, method: "POST", path: create, body: body("/long", "/"+strings.Repeat("q", 20<<10)), status: 413},
	})
	for i := range 498 {
		w.play([]step{{item: 226, method: "POST", path: create, body: body(fmt.Sprintf("/b%d", i), "/p"), status: 200}})
	}
	w.play([]step{
		{item: 226, method: "POST", path: create, body: body("/more", "/p"), status: 429},
		{item: 226, method: "POST", path: create, body: body("/b7", "/q"), status: 200},
	})
}

// Whoever does not take the answer to a change keeps nobody from changing the entity.
func TestAnswersThatAreNotTakenLockNothing(t *testing.T) {
	w := open(t, nil)
	code, err := json.Marshal("//" + strings.Repeat("x", 16<<20) + "\nfunction main(a) { return a }")
	w.must(err)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, w.url+"/api/v1/namespaces/_/actions/a", strings.NewReader(`{"exec":{"kind":"nodejs:20","code":`+string(code)+`}}`))
	w.must(err)
	r.SetBasicAuth(w.subjects["guest"].UUID, w.subjects["guest"].Key)
	r.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(r)
	w.must(err)
	defer func() { _ = res.Body.Close() }()
	w.play([]step{{method: "PUT", path: "_/actions/a?overwrite=true", body: nodeCode, status: 200, want: `{"version":"0.0.2"}`}})
}
