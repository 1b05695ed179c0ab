package install

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // what the format of Java's key stores has
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf16"

	"github.com/brasa-dev/brasa/internal/faas"
)

var (
	mavenAbsent   = regexp.MustCompile(`(?:Could not find artifact|The following artifacts could not be resolved:|was not found in \S+ during|Failure to find) ?([\w.-]+:[\w.-]+(?::[\w.-]+)*:[\w.+-]+)?`)
	mavenArtifact = regexp.MustCompile(`(?:Could not find artifact|Failure to find|artifacts could not be resolved:|Could not transfer artifact) ([\w.-]+):([\w.-]+):(?:[\w.-]+:)*([\w.+-]+)`)
	mavenSum      = regexp.MustCompile(`(?:Could not (?:find|transfer) artifact|Failed to read artifact descriptor for) ([\w.-]+):([\w.-]+):(?:[\w.-]+:)*([\w.+-]+)[^\n]*Checksum validation failed`)
	mavenMend     = regexp.MustCompile(`(?m)^brasa: (.+)$`)
	mavenLogin    = regexp.MustCompile(`(?i)(?:status code: |authentication failed[^\n]*|status: )(?:401|403|407)|authorization failed[^\n]*`)
	mavenNoParent = regexp.MustCompile(`Non-resolvable parent POM[^\n]*?(?:Could not find artifact|Failure to find) ([\w.-]+:[\w.-]+:pom:[\w.+-]+)[^\n]*`)
	mavenNoNumber = regexp.MustCompile(`'dependencies\.dependency\.version' for ([\w.-]+:[\w.-]+):\w+ is missing`)
	mavenMalForm  = regexp.MustCompile(`(?:Non-parseable POM|Malformed POM|The project [^\n]* has \d+ errors?)[^\n]*\n?(?:\[?ERROR\]?\s+)?([^\n]*)`)
)

// Explain knows what Maven writes.
func (m *maven) Explain(_ *Manifest, output string) *faas.Error {
	if x := mavenSum.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "%s:%s %s has another hash than its registry says", x[1], x[2], x[3]).
			WithFix("try again; if it stays, the registry or the mirror is damaged")
	}
	if x := mavenMend.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "%s", x[1]).
			WithFix("write what pom.xml has of its parent into it: the dependencies, their versions and the repositories; or build a jar where the code lies")
	}
	if x := mavenLogin.FindString(output); x != "" {
		return faas.Errorf(faas.Unavailable, op, "the registry demands a name and a password: %s", clip(x, 120)).
			WithFix("name them with the keys registries.maven.user and registries.maven.password")
	}
	if x := mavenNoParent.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "there is no parent %s of pom.xml in the registry", x[1]).
			WithFix("write its dependencies and versions into pom.xml; a parent that lies beside the code is not seen")
	}
	if x := mavenNoNumber.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "pom.xml names no version of %s", x[1]).WithFix("add <version>, or a <dependencyManagement> that has it")
	}
	if mavenAbsent.MatchString(output) && !unreachableRegistry.MatchString(output) {
		if x := mavenArtifact.FindStringSubmatch(output); x != nil {
			return faas.Errorf(faas.Invalid, op, "there is no %s:%s in version %s", x[1], x[2], x[3]).
				WithFix("mend its version in pom.xml; https://central.sonatype.com/artifact/%s/%s lists those that there are", x[1], x[2])
		}
	}
	if x := mavenMalForm.FindStringSubmatch(output); x != nil {
		return faas.Errorf(faas.Invalid, op, "pom.xml: %s", clip(strings.TrimSpace(x[1]), 240)).WithFix("mend it: mvn validate, where the code lies")
	}
	return nil
}

// unreachableRegistry is how Maven says that there was no answer, which is also told of an artifact.
var unreachableRegistry = regexp.MustCompile(`Could not transfer artifact|Unknown host|Connect(?:ion)? to \S+ (?:refused|failed|timed)|Temporary failure|PKIX path`)

// keyStorePassword is no secret: it is what everybody uses for certificates that are public.
const keyStorePassword = "changeit"

// keyStore makes of certificates in PEM a key store of Java's oldest kind, the only one that it
// reads everywhere and that is made without it. Times in it are fixed.
func keyStore(bundle []byte) []byte {
	var certs [][]byte
	for rest := bundle; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type == "CERTIFICATE" || b.Type == "TRUSTED CERTIFICATE" {
			certs = append(certs, b.Bytes)
		}
	}
	var out bytes.Buffer
	u32 := func(n int) { _ = binary.Write(&out, binary.BigEndian, uint32(n)) } //nolint:gosec // lengths of certificates
	text := func(s string) {
		_ = binary.Write(&out, binary.BigEndian, uint16(len(s))) //nolint:gosec // of names that are made here
		out.WriteString(s)
	}
	u32(0xFEEDFEED)
	u32(2) // version
	u32(len(certs))
	for i, c := range certs {
		u32(2) // a certificate that is trusted
		text(fmt.Sprintf("ca%d", i))
		u32(0)
		u32(0) // the time
		text("X.509")
		u32(len(c))
		out.Write(c)
	}
	sum := sha1.New() //nolint:gosec // see above
	for _, u := range utf16.Encode([]rune(keyStorePassword)) {
		_ = binary.Write(sum, binary.BigEndian, u)
	}
	sum.Write([]byte("Mighty Aphrodite"))
	sum.Write(out.Bytes())
	out.Write(sum.Sum(nil))
	return out.Bytes()
}
