'use strict';
// A very small language model: which word follows two others, counted in a text, with a seeded
// generator of chance, so that the same prompt and seed give the same answer.

class Model {
  constructor(text) {
    this.next = new Map(); // "one two" -> words that follow, as often as they do
    this.starts = []; // pairs that begin a sentence
    for (const paragraph of text.split(/\n\s*\n/)) {
      const words = tokenize(paragraph);
      for (let i = 0; i + 1 < words.length; i++) {
        if (i === 0 || /[.!?]"?$/.test(words[i - 1])) this.starts.push([words[i], words[i + 1]]);
        this.add(words[i], words[i + 1], words[i + 2]);
        this.add('', words[i], words[i + 1]);
      }
    }
  }

  add(a, b, c) {
    if (c === undefined) return;
    const key = `${a} ${b}`.toLowerCase();
    const list = this.next.get(key);
    if (list) list.push(c);
    else this.next.set(key, [c]);
  }

  // generate yields words, at most most of them, that go on from the prompt.
  *generate(prompt, most, seed) {
    const chance = mulberry32(seed);
    const pick = (list) => list[Math.floor(chance() * list.length)];
    let [a, b] = ['', ...tokenize(prompt)].slice(-2);
    for (let n = 0; n < most; n++) {
      let list = this.next.get(`${a ?? ''} ${b ?? ''}`.toLowerCase()) ?? this.next.get(` ${b ?? ''}`.toLowerCase());
      if (!list) {
        const start = pick(this.starts);
        yield start[0];
        if (++n < most) yield start[1];
        [a, b] = start;
        continue;
      }
      const c = pick(list);
      yield c;
      [a, b] = [b, c];
    }
  }
}

function tokenize(text) {
  return text.split(/\s+/).filter(Boolean);
}

// mulberry32 is a generator of 32-bit numbers that is small and good enough for play.
function mulberry32(seed) {
  let s = seed >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), s | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

module.exports = { Model };
