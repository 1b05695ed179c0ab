package install

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/url"
	"slices"
	"strings"
)

// shortestSecret is from where on a secret is looked for: less would be found in everything.
const shortestSecret = 6

// secrets are what nobody may read of the addresses, as tools may write it.
func (r Registries) secrets() []string {
	var out []string
	add := func(s string) {
		if len(s) >= shortestSecret && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	each := func(addresses ...string) {
		for _, a := range addresses {
			u, err := url.Parse(strings.TrimSpace(a))
			if err != nil || u.User == nil {
				continue
			}
			password, ok := u.User.Password()
			if !ok { // a token alone
				password = u.User.Username()
			}
			add(password)
			add(url.QueryEscape(password))
			add(url.PathEscape(password))
			if _, escaped, ok := strings.Cut(u.User.String(), ":"); ok {
				add(escaped)
			}
			add(base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password)))
		}
	}
	each(slices.Concat([]string{r.Python.Index}, r.Python.Extra, r.Python.Links)...)
	each(r.NPM.Registry, r.Cargo.Registry, r.Maven.Mirror, r.NuGet.Source)
	for _, s := range r.NPM.Scopes {
		_, address, _ := strings.Cut(s, "=")
		address, token, _ := strings.Cut(address, "#")
		each(address)
		add(token)
	}
	each(strings.FieldsFunc(r.Go.Proxy, func(c rune) bool { return c == ',' || c == '|' })...)
	each(slices.Concat([]string{r.Ruby.Source}, r.Ruby.Extra, []string{r.PHP.Repository}, r.PHP.Extra)...)
	for _, token := range []string{r.NPM.Token, r.Cargo.Token, r.Maven.Password} {
		add(token)
	}
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) }) // one may lie within another
	return out
}

// hider writes on what comes, less secrets. It is the last line: no step has a reason to write one.
// It holds back what may be the beginning of one, until the next Write or flush.
type hider struct {
	to      io.Writer
	secrets []string
	held    []byte
}

// Write never fails for other reasons than to's.
func (h *hider) Write(p []byte) (int, error) {
	if len(h.secrets) == 0 {
		return h.to.Write(p)
	}
	text := append(h.held, p...)
	for _, s := range h.secrets {
		text = bytes.ReplaceAll(text, []byte(s), []byte("***"))
	}
	keep := 0
	for _, s := range h.secrets {
		for n := min(len(s)-1, len(text)); n > keep; n-- {
			if bytes.HasSuffix(text, []byte(s[:n])) {
				keep = n
				break
			}
		}
	}
	_, err := h.to.Write(text[:len(text)-keep])
	h.held = bytes.Clone(text[len(text)-keep:])
	return len(p), err
}

func (h *hider) flush() {
	_, _ = h.to.Write(h.held) // as in Write, who reads it goes without
	h.held = nil
}
