// Brasa's bootstrap for Node.js 18 and newer: frame protocol 1 over descriptor 3.
//
// It boots, is told its function (load), and serves calls. Booting knows nothing of the
// function, so that a booted process can wait in stock. What a function may return and what it
// gets is written in docs/runtimes/node.md and tested in test/contract.
'use strict';

const fs = require('fs');
const net = require('net');
const path = require('path');
const { AsyncLocalStorage } = require('async_hooks');
const { Writable } = require('stream');

const LOAD = 1, CALL = 2, BODY = 3, BODY_END = 4, CANCEL = 5, CREDIT = 6;
const HELLO = 16, LOADED = 17, LOAD_FAILED = 18, LOG = 19, RESULT = 20, HEAD = 21, DATA = 22, END = 23, WINDOW = 24;

const MAX_PAYLOAD = 1 << 20;
const MAX_WHOLE = 256 << 10; // an answer up to this size travels in one frame
const INITIAL_WINDOW = 1 << 20;
const CHUNK = 128 << 10; // bytes in one DATA frame
const MAX_PART = 32 << 10; // characters of a log line that are kept while its end has not come
const DEFAULT_HANDLERS = ['main', 'handle', 'handler'];

const NOTHING = Buffer.alloc(0);
const current = new AsyncLocalStorage(); // the call on whose behalf code runs
const { exit, hrtime } = process; // the function may replace its own, not ours

// --- Frames --------------------------------------------------------------------------------

function frame(type, stream, payload = NOTHING) {
  const b = Buffer.allocUnsafe(9 + payload.length);
  b.writeUInt32BE(payload.length + 5, 0);
  b[4] = type;
  b.writeUInt32BE(stream, 5);
  payload.copy(b, 9);
  return b;
}

function jsonFrame(type, stream, value) {
  return frame(type, stream, Buffer.from(JSON.stringify(value)));
}

// metaFrame makes a RESULT or HEAD. A body that is text is written in place, without a buffer
// of its own.
function metaFrame(type, stream, meta, body = NOTHING) {
  const m = Buffer.byteLength(meta);
  const n = typeof body === 'string' ? Buffer.byteLength(body) : body.length;
  const b = Buffer.allocUnsafe(13 + m + n);
  b.writeUInt32BE(9 + m + n, 0);
  b[4] = type;
  b.writeUInt32BE(stream, 5);
  b.writeUInt32BE(m, 9);
  b.write(meta, 13);
  if (typeof body === 'string') b.write(body, 13 + m);
  else body.copy(b, 13 + m);
  return b;
}

const calls = new Map(); // by stream, those that have not ended
let socket;
let spec = null;
let fn = null;
let rest = NOTHING; // of what was read, less than a frame

function send(b) {
  socket.write(b);
}

function receive(data) {
  if (rest.length > 0) data = Buffer.concat([rest, data]);
  let at = 0;
  while (data.length - at >= 9) {
    const end = at + 4 + data.readUInt32BE(at);
    if (end - at < 9 || end - at > 9 + MAX_PAYLOAD) {
      fs.writeSync(2, 'brasa: a frame that cannot be read\n');
      exit(70);
    }
    if (data.length < end) break;
    dispatch(data[at + 4], data.readUInt32BE(at + 5), data.subarray(at + 9, end));
    at = end;
  }
  rest = data.subarray(at);
}

function dispatch(type, stream, payload) {
  if (type === CALL) {
    const n = 4 + payload.readUInt32BE(0);
    const call = new Call(stream, JSON.parse(payload.toString('utf8', 4, n)), payload.subarray(n));
    calls.set(stream, call);
    current.run(call, serve, call);
    return;
  }
  if (type === LOAD) {
    spec = JSON.parse(payload.toString());
    load().catch(loadFailed);
    return;
  }
  const call = calls.get(stream);
  if (call === undefined) return; // it is over
  switch (type) {
    case BODY: call.body.put(payload); break;
    case BODY_END: call.body.ended = true; break;
    case CANCEL: call.cancel(); break;
    case CREDIT: call.credit += payload.readUInt32BE(0); break;
  }
  call.stir();
}

// --- Logs ----------------------------------------------------------------------------------

// LineLog turns what a call writes into whole lines, one frame for as many as come at once.
class LineLog {
  constructor(stream, budget) {
    this.stream = stream;
    this.budget = budget;
    this.parts = ['', '', ''];
  }

  write(which, text) {
    text = this.parts[which] + text;
    let at = text.lastIndexOf('\n') + 1;
    if (at === 0 && text.length > MAX_PART) at = text.length;
    this.parts[which] = text.slice(at);
    if (at > 0) this.emit(which, text.slice(0, at));
  }

  emit(which, text) {
    if (this.budget <= 0) return; // the host drops what is over, so it need not be sent
    const data = Buffer.from(text);
    this.budget -= data.length;
    for (let i = 0; i < data.length; i += MAX_WHOLE) {
      send(frame(LOG, this.stream, Buffer.concat([Buffer.of(which), data.subarray(i, i + MAX_WHOLE)])));
    }
  }

  // flush sends lines that have no end.
  flush() {
    for (const which of [1, 2]) {
      const text = this.parts[which];
      if (text !== '') {
        this.parts[which] = '';
        this.emit(which, text);
      }
    }
  }
}

const instanceLog = new LineLog(0, Infinity);

class Output extends Writable {
  constructor(which) {
    super({ decodeStrings: false });
    this.fd = which;
    this.isTTY = false;
  }

  _write(chunk, encoding, done) {
    const call = current.getStore();
    (call === undefined ? instanceLog : call.log).write(this.fd, typeof chunk === 'string' ? chunk : chunk.toString());
    done();
  }

  _destroy(err, done) { done(); } // as a process's own, it stays open
}

// --- What a function sees ------------------------------------------------------------------

class Canceled extends Error {
  constructor(message) {
    super(message);
    this.name = 'Canceled';
  }
}

// Body is a request's body: whole, or a stream that grants the host credit as it is read.
class Body {
  constructor(call, data, streamed) {
    this.call = call;
    this.chunks = data.length > 0 ? [data] : [];
    this.ended = !streamed;
    this.streamed = streamed;
    this.broken = false;
    this.owed = 0;
  }

  put(data) {
    this.chunks.push(Buffer.from(data)); // a copy: the read buffer is the socket's
  }

  async next() {
    while (this.chunks.length === 0 && !this.ended && !this.broken) await this.call.stirred();
    if (this.broken) throw new Canceled('the caller went away before the end of its request');
    const data = this.chunks.shift();
    if (data !== undefined && !this.ended) {
      this.owed += data.length;
      if (this.owed >= INITIAL_WINDOW / 4) {
        const n = Buffer.allocUnsafe(4);
        n.writeUInt32BE(this.owed);
        this.owed = 0;
        send(frame(WINDOW, this.call.stream, n));
      }
    }
    return data;
  }

  async all() {
    const parts = [];
    for (let data; (data = await this.next()) !== undefined;) parts.push(data);
    return parts.length === 1 ? parts[0] : Buffer.concat(parts);
  }

  // whole is the body if it is all here.
  whole() {
    if (this.chunks.length === 0) return NOTHING;
    return this.chunks[0];
  }
}

// Event is a request.
class Event {
  #call;
  #bytes;
  #args;
  #query;
  #headers;

  constructor(call) {
    const m = call.meta;
    this.#call = call;
    this.kind = m.kind;
    this.method = m.method;
    this.path = m.path;
    this.queryString = m.query;
    this.length = m.length; // -1: not known beforehand
  }

  // Parameters of the URL; of one that is given twice the last counts.
  get query() {
    this.#query ??= parameters(this.queryString);
    return this.#query;
  }

  get searchParams() { return new URLSearchParams(this.queryString); }

  // Headers by their names in lower case; the values of one that is given twice are joined.
  get headers() {
    if (this.#headers === undefined) {
      this.#headers = Object.create(null);
      for (const [k, v] of Object.entries(this.#call.meta.headers)) this.#headers[k.toLowerCase()] = v.join(', ');
    }
    return this.#headers;
  }

  // A header by its name in any case.
  header(name) { return this.headers[name.toLowerCase()]; }

  // The body as a Buffer, if it came whole. One that is large or of unknown length does not: see
  // bytes, text, json and stream, which serve for both.
  get body() {
    if (this.#bytes !== undefined) return this.#bytes;
    if (this.#call.body.streamed) throw new Error('the body is streamed; use await event.bytes(), text(), json(), or for await (const chunk of event.stream())');
    this.#bytes = this.#call.body.whole();
    return this.#bytes;
  }

  async bytes() {
    this.#bytes ??= await this.#call.body.all();
    return this.#bytes;
  }

  async text() { return (await this.bytes()).toString(); }

  async json() { return JSON.parse(await this.text()); }

  // The body as it comes.
  async *stream() {
    if (this.#bytes !== undefined) {
      yield this.#bytes;
      return;
    }
    for (let data; (data = await this.#call.body.next()) !== undefined;) yield data;
  }

  [Symbol.asyncIterator]() { return this.stream(); }

  // What main(args) would get. A streamed body must have been read with bytes before.
  get args() {
    this.#args ??= argumentsOf(this);
    return this.#args;
  }
}

function parameters(text) {
  const out = Object.create(null); // so that __proto__ is a name like any other
  if (text) for (const [k, v] of new URLSearchParams(text)) out[k] = v;
  return out;
}

// argumentsOf makes what main(args) gets: parameters of the URL, then the fields of a JSON
// object or form. Another body is the one argument "body". Objects are put together by spread,
// which defines properties and so cannot reach a prototype.
function argumentsOf(event) {
  const query = event.query;
  const body = event.body;
  if (body.length === 0) return { ...query };
  const type = (event.headers['content-type'] ?? '').split(';')[0].trim().toLowerCase();
  const form = type === 'application/x-www-form-urlencoded';
  // A form is tried as JSON first, because that is what curl -d calls JSON.
  if (type === '' || form || type === 'application/json' || type.endsWith('+json')) {
    try {
      const value = JSON.parse(body.toString());
      const fields = value !== null && typeof value === 'object' && !Array.isArray(value) ? value : { body: value };
      return event.queryString ? { ...query, ...fields } : fields;
    } catch (err) {
      if (type !== '' && !form) throw new Unfit(`the request says that its body is JSON, and it is not: ${err.message}`);
    }
  }
  if (form) return { ...query, ...parameters(body.toString()) };
  const text = type === 'application/octet-stream' ? '\ufffd' : body.toString();
  return { ...query, body: text.includes('\ufffd') ? body : text };
}

class Context {
  #call;
  #controller;

  constructor(call) { this.#call = call; }

  get invocationId() { return this.#call.meta.id; }
  get cause() { return this.#call.meta.cause; }
  get attempt() { return this.#call.meta.attempt; }
  get functionName() { return spec.function; }
  get namespace() { return spec.namespace; }
  get revision() { return spec.revision; }
  get memoryLimit() { return spec.memory_bytes; }
  get canceled() { return this.#call.canceled; }

  // Milliseconds since 1970, as Date.now counts; Infinity if there is none.
  get deadline() { return this.#call.meta.deadline_ms ?? Infinity; }

  // Milliseconds until the deadline, never below zero; a day if there is none.
  remainingMs() { return Math.max(0, Math.min(this.deadline - Date.now(), 86400000)); }

  // Is aborted when the caller goes away or the deadline has passed.
  get signal() {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#call.canceled) this.#controller.abort();
      else this.#call.onCancel.push(() => this.#controller.abort());
    }
    return this.#controller.signal;
  }

  get logger() { return console; }
}

// --- Errors --------------------------------------------------------------------------------

// Fault is an error whose message says all; it has no trace.
class Fault extends Error {
  constructor(message, limit) {
    super(message);
    this.limit = limit;
  }
}

// Unfit is a request that is not what it says, which its caller can mend.
class Unfit extends Error {}

function faultOf(err) {
  if (err instanceof Unfit) return { code: 'invalid', message: err.message.slice(0, 1000) };
  if (err instanceof Fault) return { message: err.message, limit: err.limit };
  if (err instanceof Canceled) return { kind: 'Canceled', message: err.message };
  try {
    if (err !== null && typeof err === 'object' && typeof err.message === 'string') {
      const name = typeof err.name === 'string' && err.name !== '' ? err.name : err.constructor?.name ?? 'Error';
      return { kind: name.slice(0, 200), message: err.message.slice(0, 4000), trace: trace(err).slice(0, 24000) };
    }
    const text = typeof err === 'string' ? err : require('util').inspect(err, { depth: 3 });
    return { message: 'the function threw a value that is no Error: ' + text.slice(0, 4000) };
  } catch {
    return { message: 'the function threw a value that cannot be shown' };
  }
}

// trace is an error's stack without our frames and Node's own, and those of its causes.
function trace(err, depth = 0) {
  const ours = (line) => /^\s+at /.test(line) && (line.includes(__filename) || line.includes('node:internal/'));
  let text = String(err.stack ?? '').split('\n').filter((line) => !ours(line)).join('\n');
  if (err.cause instanceof Error && depth < 5) text += '\n[cause]: ' + trace(err.cause, depth + 1);
  if (Array.isArray(err.errors) && depth < 5) {
    for (const e of err.errors.slice(0, 10)) if (e instanceof Error) text += '\n[error]: ' + trace(e, depth + 1);
  }
  return text;
}

// stray handles an error that nobody caught. It fails the call on whose behalf code ran; if
// that is not known but only one call is under way, it is that one's. Otherwise nothing can be
// said of the instance's state any more.
function stray(err, origin) {
  let call = current.getStore();
  if (call === undefined && calls.size === 1) call = calls.values().next().value;
  if (call !== undefined && calls.has(call.stream)) {
    call.fail(err);
    return;
  }
  const f = faultOf(err);
  const what = origin === 'unhandledRejection' ? 'a promise was rejected and nobody caught it' : 'an error was thrown and nobody caught it';
  const who = call === undefined ? '' : ` (on behalf of invocation ${call.meta.id}, which has ended)`;
  const text = `${what}${who}; the instance ends\n${f.trace || f.message}\n`;
  if (spec !== null && fn === null) {
    loadFailed(err);
    return;
  }
  instanceLog.write(2, text);
  socket.end(() => exit(1));
}

// --- Calls ---------------------------------------------------------------------------------

const JSON_META = '{"status":200,"headers":{"Content-Type":["application/json"]}}';
const TEXT_META = '{"status":200,"headers":{"Content-Type":["text/plain; charset=utf-8"]}}';
const BYTES_META = '{"status":200,"headers":{"Content-Type":["application/octet-stream"]}}';
const EMPTY_META = '{"status":204}';

// Call is one call: its request, its log, its answer.
class Call {
  constructor(stream, meta, body) {
    this.stream = stream;
    this.meta = meta;
    this.body = new Body(this, body, meta.body === 'stream');
    this.log = new LineLog(stream, spec.log_bytes + 65536);
    this.credit = INITIAL_WINDOW;
    this.sent = 0; // bytes of a streamed answer
    this.canceled = false;
    this.headed = false; // HEAD was sent
    this.onCancel = [];
    this.waiting = [];
  }

  stir() {
    for (const wake of this.waiting.splice(0)) wake();
  }

  stirred() { return new Promise((wake) => this.waiting.push(wake)); }

  cancel() {
    this.canceled = true;
    this.body.broken = true;
    for (const f of this.onCancel.splice(0)) f();
  }

  // end sends the last frame; only the first end counts.
  end(b) {
    if (calls.get(this.stream) !== this) return;
    this.log.flush();
    calls.delete(this.stream);
    this.body.broken = true;
    send(b);
    this.stir();
  }

  fail(err) {
    const error = faultOf(err);
    this.end(this.headed ? jsonFrame(END, this.stream, { error }) : metaFrame(RESULT, this.stream, JSON.stringify({ error })));
  }

  head(meta) {
    if (calls.get(this.stream) !== this) throw new Canceled('the call has ended');
    this.headed = true;
    this.log.flush();
    send(metaFrame(HEAD, this.stream, meta));
  }

  // write sends bytes of the answer as there is credit.
  async write(data) {
    for (let at = 0; at < data.length;) {
      while (this.credit <= 0 && !this.canceled && calls.get(this.stream) === this) await this.stirred();
      if (this.canceled || calls.get(this.stream) !== this) throw new Canceled('the caller went away');
      const n = Math.min(data.length - at, this.credit, CHUNK);
      this.credit -= n;
      this.sent += n;
      if (this.sent > spec.response_bytes) throw new Fault(`the answer is larger than response_bytes allows, ${spec.response_bytes} bytes`, 'response_bytes');
      send(frame(DATA, this.stream, data.subarray(at, at + n)));
      at += n;
    }
  }
}

function isBytes(v) { return v instanceof Uint8Array || ArrayBuffer.isView(v) || v instanceof ArrayBuffer; }

function toBuffer(v) {
  if (Buffer.isBuffer(v)) return v;
  return v instanceof ArrayBuffer ? Buffer.from(v) : Buffer.from(v.buffer, v.byteOffset, v.byteLength);
}

// encode makes [text or bytes, META of a bare answer, content type] of one value. JSON is what
// JSON.stringify says it is: NaN becomes null.
function encode(value) {
  if (typeof value === 'string') return [value, TEXT_META, 'text/plain; charset=utf-8'];
  if (isBytes(value)) return [toBuffer(value), BYTES_META, 'application/octet-stream'];
  let text;
  try {
    text = JSON.stringify(value);
  } catch (e) {
    throw new Fault('the function returned what JSON cannot hold: ' + e.message.split('\n')[0]);
  }
  if (text === undefined) throw new Fault(`the function returned what JSON cannot hold: a ${typeof value}`);
  return [text, JSON_META, 'application/json'];
}

// isStream says whether a value is to be streamed: something asynchronous to iterate over, or an
// iterator, but not a collection.
function isStream(v) {
  return v !== null && typeof v === 'object' &&
    (typeof v[Symbol.asyncIterator] === 'function' || (typeof v.next === 'function' && typeof v[Symbol.iterator] === 'function'));
}

// isResponse says whether a value is a Web Response. It is told by its shape, because to name
// the class makes Node load all of fetch.
function isResponse(v) {
  return v !== null && typeof v === 'object' && typeof v.arrayBuffer === 'function' && typeof v.status === 'number' && typeof v.headers?.forEach === 'function';
}

// unwrap takes a response object apart: [body, status, headers], or undefined for a bare value.
function unwrap(v) {
  if (isResponse(v)) {
    const headers = {};
    v.headers.forEach((value, name) => { (headers[name] ??= []).push(value); });
    const cookies = v.headers.getSetCookie?.();
    if (cookies?.length > 0) headers['set-cookie'] = cookies;
    return [v.body, v.status, headers];
  }
  if (v !== null && typeof v === 'object' && Number.isInteger(v.statusCode)) {
    let body = v.body;
    if (v.isBase64Encoded && typeof body === 'string') {
      if (!/^[A-Za-z0-9+/]*={0,2}$/.test(body) || body.length % 4 !== 0) throw new Fault('the function said isBase64Encoded, but its body is not base64');
      body = Buffer.from(body, 'base64');
    }
    return [body, v.statusCode, { ...v.headers, ...v.multiValueHeaders }];
  }
  return undefined;
}

function headOf(status, headers, contentType) {
  if (!Number.isInteger(status) || status < 200 || status > 599) {
    throw new Fault(`the function answered with status ${status}; it must be a number from 200 to 599`);
  }
  const out = Object.create(null);
  let typed = false;
  for (const [name, value] of Object.entries(headers ?? {})) {
    if (value === null || value === undefined) continue;
    out[name] = (Array.isArray(value) ? value : [value]).map(String);
    typed ||= name.toLowerCase() === 'content-type';
  }
  if (contentType && !typed) out['Content-Type'] = [contentType];
  return JSON.stringify({ status, headers: out });
}

async function answer(call, value) {
  let meta, body, status = 200, headers;
  if (value === undefined || value === null) {
    if (call.meta.kind === 'http') call.end(metaFrame(RESULT, call.stream, EMPTY_META));
    else call.end(metaFrame(RESULT, call.stream, JSON_META, 'null'));
    return;
  }
  const parts = unwrap(value);
  if (parts !== undefined) {
    [body, status, headers] = parts;
    if (body === undefined || body === null) [meta, body] = [headOf(status, headers, ''), ''];
  } else {
    body = value;
  }
  if (isStream(body)) return answerStream(call, body, status, headers);
  if (meta === undefined) {
    let bare, contentType;
    [body, bare, contentType] = encode(body);
    meta = parts === undefined ? bare : headOf(status, headers, contentType);
  }
  const size = typeof body === 'string' ? Buffer.byteLength(body) : body.length;
  if (size > spec.response_bytes) throw new Fault(`the answer is ${size} bytes; response_bytes allows ${spec.response_bytes}`, 'response_bytes');
  if (size <= MAX_WHOLE) {
    call.end(metaFrame(RESULT, call.stream, meta, body));
    return;
  }
  call.head(meta);
  await call.write(Buffer.from(body));
  call.end(frame(END, call.stream));
}

async function answerStream(call, source, status, headers) {
  const abort = () => { source.destroy?.(); };
  call.onCancel.push(abort);
  for await (const value of source) {
    let [data, meta, contentType] = encode(value);
    if (meta === JSON_META) [data, contentType] = [data + '\n', 'application/x-ndjson'];
    if (!call.headed) call.head(headOf(status, headers, contentType));
    await call.write(typeof data === 'string' ? Buffer.from(data) : data);
    if (call.canceled) throw new Canceled('the caller went away');
  }
  if (!call.headed) call.head(headOf(status, headers, 'text/plain; charset=utf-8'));
  call.end(frame(END, call.stream));
}

async function serve(call) {
  try {
    const event = new Event(call);
    if (!fn.takesEvent && call.body.streamed) await event.bytes();
    const value = fn.handler.call(undefined, fn.takesEvent ? event : event.args, new Context(call));
    // Awaiting costs a turn of the queue, which a plain value need not wait for.
    await answer(call, typeof value?.then === 'function' ? await value : value);
  } catch (err) {
    call.fail(err);
  }
}

// --- The function --------------------------------------------------------------------------

// locate finds the file to run and the name of the handler to look for in it.
function locate() {
  const wanted = (spec.handler ?? '').replace(':', '.');
  const dot = wanted.lastIndexOf('.');
  if (dot > 0) {
    for (const suffix of ['.js', '.mjs', '.cjs']) {
      const file = path.join(spec.code, wanted.slice(0, dot) + suffix);
      if (fs.existsSync(file)) return [file, wanted.slice(dot + 1)];
    }
  }
  const file = path.join(spec.code, spec.entry);
  if (!fs.existsSync(file)) throw new Fault(`the code has no file ${spec.entry}`);
  return [file, wanted];
}

// isModule says whether a file is an ECMAScript module by its name or its package.
function isModule(file) {
  if (file.endsWith('.mjs')) return true;
  if (file.endsWith('.cjs')) return false;
  for (let dir = path.dirname(file); dir.startsWith(spec.code); dir = path.dirname(dir)) {
    try {
      return JSON.parse(fs.readFileSync(path.join(dir, 'package.json'), 'utf8')).type === 'module';
    } catch { /* none here: look above */ }
  }
  return false;
}

// measured runs load and adds up the time that its outermost requires of what is not the
// function's own code take.
async function measured(run) {
  const Module = require('module');
  const original = Module._load;
  let depth = 0;
  let spent = 0n;
  Module._load = function (request, parent, main) {
    const own = (request.startsWith('.') || request.startsWith('/')) && !String(parent?.filename).includes('/node_modules/');
    if (depth > 0 || own) return original.call(this, request, parent, main);
    depth++;
    const begin = hrtime.bigint();
    try {
      return original.call(this, request, parent, main);
    } finally {
      spent += hrtime.bigint() - begin;
      depth--;
    }
  };
  try {
    return [await run(), () => Number(spent / 1000n)];
  } finally {
    Module._load = original;
  }
}

// open runs the file and returns what it exports.
async function open(file) {
  const { pathToFileURL } = require('url');
  if (isModule(file)) return await import(pathToFileURL(file).href);
  const Module = require('module');
  const compile = Module.prototype._compile;
  // A script that exports nothing is taken by the names it defines.
  Module.prototype._compile = function (content, name, ...more) {
    if (name === file) {
      // typeof: a module by its syntax comes this way too, and has no such name.
      content += '\n;if (typeof module === "object" && module.exports !== null && typeof module.exports === "object" && Object.keys(module.exports).length === 0) {' +
        DEFAULT_HANDLERS.map((h) => `if (typeof ${h} === "function") module.exports.${h} = ${h};`).join('') + '}';
    }
    return compile.call(this, content, name, ...more);
  };
  try {
    return Module.createRequire(file)(file);
  } catch (err) {
    const esm = err?.code === 'ERR_REQUIRE_ESM' || err?.code === 'ERR_REQUIRE_ASYNC_MODULE' ||
      (err instanceof SyntaxError && /import statement|Unexpected token 'export'|import\.meta|await is only valid/.test(err.message));
    if (!esm) throw err;
  } finally {
    Module.prototype._compile = compile;
  }
  // It is an ECMAScript module by its syntax. Node.js 20.19 and newer take it as such.
  try {
    return await import(pathToFileURL(file).href);
  } catch (err) {
    if (err instanceof SyntaxError && /import statement|Unexpected token 'export'/.test(err.message)) {
      throw new Fault(`${path.basename(file)} is an ECMAScript module; name it .mjs, or add a package.json with "type": "module"`);
    }
    throw err;
  }
}

// find returns the handler and whether it takes the event rather than its arguments.
function find(exported, wanted, file) {
  let target, name;
  if (wanted !== '') {
    const lookUp = (from) => wanted.split('.').reduce((o, k) => o?.[k], from);
    target = lookUp(exported) ?? lookUp(exported?.default);
    name = wanted.slice(wanted.lastIndexOf('.') + 1);
    if (typeof target !== 'function') throw new Fault(`${path.basename(file)} exports no function ${wanted}; ${there(exported)}`);
  } else {
    for (const from of [exported, exported?.default]) {
      for (const h of DEFAULT_HANDLERS) {
        if (target === undefined && typeof from?.[h] === 'function') [target, name] = [from[h], h];
      }
    }
    if (target === undefined) {
      target = [exported, exported?.default].find((f) => typeof f === 'function');
      if (target === undefined) throw new Fault(`${path.basename(file)} exports none of the functions main, handle or handler, and no function as its default; ${there(exported)}`);
      name = target.name;
    }
  }
  let takesEvent = name !== 'main';
  if (!DEFAULT_HANDLERS.includes(name)) {
    const first = /^(?:async\s*)?(?:function\s*\*?\s*)?[\w$]*\s*\(?\s*([\w$]*)/.exec(String(target))?.[1];
    takesEvent = ['event', 'request', 'req'].includes(first);
  }
  return { handler: target, takesEvent };
}

function there(exported) {
  const names = exported === null || exported === undefined ? [] : Object.keys(exported).filter((k) => typeof exported[k] === 'function');
  return names.length > 0 ? 'it exports ' + names.slice(0, 10).join(', ') : 'it exports no function';
}

async function load() {
  const begin = hrtime.bigint();
  Object.assign(process.env, spec.env);
  process.argv = [process.execPath, path.join(spec.code, spec.entry)];
  const [found, spent] = await measured(async () => {
    const [file, wanted] = locate();
    return find(await open(file), wanted, file);
  });
  fn = found;
  instanceLog.flush();
  const total = Number((hrtime.bigint() - begin) / 1000n);
  send(jsonFrame(LOADED, 0, { dependency_us: spent(), code_us: Math.max(total - spent(), 0) }));
}

// loadFailed says why and ends the process.
function loadFailed(err) {
  instanceLog.flush();
  const f = faultOf(err);
  if (err instanceof SyntaxError && !/^\s*(\/|file:)/.test(f.trace)) {
    f.trace = syntaxTrace() || f.trace; // an ECMAScript module's error does not say where it is
  }
  send(jsonFrame(LOAD_FAILED, 0, f));
  socket.end(() => exit(1));
}

function syntaxTrace() {
  try {
    const [file] = locate();
    const { stderr } = require('child_process').spawnSync(process.execPath, ['--check', file], { timeout: 5000 });
    return String(stderr).split('\n').filter((line) => !/^\s+at .*node:internal\/|^Node\.js v/.test(line)).join('\n').trim();
  } catch {
    return '';
  }
}

// --- Boot ----------------------------------------------------------------------------------

function boot() {
  socket = new net.Socket({ fd: 3, readable: true, writable: true });
  socket.on('data', receive);
  socket.on('end', () => exit(0)); // the host is gone, and with it whoever would care
  socket.on('error', () => exit(0));
  send(jsonFrame(HELLO, 0, { protocol: 1, runtime: 'node', version: process.versions.node }));
  for (const [name, which] of [['stdout', 1], ['stderr', 2]]) {
    const out = new Output(which);
    Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => out });
  }
  process.on('uncaughtException', stray);
  process.on('unhandledRejection', (reason) => stray(reason, 'unhandledRejection'));
  process.on('exit', () => {
    for (const call of calls.values()) call.log.flush();
    instanceLog.flush();
  });
}

boot();
