package brokers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/brasa-dev/brasa/internal/faas"
	"github.com/brasa-dev/brasa/internal/trigger"
)

// isCut says whether a part of an entry was too large to be read.
func isCut(m redis.XMessage) bool {
	for name, value := range m.Values {
		if name == redisCut || value == redisCut {
			return true
		}
	}
	return false
}

// eventOf is an entry as an event; an error says why it can't be one.
func (c *redisConfig) eventOf(m redis.XMessage) (faas.Event, error) {
	e := faas.Event{ID: c.Stream + "/" + m.ID, Source: c.URL, Type: "brasa.redis.entry", Subject: c.Stream}
	if ms, err := strconv.ParseInt(strings.SplitN(m.ID, "-", 2)[0], 10, 64); err == nil {
		e.Time = time.UnixMilli(ms)
	}
	if isCut(m) {
		return e, fmt.Errorf("it is larger than %s", trigger.MaxData)
	}
	if c.Field != "" {
		value, ok := m.Values[c.Field].(string)
		if !ok {
			return e, fmt.Errorf("it has no field %q, which the trigger's field names", c.Field)
		}
		e.Data = []byte(value)
		e.ContentType = contentTypeOf(e.Data)
	} else {
		fields := map[string]any{}
		for name, value := range m.Values {
			fields[name] = trigger.TextOrBytes(fmt.Sprint(value))
		}
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(fields); err != nil {
			return e, err
		}
		e.Data = bytes.TrimSpace(b.Bytes())
	}
	if len(e.Data) > int(trigger.MaxData) {
		return e, fmt.Errorf("it has %s as an event, and %s is the most", faas.Bytes(len(e.Data)), trigger.MaxData)
	}
	return e, nil
}
