package trigger_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

func signed(secret, text string) string {
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(text))
	return hex.EncodeToString(m.Sum(nil))
}

// post sends a request to a trigger's own URL and returns what was answered, or the error.
func post(h *triggertest.House, name, body string, header map[string]string) (*httptest.ResponseRecorder, error) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	for k, v := range header {
		r.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	err := h.Manager.Answer(w, r, catalog.DefaultNamespace, name, []byte(body))
	return w, err
}

func TestWebHooksAreOfTheirSender(t *testing.T) {
	h := triggertest.Open(t)
	h.Secret("KEY", "it's a secret")
	h.Run()
	const secret = "it's a secret"
	h.Trigger("github", "webhook", map[string]any{"scheme": "github", "secret": "KEY"}, "KEY")
	h.Trigger("stripe", "webhook", map[string]any{"scheme": "stripe", "secret": "KEY"}, "KEY")
	h.Trigger("slack", "webhook", map[string]any{"scheme": "slack", "secret": "KEY"}, "KEY")
	h.Trigger("plain", "webhook", map[string]any{"scheme": "hmac", "secret": "KEY", "header": "X-Sign", "prefix": "v1 ", "time_header": "X-Time"}, "KEY")
	h.Trigger("open", "webhook", map[string]any{"scheme": "none"})
	for _, name := range []string{"github", "stripe", "slack", "plain", "open"} {
		triggertest.Until(t, name+" runs", func() bool { return h.Manager.Status(catalog.DefaultNamespace, name).Running })
	}
	now := fmt.Sprint(time.Now().Unix())
	old := fmt.Sprint(time.Now().Add(-6 * time.Minute).Unix())
	ahead := fmt.Sprint(time.Now().Add(6 * time.Minute).Unix())
	const body = `{"id":"evt_1","type":"paid","n":1}`
	type header = map[string]string
	good := map[string]header{
		"github": {"X-Hub-Signature-256": "sha256=" + signed(secret, body), "X-GitHub-Delivery": "d-1", "X-GitHub-Event": "push"},
		"stripe": {"Stripe-Signature": "t=" + now + ",v1=00,v1=" + signed(secret, now+"."+body)},
		"slack":  {"X-Slack-Request-Timestamp": now, "X-Slack-Signature": "v0=" + signed(secret, "v0:"+now+":"+body)},
		"plain":  {"X-Sign": "v1 " + signed(secret, now+"."+body), "X-Time": now},
		"open":   {},
	}
	for name, hd := range good {
		before := len(h.Node.Calls())
		w, err := post(h, name, body, hd)
		if err != nil || w.Code != http.StatusAccepted {
			t.Errorf("%s: %d %s, %v", name, w.Code, w.Body, err)
			continue
		}
		triggertest.Until(t, name+" calls", func() bool { return len(h.Node.Calls()) == before+1 })
		if got := h.Node.Calls()[before]; got.Body != body {
			t.Errorf("%s: body %q", name, got.Body)
		}
		if name == "open" {
			continue
		}
		// Once more: whoever sends it, it is the same event.
		again, err := post(h, name, body, hd)
		if err != nil || again.Body.String() != w.Body.String() {
			t.Errorf("%s again: %s, %v; want the answer of the first, %s", name, again.Body, err, w.Body)
		}
	}
	for _, c := range []struct {
		name string
		body string
		header
	}{
		{"github", body, header{}},
		{"github", body + " ", good["github"]},
		{"github", body, header{"X-Hub-Signature-256": "sha256=" + signed("another", body)}},
		{"github", body, header{"X-Hub-Signature-256": signed(secret, body)}},
		{"stripe", body, header{}},
		{"stripe", body, header{"Stripe-Signature": "t=" + old + ",v1=" + signed(secret, old+"."+body)}},
		{"stripe", body, header{"Stripe-Signature": "t=" + now + ",v1=" + signed(secret, old+"."+body)}},
		{"slack", body, header{"X-Slack-Request-Timestamp": ahead, "X-Slack-Signature": "v0=" + signed(secret, "v0:"+ahead+":"+body)}},
		{"slack", body, header{"X-Slack-Signature": "v0=" + signed(secret, "v0::"+body)}},
		{"plain", body, header{"X-Sign": "v1 " + signed(secret, old+"."+body), "X-Time": old}},
		{"plain", body, header{"X-Sign": "v1 " + signed(secret, body)}},
		{"plain", body, header{"X-Sign": "v1 "}},
	} {
		before := len(h.Node.Calls())
		if w, err := post(h, c.name, c.body, c.header); faas.CodeOf(err) != faas.Unauthenticated {
			t.Errorf("%s %v: %d, %v; want unauthenticated", c.name, c.header, w.Code, err)
		}
		if got := len(h.Node.Calls()); got != before {
			t.Errorf("%s %v: the function was called", c.name, c.header)
		}
	}
	ask := `{"type":"url_verification","challenge":"abc"}`
	w, err := post(h, "slack", ask, header{"X-Slack-Request-Timestamp": now, "X-Slack-Signature": "v0=" + signed(secret, "v0:"+now+":"+ask)})
	if err != nil || w.Body.String() != "abc" {
		t.Errorf("Slack's question: %s, %v", w.Body, err)
	}
	h.Trigger("tick", "cron", map[string]any{"schedule": "@yearly"})
	triggertest.Until(t, "tick runs", func() bool { return h.Manager.Status(catalog.DefaultNamespace, "tick").Running })
	for _, name := range []string{"tick", "nothing"} {
		if _, err := post(h, name, body, nil); faas.CodeOf(err) != faas.NotFound {
			t.Errorf("%s takes requests: %v", name, err)
		}
	}
}
