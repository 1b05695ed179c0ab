package brokers_test

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/brasa-dev/brasa/internal/catalog"
	"github.com/brasa-dev/brasa/internal/trigger"
	"github.com/brasa-dev/brasa/internal/trigger/triggertest"
)

// Every error says what to mend, and none tells a password.
func kafkaRefusals(t *testing.T, s *kafkaServer) {
	var w wire
	var l logged
	w.deny = "127.0.0.1:2"
	h := s.beside(t, func(o *trigger.Outside) { w.through(o); l.into(o) })
	topic := h.topic(1)
	acl := kadm.NewACLs().Allow("User:bob").AllowHosts("*").ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpRead, kadm.OpDescribe).Topics(topic)
	if _, err := h.adm.CreateACLs(t.Context(), acl); err != nil {
		t.Fatal(err)
	}
	// A program that shares partitions in another way is in a group.
	other := kafkaClient(t, s.open, kgo.ConsumerGroup("others"), kgo.ConsumeTopics(topic), kgo.Balancers(kgo.RangeBalancer()))
	triggertest.Until(t, "another program in the group", func() bool { _, generation := other.GroupMetadata(); return generation >= 0 })
	for name, value := range map[string]string{"ADA": "ada:" + kafkaPassword, "BOB": "bob:" + kafkaPassword, "WRONG": "ada:wr0ng-pass", "ODD": "n0-colon"} {
		h.Secret(name, value)
	}
	nobody := "127.0.0.1:1"
	cases := map[string]struct {
		config map[string]any
		want   string
	}{
		"topic":    {h.config("nothing-here"), "mend the field topic"},
		"password": {h.config(topic, "brokers", s.sasl, "secret", "WRONG"), `the secret "WRONG"`},
		"plain":    {h.config(topic, "brokers", s.sasl, "secret", "WRONG", "sasl", "plain"), `the secret "WRONG"`},
		"odd":      {h.config(topic, "brokers", s.sasl, "secret", "ODD"), `the secret "ODD" is not USER:PASSWORD`},
		"stranger": {h.config(topic, "brokers", s.sasl), "name in secret"},
		"unlet":    {h.config("nothing-here", "brokers", s.sasl, "secret", "BOB", "sasl", "plain"), "let this user read the topics"},
		"ungroup":  {h.config(topic, "brokers", s.sasl, "secret", "BOB", "sasl", "plain"), "let this user read the group"},
		"unnew":    {h.config(topic, "brokers", s.sasl, "secret", "BOB", "sasl", "plain", "from", "new"), "let this user read the group"},
		"notls":    {h.config(topic, "brokers", s.tls), "set tls"},
		"tls":      {h.config(topic, "tls", true), "tls"},
		"ca":       {h.config(topic, "brokers", s.tls, "tls", true), "give in ca"},
		"otherca":  {h.config(topic, "brokers", s.tls, "tls", true, "ca", otherCA(t)), "that of ca has not signed"},
		"nobody":   {h.config(topic, "brokers", nobody), "mend brokers"},
		"far":      {h.config(topic, "brokers", s.far), "advertised.listeners"},
		"farnew":   {h.config(topic, "brokers", s.far, "from", "new"), "advertised.listeners"},
		"denied":   {h.config(topic, "brokers", w.deny), "triggers.allow"},
		"shut":     {h.config(topic, "brokers", s.shut), "triggers.allow"},
		"group":    {h.config(topic, "group", "others"), "set group"},
	}
	h.Run()
	for name, c := range cases {
		h.House.Trigger(name, "kafka", c.config, "ADA", "BOB", "WRONG", "ODD")
	}
	begun := time.Now()
	for name, c := range cases {
		status := func() trigger.Status { return h.Manager.Status(catalog.DefaultNamespace, name) }
		for end := time.Now().Add(8 * time.Second); !strings.Contains(status().Error, c.want); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Errorf("%s says %q; want %q", name, status().Error, c.want)
				break
			}
		}
		t.Logf("%v %s: %s", time.Since(begun).Round(time.Millisecond), name, status().Error)
	}
	if n := len(h.Node.Calls()); n != 0 {
		t.Errorf("%d calls", n)
	}
	all := l.String()
	for name := range cases {
		all += h.Manager.Status(catalog.DefaultNamespace, name).Error
	}
	for _, secret := range []string{kafkaPassword, "wr0ng-pass", "n0-colon"} {
		if strings.Contains(all, secret) {
			t.Errorf("an error or the log tells the password %q", secret)
		}
	}
}

func otherCA(t testing.TB) string {
	_, _, ca := certificate(t)
	return string(ca)
}

func kafkaSecrets(t *testing.T, s *kafkaServer) {
	h := s.beside(t, nil)
	topic := h.topic(1)
	h.send(numbers(topic, 0, 0, 1)...)
	h.Secret("ADA", "ada:"+kafkaPassword+"\n")
	h.Run()
	for name, config := range map[string]map[string]any{
		"plain":    h.config(topic, "brokers", s.sasl, "secret", "ADA", "sasl", "plain"),
		"scram256": h.config(topic, "brokers", s.sasl, "secret", "ADA", "sasl", "scram-sha-256"),
		"scram512": h.config(topic, "brokers", s.sasl, "secret", "ADA", "sasl", "scram-sha-512"),
		"any":      h.config(topic, "brokers", s.sasl, "secret", "ADA"),
		"tls":      h.config(topic, "brokers", s.tls, "tls", true, "ca", string(s.ca)),
	} {
		h.House.Trigger(name, "kafka", config, "ADA")
		triggertest.Until(t, name+" tells: "+h.Manager.Status(catalog.DefaultNamespace, name).Error, func() bool {
			return h.Manager.Status(catalog.DefaultNamespace, name).Events == 1
		})
	}
}
