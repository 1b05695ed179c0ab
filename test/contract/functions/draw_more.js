
// Appended to the draws of test/leak: what a context and a thread of its own draw, and V8's hash of a
// string, which depends on a seed that is drawn once for a process.
const drawn = exports.main;
const { Worker } = require('worker_threads');
const { createSocket } = require('dgram');
const vm = require('vm');

function thread() {
  return new Promise((done, failed) => {
    const worker = new Worker('require("worker_threads").parentPort.postMessage(Math.random())', { eval: true });
    worker.once('message', (n) => done(String(n))).once('error', failed);
  });
}

// query returns the numbers of questions that were put to a server of names.
async function query() {
  const server = createSocket('udp4');
  await new Promise((done) => server.bind(0, '127.0.0.1', done));
  const resolver = new (require('dns').Resolver)({ tries: 1, timeout: 2000 });
  resolver.setServers([`127.0.0.1:${server.address().port}`]);
  const asked = [];
  const all = new Promise((done) => server.on('message', (m) => {
    asked.push(m.readUInt16BE(0));
    if (asked.length === 4) done();
  }));
  for (const name of ['a', 'b', 'c', 'd']) resolver.resolve4(name + '.test', () => {});
  await all;
  resolver.cancel();
  server.close();
  return asked.join(' ');
}

function hash() {
  const addon = { exports: {} };
  process.dlopen(addon, '/brasa/native.node');
  return addon.exports.hash('a string');
}

exports.main = async (args) => ({
  drawn: { ...await drawn(), context: String(vm.runInNewContext('Math.random()')), thread: args.more ? await thread() : undefined, query: args.more ? await query() : undefined },
  hash: hash(),
  pid: process.pid,
});
exports.leave = () => process.exit(7);
