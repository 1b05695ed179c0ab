'use strict';
// The server's side of a WebSocket (RFC 6455) on Node's own modules: handshake, frames in and
// out, fragments, pings, the closing handshake. No extensions.

const crypto = require('node:crypto');
const { EventEmitter } = require('node:events');

const MAGIC = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const MAX_MESSAGE = 64 << 10;
const MAX_BUFFERED = 1 << 20; // what a slow reader may leave unread before it is dropped

const TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10;

// accept answers an upgrade request and returns the socket, or null after refusing it.
function accept(request, stream) {
  const key = request.headers['sec-websocket-key'];
  const asked = (request.headers.upgrade ?? '').toLowerCase() === 'websocket';
  if (request.method !== 'GET' || !asked || !/^[A-Za-z0-9+/]{22}==$/.test(key ?? '')) {
    stream.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    return null;
  }
  if (request.headers['sec-websocket-version'] !== '13') {
    stream.end('HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    return null;
  }
  const proof = crypto.createHash('sha1').update(key + MAGIC).digest('base64');
  stream.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${proof}\r\n\r\n`);
  return new WebSocket(stream);
}

// WebSocket emits 'message' (string or Buffer) and, once, 'close'.
class WebSocket extends EventEmitter {
  constructor(stream) {
    super();
    this.stream = stream;
    this.input = Buffer.alloc(0);
    this.parts = []; // of a message in fragments
    this.size = 0;
    this.kind = 0;
    this.closing = false;
    stream.setNoDelay?.(true);
    stream.on('data', (chunk) => this.receive(chunk));
    stream.on('error', () => stream.destroy());
    stream.once('close', () => this.emit('close'));
    stream.on('end', () => stream.end());
  }

  send(message) {
    if (typeof message === 'string') this.write(TEXT, Buffer.from(message));
    else this.write(BINARY, message);
  }

  ping() {
    this.write(PING, Buffer.alloc(0));
  }

  // close begins the closing handshake; whoever does not answer it is cut off.
  close(code = 1000, reason = '') {
    if (this.closing) return;
    const body = Buffer.alloc(2 + Buffer.byteLength(reason));
    body.writeUInt16BE(code);
    body.write(reason, 2);
    this.write(CLOSE, body);
    this.closing = true;
    setTimeout(() => this.stream.destroy(), 2000).unref();
  }

  write(opcode, body) {
    if (this.closing || this.stream.destroyed) return;
    if (this.stream.writableLength > MAX_BUFFERED) {
      this.stream.destroy();
      return;
    }
    const head = Buffer.alloc(body.length < 126 ? 2 : body.length < 65536 ? 4 : 10);
    head[0] = 0x80 | opcode;
    if (head.length === 2) head[1] = body.length;
    else if (head.length === 4) {
      head[1] = 126;
      head.writeUInt16BE(body.length, 2);
    } else {
      head[1] = 127;
      head.writeBigUInt64BE(BigInt(body.length), 2);
    }
    this.stream.cork();
    this.stream.write(head);
    this.stream.write(body);
    this.stream.uncork();
  }

  receive(chunk) {
    this.input = this.input.length ? Buffer.concat([this.input, chunk]) : chunk;
    while (!this.stream.destroyed && this.frame());
  }

  // frame takes one whole frame from the input; false: there is none yet.
  frame() {
    const input = this.input;
    if (input.length < 2) return false;
    const final = (input[0] & 0x80) !== 0;
    const opcode = input[0] & 0x0f;
    let length = input[1] & 0x7f;
    let at = 2;
    if (input[0] & 0x70 || !(input[1] & 0x80)) return this.fail(1002, 'protocol error');
    if (opcode >= 8 && (!final || length > 125)) return this.fail(1002, 'protocol error');
    if (length === 126) {
      if (input.length < 4) return false;
      length = input.readUInt16BE(2);
      at = 4;
    } else if (length === 127) {
      if (input.length < 10) return false;
      const long = input.readBigUInt64BE(2);
      if (long > BigInt(MAX_MESSAGE)) return this.fail(1009, 'message too big');
      length = Number(long);
      at = 10;
    }
    if (this.size + length > MAX_MESSAGE) return this.fail(1009, 'message too big');
    if (input.length < at + 4 + length) return false;
    const mask = input.subarray(at, at + 4);
    const body = Buffer.from(input.subarray(at + 4, at + 4 + length));
    for (let i = 0; i < body.length; i++) body[i] ^= mask[i & 3];
    this.input = input.subarray(at + 4 + length);
    return this.take(opcode, final, body);
  }

  take(opcode, final, body) {
    switch (opcode) {
      case CLOSE: {
        if (!this.closing) this.write(CLOSE, body.subarray(0, 2));
        this.closing = true;
        this.stream.end();
        return false;
      }
      case PING:
        this.write(PONG, body);
        return true;
      case PONG:
        return true;
      case TEXT:
      case BINARY:
        if (this.kind) return this.fail(1002, 'a message inside another');
        this.kind = opcode;
        break;
      case 0:
        if (!this.kind) return this.fail(1002, 'a fragment of nothing');
        break;
      default:
        return this.fail(1002, 'unknown frame');
    }
    this.parts.push(body);
    this.size += body.length;
    if (!final) return true;
    let message = Buffer.concat(this.parts);
    const text = this.kind === TEXT;
    this.parts = [];
    this.size = this.kind = 0;
    if (text) {
      try {
        message = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(message);
      } catch {
        return this.fail(1007, 'text is not UTF-8');
      }
    }
    if (!this.closing) this.emit('message', message);
    return true;
  }

  fail(code, reason) {
    this.close(code, reason);
    this.input = Buffer.alloc(0);
    this.stream.end();
    return false;
  }
}

module.exports = { accept };
