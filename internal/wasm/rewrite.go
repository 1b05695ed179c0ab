package wasm

import (
	"bytes"
	"fmt"
	"slices"
)

// Sections of a module.
const (
	secCustom, secType, secImport, secFunction, secTable, secMemory, secGlobal   = 0, 1, 2, 3, 4, 5, 6
	secExport, secStart, secElement, secCode, secData, secDataCount, lastSection = 7, 8, 9, 10, 11, 12, 12
)

// sectionOrder is the order in which sections are written.
var sectionOrder = []byte{secType, secImport, secFunction, secTable, secMemory, secGlobal, secExport, secStart, secElement, secDataCount, secCode, secData}

const (
	kindFunc, kindTable, kindMemory, kindGlobal = 0, 1, 2, 3

	// wasiModule is what a module may import from.
	wasiModule = "wasi_snapshot_preview1"
	// ourModule holds what the rewritten module calls.
	ourModule, ourCheck = "brasa", "check"

	// slice is how many loop iterations and function entries pass between two looks at whether
	// the call shall go on. One look costs about as much as a hundred of them, and even at a
	// microsecond each they come in milliseconds.
	slice = 8192
	// bulkCharge is what an instruction over a stretch of memory counts in them.
	bulkCharge = slice / 64
	// maxStack is how deep functions may call each other, in bytes of estimated frames: what a
	// program of the machine's own has for its stack.
	maxStack = 8 << 20
	// maxTable is how many entries all tables of a module may have; they lie outside its memory.
	maxTable  = 1 << 20
	maxTables = 64

	checkSlice, checkStack = 0, 1 // arguments of ourCheck
)

// Refused says why a module can't be run, and what to do about it.
type Refused struct {
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
}

func (e *Refused) Error() string { return e.Message }

func refuse(fix, format string, args ...any) error {
	return &Refused{Message: fmt.Sprintf(format, args...), Fix: fix}
}

const fixTarget = "build for WASI preview 1: GOOS=wasip1 GOARCH=wasm for Go, --target wasm32-wasip1 for Rust, --target=wasm32-wasi for C"

// checkKind says whether the bytes begin as a core module does.
func checkKind(b []byte) error {
	switch {
	case len(b) < 8 || !bytes.Equal(b[:4], []byte("\x00asm")):
		return refuse(fixTarget, "it is not a WebAssembly module: it does not begin with \\0asm")
	case b[6] == 1 && b[7] == 0:
		return refuse("build for wasm32-wasip1 instead of wasm32-wasip2, or take the core module out of the component",
			"it is a WebAssembly component, as WASI 0.2 has them; modules of WASI preview 1 are run here")
	case !bytes.Equal(b[4:8], []byte{1, 0, 0, 0}):
		return refuse(fixTarget, "it is of WebAssembly's version %d; version 1 is run here", uint32(b[4])|uint32(b[5])<<8)
	}
	return nil
}

// module is what is known of a module before it is compiled.
type module struct {
	section   [lastSection + 1][]byte
	has       [lastSection + 1]bool
	names     []byte // the name section
	types     uint32
	imports   uint32 // functions that are imported
	functions uint32 // imported and own
	globals   uint32
	minPages  uint32 // that the memory begins with
	dataBytes int    // that every new instance is given
	exports   map[string]byte
}

// rewritten is a module as it is compiled.
type rewritten struct {
	binary []byte
	module
}

// rewrite makes of a stranger's module one that can be stopped. At every loop and at the entry of
// every function that calls another, a counter in a global of the module is decremented, and when
// it has run out the host is asked; around every call a second global counts the bytes of frames.
//
// The compiler's own way of interrupting asks the host at every loop, which makes short loops ten
// times slower, and does not see recursion. That matters beyond the call itself: compiled code
// can't be preempted, so that one call that never comes back to the host holds up the collection
// of garbage, and with it all of its neighbours.
func rewrite(b []byte) (*rewritten, error) {
	if err := checkKind(b); err != nil {
		return nil, err
	}
	m := &rewritten{}
	split := func() error { return m.split(b[8:]) }
	for _, step := range []func() error{split, m.readTypes, m.readImports, m.readFunctions, m.tables, m.memories, m.readGlobals, m.exported, m.start, m.elements, m.data, m.code} {
		if err := step(); err != nil {
			if _, told := err.(*Refused); told {
				return nil, err
			}
			return nil, refuse("build it anew; the file may have been cut short", "the module cannot be read: %v", err)
		}
	}
	m.keepNames()
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, id := range sectionOrder {
		if m.has[id] {
			out = appendSection(out, id, m.section[id])
		}
	}
	if m.names != nil {
		out = appendSection(out, secCustom, m.names)
	}
	m.binary = out
	return m, nil
}

func appendSection(b []byte, id byte, content []byte) []byte {
	return append(appendU32(append(b, id), uint32(len(content))), content...)
}

// split finds the sections. Custom ones are left out, save the names of functions, which traces
// show: debugging information would make each load slower.
func (m *module) split(b []byte) error {
	r := &reader{b: b}
	for r.more() {
		id, size := r.byte(), r.u32()
		content := r.take(size)
		if r.err != nil {
			break
		}
		switch {
		case id == secCustom:
			c := &reader{b: content}
			if c.name() == "name" && c.err == nil {
				m.names = content
			}
		case id > lastSection:
			return refuse("build without exceptions and other proposals that are newer than WebAssembly 2.0", "the module has a section of kind %d, which WebAssembly 2.0 does not", id)
		case m.has[id]:
			return fmt.Errorf("there are two sections of kind %d", id)
		default:
			m.section[id], m.has[id] = content, true
		}
	}
	return r.err
}

func (m *module) readTypes() error {
	r := &reader{b: m.section[secType]}
	var n uint32
	if m.has[secType] {
		n = r.count()
	}
	m.types = n
	rest := r.b[r.at:]
	out := appendU32(nil, n+2)
	out = append(out, rest...)
	out = append(out, 0x60, 1, 0x7f, 0) // of ourCheck
	out = append(out, 0x60, 0, 0)       // of tick
	m.section[secType], m.has[secType] = out, true
	return r.err
}

func (m *module) checkType() uint32 { return m.types }
func (m *module) tickType() uint32  { return m.types + 1 }

func (m *module) readImports() error {
	r := &reader{b: m.section[secImport]}
	var n uint32
	if m.has[secImport] {
		n = r.count()
	}
	from := r.at
	for range n {
		module, name, kind := r.name(), r.name(), r.byte()
		if r.err != nil {
			return r.err
		}
		if err := checkImport(module, name, kind); err != nil {
			return err
		}
		m.typeIndex(r)
	}
	if err := r.end(); err != nil {
		return err
	}
	m.imports = n
	out := appendU32(nil, n+1)
	out = append(out, r.b[from:]...)
	out = appendName(appendName(out, ourModule), ourCheck)
	out = appendU32(append(out, kindFunc), m.checkType())
	m.section[secImport], m.has[secImport] = out, true
	return nil
}

// checkImport says whether there is what a module wants, and if not, where such a module belongs.
func checkImport(module, name string, kind byte) error {
	what := fmt.Sprintf("the module imports %q from %q", clip(name), clip(module))
	const nothing = ", which is not there; a function may import from " + wasiModule + " alone"
	switch module {
	case wasiModule:
		switch {
		case kind != kindFunc:
			return refuse(fixTarget, "%s as something that is not a function", what)
		case !slices.Contains(wasiNames, name):
			return refuse("build with a toolchain for WASI preview 1 as it was published", "%s, and WASI preview 1 has no such function", what)
		}
		return nil
	case "wasi_unstable":
		return refuse("build with a newer toolchain, for "+wasiModule, "%s, which is what WASI was before preview 1", what)
	case "env":
		fix := "a symbol was left open when the module was linked: link what defines it, and do not use --allow-undefined"
		switch {
		case kind == kindMemory:
			fix = "link without --import-memory, so that the module brings its own memory"
		case kind == kindTable:
			fix = "link without --import-table"
		case len(name) > 10 && name[:10] == "emscripten":
			fix = "Emscripten builds for browsers; add -sSTANDALONE_WASM, or build with wasi-sdk"
		}
		return refuse(fix, "%s", what+nothing)
	case "go", "gojs":
		return refuse("build with GOOS=wasip1 GOARCH=wasm instead of GOOS=js", "%s", what+nothing)
	case "wbg", "__wbindgen_placeholder__", "./index_bg.js":
		return refuse("it was built for browsers; build for wasm32-wasip1 without wasm-bindgen", "%s", what+nothing)
	case "wasi":
		return refuse("build for one thread", "%s", what+nothing)
	}
	return refuse(fixTarget, "%s", what+nothing)
}

func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

func (m *module) readFunctions() error {
	r := &reader{b: m.section[secFunction]}
	var n uint32
	if m.has[secFunction] {
		n = r.count()
	}
	out := appendU32(nil, n+1)
	for range n {
		out = appendU32(out, m.typeIndex(r))
	}
	m.section[secFunction], m.has[secFunction] = appendU32(out, m.tickType()), true
	m.functions = m.imports + n
	return r.end()
}

// function returns the index that a function has after ours was put behind the imports.
func (m *module) function(r *reader, i uint32) uint32 {
	if i >= m.functions {
		r.fail("there is no function %d", i)
	}
	if i >= m.imports {
		return i + 1
	}
	return i
}

func (m *module) check() uint32 { return m.imports }
func (m *module) tick() uint32  { return m.functions + 1 }

// tables bounds how far each may grow.
func (m *module) tables() error {
	if !m.has[secTable] {
		return nil
	}
	r := &reader{b: m.section[secTable]}
	n := r.count()
	if n > maxTables {
		return refuse("use fewer tables", "the module has %d tables; at most %d", n, maxTables)
	}
	out := appendU32(nil, n)
	room := uint32(maxTable)
	for i := range n {
		kind, flags, least := r.byte(), r.byte(), r.u32()
		if kind != 0x70 && kind != 0x6f || flags > 1 {
			return refuse("build without proposals that are newer than WebAssembly 2.0", "table %d is of a kind that WebAssembly 2.0 has not", i)
		}
		if r.err == nil && least > room {
			return refuse("use smaller tables", "the module's tables begin with more than %d entries", maxTable)
		}
		// What all others do not need at their beginning goes to each in equal parts.
		most := least + (room-least)/(n-i)
		if flags == 1 {
			most = min(most, r.u32())
		}
		room -= min(room, max(least, most))
		out = appendU32(appendU32(append(out, kind, 1), least), most)
	}
	m.section[secTable] = out
	return r.end()
}

func (m *module) memories() error {
	if !m.has[secMemory] {
		return nil
	}
	r := &reader{b: m.section[secMemory]}
	switch n := r.count(); {
	case n > 1:
		return refuse("build for one memory", "the module has %d memories; WebAssembly 2.0 knows one", n)
	case n == 0:
		return r.err
	}
	flags := r.byte()
	switch {
	case flags&4 != 0:
		return refuse("build for wasm32 instead of wasm64", "the module's memory has addresses of 64 bits")
	case flags&2 != 0:
		return refuse("build for one thread: wasm32-wasip1 instead of wasm32-wasip1-threads", "the module shares its memory between threads, which WASI preview 1 has not")
	}
	m.minPages = r.u32()
	return r.err
}

func (m *module) readGlobals() error {
	r := &reader{b: m.section[secGlobal]}
	var n uint32
	if m.has[secGlobal] {
		n = r.count()
	}
	m.globals = n
	out := appendU32(nil, n+2)
	for range n {
		out = append(out, r.byte(), r.byte())
		out = m.expression(r, out)
	}
	for _, v := range []int32{slice, 0} { // counter, depth
		out = append(appendS32(append(out, 0x7f, 1, 0x41), v), 0x0b)
	}
	m.section[secGlobal], m.has[secGlobal] = out, true
	return r.end()
}

func (m *module) counter() uint32 { return m.globals }
func (m *module) depth() uint32   { return m.globals + 1 }

// expression copies a constant expression.
func (m *module) expression(r *reader, out []byte) []byte {
	for r.err == nil {
		from := r.at
		op := r.byte()
		switch op {
		case 0x0b:
			return append(out, op)
		case 0xd2:
			out = appendU32(append(out, op), m.function(r, r.u32()))
			continue
		case 0x41, 0x42, 0x43, 0x44, 0x23, 0xd0, 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e:
			m.skip(r, op)
		case 0xfd:
			if r.u32() != 12 {
				r.fail("an expression is not constant")
			}
			r.take(16)
		default:
			r.fail("an expression is not constant")
		}
		out = append(out, r.b[from:r.at]...)
	}
	return out
}

func (m *module) exported() error {
	m.exports = map[string]byte{}
	if !m.has[secExport] {
		return nil
	}
	r := &reader{b: m.section[secExport]}
	n := r.count()
	out := appendU32(nil, n)
	for range n {
		name, kind, i := r.name(), r.byte(), r.u32()
		switch kind {
		case kindFunc:
			i = m.function(r, i)
		case kindGlobal:
			if i >= m.globals {
				r.fail("there is no global %d", i)
			}
		}
		if r.err != nil {
			return r.err
		}
		m.exports[name] = kind
		out = appendU32(append(appendName(out, name), kind), i)
	}
	m.section[secExport] = out
	return r.end()
}

func (m *module) start() error {
	if !m.has[secStart] {
		return nil
	}
	r := &reader{b: m.section[secStart]}
	m.section[secStart] = appendU32(nil, m.function(r, r.u32()))
	return r.end()
}

func (m *module) elements() error {
	if !m.has[secElement] {
		return nil
	}
	r := &reader{b: m.section[secElement]}
	n := r.count()
	out := appendU32(nil, n)
	for range n {
		flags := r.u32()
		if flags > 7 {
			r.fail("an element segment of kind %d", flags)
		}
		out = appendU32(out, flags)
		if flags&1 == 0 { // active: a table and a place in it
			if flags&2 != 0 {
				out = appendU32(out, r.u32())
			}
			out = m.expression(r, out)
		}
		if flags&3 != 0 {
			out = append(out, r.byte()) // of what kind its entries are
		}
		entries := r.count()
		out = appendU32(out, entries)
		for range entries {
			if flags&4 != 0 {
				out = m.expression(r, out)
			} else {
				out = appendU32(out, m.function(r, r.u32()))
			}
		}
		if r.err != nil {
			return r.err
		}
	}
	m.section[secElement] = out
	return r.end()
}

// data adds up what each new instance gets copied.
func (m *module) data() error {
	m.dataBytes = len(m.section[secData])
	return nil
}

// code puts the counters into every function, and adds the function that asks the host.
func (m *module) code() error {
	r := &reader{b: m.section[secCode]}
	var n uint32
	if m.has[secCode] {
		n = r.count()
	}
	out := make([]byte, 0, len(r.b)+len(r.b)/2)
	out = appendU32(out, n+1)
	for i := range n {
		b := &reader{b: r.take(r.u32())}
		body, err := m.body(b)
		if r.err == nil && err != nil {
			if _, told := err.(*Refused); told {
				return err
			}
			r.fail("function %d: %v", m.imports+i, err)
		}
		if r.err != nil {
			return r.err
		}
		out = append(appendU32(out, uint32(len(body))), body...)
	}
	tick := []byte{0} // no locals
	tick = appendS32(append(tick, 0x41), slice)
	tick = appendU32(append(tick, 0x24), m.counter())
	tick = append(tick, 0x41, checkSlice, 0x10)
	tick = append(appendU32(tick, m.check()), 0x0b)
	out = append(appendU32(out, uint32(len(tick))), tick...)
	m.section[secCode], m.has[secCode] = out, true
	return r.end()
}

// body copies one function's body.
func (m *module) body(r *reader) ([]byte, error) {
	var locals uint64
	for range r.count() {
		locals += uint64(r.u32())
		if kind := r.byte(); kind < 0x7b && kind != 0x70 && kind != 0x6f {
			return nil, refuse("build without proposals that are newer than WebAssembly 2.0", "a function has a local of a type that WebAssembly 2.0 has not")
		}
	}
	if r.err == nil && locals > 50000 {
		r.fail("it has %d locals", locals)
	}
	begin := r.at
	var calls, instructions int
	for r.more() {
		op := r.byte()
		if op == 0x10 || op == 0x11 {
			calls++
		}
		instructions++
		m.skip(r, op)
	}
	if r.err != nil {
		return nil, r.err
	}
	// What a frame takes is known to the compiler alone. It keeps locals, and of what
	// instructions yield that which lives across a call; a quarter of them with 8 bytes each would
	// be a lot, half a byte for each is what large functions were seen to take.
	frame := int32(96 + 8*locals + uint64(instructions/2))
	out := make([]byte, 0, len(r.b)+len(r.b)/2+64)
	out = append(out, r.b[:begin]...)
	if calls > 0 {
		out = m.appendStackCheck(out)
		out = m.appendTick(out, 1)
	}
	r.at = begin
	for r.more() {
		from := r.at
		op := r.byte()
		switch op {
		case 0x10: // call
			out = m.appendDepth(out, 0x6a, frame)
			out = appendU32(append(out, op), m.function(r, r.u32()))
			out = m.appendDepth(out, 0x6b, frame)
		case 0x11: // call_indirect
			out = m.appendDepth(out, 0x6a, frame)
			m.skip(r, op)
			out = append(out, r.b[from:r.at]...)
			out = m.appendDepth(out, 0x6b, frame)
		case 0xd2: // ref.func
			out = appendU32(append(out, op), m.function(r, r.u32()))
		case 0x03: // loop
			m.skip(r, op)
			out = append(out, r.b[from:r.at]...)
			out = m.appendTick(out, 1)
		case 0xfc:
			sub := r.u32()
			r.at = from + 1
			m.skip(r, op)
			if sub >= 8 && sub != 16 { // a stretch of memory or of a table
				out = m.appendTick(out, bulkCharge)
			}
			out = append(out, r.b[from:r.at]...)
		default:
			m.skip(r, op)
			out = append(out, r.b[from:r.at]...)
		}
	}
	return out, r.err
}

// appendTick counts, and asks the host when the counter has run out.
func (m *module) appendTick(out []byte, charge int32) []byte {
	out = appendU32(append(out, 0x23), m.counter()) // global.get
	out = append(out, 0x41, 0, 0x4c, 0x04, 0x40)    // i32.const 0, i32.le_s, if
	out = appendU32(append(out, 0x10), m.tick())    // call
	out = append(out, 0x0b)                         // end
	out = appendU32(append(out, 0x23), m.counter())
	out = appendS32(append(out, 0x41), charge)
	return appendU32(append(out, 0x6b, 0x24), m.counter()) // i32.sub, global.set
}

func (m *module) appendDepth(out []byte, op byte, frame int32) []byte {
	out = appendU32(append(out, 0x23), m.depth())
	out = appendS32(append(out, 0x41), frame)
	return appendU32(append(out, op, 0x24), m.depth())
}

func (m *module) appendStackCheck(out []byte) []byte {
	out = appendU32(append(out, 0x23), m.depth())
	out = appendS32(append(out, 0x41), maxStack)
	out = append(out, 0x4b, 0x04, 0x40, 0x41, checkStack, 0x10) // i32.gt_u, if, i32.const, call
	return append(appendU32(out, m.check()), 0x0b)
}

// skip passes over what follows an instruction's first byte. It checks what refers to places in
// which ours were added, so that nothing which was out of bounds comes to be within.
func (m *module) skip(r *reader, op byte) {
	switch {
	case op <= 0x01, op == 0x05, op == 0x0b, op == 0x0f, op == 0x1a, op == 0x1b, op >= 0x45 && op <= 0xc4, op == 0xd1:
	case op <= 0x04: // block, loop, if
		if r.at < len(r.b) && r.b[r.at]&0xc0 == 0x40 { // one value or none
			r.byte()
		} else {
			m.typeIndex(r)
		}
	case op == 0x0c, op == 0x0d, op >= 0x20 && op <= 0x22, op == 0x25, op == 0x26:
		r.u32()
	case op == 0x0e: // br_table
		for range r.count() {
			r.u32()
		}
		r.u32()
	case op == 0x10, op == 0xd2: // call, ref.func
		m.function(r, r.u32())
	case op == 0x11: // call_indirect
		m.typeIndex(r)
		r.u32()
	case op == 0x1c: // select of a type
		for range r.count() {
			r.byte()
		}
	case op == 0x23, op == 0x24: // global.get, global.set
		if i := r.u32(); i >= m.globals {
			r.fail("there is no global %d", i)
		}
	case op >= 0x28 && op <= 0x3e: // loads and stores
		m.skipAddress(r)
	case op == 0x3f, op == 0x40, op == 0xd0:
		r.skipNumber(33)
	case op == 0x41:
		r.skipNumber(32)
	case op == 0x42:
		r.skipNumber(64)
	case op == 0x43:
		r.take(4)
	case op == 0x44:
		r.take(8)
	case op == 0xfc:
		switch sub := r.u32(); {
		case sub <= 7: // conversions
		case sub == 8, sub == 10, sub == 12, sub == 14:
			r.u32()
			r.u32()
		case sub <= 17:
			r.u32()
		default:
			r.fail("the instruction 0xfc %d is not known", sub)
		}
	case op == 0xfd:
		switch sub := r.u32(); {
		case sub <= 11, sub == 92, sub == 93: // loads and stores
			m.skipAddress(r)
		case sub == 12, sub == 13: // v128.const, i8x16.shuffle
			r.take(16)
		case sub >= 21 && sub <= 34: // lanes
			r.byte()
		case sub >= 84 && sub <= 91: // a lane and an address
			m.skipAddress(r)
			r.byte()
		case sub <= 255:
		default:
			r.fail("the instruction 0xfd %d is not known", sub)
		}
	default:
		proposal := "a proposal that is newer than WebAssembly 2.0"
		switch op {
		case 0x12, 0x13:
			proposal = "tail calls"
		case 0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f:
			proposal = "exceptions"
		case 0xfb:
			proposal = "garbage collection"
		case 0xfe:
			proposal = "threads"
		}
		if r.err == nil {
			r.err = refuse("build without it", "the module has the instruction 0x%02x, which belongs to %s", op, proposal)
			r.at = len(r.b)
		}
	}
}

// typeIndex reads which type something has.
func (m *module) typeIndex(r *reader) uint32 {
	i := r.u32()
	if i >= m.types {
		r.fail("there is no type %d", i)
	}
	return i
}

func (m *module) skipAddress(r *reader) {
	if r.u32() >= 64 { // the alignment; more says which memory
		r.fail("an address is in a second memory")
	}
	r.u32()
}

// keepNames moves the names of functions to their new indexes, and leaves all other names out. A
// section of names that can't be read is no reason not to run a module.
func (m *module) keepNames() {
	names := m.names
	m.names = nil
	if names == nil {
		return
	}
	r := &reader{b: names}
	r.name()
	for r.more() {
		id, size := r.byte(), r.u32()
		content := &reader{b: r.take(size)}
		if r.err != nil || id != 1 {
			continue
		}
		n := content.count()
		out := appendU32(nil, n)
		for range n {
			i := m.function(content, content.u32())
			out = appendName(appendU32(out, i), content.name())
		}
		if content.err == nil {
			m.names = appendSection(appendName(nil, "name"), 1, out)
		}
		return
	}
}
