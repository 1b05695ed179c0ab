package brokers

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

var postgresKind = trigger.Kind{Name: "postgres", Doc: "rows of a table of PostgreSQL, settled when the functions have succeeded; or notifications of a channel", New: newPostgres}

// postgresConfig says where events come from: from a table, or with a channel alone from
// notifications.
type postgresConfig struct {
	URL string `json:"url"` // postgres://HOST:PORT/DATABASE?sslmode=MODE
	// Secret is the name of the secret with which the server is talked to: USER:PASSWORD, or USER.
	Secret  string `json:"secret,omitempty"`
	CA      string `json:"ca,omitempty"`      // whose certificates are trusted, as PEM; empty: those of the machine
	Channel string `json:"channel,omitempty"` // what is notified; with a table it is what wakes the source

	Table    string        `json:"table,omitempty"`    // NAME or SCHEMA.NAME
	ID       string        `json:"id,omitempty"`       // the column by which a row is known; default "id"
	Payload  string        `json:"payload,omitempty"`  // the column with the data; empty: the row, as an object
	Order    string        `json:"order,omitempty"`    // the column by which rows are taken; default: that of id
	Done     string        `json:"done,omitempty"`     // the column in which a row is marked as done; empty: it is deleted
	Parallel int           `json:"parallel,omitempty"` // rows whose functions are under way at once; default 64
	Poll     faas.Duration `json:"poll_ms,omitempty"`  // how often the table is looked at without a notification; default 5 s

	host     string
	port     uint16
	database string
	mode     string
}

const (
	postgresConnect  = 10 * time.Second
	postgresSilence  = 30 * time.Second // after which a server is asked whether it is there
	postgresMessage  = 4 * int(trigger.MaxData)
	postgresParallel = 64
	postgresMost     = 1000 // each is a lock in the server's shared memory
	postgresName     = 63   // bytes of a name that the server looks at
)

func newPostgres(o trigger.Outside, config json.RawMessage) (trigger.Source, error) {
	var c postgresConfig
	if err := trigger.Read(config, &c); err != nil {
		return nil, err
	}
	if err := c.check(o); err != nil {
		return nil, err
	}
	if c.Table == "" {
		return &postgresChannel{o: o, config: c}, nil
	}
	return &postgresTable{o: o, config: c}, nil
}

func (c *postgresConfig) check(o trigger.Outside) error {
	if c.URL == "" {
		return trigger.Invalid("url is missing").WithFix(`write it as {"url": "postgres://db:5432/shop", "table": "outbox"}`)
	}
	if err := c.readURL(); err != nil {
		return err
	}
	if err := checkSecret(o, c.Secret); err != nil {
		return err
	}
	if err := checkCA(c.CA); err != nil {
		return err
	}
	if c.CA != "" && (c.mode == "disable" || c.mode == "require") {
		return trigger.Invalid("ca is looked at with sslmode=verify-full and sslmode=verify-ca, and url says %s", c.mode)
	}
	if c.Table == "" && c.Channel == "" {
		return trigger.Invalid("table and channel are missing").WithFix("name the table whose rows are events, or the channel whose notifications are")
	}
	for field, name := range map[string]string{"channel": c.Channel, "id": c.ID, "payload": c.Payload, "order": c.Order, "done": c.Done} {
		if err := checkName(field, name); err != nil {
			return err
		}
	}
	if c.Table == "" {
		if c.ID != "" || c.Payload != "" || c.Order != "" || c.Done != "" || c.Parallel != 0 || c.Poll != 0 {
			return trigger.Invalid("id, payload, order, done, parallel and poll_ms are of a table, and table is missing")
		}
		return nil
	}
	parts := strings.Split(c.Table, ".")
	for _, p := range parts {
		if err := checkName("table", p); err != nil || p == "" || len(parts) > 2 {
			return trigger.Invalid("table: %.80q is no name of a table", c.Table).WithFix("write it as NAME or SCHEMA.NAME, without quotes, as the server keeps it")
		}
	}
	c.ID = cmp.Or(c.ID, "id")
	c.Order = cmp.Or(c.Order, c.ID)
	c.Parallel = cmp.Or(c.Parallel, postgresParallel)
	if c.Parallel < 1 || c.Parallel > postgresMost {
		return trigger.Invalid("parallel is %d; it is from 1 to %d", c.Parallel, postgresMost).WithLimit("parallel")
	}
	c.Poll = cmp.Or(c.Poll, faas.Duration(5*time.Second))
	if c.Poll < faas.Duration(100*time.Millisecond) || c.Poll > faas.Duration(time.Hour) {
		return trigger.Invalid("poll_ms is %s; it is from 100ms to 1h", c.Poll).WithLimit("poll_ms")
	}
	return nil
}

func checkName(field, name string) error {
	if len(name) > postgresName || strings.ContainsRune(name, 0) {
		return trigger.Invalid("%s: %.80q is no name that PostgreSQL knows: it has at most %d bytes", field, name, postgresName)
	}
	return nil
}

func (c *postgresConfig) readURL() error {
	u, err := url.Parse(strings.TrimSpace(c.URL))
	// A host that begins with a slash would be a socket of this machine to the client library.
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Hostname() == "" || strings.ContainsAny(u.Hostname(), "/,@") {
		return trigger.Invalid("url: %.80q is no address of a server of PostgreSQL", redact(c.URL)).WithFix("write it as postgres://HOST:PORT/DATABASE")
	}
	if u.User != nil {
		return trigger.Invalid("url holds a user or a password").WithFix("store USER:PASSWORD with: brasa secret put NAME; and name the secret in the field secret")
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "5432"), 10, 16)
	if err != nil || port == 0 {
		return trigger.Invalid("url: the port is a number from 1 to 65535")
	}
	c.host, c.port, c.database = u.Hostname(), uint16(port), strings.TrimPrefix(u.Path, "/")
	if c.database == "" || strings.ContainsRune(c.database, 0) {
		return trigger.Invalid("url names no database").WithFix("write it as postgres://HOST:PORT/DATABASE")
	}
	c.mode = "verify-full"
	query, err := url.ParseQuery(u.RawQuery)
	for key, values := range query {
		if key != "sslmode" || len(values) != 1 {
			err = errors.New("another key")
			break
		}
		c.mode = values[0]
	}
	if err != nil || u.Fragment != "" {
		return trigger.Invalid("url: only sslmode=MODE may follow the question mark")
	}
	switch c.mode {
	case "verify-full", "verify-ca", "require", "disable":
	default:
		return trigger.Invalid("url: sslmode is %.40q; it is verify-full (default), verify-ca, require or disable", c.mode).
			WithFix("allow and prefer talk without TLS to whoever says that it has none")
	}
	c.URL = (&url.URL{Scheme: "postgres", Host: net.JoinHostPort(c.host, strconv.Itoa(int(port))), Path: "/" + c.database}).String()
	return nil
}

// connect opens a connection. The name tells people at the server what it is for.
func (c *postgresConfig) connect(ctx context.Context, o trigger.Outside, use string) (*pgx.Conn, error) {
	user, password := "brasa", ""
	if c.Secret != "" {
		text, err := o.Secret(ctx, c.Secret)
		if err != nil {
			return nil, fmt.Errorf("open the secret %q: %w", c.Secret, err)
		}
		user, password, _ = strings.Cut(strings.TrimSpace(text), ":")
	}
	// The library wants to have parsed something. What it takes of the server's own environment
	// besides, an operator's password file among it, is none of a tenant's: all is set below.
	config, err := pgx.ParseConfig("postgres://nobody:none@localhost/none?sslmode=disable")
	if err != nil {
		return nil, fmt.Errorf("the environment of this server has settings of PostgreSQL that do not fit: %w", err)
	}
	config.Host, config.Port, config.Database, config.User, config.Password = c.host, c.port, c.database, user, password
	config.TLSConfig, config.Fallbacks = c.tls(), nil
	config.SSLNegotiation, config.SSLCertMode, config.RequireAuth, config.ChannelBinding = "", "disable", "", "prefer"
	config.MinProtocolVersion, config.MaxProtocolVersion = "3.0", "3.0"
	config.KerberosSrvName, config.KerberosSpn, config.OAuthTokenProvider = "", "", nil
	config.ValidateConnect, config.AfterConnect = nil, nil
	config.ConnectTimeout = postgresConnect
	config.MaxProtocolMessageBodyLen = postgresMessage // else it takes as much memory as a server announces
	config.RuntimeParams = map[string]string{"application_name": "brasa trigger " + o.Trigger.Name + use, "client_encoding": "UTF8"}
	config.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil } // Dial does, and judges
	config.DialFunc = func(ctx context.Context, _, address string) (net.Conn, error) { return o.Dial(ctx, "tcp", address) }
	ctx, cancel := context.WithTimeout(ctx, postgresConnect)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c.URL, c.explain(err))
	}
	return conn, nil
}

// tls is how the connection is encrypted; nil: it is not.
func (c *postgresConfig) tls() *tls.Config {
	if c.mode == "disable" {
		return nil
	}
	t := tlsConfig(c.host, c.CA)
	switch c.mode {
	case "require": // asked for by this word: whoever answers is believed
		t.InsecureSkipVerify = true
	case "verify-ca": // any name will do, if the signature is good
		t.InsecureSkipVerify = true
		t.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errors.New("the server shows no certificate")
			}
			between := x509.NewCertPool()
			for _, one := range s.PeerCertificates[1:] {
				between.AddCert(one)
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: t.RootCAs, Intermediates: between})
			return err
		}
	}
	return t
}

// explain adds to what the server says which field of the trigger it is about.
func (c *postgresConfig) explain(err error) error {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		text := fmt.Sprintf("%s (%s)", said.Message, said.Code)
		switch said.Code {
		case "28P01", "28000":
			if c.Secret == "" {
				return fmt.Errorf("%s; store USER:PASSWORD with brasa secret put NAME, and name the secret in the field secret", text)
			}
			return fmt.Errorf("%s; the secret %q has to hold USER:PASSWORD", text, c.Secret)
		case "3D000":
			return fmt.Errorf("%s; the field url names the database", text)
		case "42501":
			return fmt.Errorf("%s; the user needs SELECT, and DELETE or with the field done UPDATE", text)
		}
		return errors.New(text)
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "server refused TLS"):
		return fmt.Errorf("%w; without TLS it is talked to if the field url ends with ?sslmode=disable", err)
	case strings.Contains(text, "x509:") || strings.Contains(text, "tls:"):
		return fmt.Errorf("%w; the field ca names whose certificates are trusted, and sslmode in the field url how much is looked at", err)
	}
	return remedied(err)
}

// postgresChannel tells of notifications. The server forgets one once it is sent: what is notified
// while nobody listens, or while the queue is full, is lost.
type postgresChannel struct {
	o      trigger.Outside
	config postgresConfig
}

// Run implements Source.
func (s *postgresChannel) Run(ctx context.Context, fire trigger.Fire) error {
	c := &s.config
	return c.listen(ctx, s.o, nil, func(n *pgconn.Notification) {
		e := faas.Event{
			Source: c.URL, Type: "brasa.postgres.notification", Subject: n.Channel, Time: s.o.Now(), Data: []byte(n.Payload),
			ContentType: contentTypeOf([]byte(n.Payload)),
		}
		if _, err := fire(ctx, e); err != nil && ctx.Err() == nil {
			s.o.PassOver(1, "notification lost: it was not accepted", "channel", n.Channel, "cause", err)
		}
	})
}

// listen tells of the notifications of the channel until ctx ends, and of having begun to listen.
func (c *postgresConfig) listen(ctx context.Context, o trigger.Outside, ready func(), tell func(*pgconn.Notification)) error {
	conn, err := c.connect(ctx, o, ", listening")
	if err != nil {
		return err
	}
	defer closePostgres(conn)
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{c.Channel}.Sanitize()); err != nil {
		return fmt.Errorf("listen to channel %q: %w", c.Channel, c.explain(err))
	}
	if ready != nil {
		ready()
	}
	for {
		wait, cancel := context.WithTimeout(ctx, postgresSilence)
		n, err := conn.WaitForNotification(wait)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			tell(n)
		case errors.Is(err, context.DeadlineExceeded) && !conn.IsClosed():
			// Nobody says when a machine was unplugged.
			ask, cancel := context.WithTimeout(ctx, postgresConnect)
			err := conn.Ping(ask)
			cancel()
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("connection to %s lost: %w", c.URL, err)
			}
		default:
			return fmt.Errorf("connection to %s lost: %w", c.URL, c.explain(err))
		}
	}
}

// closePostgres says goodbye, briefly.
func closePostgres(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // it is gone either way
}
