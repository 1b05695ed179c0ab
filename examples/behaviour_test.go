package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brasa-dev/brasa/examples"
	"github.com/brasa-dev/brasa/internal/api"
)

// TestBehaviour tries what a list of calls can't say. The examples share one server.
func TestBehaviour(t *testing.T) {
	s := startServer(t)
	for name, try := range map[string]func(*testing.T, *server, examples.Example){
		"tokens":        tokensStream,
		"chat-echo":     everyoneInTheRoomHears,
		"webhook":       actsOncePerDelivery,
		"csv-summary":   largerThanItsMemory,
		"markdown":      passesNoMarkup,
		"fetch-page":    fetchesFromTheOutsideOnly,
		"counter-lines": tellsWhatIsWrong,
	} {
		t.Run(name, func(t *testing.T) {
			i := slices.IndexFunc(examples.List(), func(e examples.Example) bool { return e.Name == name })
			e := examples.List()[i]
			s.deploy(t, e)
			try(t, s, e)
		})
	}
}

// tokensStream reads the first event of an answer that would take half an hour to its end.
func tokensStream(t *testing.T, s *server, e examples.Example) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", s.URL(s.namespace, e.Name)+"/?n=1000&delay_ms=2000", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	line, err := bufio.NewReader(res.Body).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, `data: {"index":0,`) {
		t.Errorf("the first line is %q, %v", line, err)
	}
}

// everyoneInTheRoomHears lets one speak and two listen.
func everyoneInTheRoomHears(t *testing.T, s *server, e examples.Example) {
	ana, bo := dialChat(t, s, e, "Ana"), dialChat(t, s, e, "Bo")
	ana.waitFor(t, `"type":"joined","name":"Bo"`)
	ana.say(t, "olá")
	for _, c := range []*chat{ana, bo} {
		c.waitFor(t, `"type":"said","name":"Ana","text":"olá"`)
	}
	got, err := s.call(t.Context(), e, examples.Call{Kind: "http", Path: "/rooms"})
	if err != nil || !bytes.Contains(got.body, []byte(`"people":["Ana","Bo"]`)) {
		t.Errorf("rooms: %s, %v", got.body, err)
	}
}

// chat is one end of a WebSocket, as much of it as the test needs.
type chat struct {
	io.ReadWriteCloser
	in *bufio.Reader
}

func dialChat(t *testing.T, s *server, e examples.Example, name string) *chat {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL(s.namespace, e.Name)+"/ws?room=test&name="+name, nil)
	if err != nil {
		t.Fatal(err)
	}
	key := make([]byte, 16)
	_, _ = rand.Read(key) // never fails
	r.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {base64.StdEncoding.EncodeToString(key)},
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	conn, ok := res.Body.(io.ReadWriteCloser)
	if res.StatusCode != http.StatusSwitchingProtocols || !ok {
		b, _ := io.ReadAll(res.Body)
		t.Fatalf("status %d, want 101: %s", res.StatusCode, b)
	}
	t.Cleanup(func() { _ = conn.Close() }) // it may be closed already
	return &chat{conn, bufio.NewReader(conn)}
}

// say sends a text of less than 126 bytes in one masked frame.
func (c *chat) say(t *testing.T, text string) {
	t.Helper()
	frame := append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...) // a mask of zeros
	if _, err := c.Write(frame); err != nil {
		t.Fatal(err)
	}
}

// waitFor reads messages until one contains the text.
func (c *chat) waitFor(t *testing.T, text string) {
	t.Helper()
	for {
		head := make([]byte, 2)
		if _, err := io.ReadFull(c.in, head); err != nil {
			t.Fatalf("wait for %s: %v", text, err)
		}
		size := int64(head[1] & 0x7f)
		if size == 126 {
			var long uint16
			if err := binary.Read(c.in, binary.BigEndian, &long); err != nil {
				t.Fatal(err)
			}
			size = int64(long)
		}
		message := make([]byte, size)
		if _, err := io.ReadFull(c.in, message); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(message), text) {
			return
		}
	}
}

// actsOncePerDelivery sends one delivery twice and an old one.
func actsOncePerDelivery(t *testing.T, s *server, e examples.Example) {
	call := examples.Call{Kind: "http", Body: fmt.Sprintf(`{"id":%q,"type":"ping"}`, rand.Text()), Sign: "WEBHOOK_SECRET"}
	for i, want := range []string{`"done":"pong"`, `"duplicate":true`} {
		got, err := s.call(t.Context(), e, call)
		if err != nil || got.status != 200 || !bytes.Contains(got.body, []byte(want)) {
			t.Errorf("delivery %d: %d %s, %v; want %s", i+1, got.status, got.body, err, want)
		}
	}
	call.Headers = map[string]string{"X-Signature": sign([]byte(call.Body), e.Secrets[call.Sign], longAgo)}
	call.Sign = ""
	got, err := s.call(t.Context(), e, call)
	if err != nil || got.status != 401 || !bytes.Contains(got.body, []byte("more than 300 seconds")) {
		t.Errorf("an old delivery: %d %s, %v; want 401", got.status, got.body, err)
	}
}

// largerThanItsMemory streams a table through a function whose memory could not hold it.
func largerThanItsMemory(t *testing.T, s *server, e examples.Example) {
	if testing.Short() {
		t.Skip("takes a few seconds")
	}
	public := false
	spec := api.Spec{Public: &public, Limits: limitsOf(32 << 20)}
	code, err := e.Archive()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Deploy(t.Context(), s.namespace, e.Name, spec, api.Code{Reader: bytes.NewReader(code), Filename: "code.tar.gz"}); err != nil {
		t.Fatal(err)
	}
	const rows = 40_000
	row := strings.Repeat("x", 1000)
	r, w := io.Pipe()
	go func() { // ends when all is sent or nobody reads
		out := bufio.NewWriterSize(w, 64<<10)
		_, _ = out.WriteString("n,text\n") // Flush returns the error
		for n := range rows {
			_, _ = fmt.Fprintf(out, "%d,%s\n", n, row)
		}
		_ = w.CloseWithError(out.Flush())
	}()
	reply, err := s.Invoke(t.Context(), s.namespace, e.Name, api.CallOptions{ContentType: "text/csv"}, r)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Rows    int
		Columns []struct{ Max, Distinct any }
	}
	if err := json.Unmarshal(reply.Result, &got); err != nil {
		t.Fatal(err)
	}
	if got.Rows != rows || len(got.Columns) != 2 || got.Columns[0].Max != float64(rows-1) || got.Columns[1].Distinct != 1.0 {
		t.Errorf("got %+v", got)
	}
}

// passesNoMarkup renders texts that try to get a tag or a script address through.
func passesNoMarkup(t *testing.T, s *server, e examples.Example) {
	for _, text := range []string{
		"<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "`<b>`", "    <i>", "[a](javascript:alert(1))",
		"[a](JaVaScRiPt:alert(1))", "[a](java\tscript:alert(1))", "[a](&#106;avascript:alert(1))", "[a](javascript&colon;alert(1))",
		"![a](data:text/html,<script>)", "<javascript:alert(1)>", `[a](http://x "y" onmouseover="z")`, `[a](http://x"onmouseover="z)`,
		"```\"><script>\nx\n```", "| <td> |\n|---|\n| <script> |", `[a](<" onclick="x>)`,
	} {
		input, err := json.Marshal(map[string]string{"text": text})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.call(t.Context(), e, examples.Call{Kind: "invoke", Input: input})
		if err != nil {
			t.Fatal(err)
		}
		lower := strings.ToLower(string(got.body))
		for _, bad := range []string{"<script", "<img src=x", "<b>", "<i>", "href=\"java", "src=\"data:", "\" on"} {
			if strings.Contains(lower, bad) {
				t.Errorf("%q became %q, which has %q", text, got.body, bad)
			}
		}
	}
}

// tellsWhatIsWrong sees the program's own words in the error.
func tellsWhatIsWrong(t *testing.T, s *server, e examples.Example) {
	_, err := s.call(t.Context(), e, examples.Call{Kind: "invoke", Input: json.RawMessage(`{"key":7}`)})
	if err == nil || !strings.Contains(err.Error(), `want {"key": "visits"}`) {
		t.Errorf("got %v", err)
	}
}

// fetchesFromTheOutsideOnly fetches a page from a web server that is neither this machine nor the
// Internet: in a network namespace of the test's own, at an address kept for documentation.
func fetchesFromTheOutsideOnly(t *testing.T, s *server, e examples.Example) {
	outside := outsideServer(t)
	fetch := func(to string, timeout time.Duration) (map[string]any, int) {
		input, err := json.Marshal(map[string]string{"url": to})
		if err != nil {
			t.Fatal(err)
		}
		opts := api.CallOptions{ContentType: "application/json", Timeout: timeout}
		reply, err := s.Invoke(t.Context(), s.namespace, e.Name, opts, bytes.NewReader(input))
		if err != nil {
			t.Fatal(err)
		}
		var page map[string]any
		if err := json.Unmarshal(reply.Result, &page); err != nil {
			t.Fatalf("%v: %s", err, reply.Result)
		}
		return page, reply.Status
	}
	page, status := fetch(outside+"/moved", 0)
	links, _ := page["links"].([]any)
	hops, _ := page["redirects"].([]any)
	if status != 200 || page["title"] != "Outside & about" || len(links) != 2 || len(hops) != 1 || page["url"] != outside+"/page" {
		t.Errorf("status %d: %v", status, page)
	}
	own, err := url.Parse(s.Server())
	if err != nil {
		t.Fatal(err)
	}
	// The server itself, by the address it has for sandboxes and by that of the link.
	gateway := "100.115.0.1"
	if s.subnet != "" {
		gateway = netip.MustParsePrefix(s.subnet).Addr().Next().String()
	}
	for _, closed := range []string{"http://" + gateway + ":" + own.Port() + "/readyz", "http://" + hostAddress + ":" + own.Port() + "/", "http://169.254.169.254/"} {
		// What is closed gives no answer at all: the function gives up a second before its time.
		if page, status := fetch(closed, 3*time.Second); status != 502 {
			t.Errorf("%s can be reached: status %d: %v", closed, status, page)
		}
	}
}
