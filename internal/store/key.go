package store

import (
	"fmt"
	"strings"
)

// A subject's parts are divided by dots, and '*', '>', ' ' mean something in it; the client's
// keys allow [-/_=.a-zA-Z0-9]. So every part of a key keeps its letters, digits, '-' and '_', and
// every other byte becomes "=" and two hexadecimal digits; slashes become dots.

const hexDigits = "0123456789abcdef"

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// EncodeKey turns a key into the form that is used in subjects: letters, digits, '-', '_', '='
// and, between parts, dots. Different keys have different forms.
func EncodeKey(key string) string {
	var b strings.Builder
	b.Grow(len(key) + 8)
	for i := 0; i < len(key); i++ {
		switch c := key[i]; {
		case plain(c):
			b.WriteByte(c)
		case c == '/':
			b.WriteByte('.')
		default:
			b.WriteByte('=')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
	}
	return b.String()
}

// EncodePart turns one part of a key into one token of a subject; unlike in EncodeKey a slash is
// a byte like any other, and the empty part has a form too.
func EncodePart(part string) string {
	if part == "" {
		return "="
	}
	return strings.ReplaceAll(EncodeKey(part), ".", "=2f")
}

// DecodeKey reads what EncodeKey wrote.
func DecodeKey(subject string) (string, error) {
	b := make([]byte, 0, len(subject))
	for i := 0; i < len(subject); i++ {
		switch c := subject[i]; {
		case plain(c):
			b = append(b, c)
		case c == '.':
			b = append(b, '/')
		case c == '=' && i+2 < len(subject):
			hi, lo := strings.IndexByte(hexDigits, subject[i+1]), strings.IndexByte(hexDigits, subject[i+2])
			if hi < 0 || lo < 0 {
				return "", fmt.Errorf("decode key %q: bad escape", subject)
			}
			b = append(b, byte(hi<<4|lo))
			i += 2
		default:
			return "", fmt.Errorf("decode key %q: byte %q", subject, c)
		}
	}
	return string(b), nil
}

// filterFor returns the narrowest subject filter that covers every key with the prefix; the rest
// is sorted out by the caller.
func filterFor(prefix string) string {
	i := strings.LastIndexByte(prefix, '/')
	if i <= 0 {
		return ">"
	}
	return EncodeKey(prefix[:i]) + ".>"
}
