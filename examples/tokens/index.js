'use strict';
// Streams text word by word as server-sent events, as a language model's server does.

const fs = require('node:fs');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { Model } = require('./model.js');

const model = new Model(fs.readFileSync(path.join(__dirname, 'text.txt'), 'utf8'));

// number reads a parameter that must be a whole number from least to most.
function number(args, name, otherwise, least, most) {
  const n = args[name] === undefined ? otherwise : Number(args[name]);
  if (!Number.isInteger(n) || n < least || n > most) {
    throw new RangeError(`${name} must be a whole number from ${least} to ${most}`);
  }
  return n;
}

async function* events(words, delay, signal) {
  let index = 0;
  try {
    for (const token of words) {
      if (index > 0 && delay > 0) await sleep(delay, undefined, { signal });
      yield `data: ${JSON.stringify({ index, token })}\n\n`;
      index++;
    }
    yield 'data: [DONE]\n\n';
  } catch (e) {
    if (e.name !== 'AbortError') throw e;
    console.log(`the caller went away after ${index} tokens`);
  }
}

async function handle(event, context) {
  await event.bytes();
  const args = event.args;
  let words, delay;
  try {
    delay = number(args, 'delay_ms', 40, 0, 2000);
    words = model.generate(String(args.prompt ?? '').slice(0, 1000), number(args, 'n', 40, 1, 1000), number(args, 'seed', 1, 0, 2 ** 32 - 1));
  } catch (e) {
    return { statusCode: 400, body: { error: e.message } };
  }
  return {
    statusCode: 200,
    headers: { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' },
    body: events(words, delay, context.signal),
  };
}

module.exports = { handle };
