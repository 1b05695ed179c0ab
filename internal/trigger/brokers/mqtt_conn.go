package brokers

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"

	"github.com/brasa-dev/brasa/internal/trigger"
)

// connect connects to the first broker that can be, and returns which that was.
func (s *mqttSource) connect(ctx context.Context, r *mqttRun) (client *paho.Client, ack *paho.Connack, where string, err error) {
	c := &s.config
	hello := &paho.Connect{
		ClientID: s.clientID(), KeepAlive: mqttKeepAlive, CleanStart: *c.QoS == 0,
		Properties: &paho.ConnectProperties{
			ReceiveMaximum: new(uint16(c.Parallel)), SessionExpiryInterval: new(uint32), RequestProblemInfo: true,
		},
	}
	if *c.QoS > 0 {
		*hello.Properties.SessionExpiryInterval = uint32(c.Expiry.D() / time.Second)
	}
	if c.Secret != "" {
		user, password, err := userAndPassword(ctx, s.o, c.Secret)
		if err != nil {
			return nil, nil, "", err
		}
		hello.UsernameFlag, hello.PasswordFlag, hello.Username, hello.Password = true, true, user, []byte(password)
	}
	err = eachAddress(ctx, s.addresses, func(ctx context.Context, u *url.URL) error {
		raw, err := s.dial(ctx, u)
		if err != nil {
			return err
		}
		conn := newMQTTConn(raw)
		r.conn = conn
		client = paho.NewClient(paho.ClientConfig{
			Conn: conn, Session: r.session, AuthHandler: noMQTTAuth{}, PacketTimeout: brokerConnect,
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){r.take},
			OnClientError:     func(err error) { r.fail(cmp.Or(conn.refused(), lostReason(err, s.clientID()))) },
			OnServerDisconnect: func(d *paho.Disconnect) {
				r.fail(fmt.Errorf("the broker ended it: %s", disconnectReason(d, s.clientID())))
			},
		})
		ack, err = client.Connect(ctx, hello)
		if err != nil {
			_ = conn.Close() // it has failed
			return connectReason(ack, cmp.Or(conn.refused(), err))
		}
		where = u.Scheme + "://" + u.Host
		return nil
	})
	return client, ack, where, err
}

// dial connects to where the URL says, by a WebSocket if it is one's.
func (s *mqttSource) dial(ctx context.Context, u *url.URL) (net.Conn, error) {
	if u.Scheme == "mqtt" {
		return dial(ctx, s.o, u, nil)
	}
	t, err := s.config.brokerTLS.config(ctx, s.o, u.Hostname())
	if err != nil {
		return nil, err
	}
	if u.Scheme == "mqtts" {
		return dial(ctx, s.o, u, t)
	}
	c, _, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{
		Subprotocols: []string{"mqtt"},
		HTTPClient: &http.Client{
			Transport:     &http.Transport{DialContext: s.o.Dial, TLSClientConfig: t, DisableKeepAlives: true}, // and no proxy
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	})
	if err != nil {
		return nil, remedied(explainTLS(err))
	}
	if c.Subprotocol() != "mqtt" {
		_ = c.CloseNow() // nothing was said on it
		return nil, errors.New("what answers is a WebSocket, but does not speak MQTT; see the path in url, which often is /mqtt")
	}
	c.SetReadLimit(-1) // packets are measured, not what they are wrapped in
	return websocket.NetConn(context.Background(), c, websocket.MessageBinary), nil
}

// mqttConn is a connection whose packets are measured before the client makes room for them. A message
// that no event can hold arrives without its payload. It is locked while a packet is written.
type mqttConn struct {
	screened
	sync.Mutex // held by the client while it writes

	heads int // packets so far

	// mark names the property that a message has instead of its own, and of its payload, when it was
	// too large: no sender can know it.
	mark string
}

const (
	errMQTTOld   refusal = "the broker speaks MQTT 3 alone, and Brasa speaks MQTT 5; a broker of a newer version is needed"
	errMQTTLarge refusal = "what answers does not speak MQTT, or sends packets without an end; see the scheme and the port in url"
)

func newMQTTConn(raw net.Conn) *mqttConn {
	c := &mqttConn{screened: screened{Conn: raw, r: bufio.NewReader(raw)}, mark: rand.Text()}
	c.next = c.head
	return c
}

// head reads a packet's head: its kind and flags, and the size of the rest in one to four bytes of
// seven bits.
func (c *mqttConn) head() error {
	first, err := c.r.ReadByte()
	if err != nil {
		return err
	}
	head, size := []byte{first}, 0
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			return err
		}
		size |= int(b&0x7f) << (7 * (len(head) - 1))
		if head = append(head, b); b&0x80 == 0 {
			break
		}
		if len(head) > 4 {
			return errMQTTLarge
		}
	}
	c.heads++
	switch kind := first >> 4; {
	case c.heads == 1 && kind == packets.CONNACK && size == 2:
		return errMQTTOld // the answer of version 5 has three bytes at the least
	case c.heads == 1 && kind != packets.CONNACK && kind != packets.AUTH:
		return errMQTTLarge
	case size > mqttPacket && kind == packets.PUBLISH:
		return c.skim(first, size)
	case size > mqttPacket || size > mqttAnswer && kind != packets.PUBLISH:
		return errMQTTLarge
	}
	c.ready, c.pass = head, size
	return nil
}

// skim makes of a message one without payload, and with one property, the mark: how many bytes it had.
func (c *mqttConn) skim(first byte, size int) error {
	length, err := c.r.Peek(2)
	if err != nil {
		return err
	}
	rest := 2 + int(length[0])<<8 + int(length[1]) // of the topic
	if first&6 != 0 {                              // its quality
		rest += 2 // its number
	}
	body := make([]byte, rest) // 64 KiB at most
	if _, err := io.ReadFull(c.r, body); err != nil {
		return err
	}
	if _, err := c.r.Discard(size - rest); err != nil {
		return err
	}
	property := []byte{packets.PropUser}
	for _, text := range []string{c.mark, strconv.Itoa(size)} {
		property = append(property, 0, byte(len(text)))
		property = append(property, text...)
	}
	body = append(body, byte(len(property)))
	body = append(body, property...)
	c.ready = append([]byte{first}, binary.AppendUvarint(nil, uint64(len(body)))...)
	c.ready = append(c.ready, body...)
	return nil
}

// large returns how many bytes a message had that came without its payload; empty if it did not.
func (c *mqttConn) large(p *packets.Publish) string {
	if p.Properties != nil {
		for _, u := range p.Properties.User {
			if u.Key == c.mark {
				return u.Value
			}
		}
	}
	return ""
}

// mqttSession is what the client knows of a session. The client acknowledges a message as soon as it
// was handed over; here that does nothing, and acknowledge does.
type mqttSession struct {
	*state.State
	mu   sync.Mutex
	lost bool // guarded by mu
}

var errMQTTLost = errors.New("the connection is lost")

// Ack implements session.SessionManager.
func (s *mqttSession) Ack(*packets.Publish) error { return nil }

// PacketReceived implements session.SessionManager. What answers messages of ours is left out: there
// are none.
func (s *mqttSession) PacketReceived(p *packets.ControlPacket, to chan<- *packets.Publish) error {
	switch p.Type {
	case packets.PUBACK, packets.PUBREC, packets.PUBCOMP:
		return nil
	}
	return s.State.PacketReceived(p, to)
}

// ConnectionLost implements session.SessionManager.
func (s *mqttSession) ConnectionLost(d *packets.Disconnect) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = true
	_ = s.State.ConnectionLost(d) // it never fails
	return s.State.Close()        // who waits for an answer waits no more
}

func (s *mqttSession) isLost() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// acknowledge acknowledges a message; errMQTTLost if that was not even tried.
func (s *mqttSession) acknowledge(p *packets.Publish) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost {
		return errMQTTLost
	}
	return s.State.Ack(p)
}

// noMQTTAuth answers a broker that asks for more than user and password: there is no more.
type noMQTTAuth struct{}

// Authenticate implements paho.Auther.
func (noMQTTAuth) Authenticate(*paho.Auth) *paho.Auth {
	return &paho.Auth{ReasonCode: packets.AuthContinueAuthentication}
}

// Authenticated implements paho.Auther.
func (noMQTTAuth) Authenticated() {}

// connectReason says in words why the broker let us not in.
func connectReason(ack *paho.Connack, err error) error {
	if ack == nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.New("the broker closed the connection without an answer; it may not speak MQTT 5, or not on this port: see url")
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return errors.New("the broker has not answered in time; it may not speak MQTT on this port: see url")
		}
		return err
	}
	// Reasons are "Name - What it means".
	reason, _, _ := strings.Cut((&packets.Connack{ReasonCode: ack.ReasonCode}).Reason(), " - ")
	reason = cmp.Or(reason, fmt.Sprintf("reason 0x%02x", ack.ReasonCode))
	if ack.Properties != nil && ack.Properties.ReasonString != "" {
		reason += fmt.Sprintf(" (%.200q)", ack.Properties.ReasonString)
	}
	switch ack.ReasonCode {
	case packets.ConnackUnsupportedProtocolVersion:
		return errMQTTOld
	case packets.ConnackBadUsernameOrPassword, packets.ConnackNotAuthorized:
		return fmt.Errorf("the broker lets us not in: %s; see the user and the password in the secret of the field secret", reason)
	case packets.ConnackInvalidClientID:
		return fmt.Errorf("client_id: the broker does not take it: %s", reason)
	}
	return fmt.Errorf("the broker lets us not in: %s", reason)
}

// lostReason says in words what may be behind a connection that ended.
func lostReason(err error, clientID string) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("the broker closed it without a word, as some do when another client comes with the client_id %q", clientID)
	}
	return err
}

// disconnectReason says in words why the broker ended a connection.
func disconnectReason(d *paho.Disconnect, clientID string) string {
	reason, _, _ := strings.Cut(d.Packet().Reason(), " - ")
	reason = cmp.Or(reason, fmt.Sprintf("reason 0x%02x", d.ReasonCode))
	if d.Properties != nil && d.Properties.ReasonString != "" {
		reason += fmt.Sprintf(" (%.200q)", d.Properties.ReasonString)
	}
	if d.ReasonCode == packets.DisconnectSessionTakenOver {
		reason += fmt.Sprintf("; another client came with the client_id %q: each needs its own", clientID)
	}
	return reason
}

// subscribeReason says in words why a topic is not granted.
func subscribeReason(code byte) string {
	switch code {
	case packets.SubackNotauthorized:
		return "not authorized; let the user of the secret read it, in the broker's access control"
	case packets.SubackTopicFilterinvalid:
		return "it is no filter there"
	case packets.SubackQuotaexceeded:
		return "a quota is exceeded"
	case packets.SubackSharedSubscriptionnotsupported:
		return "it does not do shared subscriptions"
	case packets.SubackWildcardsubscriptionsnotsupported:
		return "it does not do wildcards"
	}
	return fmt.Sprintf("reason 0x%02x", code)
}

var _ trigger.Source = (*mqttSource)(nil)
