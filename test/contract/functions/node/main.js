// The functions of the contract suite; args.do says which.
let goOn, released;

const does = {
  dict: () => ({ text: 'héllo ✓ 你好', number: 1.5, list: [1, null, true] }),
  list: () => [1, 'two'],
  text: () => 'plain ✓',
  bytes: () => Buffer.from(Array.from({ length: 256 }, (_, i) => i)),
  number: () => 42,
  bool: async () => false,
  null: () => undefined,
  echo: ({ do: _, ...args }) => args,
  response: () => ({ statusCode: 201, headers: { 'X-One': '1', 'Set-Cookie': ['a=1', 'b=2'] }, body: 'made' }),
  base64: () => ({ statusCode: 200, headers: { 'content-type': 'image/x' }, body: 'AAEC/w==', isBase64Encoded: true }),
  status: ({ status }) => ({ statusCode: status, body: 'x' }),
  header: ({ name, value }) => ({ statusCode: 200, headers: { [name]: value }, body: 'x' }),
  error: () => { throw new RangeError('no good: é'); },
  unserialisable: () => { const x = {}; x.x = x; return x; },
  nan: () => ({ x: NaN }),
  exit: () => { console.log('about to exit'); process.exit(3); },
  recursion: (args) => does.recursion(args),
  loop: () => { for (;;); },
  stream: async function* () { for (let i = 0; i < 3; i++) yield `part ${i}\n`; },
  objects: function* () { yield { n: 1 }; yield { n: 2 }; },
  sse: () => ({ statusCode: 200, headers: { 'Content-Type': 'text/event-stream' }, body: (function* () { for (let i = 0; i < 3; i++) yield `data: ${i}\n\n`; })() }),
  midway: async function* () { yield 'one\n'; yield 'two\n'; throw new Error('broke in the middle'); },
  endless: async function* () { try { for (;;) yield Buffer.alloc(65536, 'x'); } finally { console.log('closed'); } },
  big: ({ size }) => Buffer.alloc(size, 'y'),
  bigstream: ({ size }) => require('stream').Readable.from(function* () { for (let i = 0; i < size / 65536; i++) yield Buffer.alloc(65536, 'z'); }()),
  web: () => new Response('web ✓', { status: 202, headers: { 'x-one': '1' } }),
  log: async ({ tag, count }) => {
    for (let i = 0; i < count; i++) {
      console.log(tag, i);
      process.stderr.write(`${tag} err ${i}\n`);
      await null;
    }
    await new Promise((done) => setTimeout(() => { console.log(tag, 'thread'); done(); }));
    console.warn('%s logging', tag);
    return tag;
  },
  hugeline: ({ size }) => { console.log('x'.repeat(size)); return 'ok'; },
  unfinished: () => { process.stdout.write('no end'); return 'ok'; },
  later: () => {
    const gate = new Promise((done) => { goOn = done; });
    released = gate.then(() => console.log('late line'));
    return 'ok';
  },
  release: async () => { goOn(); await released; return 'ok'; },
  context: (_, c) => ({
    id: c.invocationId, function: c.functionName, namespace: c.namespace, revision: c.revision,
    memory: c.memoryLimit, cause: c.cause, remaining: c.remainingMs(),
  }),
  env: ({ names }) => Object.fromEntries(names.map((n) => [n, process.env[n] ?? null])),
  stray: () => new Promise(() => { setTimeout(() => { throw new TypeError('thrown by a timer'); }); }),
  rejected: () => new Promise(() => { Promise.reject(new TypeError('nobody catches')); }),
  aborted: (_, { signal }) => new Promise((_, fail) => signal.addEventListener('abort', () => { console.log('canceled'); fail(new Error('aborted')); })),
};

exports.main = (args, context) => does[args.do](args, context);
