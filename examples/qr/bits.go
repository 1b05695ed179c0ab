package qr

import "strings"

const alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"

// mode is how a text is written: as digits, as the 45 characters of alphanumeric, or as bytes.
type mode int

const (
	modeDigits mode = iota
	modeAlphanumeric
	modeBytes
)

func modeOf(text string) mode {
	m := modeDigits
	for _, r := range text {
		switch {
		case r >= '0' && r <= '9':
		case strings.ContainsRune(alphanumeric, r):
			m = max(m, modeAlphanumeric)
		default:
			return modeBytes
		}
	}
	return m
}

func (m mode) indicator() int { return [...]int{1, 2, 4}[m] }

// countBits is the width of the length field.
func (m mode) countBits(version int) int {
	widths := [...][3]int{{10, 12, 14}, {9, 11, 13}, {8, 16, 16}}[m]
	return widths[(version+7)/17]
}

// bits is how many bits a text takes in a version.
func (m mode) bits(text string, version int) int {
	n := len(text)
	if n >= 1<<m.countBits(version) {
		return 1 << 30
	}
	head := 4 + m.countBits(version)
	switch m {
	case modeDigits:
		return head + n/3*10 + [...]int{0, 4, 7}[n%3]
	case modeAlphanumeric:
		return head + n/2*11 + n%2*6
	}
	return head + 8*n
}

// encode writes a text into exactly size codewords.
func (m mode) encode(text string, version, size int) []byte {
	var w bitWriter
	w.write(m.indicator(), 4)
	w.write(len(text), m.countBits(version))
	switch m {
	case modeDigits:
		for i := 0; i < len(text); i += 3 {
			part, v := text[i:min(i+3, len(text))], 0
			for _, c := range []byte(part) {
				v = v*10 + int(c-'0')
			}
			w.write(v, 3*len(part)+1)
		}
	case modeAlphanumeric:
		for i := 0; i < len(text); i += 2 {
			v := strings.IndexByte(alphanumeric, text[i])
			if i+1 < len(text) {
				w.write(v*45+strings.IndexByte(alphanumeric, text[i+1]), 11)
			} else {
				w.write(v, 6)
			}
		}
	default:
		for _, c := range []byte(text) {
			w.write(int(c), 8)
		}
	}
	w.write(0, min(4, 8*size-w.n)) // terminator
	w.write(0, (8-w.n%8)%8)
	for pad := 0xec; len(w.b) < size; pad ^= 0xec ^ 0x11 {
		w.write(pad, 8)
	}
	return w.b
}

type bitWriter struct {
	b []byte
	n int
}

func (w *bitWriter) write(v, bits int) {
	for i := bits - 1; i >= 0; i-- {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v>>i&1) << (7 - w.n%8)
		w.n++
	}
}
