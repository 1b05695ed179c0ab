'use strict';

// The draws that are quick, for many processes.
const crypto = require('crypto');
const vm = require('vm');

function hash() {
  const addon = { exports: {} };
  process.dlopen(addon, '/brasa/native.node');
  return addon.exports.hash('a string');
}

exports.main = () => ({
  drawn: {
    math: String(Math.random()), again: String(Math.random()), bytes: crypto.randomBytes(8).toString('hex'), uuid: crypto.randomUUID(),
    int: String(crypto.randomInt(2 ** 47)) + crypto.randomInt(2 ** 47), values: Buffer.from(globalThis.crypto.getRandomValues(new Uint8Array(8))).toString('hex'),
    context: String(vm.runInNewContext('Math.random()')),
  },
  hash: hash(),
  pid: process.pid,
});
exports.leave = () => process.exit(7);
