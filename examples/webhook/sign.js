#!/usr/bin/env node
// Prints the signature header for a file, to try the webhook by hand:
//
//	WEBHOOK_SECRET=… node sign.js order-paid.json

const fs = require('node:fs');
const { sign } = require('./signature.js');

if (!process.argv[2] || !process.env.WEBHOOK_SECRET) {
  console.error('usage: WEBHOOK_SECRET=… node sign.js FILE');
  process.exit(2);
}
console.log('X-Signature: ' + sign(fs.readFileSync(process.argv[2]), process.env.WEBHOOK_SECRET, Date.now() / 1000));
