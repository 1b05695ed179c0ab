package brokers

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/brasa-dev/brasa/internal/trigger"
)

// Bounds of what a server of Redis may answer.
const (
	redisLine   = 64 << 10             // bytes of a line
	redisList   = 1 << 20              // parts of a list
	redisString = int(trigger.MaxData) // bytes of a string
	redisAnswer = 4 * redisString      // bytes of all strings of an answer; beyond it those over redisSmall are cut
	redisSmall  = 1 << 10
)

// redisCut stands for a string that was too long.
const redisCut = "\x00cut by brasa\x00"

// redisGuard is a connection whose answers have bounds. The client library takes as much memory as
// a server announces: one that a tenant named could end this process with a line. Strings that are
// too long are replaced, so that the entry can be told of and passed by.
type redisGuard struct {
	screened
	sum int // bytes of strings since the last request
}

func guardRedis(conn net.Conn) *redisGuard {
	g := &redisGuard{screened: screened{Conn: conn, r: bufio.NewReaderSize(conn, redisLine)}}
	g.next = g.line
	return g
}

// Write sends a request; its answer has bounds of its own. How long it may take is the client's to say.
func (g *redisGuard) Write(p []byte) (int, error) {
	g.sum = 0
	return g.Conn.Write(p)
}

// line reads one and decides what is handed out of it and of the string that may follow.
func (g *redisGuard) line() error {
	line, err := g.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return fmt.Errorf("the server's answer has a line of more than %d bytes", redisLine)
	}
	if err != nil {
		if errors.Is(err, io.EOF) && len(line) > 0 {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	g.ready = bytes.Clone(line)
	kind := line[0]
	switch kind {
	case '$', '=', '!', '*', '%', '~', '>', '|': // a length follows
	default:
		return nil
	}
	n, err := strconv.Atoi(string(bytes.TrimSpace(line[1:])))
	if err != nil {
		return fmt.Errorf("the server does not answer as Redis does: %.40q", line)
	}
	switch {
	case n < 0:
		return nil // there is none
	case kind != '$' && kind != '=' && kind != '!':
		if n > redisList {
			return fmt.Errorf("the server's answer has a list of %d parts; %d are read", n, redisList)
		}
		return nil
	case n > redisString || n > redisSmall && g.sum+n > redisAnswer:
		if n > 1<<30 {
			return fmt.Errorf("the server's answer has a string of %d bytes", n)
		}
		if _, err := g.r.Discard(n + 2); err != nil {
			return err
		}
		g.ready = fmt.Appendf(nil, "%c%d\r\n%s\r\n", kind, len(redisCut), redisCut)
		return nil
	}
	g.sum += n
	g.pass = n + 2
	return nil
}
