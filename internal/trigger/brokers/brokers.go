// Package brokers has the sources of triggers that are other programs: brokers of messages, and
// databases. Each speaks through the client library of its own field.
//
// What all have in common: an address that a tenant named is connected to with the Dial of what is
// outside, so that it is judged; a secret is named in the configuration and opened when the source
// runs; a source that loses its broker ends with an error, and the manager runs it again; a message
// is acknowledged to the broker when its functions have succeeded, or were given up and lie with the
// dead letters.
package brokers

import (
	"slices"
	"strings"

	"github.com/brasa-dev/brasa/internal/trigger"
)

// Kinds are the kinds of sources that are here.
func Kinds() []trigger.Kind {
	return []trigger.Kind{natsKind, jetStreamKind, kafkaKind, postgresKind, redisKind, amqpKind, mqttKind}
}

// checkSecret refuses a secret that the trigger does not name among its source's.
func checkSecret(o trigger.Outside, name string) error {
	if name != "" && o.Trigger != nil && !slices.Contains(o.Trigger.Source.Secrets, name) {
		return trigger.Invalid("the secret %.60q is not among the source's secrets", name)
	}
	return nil
}

// redact takes user and password from an address that is told to people.
func redact(address string) string {
	if i := strings.LastIndex(address, "@"); i >= 0 { // a password may have one too
		return "…" + address[i:]
	}
	return address
}
