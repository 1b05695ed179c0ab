package brokers_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/trigger/brokers"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

// rabbit is a RabbitMQ with the user brasa and the password s3cret, all of it in a directory of its
// own, with a port mapper of its own. Who comes by TLS shows a certificate, which may stand for the password.
type rabbit struct {
	*process
	mapper             *process
	dir, port, tlsPort string
	env                []string
	authority          *authority
	ca                 string // its certificate, PEM
}

const rabbitProgram = "/usr/lib/rabbitmq/bin/rabbitmq-server" // what is in the path changes the user

func startRabbit(t testing.TB) *rabbit {
	t.Helper()
	for _, program := range []string{rabbitProgram, "epmd"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("RabbitMQ as Debian has it is not installed: there is no %s", program)
		}
	}
	r := &rabbit{dir: t.TempDir(), port: freePort(t), tlsPort: freePort(t)}
	r.authority = newAuthority(t)
	r.ca = r.authority.ca
	for name, text := range map[string]string{
		"rabbitmq.conf": "listeners.tcp.1 = 127.0.0.1:" + r.port + "\nlisteners.ssl.1 = 127.0.0.1:" + r.tlsPort + "\n" +
			"ssl_options.certfile = " + r.dir + "/cert.pem\nssl_options.keyfile = " + r.dir + "/cert.pem\nssl_options.cacertfile = " + r.dir + "/ca.pem\n" +
			"ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\nssl_cert_login_from = common_name\n" +
			"auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\n" +
			"default_user = brasa\ndefault_pass = s3cret\nlog.console = false\n",
		"plugins":  "[rabbitmq_auth_mechanism_ssl].\n",
		"ca.pem":   r.ca,
		"cert.pem": r.authority.issue("broker"),
	} {
		if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mapperPort := freePort(t)
	r.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + r.dir, "LANG=C.UTF-8", "ERL_EPMD_ADDRESS=127.0.0.1", "ERL_EPMD_PORT=" + mapperPort,
		"RABBITMQ_NODENAME=brasa" + r.port + "@localhost", "RABBITMQ_DIST_PORT=" + freePort(t), "RABBITMQ_MNESIA_BASE=" + r.dir + "/mnesia",
		"RABBITMQ_LOG_BASE=" + r.dir, "RABBITMQ_LOGS=" + r.dir + "/log", "RABBITMQ_CONFIG_FILE=" + r.dir + "/rabbitmq",
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + r.dir + "/plugins", "RABBITMQ_CONF_ENV_FILE=/dev/null", "RABBITMQ_PID_FILE=" + r.dir + "/pid", "RABBITMQ_ALLOW_INPUT=1",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +S 2",
	}
	r.mapper = start(t, 0, 0, r.dir, "epmd", "-port", mapperPort, "-address", "127.0.0.1")
	t.Cleanup(r.mapper.kill)
	r.again(t)
	t.Cleanup(func() { r.kill() })
	return r
}

// again starts it anew.
func (r *rabbit) again(t testing.TB) {
	t.Helper()
	begun := time.Now()
	p := &process{cmd: exec.Command(rabbitProgram), done: make(chan struct{})}
	p.cmd.Dir, p.cmd.Env, p.cmd.SysProcAttr = r.dir, r.env, &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	// It ends when its input does, and so with the tests, however they end.
	if _, err := p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // it is killed
	}()
	r.process = p
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) { // it takes seconds on an idle machine
		c, err := net.Dial("tcp", "127.0.0.1:"+r.port)
		if err == nil {
			c.Close()
			break
		}
		select {
		case <-r.done:
			t.Fatalf("RabbitMQ has ended: %s", r.out.String())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("RabbitMQ does not answer: %s", r.out.String())
		}
	}
	t.Logf("RabbitMQ was there after %s", time.Since(begun).Round(10*time.Millisecond))
}

// kill ends it and all that it started, at once.
func (r *rabbit) kill() {
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) // or it is dead already
	<-r.done
}

// config is a trigger's, of a queue.
func (r *rabbit) config(queue string, more ...any) map[string]any {
	c := map[string]any{"url": "amqp://127.0.0.1:" + r.port, "secret": "LOGIN", "queue": queue}
	for i := 0; i+1 < len(more); i += 2 {
		c[more[i].(string)] = more[i+1]
	}
	return c
}

// amqpClient is a channel to a broker.
func amqpClient(t testing.TB, r *rabbit) *amqp.Channel {
	t.Helper()
	var conn *amqp.Connection
	var err error
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // it may listen before it lets anybody in
		if conn, err = amqp.Dial("amqp://brasa:s3cret@127.0.0.1:" + r.port); err == nil || time.Now().After(end) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	return ch
}

// queue makes one that outlives the broker's process.
func queue(t testing.TB, ch *amqp.Channel, name string, args amqp.Table) {
	t.Helper()
	if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
		t.Fatal(err)
	}
}

// put publishes a message that is on the broker's disk when it returns.
func put(t testing.TB, ch *amqp.Channel, exchange, key string, p amqp.Publishing) {
	t.Helper()
	p.DeliveryMode = amqp.Persistent
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := ch.PublishWithDeferredConfirmWithContext(ctx, exchange, key, false, false, p)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := c.WaitContext(ctx); err != nil || !ok {
		t.Fatalf("the broker did not take a message: %v", err)
	}
}

// depth is how many messages of a queue are with nobody, and how many read it.
func depth(t testing.TB, ch *amqp.Channel, name string) (messages, consumers int) {
	t.Helper()
	q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return q.Messages, q.Consumers
}

func amqpHouse(t testing.TB) *triggertest.House {
	t.Helper()
	h := triggertest.Open(t, brokers.Kinds()...)
	h.Secret("LOGIN", "brasa:s3cret")
	return h
}

// amqpRead waits until a queue is read.
func amqpRead(t testing.TB, ch *amqp.Channel, queue string, by int) {
	t.Helper()
	triggertest.Until(t, fmt.Sprintf("the queue %s is read by %d", queue, by), func() bool {
		_, n := depth(t, ch, queue)
		return n == by
	})
}

// patiently waits for what a broker does that has just begun, and may be slow at first.
func patiently(t testing.TB, h *triggertest.House, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it did not come to be: %s; the trigger says %+v", what, h.Manager.Status(catalog.DefaultNamespace, "t"))
		}
	}
}
