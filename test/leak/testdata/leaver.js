// A function that says what it finds of calls before it, and leaves what it is told to.
'use strict';
// MARK
const child = require('child_process');
const crypto = require('crypto');
const events = require('events');
const fs = require('fs');
const net = require('net');
const os = require('os');
const path = require('path');
const { AsyncLocalStorage } = require('async_hooks');
const { Worker } = require('worker_threads');

let count = 0;
const kept = [];
const storage = new AsyncLocalStorage();
class Class { static attribute = 0; }
const dumped = JSON.stringify;

const lines = (file) => { try { return fs.readFileSync(file, 'utf8').split('\n').length - 1; } catch (e) { return e.code; } };
const status = (...names) => fs.readFileSync('/proc/self/status', 'utf8').split('\n').filter((l) => names.includes(l.split(':')[0]));

const LOOK = {
  'a variable': () => [count, kept.length],
  'a class': () => Class.attribute,
  'a global': () => Object.keys(globalThis).filter((k) => k.startsWith('left')),
  'a module': () => Object.keys(require.cache).filter((k) => k.includes('left')),
  'a built-in module': () => process.moduleLoadList.includes('NativeModule punycode'),
  'a path of modules': () => require('module').globalPaths.length,
  'an extension': () => Object.keys(require('module')._extensions),
  'a prototype': () => [({}).left === undefined, [].left === undefined, Object.getOwnPropertyNames(Array.prototype).length],
  'a function of the library': () => [JSON.stringify === dumped, fs.readFileSync.length, typeof fs.left],
  'a global function': () => [typeof setTimeout, Object.hasOwn(setTimeout, 'left')],
  'the environment': () => Object.keys(process.env).sort(),
  'arguments': () => [process.argv, process.execArgv, process.title],
  'the directory': () => process.cwd(),
  'umask': () => process.umask(),
  'listeners': () => process.eventNames().map((n) => [String(n), process.listenerCount(n)]),
  'defaults of events': () => events.defaultMaxListeners,
  'a context': () => storage.getStore() ?? null,
  'active things': () => process.getActiveResourcesInfo().filter((n) => n !== 'Immediate').sort(),
  'threads': () => Math.max(fs.readdirSync('/proc/self/task').length, 11), // with all of the pool, which comes when it is needed
  'open files': () => fs.readdirSync('/proc/self/fd').map((n) => { try { return n + ' ' + fs.readlinkSync('/proc/self/fd/' + n).replace(/\d+/g, ''); } catch { return ''; } }).filter((s) => s && !s.includes('/proc//fd')).sort(),
  'connections': () => [lines('/proc/self/net/tcp'), lines('/proc/self/net/unix')],
  'files in /tmp': () => fs.readdirSync('/tmp'),
  'files in /dev/shm': () => fs.readdirSync('/dev/shm'),
  'children': () => fs.readdirSync('/proc').filter((n) => /^\d+$/.test(n)).length,
  'what the kernel says': () => status('SigIgn', 'SigCgt', 'SigBlk', 'Umask', 'VmLck', 'Cpus_allowed', 'Seccomp_filters'),
  'the nice value': () => os.getPriority(),
  'the host\'s name': () => os.hostname(),
  'the code': () => fs.readdirSync('/code').filter((n) => n !== '.brasa'),
  'mounts': () => fs.readFileSync('/proc/self/mountinfo', 'utf8').trim().split('\n').map((l) => l.split(' ')[4]).sort(),
};

const LEAVE = {
  'a variable': (n) => { count++; kept.push(n); },
  'a class': () => { Class.attribute++; },
  'a global': (n) => { globalThis.left = n; },
  'a module': (n) => { require.cache['/code/left.js'] = { exports: n }; },
  'a built-in module': () => { require('punycode'); },
  'a path of modules': () => { require('module').globalPaths.push('/tmp'); },
  'an extension': () => { require('module')._extensions['.left'] = () => {}; },
  'a prototype': (n) => { Object.defineProperty(Object.prototype, 'left', { value: n, configurable: true, writable: true, enumerable: false }); },
  'a function of the library': (n) => { fs.left = n; JSON.stringify = (...a) => dumped(...a); },
  'a global function': (n) => { Object.defineProperty(setTimeout, 'left', { value: n, configurable: true }); },
  'the environment': (n) => { process.env.LEFT = n; },
  'arguments': () => { process.argv.push('left'); process.title = 'left'; },
  'the directory': () => { process.chdir('/tmp'); },
  'umask': () => { process.umask(0o077); },
  'a listener of events': () => { process.on('left', () => {}); },
  'an exit hook': () => { process.on('exit', () => {}); process.on('uncaughtException', () => {}); },
  'a signal handler': () => { process.on('SIGUSR2', () => {}); },
  'defaults of events': () => { events.defaultMaxListeners = 99; },
  'a context': (n) => { storage.enterWith(n); },
  'a timer': () => { setTimeout(() => { count++; }, 600000); },
  'an interval': (n) => { setInterval(() => { count++; console.log('LEFT-PRINTED'); fs.writeSync(1, 'LEFT-RAW\n'); }, 1); },
  'immediates': () => { const f = () => { count++; setImmediate(f); }; f(); },
  'a promise': () => { (async () => { for (;;) { await new Promise((r) => setTimeout(r, 1)); count++; } })(); },
  'a finalizer': () => { globalThis.leftRegistry = new FinalizationRegistry(() => { count++; }); leftRegistry.register({}, 1); },
  'work of the pool': () => { crypto.pbkdf2('a', 'b', 300000, 64, 'sha512', () => { count++; }); },
  'a worker': (n) => { kept.push(new Worker('setInterval(() => {}, 1000)', { eval: true })); },
  'memory that is freed': (n) => {
    for (const size of [32, 100, 1000, 5000, 100000, 1000000]) for (let i = 0; i < Math.min(200, 4e6 / size); i++) Buffer.allocUnsafe(Math.max(size, n.length)).fill(n);
  },
  'a string': (n) => { kept.push((n + n).slice(3)); },
  'a file in /tmp': (n) => { fs.writeFileSync('/tmp/left', n); },
  'a directory in /tmp': () => { fs.mkdirSync('/tmp/left directory'); },
  'a file in /dev/shm': (n) => { fs.writeFileSync('/dev/shm/left', n); },
  'a temporary file that is gone': () => { fs.writeFileSync('/tmp/left', ''); fs.unlinkSync('/tmp/left'); },
  'an open file': () => { kept.push(fs.openSync('/etc/passwd')); },
  'a listening server': () => new Promise((r) => { kept.push(net.createServer().listen(0, '127.0.0.1', r)); }),
  'an abstract socket': () => new Promise((r) => { kept.push(net.createServer().listen('\0left', r)); }),
  'a connection': () => new Promise((r) => { const s = net.createServer().listen(0, '127.0.0.1', () => { kept.push(s, net.connect(s.address().port, '127.0.0.1', r)); }); }),
  'a watcher': () => { kept.push(fs.watch('/tmp', () => {})); },
  'a child': () => { child.spawn('/bin/sleep', ['600'], { stdio: 'ignore', detached: true }).unref(); },
  'a child that has ended': () => { child.spawnSync('/bin/true'); },
  'the nice value': () => { os.setPriority(1); },
};

const search = (b) => {
  const found = [];
  const head = Buffer.from(['LEA', 'K~', 'MARK~'].join(''), 'latin1').map((x) => x ^ 0xff);
  // The needle is kept inverted, and compared byte by byte, so that it is not found itself.
  const first = head[0] ^ 0xff;
  for (let at = b.indexOf(first); at >= 0; at = b.indexOf(first, at + 1)) {
    let i = 1;
    while (i < head.length && b[at + i] === (head[i] ^ 0xff)) i++;
    if (i < head.length) continue;
    const mark = b.latin1Slice(at + i, Math.min(at + i + 16, b.length));
    if (/^[0-9a-f]{16}$/.test(mark)) found.push(mark);
  }
  return found;
};

// memory returns the marks in all memory of the process, and in buffers that were just made.
function memory() {
  const found = new Set();
  for (const size of [32, 100, 1000, 5000, 100000, 1000000]) for (let i = 0; i < Math.min(100, 4e6 / size); i++) for (const m of search(Buffer.allocUnsafe(size))) found.add(m);
  const whole = Buffer.alloc(1 << 20);
  const file = fs.openSync('/proc/self/mem');
  for (const line of fs.readFileSync('/proc/self/maps', 'utf8').trim().split('\n')) {
    const [where, rights, , , inode, name] = line.split(/\s+/);
    if (!rights.startsWith('rw') || (name ?? '').startsWith('[v')) continue;
    let [at, end] = where.split('-').map((x) => parseInt(x, 16));
    while (at < end) {
      let n = 0;
      try { n = fs.readSync(file, whole, 0, Math.min(whole.length, end - at), at); } catch { break; }
      if (n === 0) break;
      for (const m of search(whole.subarray(0, n))) found.add(m);
      at += n;
    }
  }
  fs.closeSync(file);
  return [...found];
}

exports.main = async (args) => {
  if (args.names) return { look: Object.keys(LOOK), leave: Object.keys(LEAVE) };
  const found = {};
  for (const [name, look] of Object.entries(LOOK)) found[name] = JSON.parse(dumped(look()));
  const marks = args.memory ? memory() : [];
  let failed = '';
  if (args.leave) {
    try { await LEAVE[args.leave](args.note); } catch (e) { failed = String(e); }
  }
  return { found, marks, failed };
};
