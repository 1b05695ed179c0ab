package journal

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/brasa-dev/brasa/internal/faas"
)

// appendRecord appends the JSON of an activation without its logs. It is written by hand because
// each call pays for it: a quarter of the time of encoding/json.
func appendRecord(b []byte, a *faas.Activation) []byte {
	text := func(name, value string) {
		b = appendString(append(b, name...), value)
	}
	may := func(name, value string) {
		if value != "" {
			text(name, value)
		}
	}
	number := func(name string, value int64) {
		b = strconv.AppendInt(append(b, name...), value, 10)
	}
	text(`{"id":`, string(a.ID))
	may(`,"cause":`, string(a.Cause))
	text(`,"namespace":`, a.Namespace)
	text(`,"function":`, a.Function)
	text(`,"revision":`, string(a.Revision))
	text(`,"runtime":`, a.Runtime)
	text(`,"kind":`, string(a.Kind))
	may(`,"subject":`, a.Subject)
	text(`,"outcome":`, a.Outcome.String())
	may(`,"fault":`, a.Fault)
	may(`,"error":`, a.Error)
	may(`,"trace":`, a.Trace)
	if len(a.Steps) > 0 {
		packed, _ := json.Marshal(a.Steps) // text and numbers always marshal
		b = append(append(b, `,"steps":`...), packed...)
	}
	if len(a.Note) > 0 && json.Valid(a.Note) {
		b = append(append(b, `,"note":`...), a.Note...)
	}
	if a.Attempt != 0 {
		number(`,"attempt":`, int64(a.Attempt))
	}
	if a.Interim {
		b = append(b, `,"interim":true`...)
	}
	if a.Answer != nil {
		packed, _ := json.Marshal(a.Answer) // text and bytes always marshal
		b = append(append(b, `,"answer":`...), packed...)
	}
	if a.Status != 0 {
		number(`,"status":`, int64(a.Status))
	}
	may(`,"start":`, string(a.Start))
	may(`,"node":`, a.Node)
	may(`,"instance":`, a.Instance)
	b = a.Timing.Begin.AppendFormat(append(b, `,"timing":{"begin":"`...), time.RFC3339Nano)
	number(`","total_us":`, a.Timing.Total.Microseconds())
	b = append(b, `,"phases":[`...)
	for i, p := range a.Timing.Phases() {
		if i > 0 {
			b = append(b, ',')
		}
		text(`{"name":`, p.Name)
		number(`,"us":`, p.US)
		number(`,"cpu_us":`, p.CPU)
		b = append(b, '}')
	}
	b = append(b, `]}`...)
	for i, t := range a.Code {
		text(map[bool]string{true: `,"code":[{"target":`, false: `,{"target":`}[i == 0], t.Target)
		text(`,"digest":`, string(t.Digest))
		number(`,"bytes":`, int64(t.Bytes))
		text(`,"from":`, string(t.From))
		number(`,"us":`, t.US)
		b = append(b, '}')
	}
	if len(a.Code) > 0 {
		b = append(b, ']')
	}
	number(`,"memory_peak_bytes":`, int64(a.Memory))
	number(`,"cpu_us":`, a.CPUMicros)
	number(`,"request_bytes":`, int64(a.Request))
	number(`,"response_bytes":`, int64(a.Response))
	if a.LogTruncated {
		b = append(b, `,"log_truncated":true`...)
	}
	return append(b, '}')
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
