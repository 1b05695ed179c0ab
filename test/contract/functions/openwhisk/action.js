const loaded = process.env.AT_LOAD ?? null;
let calls = 0;

function main(args) {
  calls++;
  switch (Array.isArray(args) ? 'echo' : args.do) {
    case 'echo':
      console.log('out ✓');
      console.error('err ✓');
      return args;
    case 'env': return Object.fromEntries(args.names.map((name) => [name, process.env[name] ?? null]));
    case 'load': return Promise.resolve({ loaded, unicode: 'héllo ✓ 你好' });
    case 'count': return { calls };
    case 'error': return { error: { code: 7, text: 'mine' } };
    case 'throw': throw new Error('thrown on purpose');
    case 'reject': return Promise.reject({ code: 8, text: 'rejected' });
    case 'rejectError': return Promise.reject(new TypeError('rejected error'));
    case 'rejectNothing': return Promise.reject();
    case 'uncaught': return new Promise(() => setTimeout(() => { throw new Error('nobody catches this'); }, 10));
    case 'exit': return process.exit(3);
    case 'hang': return new Promise((done) => setTimeout(done, 600000));
    case 'text': return 'just text';
    case 'list': return [1, 'two'];
    case 'nothing': return undefined;
    case 'null': return null;
    case 'big': return { text: 'x'.repeat(args.size) };
    case 'memory': for (const hold = []; ;) hold.push(Buffer.alloc(8 << 20, 1));
  }
}

function niam() { return { entry: 'niam' }; }
