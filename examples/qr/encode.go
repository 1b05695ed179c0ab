package qr

import (
	"errors"
	"math"
)

// Level says how much of a code may be unreadable.
type Level int

// Levels, by the share of the code that can be lost.
const (
	Low      Level = iota // 7 %
	Medium                // 15 %
	Quartile              // 25 %
	High                  // 30 %
)

// formatBits are the levels as the format information writes them.
var formatBits = [...]int{Low: 1, Medium: 0, Quartile: 3, High: 2}

// Table 9 of ISO/IEC 18004: error correction codewords in each block, and blocks, by level and
// version.
var (
	eccPerBlock = [4][41]int{
		{0, 7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28, 28, 28, 30, 30, 26, 28, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30},
		{0, 10, 16, 26, 18, 24, 16, 18, 22, 22, 26, 30, 22, 22, 24, 24, 28, 28, 26, 26, 26, 26, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28, 28},
		{0, 13, 22, 18, 26, 18, 24, 18, 22, 20, 24, 28, 26, 24, 20, 30, 24, 28, 28, 26, 30, 28, 30, 30, 30, 30, 28, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30},
		{0, 17, 28, 22, 16, 22, 28, 26, 26, 24, 28, 24, 28, 22, 24, 24, 30, 28, 28, 26, 28, 30, 24, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30, 30},
	}
	blockCount = [4][41]int{
		{0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8, 8, 9, 9, 10, 12, 12, 12, 13, 14, 15, 16, 17, 18, 19, 19, 20, 21, 22, 24, 25},
		{0, 1, 1, 1, 2, 2, 4, 4, 4, 5, 5, 5, 8, 9, 9, 10, 10, 11, 13, 14, 16, 17, 17, 18, 20, 21, 23, 25, 26, 28, 29, 31, 33, 35, 37, 38, 40, 43, 45, 47, 49},
		{0, 1, 1, 2, 2, 4, 4, 6, 6, 8, 8, 8, 10, 12, 16, 12, 17, 16, 18, 21, 20, 23, 23, 25, 27, 29, 34, 34, 35, 38, 40, 43, 45, 48, 51, 53, 56, 59, 62, 65, 68},
		{0, 1, 1, 2, 4, 4, 4, 5, 6, 8, 8, 11, 11, 16, 16, 18, 16, 19, 21, 25, 25, 25, 34, 30, 32, 35, 37, 40, 42, 45, 48, 51, 54, 57, 60, 63, 66, 70, 74, 77, 81},
	}
)

// errTooLong says that no version holds the text.
var errTooLong = errors.New("the text is too long for a QR code of this level")

// Code is a QR code: Size by Size modules.
type Code struct {
	Size    int
	Version int
	Mask    int
	dark    []bool
	fixed   []bool // not data: patterns and format
}

// Dark says whether the module in column x and row y is dark. Outside of the code all is light.
func (c *Code) Dark(x, y int) bool {
	return x >= 0 && y >= 0 && x < c.Size && y < c.Size && c.dark[y*c.Size+x]
}

// Encode makes the smallest code of at least the level that holds the text. If the version has
// room for a higher level, the code has that.
func Encode(text string, level Level) (*Code, error) {
	m := modeOf(text)
	version := 1
	for ; ; version++ {
		if version > 40 {
			return nil, errTooLong
		}
		if m.bits(text, version) <= 8*dataCodewords(version, level) {
			break
		}
	}
	for l := level + 1; l <= High; l++ {
		if m.bits(text, version) <= 8*dataCodewords(version, l) {
			level = l
		}
	}
	data := m.encode(text, version, dataCodewords(version, level))
	size := 17 + 4*version
	c := &Code{Size: size, Version: version, dark: make([]bool, size*size), fixed: make([]bool, size*size)}
	c.drawPatterns()
	c.drawData(interleave(data, version, level))
	c.chooseMask(level)
	return c, nil
}

// rawModules is how many modules a version has for data and error correction.
func rawModules(version int) int {
	n := (16*version+128)*version + 64
	if version >= 2 {
		align := version/7 + 2
		n -= (25*align-10)*align - 55
		if version >= 7 {
			n -= 36
		}
	}
	return n
}

func dataCodewords(version int, level Level) int {
	return rawModules(version)/8 - eccPerBlock[level][version]*blockCount[level][version]
}

// interleave splits data into blocks, adds the error correction of each and deals them out.
func interleave(data []byte, version int, level Level) []byte {
	blocks, ecc, raw := blockCount[level][version], eccPerBlock[level][version], rawModules(version)/8
	short := blocks - raw%blocks // blocks that have one codeword less
	length := raw/blocks - ecc   // data codewords of these
	divisor := generator(ecc)
	var parts, checks [][]byte
	for i, at := 0, 0; i < blocks; i++ {
		n := length
		if i >= short {
			n++
		}
		parts = append(parts, data[at:at+n])
		checks = append(checks, remainder(data[at:at+n], divisor))
		at += n
	}
	out := make([]byte, 0, raw)
	for i := range length + 1 {
		for _, p := range parts {
			if i < len(p) {
				out = append(out, p[i])
			}
		}
	}
	for i := range ecc {
		for _, c := range checks {
			out = append(out, c[i])
		}
	}
	return out
}

// generator returns the divisor of Reed-Solomon for a degree, without its leading 1.
func generator(degree int) []byte {
	g := make([]byte, degree)
	g[degree-1] = 1
	root := byte(1)
	for range degree {
		for i := range g {
			g[i] = multiply(g[i], root)
			if i+1 < degree {
				g[i] ^= g[i+1]
			}
		}
		root = multiply(root, 2)
	}
	return g
}

func remainder(data, divisor []byte) []byte {
	r := make([]byte, len(divisor))
	for _, b := range data {
		factor := b ^ r[0]
		copy(r, r[1:])
		r[len(r)-1] = 0
		for i, d := range divisor {
			r[i] ^= multiply(d, factor)
		}
	}
	return r
}

// multiply multiplies in GF(2⁸) modulo x⁸+x⁴+x³+x²+1.
func multiply(a, b byte) byte {
	var z int
	for i := 7; i >= 0; i-- {
		z = z<<1 ^ z>>7*0x11d
		z ^= int(b>>i&1) * int(a)
	}
	return byte(z)
}

// chooseMask tries the eight masks and keeps the one that is easiest to read.
func (c *Code) chooseMask(level Level) {
	best := math.MaxInt
	for mask := range 8 {
		c.applyMask(mask)
		c.drawFormat(level, mask)
		if p := c.penalty(); p < best {
			best, c.Mask = p, mask
		}
		c.applyMask(mask) // twice is not at all
	}
	c.applyMask(c.Mask)
	c.drawFormat(level, c.Mask)
}
