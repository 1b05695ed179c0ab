package importer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Endpoint is an installation of OpenWhisk, or what speaks as one.
type Endpoint struct {
	URL  string       // of the host, such as https://whisk.example.com
	Auth string       // UUID:KEY; empty: nothing but what anybody may ask
	HTTP *http.Client // nil: http.DefaultClient
}

const (
	api = "/api/v1"
	own = api + "/namespaces/_/"
	// maxAnswer is more than any entity has: code is of 48 MiB at most, and a third more in base64.
	maxAnswer = 128 << 20
	// maxWait is how long a request may take, with its answer.
	maxWait      = 10 * time.Minute
	maxRedirects = 5
	// maxListed is more entities than any namespace has: a list without end is no list.
	maxListed = 100_000
)

// refusal is an answer with a status that is no success.
type refusal struct {
	method, path string
	status       int
	text         string // what the server said
}

func (r *refusal) Error() string { return fmt.Sprintf("%s (status %d)", r.text, r.status) }

// statusOf is the status with which something was refused; 0 if it was not.
func statusOf(err error) int {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.status
	}
	return 0
}

// Denied says whether an error of Run or Namespace is that an installation did not take its key.
func Denied(err error) bool { return statusOf(err) == http.StatusUnauthorized }

// do makes a request with a JSON body, if body is not nil, and decodes the answer into out, if that is not nil.
func (e *Endpoint) do(ctx context.Context, method, path string, body, out any) error {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(ctx, maxWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(e.URL, "/")+path, in)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if user, key, ok := strings.Cut(e.Auth, ":"); ok {
		req.SetBasicAuth(user, key)
	}
	client := http.Client{}
	if e.HTTP != nil {
		client = *e.HTTP
	}
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects || req.URL.Host != via[0].URL.Host { // not wherever the source sends us from here
			return errors.New("it sends elsewhere, to " + req.URL.Host)
		}
		return nil
	}
	res, err := client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // the address is said where it matters
		}
		return fmt.Errorf("ask %s: %w", e.URL, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read what %s answers: %w", e.URL, err)
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		var said struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(b, &said) != nil || said.Error == "" {
			said.Error = http.StatusText(res.StatusCode)
		}
		return &refusal{method: method, path: path, status: res.StatusCode, text: said.Error}
	}
	if out == nil || len(b) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s does not answer %s %s as OpenWhisk does: %w", e.URL, method, path, err)
	}
	return nil
}

// listed is what lists tell of an entity.
type listed struct {
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Binding   json.RawMessage `json:"binding"`
}

// list returns the whole of a collection.
func (e *Endpoint) list(ctx context.Context, collection string) ([]listed, error) {
	const page = 200
	var all []listed
	for {
		var some []listed
		if err := e.do(ctx, http.MethodGet, fmt.Sprintf("%s%s?limit=%d&skip=%d", own, collection, page, len(all)), nil, &some); err != nil {
			return nil, fmt.Errorf("list %s: %w", collection, err)
		}
		all = append(all, some...)
		if len(all) > maxListed {
			return nil, fmt.Errorf("list %s: there is no end to them after %d", collection, len(all))
		}
		if len(some) < page {
			return all, nil
		}
	}
}

// at is the path of an entity of the caller's namespace; name may be "pkg/name".
func at(collection, name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return own + collection + "/" + strings.Join(parts, "/")
}
