package trigger

import (
	"context"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // some senders sign with nothing better, and a keyed digest of it is not broken
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"hash"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

var webhookKind = Kind{Name: "webhook", Doc: "requests to the trigger's own URL, signed as github, stripe, slack or a plain HMAC", New: newWebhook}

// webhookConfig says how requests are known to be of their sender.
type webhookConfig struct {
	// Scheme is how the sender signs: "github", "stripe", "slack" or "hmac". "none" takes whatever
	// comes, from whoever: it must be asked for by this word.
	Scheme string `json:"scheme"`
	Secret string `json:"secret,omitempty"` // the name of the secret that both sides know
	// Window is how old a signed time may be, and how far ahead of our clock. Default five minutes.
	Window faas.Duration `json:"window_ms,omitempty"`

	// Of "hmac": over the raw body, or over the time, a dot and the body if TimeHeader is set.
	Header     string `json:"header,omitempty"`      // that holds the signature
	Prefix     string `json:"prefix,omitempty"`      // before it, such as "sha256="
	Digest     string `json:"digest,omitempty"`      // sha256 (default), sha512 or sha1
	Encoding   string `json:"encoding,omitempty"`    // hex (default) or base64
	TimeHeader string `json:"time_header,omitempty"` // that holds the signed time, in seconds of Unix
	IDHeader   string `json:"id_header,omitempty"`   // that holds the event's ID; without it equal bodies with equal signatures are one event
}

const defaultWindow = faas.Duration(5 * time.Minute)

// webhook takes requests whose signature, over the raw body, is right.
//
// A request that comes again leads to no second call: senders repeat what they hold for lost, and so
// may who has listened. Within a day it is told by the event's ID, or by its signature where the
// sender gives none; after that an old signature is refused where the sender signs the time.
type webhook struct {
	o      Outside
	config webhookConfig
}

func newWebhook(o Outside, config json.RawMessage) (Source, error) {
	w := &webhook{o: o}
	if err := Read(config, &w.config); err != nil {
		return nil, err
	}
	c := &w.config
	switch c.Scheme {
	case "github", "stripe", "slack", "hmac":
		if c.Secret == "" {
			return nil, Invalid("secret is missing: the name of the secret with which requests are signed").
				WithFix(`store it with: brasa secret put NAME; then {"scheme": %q, "secret": "NAME"}`, c.Scheme)
		}
		if o.Trigger != nil && !slices.Contains(o.Trigger.Source.Secrets, c.Secret) {
			return nil, Invalid("the secret %.60q is not among the source's secrets", c.Secret)
		}
	case "none":
		if c.Secret != "" {
			return nil, Invalid("a web hook of scheme none has no secret")
		}
	case "":
		return nil, Invalid("scheme is missing").WithFix("say github, stripe, slack or hmac; none takes unsigned requests from whoever sends them")
	default:
		return nil, Invalid("there is no scheme %.60q", c.Scheme).WithFix("there are: github, stripe, slack, hmac, none")
	}
	if c.Scheme != "hmac" && (c.Header != "" || c.Prefix != "" || c.Digest != "" || c.Encoding != "" || c.TimeHeader != "" || c.IDHeader != "" && c.Scheme != "none") {
		return nil, Invalid("header, prefix, digest, encoding, time_header and id_header are of the scheme hmac")
	}
	if c.Scheme == "hmac" {
		if c.Header == "" {
			return nil, Invalid("header is missing: the one that holds the signature")
		}
		if digests[c.Digest] == nil {
			return nil, Invalid("there is no digest %.60q", c.Digest).WithFix("there are: sha256, sha512, sha1")
		}
		switch c.Encoding {
		case "", "hex", "base64":
		default:
			return nil, Invalid("encoding is %.60q; it is hex or base64", c.Encoding)
		}
	}
	for _, h := range []string{c.Header, c.TimeHeader, c.IDHeader} {
		if strings.ContainsFunc(h, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
			return nil, Invalid("%.60q is no name of a header", h)
		}
	}
	if c.Window == 0 {
		c.Window = defaultWindow
	}
	if c.Window < faas.Duration(time.Second) || c.Window > faas.Duration(24*time.Hour) {
		return nil, Invalid("window_ms is %s; it is from 1s to 24h", c.Window).WithLimit("window_ms")
	}
	return w, nil
}

var digests = map[string]func() hash.Hash{"": sha256.New, "sha256": sha256.New, "sha512": sha512.New, "sha1": sha1.New}

// Run implements Source. Events come as requests.
func (w *webhook) Run(ctx context.Context, _ Fire) error {
	<-ctx.Done()
	return nil
}

// Answer implements Listener.
func (w *webhook) Answer(rw http.ResponseWriter, r *http.Request, body []byte, fire Fire) error {
	secret := ""
	if w.config.Secret != "" {
		var err error
		if secret, err = w.o.Secret(r.Context(), w.config.Secret); err != nil || secret == "" {
			return faas.Errorf(faas.Unavailable, "check web hook", "the web hook's secret can't be had: %w", err)
		}
	}
	e := faas.Event{
		Time: w.o.Now(), Type: "brasa.webhook.received", Data: body, ContentType: r.Header.Get("Content-Type"), Header: passed(r.Header),
	}
	var err error
	switch w.config.Scheme {
	case "github":
		err = w.github(r, body, secret, &e)
	case "stripe":
		err = w.stripe(r, body, secret, &e)
	case "slack":
		err = w.slack(r, body, secret, &e)
		if err == nil {
			if challenge, ok := slackChallenge(body); ok {
				rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
				rw.Header().Set("X-Content-Type-Options", "nosniff")
				_, _ = rw.Write([]byte(challenge))
				return nil
			}
		}
	case "hmac":
		err = w.hmac(r, body, secret, &e)
	default:
		e.ID = r.Header.Get(w.config.IDHeader)
	}
	if err != nil {
		return err
	}
	fired, err := fire(r.Context(), e)
	if err != nil {
		return err
	}
	type call struct {
		Rule     string  `json:"rule"`
		Function string  `json:"function"`
		ID       faas.ID `json:"id,omitempty"`
		Error    string  `json:"error,omitempty"`
	}
	answer := struct {
		Event string `json:"event"`
		Calls []call `json:"calls"`
	}{e.ID, []call{}}
	for _, c := range fired.Calls {
		said := call{Rule: c.Rule, Function: c.Function, ID: c.ID}
		if c.Err != nil {
			said.Error = faas.AsError(c.Err).Message()
		}
		answer.Calls = append(answer.Calls, said)
	}
	b, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.WriteHeader(http.StatusAccepted)
	_, _ = rw.Write(append(b, '\n'))
	return nil
}

func refused(format string, args ...any) error {
	return faas.Errorf(faas.Unauthenticated, "check web hook", format, args...)
}

// sign returns the keyed digest of the parts.
func sign(digest func() hash.Hash, secret string, parts ...[]byte) []byte {
	m := hmac.New(digest, []byte(secret))
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

// fresh says whether a signed time is within the window.
func (w *webhook) fresh(seconds string) (time.Time, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(seconds), 10, 64)
	if err != nil {
		return time.Time{}, refused("the signed time %.40q is no number of seconds", seconds)
	}
	at := time.Unix(n, 0)
	if off := w.o.Now().Sub(at); off > w.config.Window.D() || off < -w.config.Window.D() {
		return time.Time{}, refused("the request was signed at %s, which is outside of the window of %s", at.UTC().Format(time.RFC3339), w.config.Window)
	}
	return at, nil
}

// github checks X-Hub-Signature-256, the keyed digest of the body
// (docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries).
func (w *webhook) github(r *http.Request, body []byte, secret string, e *faas.Event) error {
	text, ok := strings.CutPrefix(r.Header.Get("X-Hub-Signature-256"), "sha256=")
	got, err := hex.DecodeString(text)
	if !ok || err != nil {
		return refused("the request has no signature X-Hub-Signature-256")
	}
	if !hmac.Equal(got, sign(sha256.New, secret, body)) {
		return refused("the signature does not fit the request")
	}
	e.ID = r.Header.Get("X-GitHub-Delivery")
	if e.ID == "" {
		e.ID = text
	}
	if kind := r.Header.Get("X-GitHub-Event"); kind != "" {
		e.Type = "com.github." + kind
	}
	return nil
}

// stripe checks Stripe-Signature: a time and one or more signatures of the time, a dot and the body
// (docs.stripe.com/webhooks#verify-manually).
func (w *webhook) stripe(r *http.Request, body []byte, secret string, e *faas.Event) error {
	at, fits := "", false
	var given [][]byte
	for _, part := range strings.Split(r.Header.Get("Stripe-Signature"), ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch k {
		case "t":
			at = v
		case "v1":
			if b, err := hex.DecodeString(v); err == nil {
				given = append(given, b)
			}
		}
	}
	if at == "" || len(given) == 0 {
		return refused("the request has no signature Stripe-Signature")
	}
	want := sign(sha256.New, secret, []byte(at), []byte("."), body)
	for _, g := range given {
		fits = fits || hmac.Equal(g, want)
	}
	if !fits {
		return refused("the signature does not fit the request")
	}
	var err error
	if e.Time, err = w.fresh(at); err != nil {
		return err
	}
	var event struct {
		ID   string `json:"id"`
		Type string `json:"type"`
	}
	_ = json.Unmarshal(body, &event) // what is no event has no ID
	if e.ID = event.ID; e.ID == "" {
		e.ID = hex.EncodeToString(want)
	}
	if event.Type != "" {
		e.Type = "com.stripe." + event.Type
	}
	return nil
}

// slack checks X-Slack-Signature, of the version, the time and the body with colons between
// (docs.slack.dev/authentication/verifying-requests-from-slack).
func (w *webhook) slack(r *http.Request, body []byte, secret string, e *faas.Event) error {
	at := r.Header.Get("X-Slack-Request-Timestamp")
	text, ok := strings.CutPrefix(r.Header.Get("X-Slack-Signature"), "v0=")
	got, err := hex.DecodeString(text)
	if !ok || err != nil || at == "" {
		return refused("the request has no signature X-Slack-Signature")
	}
	if !hmac.Equal(got, sign(sha256.New, secret, []byte("v0:"), []byte(at), []byte(":"), body)) {
		return refused("the signature does not fit the request")
	}
	if e.Time, err = w.fresh(at); err != nil {
		return err
	}
	var event struct {
		ID    string `json:"event_id"`
		Event struct {
			Type string `json:"type"`
		} `json:"event"`
	}
	_ = json.Unmarshal(body, &event) // a command's body is a form
	if e.ID = event.ID; e.ID == "" {
		e.ID = text
	}
	if event.Event.Type != "" {
		e.Type = "com.slack." + event.Event.Type
	}
	return nil
}

// slackChallenge returns what Slack asks to be told when a URL is first given to it.
func slackChallenge(body []byte) (string, bool) {
	var ask struct {
		Type      string `json:"type"`
		Challenge string `json:"challenge"`
	}
	if json.Unmarshal(body, &ask) != nil || ask.Type != "url_verification" || len(ask.Challenge) > 1024 {
		return "", false
	}
	return ask.Challenge, true
}

func (w *webhook) hmac(r *http.Request, body []byte, secret string, e *faas.Event) error {
	c := &w.config
	text, ok := strings.CutPrefix(strings.TrimSpace(r.Header.Get(c.Header)), c.Prefix)
	var got []byte
	var err error
	if c.Encoding == "base64" {
		got, err = base64.StdEncoding.DecodeString(text)
	} else {
		got, err = hex.DecodeString(text)
	}
	if !ok || err != nil || len(got) == 0 {
		return refused("the request has no signature %s", textproto.CanonicalMIMEHeaderKey(c.Header))
	}
	parts := [][]byte{body}
	at := ""
	if c.TimeHeader != "" {
		at = r.Header.Get(c.TimeHeader)
		parts = [][]byte{[]byte(at), []byte("."), body}
	}
	if !hmac.Equal(got, sign(digests[c.Digest], secret, parts...)) {
		return refused("the signature does not fit the request")
	}
	if c.TimeHeader != "" {
		if e.Time, err = w.fresh(at); err != nil {
			return err
		}
	}
	e.ID = hex.EncodeToString(got)
	if c.IDHeader != "" {
		if e.ID = r.Header.Get(c.IDHeader); e.ID == "" {
			return faas.Errorf(faas.Invalid, "check web hook", "the request has no %s", textproto.CanonicalMIMEHeaderKey(c.IDHeader))
		}
	}
	return nil
}

// passed are the headers of a request that a function is told: those of its sender's own making,
// and none that open a door.
func passed(h http.Header) map[string][]string {
	out := map[string][]string{}
	for k, v := range h {
		switch {
		case strings.HasPrefix(k, "X-Forwarded-"), strings.HasPrefix(k, "Ce-"), strings.HasPrefix(k, "X-Brasa-"), strings.HasPrefix(k, "Brasa-"):
		case strings.HasPrefix(k, "X-"), strings.HasSuffix(k, "-Signature"), k == "User-Agent":
			out[k] = v
		}
	}
	return out
}
