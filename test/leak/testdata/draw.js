'use strict';
const crypto = require('crypto');
const fs = require('fs');
const os = require('os');
const tls = require('tls');
const { Duplex } = require('stream');

if (process.env.DEAR) for (const end = Date.now() + 30; Date.now() < end;);

// hello returns what a client of TLS sends first.
function hello() {
  return new Promise((resolve, reject) => {
    const wire = new Duplex({ read() {}, write(chunk, _, done) { resolve(chunk); done(); } });
    tls.connect({ socket: wire, servername: 'example.com' }).on('error', reject);
  });
}

async function draw() {
  const h = await hello();
  const hex = (b) => Buffer.from(b).toString('hex');
  const out = {
    math: String(Math.random()), math2: String(Math.random()), randomBytes: hex(crypto.randomBytes(8)), uuid: crypto.randomUUID(), uncached: crypto.randomUUID({ disableEntropyCache: true }),
    getRandomValues: hex(globalThis.crypto.getRandomValues(new Uint8Array(8))), webUUID: globalThis.crypto.randomUUID(),
    randomInt: String(crypto.randomInt(2 ** 47)) + crypto.randomInt(2 ** 47), fill: hex(crypto.randomFillSync(Buffer.alloc(8))),
    async: hex(await new Promise((r, j) => crypto.randomBytes(8, (e, b) => (e ? j(e) : r(b))))),
    key: crypto.generateKeySync('hmac', { length: 64 }).export().toString('hex'),
    webKey: hex(await crypto.subtle.exportKey('raw', await crypto.subtle.generateKey({ name: 'AES-CBC', length: 128 }, true, ['encrypt']))),
    pair: crypto.generateKeyPairSync('x25519').privateKey.export({ type: 'pkcs8', format: 'der' }).toString('hex'),
    clientRandom: hex(h.subarray(11, 43)), session: hex(h.subarray(44, 76)), hello: hex(h.subarray(76)),
  };
  const f = fs.openSync('/dev/urandom');
  const b = Buffer.alloc(8);
  fs.readSync(f, b);
  fs.closeSync(f);
  out.file = hex(b);
  const dir = fs.mkdtempSync(os.tmpdir() + '/x');
  fs.rmdirSync(dir);
  out.mkdtemp = dir;
  return out;
}

let ready = draw(); // so that all of it has been used before the snapshot

exports.main = async () => {
  await ready;
  return draw();
};
