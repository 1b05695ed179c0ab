// Brasa's bootstrap for Node.js 18 and newer: frame protocol 1 over descriptor 3.
//
// It boots, rehearses, is told its function (load), and serves calls. Booting knows nothing of
// the function, so that a booted process can wait in stock: all that a first call needs is loaded
// and compiled by then (rehearse), and nothing is left to see of how. What a function may return
// and what it gets is written in docs/runtimes/node.md and tested in test/contract.
'use strict';

const fs = require('fs');
const Module = require('module');
const net = require('net');
const path = require('path');
const { AsyncLocalStorage } = require('async_hooks');
const events = require('events');
const { Writable } = require('stream');
const { pathToFileURL } = require('url');
const util = require('util');
const vm = require('vm');

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
const { existsSync, lstatSync, readFileSync, realpathSync, writeSync } = fs;
const builtinRandom = Math.random;

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
let fd = 3; // the socket's
let spec = null;
let fn = null;
let rest = NOTHING; // of what was read, less than a frame
let early = []; // calls that came before the function was loaded

// send hands a frame to the host. What the socket takes at once does not go by way of the stream,
// which costs as much again.
function send(b) {
  if (socket.writableLength === 0) {
    try {
      const n = writeSync(fd, b);
      if (n === b.length) return;
      b = b.subarray(n);
    } catch { /* it is full, or gone: the stream knows what to do */ }
  }
  socket.write(b);
}

// receive takes what was read, which lies in a buffer that the next read uses again.
function receive(data) {
  if (rest.length > 0) data = Buffer.concat([rest, data]);
  let at = 0;
  while (data.length - at >= 9) {
    const end = at + 4 + word(data, at);
    if (end - at < 9 || end - at > 9 + MAX_PAYLOAD) {
      writeSync(2, 'brasa: a frame that cannot be read\n');
      exit(70);
    }
    if (data.length < end) break;
    dispatch(data[at + 4], word(data, at + 5), data, at + 9, end);
    at = end;
  }
  rest = at === data.length ? NOTHING : Buffer.from(data.subarray(at));
}

// word is readUInt32BE without its checks, which cost a first call more than all else here.
function word(b, at) {
  return ((b[at] << 24) | (b[at + 1] << 16) | (b[at + 2] << 8) | b[at + 3]) >>> 0;
}

function dispatch(type, stream, data, from, to) {
  if (type === CALL) {
    const n = from + 4 + word(data, from);
    const meta = JSON.parse(data.utf8Slice(from + 4, n));
    const call = new Call(stream, meta, n < to ? Buffer.from(data.subarray(n, to)) : NOTHING);
    calls.set(stream, call);
    if (meta.seed !== undefined) reseed(meta.seed, true);
    if (fn === null) early.push(call);
    else current.run(call, fn.serve, call);
    return;
  }
  if (type === LOAD) {
    spec = JSON.parse(data.utf8Slice(from, to));
    load();
    return;
  }
  const call = calls.get(stream);
  if (call === undefined) return; // it is over
  switch (type) {
    case BODY: call.body.chunks.push(Buffer.from(data.subarray(from, to))); break;
    case BODY_END: call.body.ended = true; break;
    case CANCEL: call.cancel(); break;
    case CREDIT: call.credit += word(data, from); break;
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
    const text = typeof err === 'string' ? err : util.inspect(err, { depth: 3 });
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
  if (spec !== null && fn === null) {
    loadFailed(err);
    return;
  }
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
  instanceLog.write(2, text);
  socket.end(() => exit(1));
}

// --- Calls ---------------------------------------------------------------------------------

const JSON_META = '{"status":200,"headers":{"Content-Type":["application/json"]}}';
const TEXT_META = '{"status":200,"headers":{"Content-Type":["text/plain; charset=utf-8"]}}';
const BYTES_META = '{"status":200,"headers":{"Content-Type":["application/octet-stream"]}}';
const FAILED_META = '{"status":502,"headers":{"Content-Type":["application/json"]}}';
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

// --- Actions of OpenWhisk ------------------------------------------------------------------

// An action is a function main, exported or not, that is called with its arguments and returns an
// object or a list. What it throws is a defect; a promise that it rejects is an error of its own, and
// an answer.

function isAction() { return spec.contract === 'openwhisk'; }

const actionMain = Symbol.for('brasa.action'); // of globalThis, while an action is loaded

// actionTaken is a script that says which function its main is.
function actionTaken(content) {
  const name = spec.handler || 'main';
  if (!/^[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*$/.test(name)) throw new Fault(`${JSON.stringify(name)} is no name of a function`);
  return content + `\n;try { globalThis[Symbol.for("brasa.action")] = ${name}; } catch { }`;
}

function findAction(exported, wanted, file) {
  const name = wanted || 'main';
  const lookUp = (from) => name.split('.').reduce((o, k) => o?.[k], from);
  const handler = [globalThis[actionMain], lookUp(exported), lookUp(exported?.default)].find((f) => typeof f === 'function');
  delete globalThis[actionMain];
  if (handler === undefined) throw new Fault(`${path.basename(file)} defines no function ${name}; ${there(exported)}`);
  return { handler, serve: serveAction };
}

async function serveAction(call) {
  try {
    Object.assign(process.env, call.meta.env);
    const event = new Event(call);
    if (call.body.streamed) await event.bytes();
    const { args } = event;
    let value;
    try {
      value = fn.handler.call(undefined, Array.isArray(args.body) && event.body.toString().trimStart().startsWith('[') ? args.body : args);
    } catch (err) {
      console.error(err);
      throw err;
    }
    try {
      if (typeof value?.then === 'function') value = await value;
    } catch (err) {
      value = { error: err ? rejection(err) : {} };
    }
    await answerAction(call, value === undefined ? {} : value);
  } catch (err) {
    call.fail(err);
  }
}

// rejection is what the error of an answer shows of what a promise was rejected with: of an error its
// own fields too.
function rejection(err) {
  if (typeof err === 'function') return `[Function: ${err.name || 'anonymous'}]`;
  if (!(err instanceof Error)) return err;
  const out = { name: err.name, message: err.message, stack: err.stack };
  for (const [k, v] of Object.entries(err)) {
    try {
      if (typeof v !== 'function' && JSON.stringify(v) !== undefined) out[k] = v;
    } catch { /* a field that JSON can't hold */ }
  }
  return out;
}

async function answerAction(call, value) {
  let text;
  try {
    text = JSON.stringify(value);
  } catch (e) {
    throw new Fault('the action did not return what JSON can hold, so its response is not valid: ' + e.message.split('\n')[0]);
  }
  if (text === undefined || (text[0] !== '{' && text[0] !== '[')) {
    throw new Fault('the action did not return a dictionary or array, so its response is not valid: ' + String(text ?? typeof value).slice(0, 1000));
  }
  let failed = text[0] === '{' && value.error !== undefined;
  const size = Buffer.byteLength(text);
  if (size > spec.response_bytes) {
    failed = true;
    text = JSON.stringify({ error: `the action's response is too long: ${size} bytes are more than the ${spec.response_bytes} that are allowed; it begins: ${text.slice(0, 8192)}` });
  }
  const meta = failed ? FAILED_META : JSON_META;
  if (text.length * 3 <= MAX_WHOLE || Buffer.byteLength(text) <= MAX_WHOLE) {
    call.end(metaFrame(RESULT, call.stream, meta, text));
    return;
  }
  call.head(meta);
  await call.write(Buffer.from(text));
  call.end(frame(END, call.stream));
}

// --- The function --------------------------------------------------------------------------

// locate finds the file to run and the name of the handler to look for in it.
function locate() {
  const wanted = (spec.handler ?? '').replace(':', '.');
  const dot = wanted.lastIndexOf('.');
  if (dot > 0) {
    for (const suffix of ['.js', '.mjs', '.cjs']) {
      const file = path.join(spec.code, wanted.slice(0, dot) + suffix);
      if (existsSync(file)) return [file, wanted.slice(dot + 1)];
    }
  }
  const file = path.join(spec.code, spec.entry);
  if (!existsSync(file)) throw new Fault(`the code has no file ${spec.entry}`);
  return [file, wanted];
}

// ofFunction says whether a file is the function's: of its code, or of what was installed for it,
// which a require from the code finds by itself.
function ofFunction(file) {
  return file.startsWith(spec.code + '/') || isInstalled(file);
}

function isInstalled(file) {
  return (spec.path ?? []).some((dir) => file.startsWith(dir + '/'));
}

// isModule says whether a file is an ECMAScript module by its name or its package.
function isModule(file) {
  if (file.endsWith('.mjs')) return true;
  if (file.endsWith('.cjs')) return false;
  for (let dir = path.dirname(file); dir === spec.code || ofFunction(dir); dir = path.dirname(dir)) {
    const manifest = path.join(dir, 'package.json');
    if (!existsSync(manifest)) continue; // to ask is a twentieth of what an error costs
    try {
      return JSON.parse(readFileSync(manifest, 'utf8')).type === 'module';
    } catch { /* none to be read: look above */ }
  }
  return false;
}

// meter adds up the time that the outermost requires of what is not the function's own code take.
// It returns what stops it and says how long that was, in microseconds.
function meter() {
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
  return () => {
    Module._load = original;
    return Number(spent / 1000n);
  };
}

// open runs the file and returns what it exports, or a promise of it if it is an ECMAScript
// module. The others wait for no promise, of which each is a turn of the queue.
function open(file) {
  if (isModule(file)) return import(pathToFileURL(file).href);
  const compile = Module.prototype._compile;
  Module.prototype._compile = compiler = function (content, name, ...more) {
    return compile.call(this, name === file ? taken(content) : content, name, ...more);
  };
  try {
    return run(file);
  } catch (err) {
    const esm = err?.code === 'ERR_REQUIRE_ESM' || err?.code === 'ERR_REQUIRE_ASYNC_MODULE' ||
      (err instanceof SyntaxError && /import statement|Unexpected token 'export'|import\.meta|await is only valid/.test(err.message));
    if (!esm) throw err;
  } finally {
    Module.prototype._compile = compiler = compile;
  }
  // It is an ECMAScript module by its syntax. Node.js 20.19 and newer take it as such.
  return import(pathToFileURL(file).href).catch((err) => {
    if (err instanceof SyntaxError && /import statement|Unexpected token 'export'/.test(err.message)) {
      throw new Fault(`${path.basename(file)} is an ECMAScript module; name it .mjs, or add a package.json with "type": "module"`);
    }
    throw err;
  });
}

// taken is a script that exports the names it defines if it exports nothing else.
function taken(content) {
  if (isAction()) return actionTaken(content);
  // typeof: a module by its syntax comes this way too, and has no such name.
  return content + '\n;if (typeof module === "object" && module.exports !== null && typeof module.exports === "object" && Object.keys(module.exports).length === 0) {' +
    DEFAULT_HANDLERS.map((h) => `if (typeof ${h} === "function") module.exports.${h} = ${h};`).join('') + '}';
}

// run is require of a file that is known to be there, which need not be looked for.
function run(file) {
  // The directory is known by its true name since it is the current one; so is a file in it.
  const real = path.dirname(file) === spec.code && !lstatSync(file).isSymbolicLink() ? path.join(process.cwd(), path.basename(file)) : realpathSync(file);
  const parent = new Module(file);
  parent.filename = file;
  parent.paths = Module._nodeModulePaths(parent.path);
  const entry = new Module(real, parent);
  Module._cache[real] = entry;
  let done = false;
  try {
    entry.load(real);
    done = true;
  } finally {
    if (!done) delete Module._cache[real];
  }
  return entry.exports;
}

// --- Packs ---------------------------------------------------------------------------------

// A pack holds what loading the function's CommonJS modules came to when it was deployed: where
// each require led, the sources, and V8's code for them, so that a load looks for no file and
// compiles nothing. It lies beside the code in one file:
//
//	u32 length of the head | head, JSON | sources and code
//
// The head has {node, code, paths: {key of Module._pathCache: file}, files: [[file, from, to, latin1,
// from, to]]}, with offsets of the source and of its code. A pack made by another Node.js counts for
// nothing, and V8 refuses code that it did not make with the flags it has now; then the source is
// compiled as ever.
const PACK = '.brasa-pack';
const head = '(function (exports, require, module, __filename, __dirname) { ';
const defaultLoader = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER; // Node.js 20.10 and newer

let compiler = Module.prototype._compile; // the usual one, or ours around it

// compiled runs a module's source as Module.prototype._compile does, with what V8 made of it before.
// It returns the script.
function compiled(module, filename, source, cachedData) {
  const script = new vm.Script(head + source + '\n})', {
    filename, columnOffset: -head.length, cachedData, importModuleDynamically: defaultLoader,
  });
  const { exports } = module;
  script.runInThisContext().call(exports, exports, requireOf(module), module, filename, path.dirname(filename));
  return script;
}

// requireOf makes the require of a module, as Node.js does.
function requireOf(module) {
  const require = function require(path) { return module.require(path); };
  require.resolve = function resolve(request, options) { return Module._resolveFilename(request, module, false, options); };
  require.resolve.paths = function paths(request) { return Module._resolveLookupPaths(request, module); };
  require.main = process.mainModule;
  require.extensions = Module._extensions;
  require.cache = Module._cache;
  return require;
}

// unpack makes require use the function's pack, if it has one that fits.
function unpack() {
  const file = path.join(spec.code, PACK);
  if (defaultLoader === undefined || !existsSync(file)) return;
  const all = readFileSync(file);
  const start = 4 + word(all, 0);
  const { node, code, paths, files } = JSON.parse(all.utf8Slice(4, start) || '{}');
  if (node !== process.version || code !== spec.code) return;
  Object.assign(Module._pathCache, paths);
  const held = new Map();
  for (const f of files) held.set(f[0], f);
  const extension = Module._extensions['.js'];
  Module._extensions['.js'] = function (module, filename) {
    const f = held.get(filename);
    // One who put a compiler of his own in the way, or asks for source maps, gets the usual way.
    if (f === undefined || process.sourceMapsEnabled || module._compile !== compiler) return extension(module, filename);
    const [, from, to, latin1, codeFrom, codeTo] = f;
    const source = latin1 ? all.latin1Slice(start + from, start + to) : all.utf8Slice(start + from, start + to);
    compiled(module, filename, source, codeTo > codeFrom ? all.subarray(start + codeFrom, start + codeTo) : undefined);
  };
}

// pack loads the function that the file spec in the directory out tells of as an instance would,
// and writes its pack beside it: of all its modules, or of those alone that were installed for it. It
// runs at deploy, in a sandbox.
async function pack(out, which) {
  spec = JSON.parse(readFileSync(path.join(out, 'spec'), 'utf8'));
  if (defaultLoader === undefined) return;
  process.chdir(spec.code);
  Object.assign(process.env, spec.env);
  process.argv = [process.execPath, path.join(spec.code, spec.entry)];
  const scripts = new Map();
  const before = new Set(Object.keys(Module._pathCache));
  const extension = Module._extensions['.js'];
  const [entry] = locate();
  const taking = which === 'installed' ? isInstalled : ofFunction;
  Module._extensions['.js'] = function (module, filename) {
    const bytes = readFileSync(filename);
    let source = bytes.toString('utf8');
    if (filename === entry) source = taken(source);
    if (module._compile !== compiler || !taking(filename) || !packable(filename, source)) return extension(module, filename);
    scripts.set(filename, [source]);
    scripts.get(filename).push(compiled(module, filename, source));
  };
  await open(entry);
  const paths = {};
  for (const [key, file] of Object.entries(Module._pathCache)) if (!before.has(key) && taking(file)) paths[key] = file;
  const files = [];
  const parts = [];
  let at = 0;
  const add = (bytes) => {
    parts.push(bytes);
    at += bytes.length;
    return [at - bytes.length, at];
  };
  for (const [file, [source, script]] of scripts) {
    if (script === undefined) continue; // it threw, and whoever required it went on
    const latin1 = !/[^\0-\xff]/.test(source);
    // Code that came from a cache has forgotten whose it is, which V8 must know for import().
    const code = /\b(import|eval)\b/.test(source) ? NOTHING : script.createCachedData();
    files.push([file, ...add(Buffer.from(source, latin1 ? 'latin1' : 'utf8')), latin1, ...add(code)]);
  }
  const text = Buffer.from(JSON.stringify({ node: process.version, code: spec.code, paths, files }));
  const size = Buffer.alloc(4);
  size.writeUInt32BE(text.length);
  fs.writeFileSync(path.join(out, 'pack'), Buffer.concat([size, text, ...parts]));
}

// packable says whether a file is CommonJS that a pack can hold: not what only the usual way takes,
// or takes otherwise.
function packable(filename, source) {
  if (source.startsWith('#!') || source.startsWith('\ufeff') || isModule(filename)) return false;
  try {
    vm.compileFunction(source, ['exports', 'require', 'module', '__filename', '__dirname'], { filename, importModuleDynamically: defaultLoader });
    return true;
  } catch {
    return false;
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
  return { handler: target, takesEvent, serve };
}

function there(exported) {
  const names = exported === null || exported === undefined ? [] : Object.keys(exported).filter((k) => typeof exported[k] === 'function');
  return names.length > 0 ? 'it exports ' + names.slice(0, 10).join(', ') : 'it exports no function';
}

function load() {
  const begin = hrtime.bigint();
  const stop = meter();
  const loaded = (exported, file, wanted) => {
    const found = (isAction() ? findAction : find)(exported, wanted, file);
    const spent = stop();
    const total = Number((hrtime.bigint() - begin) / 1000n);
    fn = found;
    instanceLog.flush();
    send(jsonFrame(LOADED, 0, { dependency_us: spent, code_us: Math.max(total - spent, 0) }));
    for (const call of early.splice(0)) {
      if (calls.has(call.stream)) current.run(call, fn.serve, call);
    }
  };
  try {
    if (spec.seed !== undefined) reseed(spec.seed, false);
    process.chdir(spec.code);
    Object.assign(process.env, spec.env);
    process.argv = [process.execPath, path.join(spec.code, spec.entry)];
    const [file, wanted] = locate();
    mapTraces(file);
    unpack();
    const exported = open(file);
    if (typeof exported?.then === 'function') Promise.resolve(exported).then((e) => loaded(e, file, wanted)).catch(loadFailed);
    else loaded(exported, file, wanted);
  } catch (err) {
    stop();
    loadFailed(err);
  }
}

// mapTraces has stack traces name the source of a file that was compiled when it was deployed. Its
// map is read at the first error that has the file in its trace.
function mapTraces(file) {
  if (!/\.[cm]js$/.test(file) || !existsSync(file + '.map')) return;
  let map;
  const source = (whole, name, line, column) => {
    if (name !== file) return whole;
    try {
      map ??= new Module.SourceMap(JSON.parse(readFileSync(file + '.map', 'utf8')));
      const at = map.findEntry(line - 1, column - 1);
      return `${path.resolve(path.dirname(file), at.originalSource)}:${at.originalLine + 1}:${at.originalColumn + 1}`;
    } catch {
      return whole; // what has no source, such as what the compiler put in
    }
  };
  Error.prepareStackTrace = (err, frames) => {
    let text;
    try {
      text = String(err);
    } catch {
      text = 'Error';
    }
    for (const f of frames) text += '\n    at ' + String(f).replace(/(?:file:\/\/)?(\/[^():]+):(\d+):(\d+)/, source);
    return text;
  };
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

// --- Randomness ----------------------------------------------------------------------------

// A process that was put back to an earlier state of its memory, or forked, would repeat what was
// drawn before. There are five sources:
//
//   Math.random      V8 can't be told to begin anew, so it is replaced, before the function's code
//                    can take hold of it
//   OpenSSL          whatever crypto, Web Crypto and TLS draw: native.c seeds it
//   V8               what a new context's own Math.random begins with: native.c seeds it
//   randomUUID       hands out what was drawn for 128 of them at once
//   randomInt        hands out what was drawn for 1,024 of them at once

// reseed gives all of them a new start. seed is 64 hex digits. again says that the process was put
// back after its function was loaded; it ends if it can't be trusted then.
function reseed(seed, again) {
  for (let i = 0; i < 4; i++) state[i] = parseInt(seed.slice(8 * i, 8 * i + 8), 16);
  state[3] |= 1; // all zero would stay so
  if (Math.random !== random) Math.random = random;
  const bytes = Buffer.from(seed, 'hex');
  const seeded = openNative()?.reseed(bytes) === true;
  native?.scatter(bytes.subarray(16));
  if (!again) return;
  if (!seeded) {
    writeSync(2, 'brasa: this process was put back and has no way to draw new random numbers\n');
    exit(70);
  }
  forgetDrawn();
}

let native; // the addon; null if there is none
function openNative() {
  if (native === undefined) {
    const module = { exports: {} };
    try {
      process.dlopen(module, path.join(__dirname, 'native.node'));
      native = module.exports;
    } catch {
      native = null;
    }
  }
  return native;
}

let drawnInts; // the buffer of randomInt; undefined if it could not be found

// findDrawn finds the buffer of randomInt and leaves it empty.
function findDrawn() {
  const { randomInt } = require('crypto');
  const { prototype } = Buffer;
  const { readUIntBE } = prototype;
  prototype.readUIntBE = function (...args) {
    drawnInts = this;
    return readUIntBE.apply(this, args);
  };
  randomInt(2);
  prototype.readUIntBE = readUIntBE;
  for (let i = 1; i < 1024; i++) randomInt(2);
}

// forgetDrawn drops what was drawn ahead. After as many UUIDs as are drawn at once those left are
// of a later draw, wherever it stood.
function forgetDrawn() {
  const { randomFillSync, randomInt, randomUUID } = require('crypto');
  if (drawnInts === undefined) for (let i = 0; i < 1024; i++) randomInt(2);
  else randomFillSync(drawnInts);
  for (let i = 0; i < 128; i++) randomUUID();
}

const state = new Uint32Array(4); // of random

// random is Math.random by xoshiro128++.
const { random } = {
  random() {
    return ((next() >>> 5) * 67108864 + (next() >>> 6)) / 9007199254740992;
  },
};

function next() {
  const sum = (state[0] + state[3]) | 0;
  const out = ((sum << 7 | sum >>> 25) + state[0]) | 0;
  const t = state[1] << 9;
  state[2] ^= state[0];
  state[3] ^= state[1];
  state[1] ^= state[2];
  state[0] ^= state[3];
  state[2] ^= t;
  state[3] = state[3] << 11 | state[3] >>> 21;
  return out;
}

// --- Boot ----------------------------------------------------------------------------------

// link is how a socket is made to read into one buffer, past the machinery of streams.
const link = {
  onread: {
    buffer: Buffer.allocUnsafeSlow(64 << 10),
    callback(n, buffer) {
      receive(buffer.subarray(0, n));
      return true;
    },
  },
};

// connect takes up the connection to the host.
function connect() {
  socket = new net.Socket({ fd: 3, readable: true, writable: true, ...link });
  socket.on('end', () => exit(0)); // the host is gone, and with it whoever would care
  socket.on('error', () => exit(0));
}

function boot() {
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

function hello() {
  send(jsonFrame(HELLO, 0, { protocol: 1, runtime: 'node', version: process.versions.node }));
}

// --- Rehearsal -----------------------------------------------------------------------------

// common are modules that functions use most, of which each takes up to two milliseconds to load.
// fetch is not among them: with it a process would wait with 2 MB more, and most have no network.
const common = [
  'buffer', 'crypto', 'dns', 'events', 'fs/promises', 'http', 'https', 'os', 'querystring', 'stream', 'stream/promises',
  'string_decoder', 'timers', 'timers/promises', 'tls', 'url', 'util', 'zlib',
];

// plays are what is rehearsed. The last is as most functions are, so that it is what is warm.
const plays = ['event.js', 'function.mjs', 'function.js', 'function.js', 'function.js'];

// rehearse goes the way of a first call a few times, with functions of ours, over a socket to this
// process itself, and then forgets it. What it loads, compiles and touches is what a claimed
// process need not.
async function rehearse() {
  for (const name of common) require(name);
  await startThreads();
  findDrawn();
  const resolved = new Set(Object.keys(Module._pathCache));
  const { argv } = process;
  const cwd = process.cwd();
  const host = socket;
  const [near, far] = await pair();
  const stage = path.join(__dirname, 'rehearsal');
  try {
    [socket, fd] = [near, near._handle.fd];
    for (const entry of plays) {
      far.write(script(stage, entry));
      for (let got = NOTHING, type; type !== RESULT;) {
        const [data] = await events.once(far, 'data');
        got = Buffer.concat([got, data]);
        for (; got.length >= 9 && got.length >= 4 + word(got, 0); got = got.subarray(4 + word(got, 0))) {
          type = got[4];
          if (type === LOAD_FAILED) throw new Error(got.toString('utf8', 9));
        }
      }
      spec = fn = null;
      delete require.cache[path.join(stage, entry)];
      delete process.env.BRASA_FUNCTION;
    }
  } finally {
    spec = fn = null;
    [socket, fd] = [host, 3];
    near.destroy();
    far.destroy();
    process.argv = argv;
    process.chdir(cwd);
    Math.random = builtinRandom;
    for (const out of [process.stdout, process.stderr]) out.removeAllListeners('error'); // console's, of Node.js 18
    for (const name of Object.keys(Module._pathCache)) if (!resolved.has(name)) delete Module._pathCache[name];
  }
}

// script is what a host says: LOAD and CALL in one breath.
function script(stage, entry) {
  // As good as any: a process that has its own randomness goes on with what the rehearsal leaves.
  const seed = require('crypto').randomBytes(32).toString('hex');
  return Buffer.concat([
    jsonFrame(LOAD, 0, {
      namespace: 'rehearsal', function: 'rehearsal', revision: '0123456789abcdef', entry, code: stage, env: { BRASA_FUNCTION: 'rehearsal' }, seed,
      memory_bytes: 1 << 28, timeout_ms: 60000, concurrency: 1, response_bytes: MAX_PAYLOAD, log_bytes: MAX_PAYLOAD,
    }),
    metaFrame(CALL, 1, JSON.stringify({
      id: '0123456789abcdef', deadline_ms: Date.now() + 60000, kind: 'invoke', method: 'POST', path: '/', query: 'a=1',
      headers: { 'Content-Type': ['application/json'] }, attempt: 1, cause: '', body: 'whole', length: 9, seed: openNative() === null ? undefined : seed,
    }), '{"n":[1]}'),
  ]);
}

// pair connects the process with itself.
async function pair() {
  const server = net.createServer();
  // A name of its own in the abstract space, where nothing is left of it.
  server.listen({ path: '\0brasa-' + require('crypto').randomBytes(16).toString('hex') });
  try {
    await events.once(server, 'listening');
    const near = net.connect({ path: server.address(), ...link });
    const [far] = await events.once(server, 'connection');
    return [near, far];
  } finally {
    server.close();
  }
}

// startThreads starts the threads that Node.js starts at their first use, so that a process has
// the same ones from here on.
async function startThreads() {
  await fs.promises.stat('/');
  await util.promisify(require('crypto').randomFill)(Buffer.alloc(1));
}

// --- Forks ---------------------------------------------------------------------------------

const KEEP = 1, EVENT = 2, PIPE = 3, EPOLL = 4, WATCH = 5; // of native/objects.h
const O_ACCMODE = 3;

// zygote rehearses and then forks processes as the host asks, each of which returns from here.
async function zygote() {
  const addon = openNative();
  if (addon === null) throw new Error('the addon can not be loaded');
  await rehearse();
  await new Promise((done) => setTimeout(done, 50)); // for what the rehearsal left to be closed
  const why = addon.fork(openObjects());
  if (why !== undefined) throw new Error(why);
  wake();
}

// wake makes a forked process forget whose copy it is.
function wake() {
  process.chdir('.'); // Node.js remembers where it was
  Object.defineProperty(process, 'pid', { ...Object.getOwnPropertyDescriptor(process, 'pid'), value: Number(fs.readlinkSync('/proc/self')) });
  const seed = Buffer.alloc(32);
  const source = fs.openSync('/dev/urandom', 'r');
  fs.readSync(source, seed);
  fs.closeSync(source);
  reseed(seed.toString('hex'), true);
}

// openObjects says what this process has open besides its first four descriptors, in the form of
// native/objects.h. It throws if a child could not have the same.
function openObjects() {
  const objects = [];
  const watches = [];
  const pipes = new Map();
  const there = new Set();
  const add = (list, kind, at, other, flags, more, value) => {
    const b = Buffer.alloc(32);
    [kind, at, other, flags, more].forEach((n, i) => b.writeUInt32LE(n, 4 * i));
    b.writeBigUInt64LE(value, 24);
    list.push(b);
    there.add(at);
  };
  for (const name of fs.readdirSync('/proc/self/fd')) {
    let what, info;
    try {
      what = fs.readlinkSync(`/proc/self/fd/${name}`);
      info = readFileSync(`/proc/self/fdinfo/${name}`, 'utf8');
    } catch {
      continue; // the directory's, which was being read
    }
    const at = Number(name);
    if (at < 4) continue;
    const flags = parseInt(/^flags:\s*(\d+)/m.exec(info)[1], 8);
    if (what === '/dev/null' || what === '/dev/urandom' || what === '/dev/random') {
      add(objects, KEEP, at, 0, flags, 0, 0n);
    } else if (what === 'anon_inode:[eventfd]') {
      const count = BigInt('0x' + /^eventfd-count:\s*([0-9a-f]+)/m.exec(info)[1]);
      const semaphore = Number(/^eventfd-semaphore:\s*(\d)/m.exec(info)?.[1] ?? 0);
      add(objects, EVENT, at, 0, flags & ~O_ACCMODE | semaphore, 0, count);
    } else if (what.startsWith('pipe:')) {
      const end = flags & O_ACCMODE ? 'write' : 'read';
      const pipe = pipes.get(what) ?? {};
      if (pipe[end] !== undefined) throw new Error(`an end of ${what} is open twice`);
      pipe[end] = [at, flags];
      pipes.set(what, pipe);
      if (pipe.read && pipe.write) {
        add(objects, PIPE, pipe.read[0], pipe.write[0], pipe.read[1], pipe.write[1], 0n);
        there.add(pipe.write[0]);
        pipes.delete(what);
      }
    } else if (what === 'anon_inode:[eventpoll]') {
      add(objects, EPOLL, at, 0, flags, 0, 0n);
      for (const [, watched, events, data] of info.matchAll(/^tfd:\s*(\d+) events:\s*([0-9a-f]+) data:\s*([0-9a-f]+)/gm)) {
        add(watches, WATCH, at, Number(watched), 0, parseInt(events, 16), BigInt('0x' + data));
      }
    } else {
      throw new Error(`descriptor ${at} is of ${what}, which a child can't have as its own`);
    }
  }
  if (pipes.size > 0) throw new Error(`somebody else holds an end of ${[...pipes.keys()]}`);
  for (const w of watches) if (!there.has(w.readUInt32LE(8))) throw new Error(`descriptor ${w.readUInt32LE(8)} is waited for`);
  return Buffer.concat([...objects, ...watches]);
}

if (process.argv[2] === 'check') {
  process.stdout.write(JSON.stringify({ reseeds: openNative()?.reseed(Buffer.alloc(32)) === true }));
} else if (process.argv[2] === 'pack') {
  pack(process.argv[3], process.argv[4]).then(() => exit(0), (err) => {
    writeSync(2, `${err?.stack ?? err}\n`);
    exit(1);
  });
} else if (process.argv[2] === 'zygote') {
  boot();
  zygote().then(() => {
    connect();
    hello();
  }, (err) => native?.refuse(Buffer.from(err.message)) ?? exit(1));
} else {
  connect();
  boot();
  if (process.argv[2] === 'stem') {
    rehearse().catch((err) => {
      writeSync(2, `brasa: the rehearsal failed, the first call will take longer: ${err.stack}\n`);
    }).finally(hello);
  } else {
    hello();
  }
}
