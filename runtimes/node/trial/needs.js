// What functions need of a process, each tried for real. A process that was forked must do all of
// it as a started one does, or none is forked on this machine.
'use strict';

const assert = require('assert');
const fs = require('fs');
const os = require('os');
const path = require('path');
const { once } = require('events');

const PATIENCE = 30000; // ms, of each: the machine may be busy

// A module of WebAssembly that exports add(i32, i32).
const ADD = Buffer.from('0061736d0100000001070160027f7f017f030201000707010361646400000a09010700200020016a0b', 'hex');

const needs = {
  'its own pid'() {
    assert.strictEqual(process.pid, Number(fs.readlinkSync('/proc/self')));
    process.kill(process.pid, 0);
  },
  async timers() {
    const began = process.hrtime.bigint();
    await new Promise((done) => setTimeout(done, 20));
    const took = Number(process.hrtime.bigint() - began) / 1e6;
    assert(took >= 18, `a timer of 20 ms took ${took}`);
    await new Promise((done) => setImmediate(done));
  },
  async 'files, by the pool of threads'() {
    const dir = await fs.promises.mkdtemp(path.join(os.tmpdir(), 'trial-'));
    await Promise.all(Array.from({ length: 8 }, (_, i) => fs.promises.writeFile(path.join(dir, String(i)), 'x'.repeat(i))));
    assert.strictEqual((await fs.promises.readFile(path.join(dir, '7'), 'utf8')).length, 7);
    await fs.promises.rm(dir, { recursive: true });
  },
  async 'crypto, by the pool of threads'() {
    const { pbkdf2, randomBytes } = require('crypto');
    const { promisify } = require('util');
    const all = await Promise.all([1, 2, 3, 4, 5].map(() => promisify(pbkdf2)('a', 'b', 100, 16, 'sha256')));
    assert.strictEqual(new Set(all.map((b) => b.toString('hex'))).size, 1);
    assert.notStrictEqual((await promisify(randomBytes)(16)).toString('hex'), (await promisify(randomBytes)(16)).toString('hex'));
  },
  async zlib() {
    const { gzip, gunzip } = require('zlib');
    const { promisify } = require('util');
    assert.strictEqual((await promisify(gunzip)(await promisify(gzip)(Buffer.alloc(1 << 16, 'a')))).length, 1 << 16);
  },
  async 'worker threads'() {
    const { Worker } = require('worker_threads');
    const code = `const { parentPort } = require('worker_threads');
      parentPort.on('message', (n) => { parentPort.postMessage([n + 1, Math.random()]); parentPort.close(); });`;
    const drawn = await Promise.all([1, 2].map(async (n) => {
      const worker = new Worker(code, { eval: true });
      const ended = once(worker, 'exit'); // which may come in one breath with the message
      worker.postMessage(n);
      const [[answer, random]] = await once(worker, 'message');
      assert.strictEqual(answer, n + 1);
      assert.strictEqual((await ended)[0], 0);
      return random;
    }));
    assert.notStrictEqual(drawn[0], drawn[1]);
    const looping = new Worker('for (;;);', { eval: true });
    await once(looping, 'online');
    assert.strictEqual(await looping.terminate(), 1);
  },
  async 'shared memory of threads'() {
    const { Worker } = require('worker_threads');
    const shared = new Int32Array(new SharedArrayBuffer(4));
    const worker = new Worker(`const { workerData } = require('worker_threads'); Atomics.add(workerData, 0, 5); Atomics.notify(workerData, 0);`, { eval: true, workerData: shared });
    const ended = once(worker, 'exit');
    if (Atomics.load(shared, 0) === 0) assert.notStrictEqual(Atomics.wait(shared, 0, 0, PATIENCE), 'timed-out');
    assert.strictEqual(shared[0], 5);
    await ended;
  },
  async WebAssembly() {
    const { instance } = await WebAssembly.instantiate(ADD);
    assert.strictEqual(instance.exports.add(2, 3), 5);
    await Promise.all(Array.from({ length: 4 }, () => WebAssembly.compile(ADD)));
    assert.strictEqual(new WebAssembly.Instance(new WebAssembly.Module(ADD)).exports.add(4, 3), 7);
  },
  'code that becomes hot'() {
    const sum = new Function('n', 'let s = 0; for (let i = 0; i < n; i++) s = (s + i * 3) | 0; return s;');
    let last = 0;
    for (let i = 0; i < 300; i++) last = sum(20000);
    assert.strictEqual(last, 599970000 | 0);
  },
  async 'garbage, some of it old'() {
    const kept = [];
    for (let i = 0; i < 60; i++) {
      kept.push(Array.from({ length: 2000 }, (_, k) => ({ i, k, s: `${i}:${k}` })));
      if (kept.length > 20) kept.shift();
      if (i % 10 === 0) await new Promise((done) => setImmediate(done));
    }
    assert.strictEqual(kept[5][1999].s, `${kept[5][0].i}:1999`);
    const seen = new WeakRef({});
    const registry = new FinalizationRegistry(() => {});
    registry.register({}, 1);
    assert(seen !== undefined);
  },
  async 'a server and its client'() {
    const http = require('http');
    const server = http.createServer((request, response) => response.end(request.url)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const text = await new Promise((done, failed) => {
      http.get({ port: server.address().port, host: '127.0.0.1', path: '/hi', agent: false }, (response) => {
        let all = '';
        response.on('data', (d) => { all += d; }).on('end', () => done(all));
      }).on('error', failed);
    });
    assert.strictEqual(text, '/hi');
    server.close();
    await once(server, 'close');
  },
  async 'names by the pool of threads'() {
    const { address } = await require('dns').promises.lookup('localhost');
    assert(address === '127.0.0.1' || address === '::1', address);
  },
  async 'processes of its own'() {
    const { execFile, execFileSync, spawn } = require('child_process');
    assert.strictEqual(execFileSync('/bin/echo', ['a']).toString(), 'a\n');
    const [out] = await new Promise((done, failed) => execFile('/bin/echo', ['b'], (err, ...all) => (err ? failed(err) : done(all))));
    assert.strictEqual(out, 'b\n');
    const cat = spawn('/bin/cat');
    cat.stdin.end('c');
    const closed = once(cat, 'close');
    const [data] = await once(cat.stdout, 'data');
    assert.strictEqual(data.toString(), 'c');
    assert.strictEqual((await closed)[0], 0);
  },
  async signals() {
    const came = once(process, 'SIGUSR2');
    process.kill(process.pid, 'SIGUSR2');
    await came;
  },
  async 'watched files'() {
    const file = path.join(os.tmpdir(), 'trial-watched');
    fs.writeFileSync(file, 'a');
    const watcher = fs.watch(file);
    const changed = once(watcher, 'change');
    fs.writeFileSync(file, 'b');
    await changed;
    watcher.close();
    fs.unlinkSync(file);
  },
  async 'the inspector, and a profile'() {
    const inspector = require('inspector');
    const session = new inspector.Session();
    session.connect();
    const post = (what) => new Promise((done, failed) => session.post(what, (err, r) => (err ? failed(new Error(err.message)) : done(r))));
    await post('Profiler.enable');
    await post('Profiler.start');
    for (let began = Date.now(); Date.now() - began < 10;);
    const { profile } = await post('Profiler.stop');
    session.disconnect();
    assert(profile.nodes.length > 0);
  },
  'contexts of their own'() {
    const vm = require('vm');
    const [a, b] = [vm.runInNewContext('Math.random()'), vm.runInNewContext('Math.random()')];
    assert.notStrictEqual(a, b);
  },
  async 'modules of ECMAScript'() {
    const { default: f } = await import('data:text/javascript,export default () => 6');
    assert.strictEqual(f(), 6);
  },
  'a state that is fit to be told'() {
    process.memoryUsage();
    process.cpuUsage();
    process.resourceUsage();
    assert(process.uptime() > 0);
    assert.strictEqual(process.cwd(), fs.readlinkSync('/proc/self/cwd'));
    assert.strictEqual(os.userInfo().uid, process.getuid());
    assert(require('v8').getHeapStatistics().number_of_native_contexts > 0);
  },
};

// main tries all that is needed, in turn, and returns what did not work.
exports.main = async () => {
  const broken = [];
  for (const [name, need] of Object.entries(needs)) {
    let timer;
    const late = new Promise((_, failed) => { timer = setTimeout(() => failed(new Error('it takes too long')), PATIENCE); });
    try {
      await Promise.race([need(), late]);
    } catch (err) {
      broken.push(`${name}: ${err.message}`);
    }
    clearTimeout(timer);
  }
  return { tried: Object.keys(needs).length, broken };
};

// leave ends the process as code may, with all its threads at work.
exports.leave = () => {
  require('crypto').pbkdf2('a', 'b', 1e6, 16, 'sha256', () => {});
  process.exit(7);
};
