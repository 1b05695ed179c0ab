package brokers_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// kafkaServer is a broker of Apache Kafka itself, in a process of its own. Its listeners are on
// loopback: one for anybody, who may do all; one with SASL; one with TLS; and two of which
// the cluster tells addresses where nobody is. Where that can't be had, it is the client library's broker, which
// has the first listener alone.
type kafkaServer struct {
	t       testing.TB
	dir     string
	java    string
	class   string
	missing string         // why it is not Kafka's own broker
	fake    *kfake.Cluster // instead
	ca      []byte         // signed the broker's certificate

	open, sasl, tls, far, shut string // addresses

	process *exec.Cmd
	alive   io.Closer // its end ends the process
	log     bytes.Buffer
}

const (
	kafkaVersion  = "4.4.0"
	kafkaPassword = "s3cret-pass"
)

// startKafka starts a broker that lives as long as the test.
func startKafka(t testing.TB) *kafkaServer {
	t.Helper()
	s := &kafkaServer{t: t, dir: t.TempDir()}
	ports := freePorts(t, 6)
	at := func(i int) string { return "127.0.0.1:" + strconv.Itoa(ports[i]) }
	s.open, s.sasl, s.tls, s.far, s.shut = at(0), at(1), at(2), at(3), at(5)
	t.Cleanup(s.kill)
	if s.java, s.missing = findJava(); s.missing == "" {
		s.class, s.missing = kafkaClasses(t)
	}
	if os.Getenv("BRASA_TEST_KAFKA") == "fake" {
		s.missing = "BRASA_TEST_KAFKA asks for the client library's broker"
	}
	if s.missing != "" {
		s.start()
		return s
	}
	cert, key, ca := certificate(t)
	s.ca = ca
	inline := func(b []byte) string { return strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", "\\n") }
	module := "org.apache.kafka.common.security."
	properties := strings.Join([]string{
		"process.roles=broker,controller", "node.id=1", "controller.quorum.voters=1@" + at(4), "controller.listener.names=CONTROLLER",
		"listeners=OPEN://" + s.open + ",AUTH://" + s.sasl + ",SECURE://" + s.tls + ",FAR://" + s.far + ",SHUT://" + s.shut + ",CONTROLLER://" + at(4),
		"advertised.listeners=OPEN://" + s.open + ",AUTH://" + s.sasl + ",SECURE://" + s.tls + ",FAR://127.0.0.1:1,SHUT://127.0.0.1:2",
		"listener.security.protocol.map=OPEN:PLAINTEXT,AUTH:SASL_PLAINTEXT,SECURE:SSL,FAR:PLAINTEXT,SHUT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"inter.broker.listener.name=OPEN", "log.dirs=" + filepath.Join(s.dir, "data"),
		"auto.create.topics.enable=false", "message.max.bytes=33554432", "log.retention.hours=-1",
		"offsets.topic.num.partitions=1", "offsets.topic.replication.factor=1", "transaction.state.log.num.partitions=1",
		"transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1", "share.coordinator.state.topic.replication.factor=1",
		"group.initial.rebalance.delay.ms=0", "broker.session.timeout.ms=3000", "broker.heartbeat.interval.ms=500", "num.network.threads=1", "num.io.threads=2", "log.cleaner.dedupe.buffer.size=2097152",
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users=User:ANONYMOUS;User:ada",
		"sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		"listener.name.auth.plain.sasl.jaas.config=" + module + "plain.PlainLoginModule required user_ada=\"" + kafkaPassword + "\" user_bob=\"" + kafkaPassword + "\";",
		"listener.name.auth.scram-sha-256.sasl.jaas.config=" + module + "scram.ScramLoginModule required;",
		"listener.name.auth.scram-sha-512.sasl.jaas.config=" + module + "scram.ScramLoginModule required;",
		"listener.name.secure.ssl.keystore.type=PEM", "listener.name.secure.ssl.keystore.certificate.chain=" + inline(cert), "listener.name.secure.ssl.keystore.key=" + inline(key),
		"listener.name.secure.ssl.client.auth=none", "",
	}, "\n")
	if err := os.WriteFile(filepath.Join(s.dir, "server.properties"), []byte(properties), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append(s.flags(), "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", filepath.Join(s.dir, "server.properties"))
	for _, m := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
		args = append(args, "--add-scram", m+"=[name=ada,password="+kafkaPassword+"]")
	}
	if out, err := exec.Command(s.java, args...).CombinedOutput(); err != nil {
		t.Fatalf("format the broker's storage: %v\n%s", err, out)
	}
	s.start()
	return s
}

func (s *kafkaServer) flags() []string {
	return []string{"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp", s.class}
}

// start runs the broker, and waits until it answers.
func (s *kafkaServer) start() {
	s.t.Helper()
	if s.missing != "" {
		_, port, _ := net.SplitHostPort(s.open)
		n, _ := strconv.Atoi(port) // it was made of a number
		var err error
		s.fake, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(n), kfake.DataDir(s.dir), kfake.SyncWrites(),
			kfake.BrokerConfigs(map[string]string{"message.max.bytes": "104857600", "group.initial.rebalance.delay.ms": "0"}))
		if err != nil {
			s.t.Fatal(err)
		}
		return
	}
	begun := time.Now()
	// The shell ends the broker when the test's own process is gone, however it went.
	s.process = exec.Command("sh", append([]string{"-c", `"$@" </dev/null & p=$!; read -r _; kill -9 $p; wait $p`, "sh", s.java},
		append(s.flags(), "kafka.Kafka", filepath.Join(s.dir, "server.properties"))...)...)
	s.process.Stdout, s.process.Stderr = &s.log, &s.log
	alive, err := s.process.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.alive = alive
	adm := s.admin()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := adm.ListTopics(ctx)
		cancel()
		if err == nil {
			s.t.Logf("the broker answers after %v", time.Since(begun).Round(10*time.Millisecond))
			return
		}
		if time.Since(begun) > 2*time.Minute { // it shares the machine with other tests
			s.kill()
			s.t.Fatalf("the broker does not answer: %v\n%s", err, s.log.String())
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// kill ends the broker as a power cut would.
func (s *kafkaServer) kill() {
	if s.fake != nil {
		s.fake.Close()
		s.fake = nil
	}
	if s.alive != nil {
		s.alive.Close()
		_ = s.process.Wait() // it was killed
		s.alive = nil
	}
}

// admin returns a client that lives as long as the test.
func (s *kafkaServer) admin() *kadm.Client { return kadm.NewClient(kafkaClient(s.t, s.open)) }

func kafkaClient(t testing.TB, address string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(address), kgo.MetadataMinAge(10 * time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// findJava returns a Java of 17 or later, or why there is none.
func findJava() (path, missing string) {
	all, _ := filepath.Glob("/usr/lib/jvm/*/bin/java")
	if home := os.Getenv("JAVA_HOME"); home != "" {
		all = append(all, filepath.Join(home, "bin", "java"))
	}
	if p, err := exec.LookPath("java"); err == nil {
		all = append([]string{p}, all...)
	}
	version := regexp.MustCompile(`version "(\d+)`)
	for _, p := range all {
		out, err := exec.Command(p, "-version").CombinedOutput()
		if m := version.FindSubmatch(out); err == nil && m != nil {
			if n, err := strconv.Atoi(string(m[1])); err == nil && n >= 17 {
				return p, ""
			}
		}
	}
	return "", "there is no Java of 17 or later here"
}

// kafkaClasses fetches the broker with Maven, once, and returns its class path, or why there is none.
func kafkaClasses(t testing.TB) (class, missing string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(cache, "brasa-test", "kafka-"+kafkaVersion+".classpath")
	if b, err := os.ReadFile(list); err == nil && len(b) > 0 && !slices.ContainsFunc(filepath.SplitList(string(b)), isGone) {
		return string(b), ""
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		return "", "there is no Maven here to fetch it"
	}
	dir := t.TempDir()
	pom := `<project><modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>test</artifactId><version>1</version><dependencies>` +
		`<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>` + kafkaVersion + `</version></dependency></dependencies></project>`
	if err := os.WriteFile(filepath.Join(dir, "pom.xml"), []byte(pom), 0o600); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(dir, "classpath")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "mvn", "-q", "-B", "dependency:build-classpath", "-DincludeScope=runtime", "-Dmdep.outputFile="+made)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Sprintf("Maven cannot fetch it: %v\n%s", err, out)
	}
	b, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.TrimSpace(b)
	next := fmt.Sprintf("%s.%d", list, os.Getpid())
	err = os.MkdirAll(filepath.Dir(list), 0o700)
	if err == nil {
		err = os.WriteFile(next, b, 0o600)
	}
	if err == nil {
		err = os.Rename(next, list)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b), ""
}

func isGone(file string) bool {
	_, err := os.Stat(file)
	return err != nil
}

func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// certificate makes one for 127.0.0.1 with its key, and that of who signed it.
func certificate(t testing.TB) (cert, key, ca []byte) {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "signer"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "broker"}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &signer.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, &own.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return block("CERTIFICATE", leafDER), block("PRIVATE KEY", keyDER), block("CERTIFICATE", rootDER)
}
