package java

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// class is what a class file says of itself.
type class struct {
	name    string // "pkg.Outer$Inner"
	source  string // name of the source file, without a directory; empty: not said
	flags   uint16
	methods []method
}

type method struct {
	name, descriptor string
	flags            uint16
}

// Flags of classes and methods that matter here.
const (
	accInterface = 0x0200
	accAbstract  = 0x0400
	accSynthetic = 0x1000
)

var errClass = errors.New("the class file is damaged")

// maxClass is the most that is read of a class file; javac itself makes none larger.
const maxClass = 8 << 20

// readClass reads the parts of a class file that class holds. The bytes are a stranger's.
func readClass(b []byte) (c class, err error) {
	r := &classReader{b: b}
	defer func() {
		if recover() != nil { // a read past the end; nothing else in here can panic
			err = errClass
		}
	}()
	if r.u32() != 0xCAFEBABE {
		return c, fmt.Errorf("it is no class file")
	}
	r.skip(4)
	n := int(r.u16())
	utf, names := make([]string, n), make([]uint16, n)
	for i := 1; i < n; i++ {
		switch tag := r.u8(); tag {
		case 1:
			utf[i] = string(r.take(int(r.u16())))
		case 7:
			names[i] = r.u16()
		case 8, 16, 19, 20:
			r.skip(2)
		case 15:
			r.skip(3)
		case 3, 4, 9, 10, 11, 12, 17, 18:
			r.skip(4)
		case 5, 6:
			r.skip(8)
			i++ // takes two places
		default:
			return c, errClass
		}
	}
	c.flags = r.u16()
	c.name = strings.ReplaceAll(utf[names[r.u16()]], "/", ".")
	r.skip(2)
	r.skip(2 * int(r.u16()))
	for range r.u16() { // fields
		r.skip(6)
		r.attributes(nil)
	}
	for range r.u16() {
		m := method{flags: r.u16()}
		m.name, m.descriptor = utf[r.u16()], utf[r.u16()]
		r.attributes(nil)
		c.methods = append(c.methods, m)
	}
	r.attributes(func(name uint16, b []byte) {
		if utf[name] == "SourceFile" && len(b) == 2 {
			c.source = utf[binary.BigEndian.Uint16(b)]
		}
	})
	return c, nil
}

// handler returns the first of the names that is a method which can be a handler.
func (c *class) handler(names []string) (string, bool) {
	for _, name := range names {
		for _, m := range c.methods {
			program := m.name == "main" && strings.HasPrefix(m.descriptor, "([Ljava/lang/String;)")
			if m.name == name && m.flags&(accAbstract|accSynthetic) == 0 && !program {
				return name, true
			}
		}
	}
	return "", false
}

// classReader panics when it reads past the end.
type classReader struct{ b []byte }

func (r *classReader) take(n int) []byte {
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *classReader) skip(n int)  { r.b = r.b[n:] }
func (r *classReader) u8() byte    { return r.take(1)[0] }
func (r *classReader) u16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }
func (r *classReader) u32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }

func (r *classReader) attributes(each func(name uint16, b []byte)) {
	for range r.u16() {
		name := r.u16()
		b := r.take(int(r.u32()))
		if each != nil {
			each(name, b)
		}
	}
}
