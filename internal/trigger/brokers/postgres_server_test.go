package brokers_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

// postgresServer is the server of all tests. Each has a database of its own.
type postgresServer struct {
	*process
	bin, dir, port string
	uid, gid       uint32
	ca             string // the certificate of its TLS, for "localhost"
}

var (
	postgresOnce sync.Once
	postgresOne  *postgresServer
	postgresWhy  string // there is none
)

// thePostgres is the server, with the user ada and her password s3cret.
func thePostgres(t testing.TB) *postgresServer {
	t.Helper()
	postgresOnce.Do(func() {
		postgresWhy = "the server was not made by the test before"
		postgresOne, postgresWhy = makePostgres(t)
	})
	if postgresOne == nil {
		t.Skip(postgresWhy)
	}
	return postgresOne
}

func makePostgres(t testing.TB) (*postgresServer, string) {
	t.Helper()
	// Debian has them beside each other, by version, and not in the PATH.
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		t.Fatal(err)
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		found = append(found, path)
	}
	if len(found) == 0 {
		return nil, "PostgreSQL is not installed"
	}
	s := &postgresServer{bin: filepath.Dir(found[len(found)-1]), port: freePort(t)}
	if os.Getuid() == 0 { // as whom it does not run
		for _, name := range []string{"postgres", "nobody"} {
			u, err := user.Lookup(name)
			if err != nil {
				continue
			}
			uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
			gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
			if uidErr == nil && gidErr == nil {
				s.uid, s.gid = uint32(uid), uint32(gid)
				break
			}
		}
		if s.uid == 0 {
			return nil, "there is no user as whom PostgreSQL could run"
		}
	}
	s.dir, err = os.MkdirTemp("", "postgres") // which outlives the test
	if err != nil {
		t.Fatal(err)
	}
	atEnd = append(atEnd, func() {
		if s.process != nil {
			s.kill()
		}
		os.RemoveAll(s.dir)
	})
	s.write(t, "password", "s3cret\n")
	s.certificate(t)
	data := filepath.Join(s.dir, "data")
	p := start(t, s.uid, s.gid, s.dir, filepath.Join(s.bin, "initdb"), "-D", data, "-U", "ada", "--pwfile", filepath.Join(s.dir, "password"),
		"-A", "scram-sha-256", "-E", "UTF8", "--locale", "C", "--no-sync")
	<-p.done
	if !p.cmd.ProcessState.Success() {
		t.Fatalf("initdb: %s", p.out.String())
	}
	s.again(t)
	return s, ""
}

// write writes a file that only the server reads.
func (s *postgresServer) write(t testing.TB, name, text string) {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if s.uid == 0 {
		return
	}
	for _, p := range []string{path, s.dir} {
		if err := os.Chown(p, int(s.uid), int(s.gid)); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *postgresServer) certificate(t testing.TB) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	s.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	s.write(t, "cert.pem", s.ca)
	s.write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: b})))
}

// again starts it anew.
func (s *postgresServer) again(t testing.TB) {
	t.Helper()
	triggertest.Until(t, "PostgreSQL answers", func() bool {
		if s.process == nil || s.ended() { // processes of the one before may still be there
			s.process = start(t, s.uid, s.gid, s.dir, filepath.Join(s.bin, "postgres"), "-D", filepath.Join(s.dir, "data"), "-p", s.port,
				"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=40", "-c", "shared_buffers=16MB",
				"-c", "ssl=on", "-c", "ssl_cert_file="+filepath.Join(s.dir, "cert.pem"), "-c", "ssl_key_file="+filepath.Join(s.dir, "key.pem"))
		}
		conn, err := s.open("postgres")
		if err != nil {
			return false
		}
		return conn.Close(context.Background()) == nil
	})
}

func (s *postgresServer) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *postgresServer) open(database string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return pgx.Connect(ctx, fmt.Sprintf("postgres://ada:s3cret@127.0.0.1:%s/%s?sslmode=disable", s.port, database))
}

// postgresDB is a database of a test.
type postgresDB struct {
	server *postgresServer
	name   string
	t      testing.TB
}

var databases int

func newPostgresDB(t testing.TB) *postgresDB {
	t.Helper()
	s := thePostgres(t)
	databases++
	d := &postgresDB{server: s, name: "postgres", t: t}
	name := fmt.Sprintf("db%d", databases)
	d.do("CREATE DATABASE " + name)
	d.name = name
	return d
}

// do has the server do something.
func (d *postgresDB) do(sql string, args ...any) {
	d.t.Helper()
	conn, err := d.server.open(d.name)
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), sql, args...); err != nil {
		d.t.Fatal(err)
	}
}

// number asks it for one.
func (d *postgresDB) number(sql string) (n int) {
	d.t.Helper()
	conn, err := d.server.open(d.name)
	if err != nil {
		d.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(context.Background(), sql).Scan(&n); err != nil {
		d.t.Fatal(err)
	}
	return n
}

// config is a trigger's, with more keys and values.
func (d *postgresDB) config(more ...any) map[string]any {
	c := map[string]any{"url": fmt.Sprintf("postgres://127.0.0.1:%s/%s?sslmode=disable", d.server.port, d.name), "secret": "LOGIN"}
	for i := 0; i < len(more); i += 2 {
		c[more[i].(string)] = more[i+1]
	}
	return c
}
