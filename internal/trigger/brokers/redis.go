package brokers

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

var redisKind = trigger.Kind{Name: "redis", Doc: "entries of a stream of Redis or Valkey, acknowledged when the functions have succeeded", New: newRedis}

// The library writes to the standard error what it also returns.
func init() { logging.Disable() }

// redisConfig says where entries come from.
type redisConfig struct {
	URL string `json:"url"` // redis://HOST:PORT/DB or rediss:// with TLS
	// Secret is the name of the secret with which the server is talked to: a password or USER:PASSWORD.
	Secret   string        `json:"secret,omitempty"`
	CA       string        `json:"ca,omitempty"` // of rediss: whose certificates are trusted, as PEM; empty: those of the machine
	Stream   string        `json:"stream"`
	Group    string        `json:"group,omitempty"`    // empty: one of the trigger's own
	Consumer string        `json:"consumer,omitempty"` // this server's name in the group; empty: one that it makes up and keeps
	From     string        `json:"from,omitempty"`     // of a group that is made: "new" (default) or "all"
	Field    string        `json:"field,omitempty"`    // whose value is the data; empty: all, as an object
	Parallel int           `json:"parallel,omitempty"` // entries whose functions are under way at once; default 64
	Idle     faas.Duration `json:"idle_ms,omitempty"`  // after how long without a word an entry is taken from another consumer; default 1 min

	address string
	db      int
}

const (
	redisConnect  = 10 * time.Second
	redisParallel = 64
	redisMost     = 10_000
)

func newRedis(o trigger.Outside, config json.RawMessage) (trigger.Source, error) {
	s := &redisSource{o: o}
	if err := trigger.Read(config, &s.config); err != nil {
		return nil, err
	}
	return s, s.config.check(o)
}

func (c *redisConfig) check(o trigger.Outside) error {
	if c.URL == "" {
		return trigger.Invalid("url is missing").WithFix(`write it as {"url": "redis://broker:6379", "stream": "orders"}`)
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
	if c.Stream == "" {
		return trigger.Invalid("stream is missing").WithFix("it is the key of the stream")
	}
	switch c.From {
	case "", "new", "all":
	default:
		return trigger.Invalid("from is %.60q; it is new or all", c.From)
	}
	c.Parallel = cmp.Or(c.Parallel, redisParallel)
	if c.Parallel < 1 || c.Parallel > redisMost {
		return trigger.Invalid("parallel is %d; it is from 1 to %d", c.Parallel, redisMost).WithLimit("parallel")
	}
	c.Idle = cmp.Or(c.Idle, faas.Duration(time.Minute))
	if c.Idle < faas.Duration(time.Second) || c.Idle > faas.Duration(24*time.Hour) {
		return trigger.Invalid("idle_ms is %s; it is from 1s to 24h", c.Idle).WithLimit("idle_ms")
	}
	return nil
}

func (c *redisConfig) readURL() error {
	u, err := url.Parse(strings.TrimSpace(c.URL))
	if err != nil || u.Scheme != "redis" && u.Scheme != "rediss" || u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "/") {
		return trigger.Invalid("url: %.80q is no address of a server of Redis", redact(c.URL)).WithFix("write it as redis://HOST:PORT/DB, or rediss:// with TLS")
	}
	if u.User != nil {
		return trigger.Invalid("url holds a user or a password").WithFix("store it with: brasa secret put NAME; and name the secret in the field secret")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return trigger.Invalid("url: nothing may follow the number of the database")
	}
	c.address = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "6379"))
	if db := strings.Trim(u.Path, "/"); db != "" {
		c.db, err = strconv.Atoi(db)
		if err != nil || c.db < 0 {
			return trigger.Invalid("url: %.40q is not the number of a database", db).WithFix("write it as redis://HOST:PORT/0")
		}
	}
	if c.CA != "" && u.Scheme != "rediss" {
		return trigger.Invalid("ca is of an url that begins with rediss://")
	}
	c.URL = fmt.Sprintf("%s://%s/%d", u.Scheme, c.address, c.db)
	return nil
}

// connect makes a client and sees that the server answers it.
func (c *redisConfig) connect(ctx context.Context, o trigger.Outside) (*redis.Client, error) {
	var user, password string
	if c.Secret != "" {
		text, err := o.Secret(ctx, c.Secret)
		if err != nil {
			return nil, fmt.Errorf("open the secret %q: %w", c.Secret, err)
		}
		password = strings.TrimSpace(text)
		if before, after, pair := strings.Cut(password, ":"); pair {
			user, password = before, after
		}
	}
	var encrypted *tls.Config
	if strings.HasPrefix(c.URL, "rediss:") {
		host, _, err := net.SplitHostPort(c.address)
		if err != nil {
			return nil, err
		}
		encrypted = tlsConfig(host, c.CA)
	}
	client := redis.NewClient(&redis.Options{
		Addr: c.address, DB: c.db, Username: user, Password: password,
		Protocol: 2, DisableIdentity: true, // what every server knows
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		// A command is not repeated behind our back: what an answer that was lost had to say is found
		// among what is pending. The manager connects again, and says so.
		MaxRetries: -1, DialerRetries: 1,
		PoolSize: 4, PipelinePoolSize: -1, ContextTimeoutEnabled: true, DialTimeout: redisConnect, ReadTimeout: time.Minute,
		Dialer: func(ctx context.Context, _, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, redisConnect)
			defer cancel()
			conn, err := o.Dial(ctx, "tcp", address)
			if err != nil {
				return nil, err
			}
			if encrypted != nil {
				if conn, err = shake(ctx, conn, encrypted); err != nil {
					return nil, err
				}
			}
			return guardRedis(conn), nil
		},
	})
	own, cancel := context.WithTimeout(ctx, redisConnect)
	defer cancel()
	if err := client.Ping(own).Err(); err != nil {
		client.Close()
		return nil, fmt.Errorf("connect to %s: %w", c.URL, c.explain(err))
	}
	return client, nil
}

// explain adds to what a server says which field of the trigger it is about.
func (c *redisConfig) explain(err error) error {
	text := err.Error()
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("WRONGPASS", "NOAUTH", "invalid password", "without any password configured"):
		if c.Secret == "" {
			return fmt.Errorf("%w; store the password with brasa secret put NAME, and name the secret in the field secret", err)
		}
		return fmt.Errorf("%w; the secret %q has to hold the password, or USER:PASSWORD", err, c.Secret)
	case has("NOPERM"):
		return fmt.Errorf("%w; the user needs XGROUP, XINFO, XREADGROUP, XACK, XCLAIM, XAUTOCLAIM, XPENDING, XRANGE and PING for the stream %q", err, c.Stream)
	case has("WRONGTYPE"):
		return fmt.Errorf("%w; the field stream has to name a stream, and the key %q is something else", err, c.Stream)
	case has("MOVED ", "CROSSSLOT"):
		return fmt.Errorf("%w; the field url has to name the node of the cluster that holds the stream %q", err, c.Stream)
	case has("DB index"):
		return fmt.Errorf("%w; the field url names database %d", err, c.db)
	case has("unknown command", "ERR syntax"):
		return fmt.Errorf("%w; streams need Redis 7, or Valkey", err)
	case strings.HasPrefix(text, "NOGROUP"):
		return fmt.Errorf("the group or the stream %q was removed, and is made again: %w", c.Stream, err)
	}
	return remedied(err)
}
