package wasm

import "encoding/binary"

// asm puts a module together from its parts, whose instructions are written by their codes.
type asm struct {
	types   [][]byte
	imports [][]byte
	funcs   []asmFunc
	memory  []byte // limits; nil: none
	tables  [][]byte
	globals [][]byte
	exports [][]byte
	start   int // function, or -1
	elems   [][]byte
	data    [][]byte
	custom  [][]byte // whole sections' contents
}

type asmFunc struct {
	typ    int
	locals []byte // groups: count, type
	groups int
	code   []byte
}

func newAsm() *asm { return &asm{start: -1} }

const i32t, i64t = 0x7f, 0x7e

func join(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// typ adds a type and returns its index.
func (a *asm) typ(params, results []byte) int {
	t := append([]byte{0x60, byte(len(params))}, params...)
	t = append(append(t, byte(len(results))), results...)
	for i, have := range a.types {
		if string(have) == string(t) {
			return i
		}
	}
	a.types = append(a.types, t)
	return len(a.types) - 1
}

// wasi imports a function of so many i32 that returns one, and returns its index.
func (a *asm) wasi(name string, params ...byte) int {
	results := []byte{i32t}
	if name == "proc_exit" {
		results = nil
	}
	return a.imp(wasiModule, name, a.typ(params, results))
}

func (a *asm) imp(module, name string, typ int) int {
	a.imports = append(a.imports, appendU32(append(appendName(appendName(nil, module), name), 0), uint32(typ)))
	return len(a.imports) - 1
}

// fn adds a function and returns its index; all imports come before.
func (a *asm) fn(params, results []byte, locals int, code ...[]byte) int {
	f := asmFunc{typ: a.typ(params, results), code: append(join(code...), 0x0b)}
	if locals > 0 {
		f.groups, f.locals = 1, append(appendU32(nil, uint32(locals)), i32t)
	}
	a.funcs = append(a.funcs, f)
	return len(a.imports) + len(a.funcs) - 1
}

func (a *asm) export(name string, kind byte, index int) {
	a.exports = append(a.exports, appendU32(append(appendName(nil, name), kind), uint32(index)))
}

// mem gives it a memory of so many pages, exported.
func (a *asm) mem(pages uint32) {
	a.memory = appendU32([]byte{0}, pages)
	a.export("memory", 2, 0)
}

// put places bytes in the memory.
func (a *asm) put(at int32, b string) {
	a.data = append(a.data, appendName(append(append([]byte{0}, i32c(at)...), 0x0b), b))
}

// global adds a mutable i32.
func (a *asm) global(v int32) int {
	a.globals = append(a.globals, append(append([]byte{i32t, 1}, i32c(v)...), 0x0b))
	return len(a.globals) - 1
}

func vec(parts [][]byte) []byte { return append(appendU32(nil, uint32(len(parts))), join(parts...)...) }

func (a *asm) bytes() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	add := func(id byte, parts [][]byte) {
		if len(parts) > 0 {
			out = appendSection(out, id, vec(parts))
		}
	}
	add(1, a.types)
	add(2, a.imports)
	var types, bodies [][]byte
	for _, f := range a.funcs {
		types = append(types, appendU32(nil, uint32(f.typ)))
		body := append(append([]byte{byte(f.groups)}, f.locals...), f.code...)
		bodies = append(bodies, append(appendU32(nil, uint32(len(body))), body...))
	}
	add(3, types)
	add(4, a.tables)
	if a.memory != nil {
		add(5, [][]byte{a.memory})
	}
	add(6, a.globals)
	add(7, a.exports)
	if a.start >= 0 {
		out = appendSection(out, 8, appendU32(nil, uint32(a.start)))
	}
	add(9, a.elems)
	add(10, bodies)
	add(11, a.data)
	for _, c := range a.custom {
		out = appendSection(out, 0, c)
	}
	return out
}

// Instructions.

func i32c(v int32) []byte        { return appendS32([]byte{0x41}, v) }
func callf(f int) []byte         { return appendU32([]byte{0x10}, uint32(f)) }
func lget(i int) []byte          { return appendU32([]byte{0x20}, uint32(i)) }
func lset(i int) []byte          { return appendU32([]byte{0x21}, uint32(i)) }
func gget(i int) []byte          { return appendU32([]byte{0x23}, uint32(i)) }
func gset(i int) []byte          { return appendU32([]byte{0x24}, uint32(i)) }
func ops(codes ...byte) []byte   { return codes }
func load32(at int32) []byte     { return join(i32c(at), []byte{0x28, 2, 0}) }
func forever(c ...[]byte) []byte { return join([]byte{0x03, 0x40}, join(c...), []byte{0x0c, 0, 0x0b}) }

const (
	opDrop, opAdd, opUnreachable = 0x1a, 0x6a, 0x00
	opStore32                    = 0x36 // with 2, 0
)

func store32(at int32, value []byte) []byte { return join(i32c(at), value, []byte{opStore32, 2, 0}) }

// iovec is where a list of one stretch of memory lies, for fd_read and fd_write.
func iovec(at, length uint32) string {
	return string(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, at), length))
}

// write emits fd_write of a stretch whose iovec is put at place.
func write(fdWrite int, fd, place int32) []byte {
	return join(i32c(fd), i32c(place), i32c(1), i32c(place+8), callf(fdWrite), ops(opDrop))
}

// tiny is a command that answers "hi".
func tiny() []byte {
	a := newAsm()
	w := a.wasi("fd_write", i32t, i32t, i32t, i32t)
	main := a.fn(nil, nil, 0, write(w, 1, 0))
	a.mem(1)
	a.export("_start", 0, main)
	a.put(0, iovec(16, 2))
	a.put(16, "hi")
	return a.bytes()
}
