'use strict';
// Checks the signature of a webhook: HMAC-SHA256 over "timestamp.body", as Stripe and others do.
//
//	X-Signature: t=1735689600,v1=<64 hexadecimal digits>
//
// Several v1 may be sent while a secret is being changed; one that fits is enough.

const crypto = require('node:crypto');

const WINDOW_SECONDS = 300; // a delivery older or newer than this is refused

// verify returns null when the signature fits, else why it doesn't. body is the raw bytes: a
// body that was parsed and printed again has another signature.
function verify(header, body, secret, nowSeconds) {
  if (!header) return 'there is no X-Signature header';
  let timestamp = null;
  const offered = [];
  for (const part of header.split(',', 20)) {
    const at = part.indexOf('=');
    const key = part.slice(0, at).trim();
    const value = part.slice(at + 1).trim();
    if (key === 't') timestamp = value;
    else if (key === 'v1') offered.push(value);
  }
  if (!/^\d{1,12}$/.test(timestamp ?? '')) return 'the signature has no time (t=…)';
  if (offered.length === 0) return 'the signature has no v1=…';
  const want = crypto.createHmac('sha256', secret).update(timestamp + '.').update(body).digest();
  let fits = false;
  for (const hex of offered) {
    const got = /^[0-9a-f]{64}$/i.test(hex) ? Buffer.from(hex, 'hex') : Buffer.alloc(32);
    // In constant time, and all of them: the answer's time must not tell how much was right.
    fits = crypto.timingSafeEqual(got, want) || fits;
  }
  if (!fits) return 'the signature does not fit the body';
  // After the signature, so that strangers can't read our clock from the answers.
  if (Math.abs(nowSeconds - Number(timestamp)) > WINDOW_SECONDS) {
    return `the signature is more than ${WINDOW_SECONDS} seconds from now`;
  }
  return null;
}

// sign returns the header that verify accepts; senders and tests use it.
function sign(body, secret, nowSeconds) {
  const t = String(Math.floor(nowSeconds));
  const v1 = crypto.createHmac('sha256', secret).update(t + '.').update(body).digest('hex');
  return `t=${t},v1=${v1}`;
}

// Deliveries remembers ids for as long as their signatures are accepted, so that a delivery that
// is sent again has no second effect. It knows what this instance has seen.
class Deliveries {
  constructor(most = 10000) {
    this.most = most;
    this.seen = new Map(); // id -> when it may be forgotten, in the order of arrival
  }

  // first says whether the id is new, and remembers it.
  first(id, nowSeconds) {
    for (const [old, until] of this.seen) {
      if (until > nowSeconds && this.seen.size < this.most) break;
      this.seen.delete(old);
    }
    if (this.seen.has(id)) return false;
    this.seen.set(id, nowSeconds + 2 * WINDOW_SECONDS);
    return true;
  }
}

module.exports = { verify, sign, Deliveries, WINDOW_SECONDS };
