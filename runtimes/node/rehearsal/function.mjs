// What a stem of Node.js rehearses with: a function in an ECMAScript module.
import path from 'node:path';

export async function main(args) {
  console.error('rehearsal');
  return { name: path.basename(import.meta.url), args };
}
