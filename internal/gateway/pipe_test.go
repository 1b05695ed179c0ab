package gateway_test

import (
	"bufio"
	"context"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// newPipe returns the two ends of a connection.
func newPipe() (near, far net.Conn) { return net.Pipe() }

// serveWebSocket is a WebSocket server of one connection that echoes.
func serveWebSocket(conn net.Conn, header http.Header) {
	defer func() { _ = conn.Close() }()
	ctx := context.Background() // ends with the connection
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	r.Header = header
	c, err := websocket.Accept(&hijackable{conn: conn, header: http.Header{}}, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	for {
		kind, b, err := c.Read(ctx)
		if err != nil || c.Write(ctx, kind, b) != nil {
			return
		}
	}
}

// hijackable is the writer of an answer that becomes a connection.
type hijackable struct {
	conn   net.Conn
	header http.Header
}

func (h *hijackable) Header() http.Header         { return h.header }
func (h *hijackable) Write(p []byte) (int, error) { return h.conn.Write(p) }

func (h *hijackable) WriteHeader(status int) {
	res := &http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: h.header}
	_ = res.Write(h.conn) // the other side notices
}

func (h *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}
