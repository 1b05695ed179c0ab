package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// caller is one kept-alive connection that sends the same few requests again and again. It reads
// answers with net/http's own reader and does nothing else: on two processors a full client would
// be most of what is measured.
type caller struct {
	conn net.Conn
	in   *bufio.Reader
}

// callTimeout bounds one call: nothing that is measured takes as long.
const callTimeout = 2 * time.Minute

func dial(ctx context.Context, addr string) (*caller, error) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &caller{conn, bufio.NewReader(conn)}, nil
}

func (c *caller) close() { _ = c.conn.Close() }

// post is a POST request of body as it goes over the wire.
func post(addr, path, key, body string) []byte {
	auth := ""
	if key != "" {
		auth = "Authorization: Bearer " + key + "\r\n"
	}
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, addr, auth, len(body), body)
}

// answer is what came back.
type answer struct {
	status int
	start  string // how the instance came to serve
	id     string
	body   string
}

// do sends a request and reads the whole answer.
func (c *caller) do(request []byte) (answer, error) {
	_ = c.conn.SetDeadline(time.Now().Add(callTimeout))
	if _, err := c.conn.Write(request); err != nil {
		return answer{}, err
	}
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return answer{}, err
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close() // it has been read to its end
	return answer{res.StatusCode, res.Header.Get("Brasa-Start"), res.Header.Get("Brasa-Invocation-Id"), string(body)}, err
}

// want returns an error unless the answer is the one that every side gives.
func (a answer) want() error {
	if a.status != http.StatusOK {
		return fmt.Errorf("status %d: %.300s", a.status, a.body)
	}
	if got := strings.TrimSpace(strings.ReplaceAll(a.body, `": "`, `":"`)); got != Answer {
		return fmt.Errorf("answered %.100q, want %q", a.body, Answer)
	}
	return nil
}
