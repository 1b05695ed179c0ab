package api

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// TriggerKinds lists the kinds of sources that triggers can have.
func (c *Client) TriggerKinds(ctx context.Context) ([]TriggerKind, error) {
	k, err := call[TriggerKinds](ctx, c, request{op: "list kinds of triggers", method: http.MethodGet, path: []string{"v1", "trigger-kinds"}})
	return k.Kinds, err
}

// PreviewTrigger says when a trigger would fire, if it knows.
func (c *Client) PreviewTrigger(ctx context.Context, spec TriggerSpec, count int) (Times, error) {
	return call[Times](ctx, c, request{
		op: "preview trigger", method: http.MethodPost, path: []string{"v1", "trigger-preview"}, query: url.Values{"count": {strconv.Itoa(count)}},
		contentType: jsonType, body: jsonBody(spec),
	})
}

// Triggers lists those of a namespace.
func (c *Client) Triggers(ctx context.Context, namespace string) ([]Trigger, error) {
	t, err := call[Triggers](ctx, c, request{op: "list triggers", method: http.MethodGet, path: c.ns(namespace, "triggers")})
	return t.Triggers, err
}

// Trigger asks for one.
func (c *Client) Trigger(ctx context.Context, namespace, name string) (Trigger, error) {
	return call[Trigger](ctx, c, request{op: "look up trigger", method: http.MethodGet, path: c.ns(namespace, "triggers", name)})
}

// PutTrigger makes one; with replace it changes one that exists.
func (c *Client) PutTrigger(ctx context.Context, namespace, name string, spec TriggerSpec, replace bool) (Trigger, error) {
	r := request{op: "create trigger", method: http.MethodPost, path: c.ns(namespace, "triggers", name), contentType: jsonType, body: jsonBody(spec)}
	if replace {
		r.op, r.method = "change trigger", http.MethodPut
	}
	return call[Trigger](ctx, c, r)
}

// DeleteTrigger removes one with its rules.
func (c *Client) DeleteTrigger(ctx context.Context, namespace, name string) error {
	_, err := call[Done](ctx, c, request{op: "delete trigger", method: http.MethodDelete, path: c.ns(namespace, "triggers", name)})
	return err
}

// FireTrigger tells a trigger's functions of an event. header are its attributes, such as Ce-Id.
func (c *Client) FireTrigger(ctx context.Context, namespace, name, contentType string, header http.Header, body io.Reader) (Fired, error) {
	return call[Fired](ctx, c, request{
		op: "fire trigger", method: http.MethodPost, path: c.ns(namespace, "triggers", name, "fire"), contentType: contentType, header: header, body: body,
	})
}

// PutRule links a trigger to a function.
func (c *Client) PutRule(ctx context.Context, namespace, name string, spec RuleSpec) (Rule, error) {
	return call[Rule](ctx, c, request{
		op: "link trigger", method: http.MethodPut, path: c.ns(namespace, "rules", name), contentType: jsonType, body: jsonBody(spec),
	})
}

// DeleteRule takes a link away.
func (c *Client) DeleteRule(ctx context.Context, namespace, name string) error {
	_, err := call[Done](ctx, c, request{op: "unlink trigger", method: http.MethodDelete, path: c.ns(namespace, "rules", name)})
	return err
}
